"""The pages on counterfactuals and classifiers say what there is, and what they show runs."""

from __future__ import annotations

import csv
import dataclasses
import importlib.util
import itertools
import json
import re
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import numpy as np
import pytest
import torch
import tyro
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.cli.figure import KINDS
from latentdrift.counterfactual import SearchConfig, make_counterfactuals, open_editor
from latentdrift.counterfactual.objective import SIMILARITIES
from latentdrift.counterfactual.rendering import Meter
from latentdrift.drift import LatentDrift
from latentdrift.drift.value import RULES
from latentdrift.edit import Editing
from latentdrift.edit.editor import editor as editors
from latentdrift.models import load_pipeline
from latentdrift.models.classifier import ClassifierConfig, Views, classifier_network

ROOT = Path(__file__).parents[1]
PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("docs/counterfactuals.md", "docs/classifiers.md")}
PAGE, CLASSIFIERS = PAGES.values()
README = (ROOT / "README.md").read_text(encoding="utf-8")
SECTION = README[README.index("## Counterfactuals, and the evidence") : README.index("## What comes with it")]
CLASSES = ("NonDemented", "MildDemented")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> list[list[str]]:
    lines = "\n".join(blocks(text, "bash")).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True) for line in lines if line.strip()]


def rows(text: str, heading: str) -> list[list[str]]:
    """Return the cells of the table whose first line begins with the heading."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {heading} |"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start + 2 :])
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


def flags(cell: str) -> set[str]:
    return set(re.findall(r"`(--[a-z0-9-]+)`", cell))


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


class Parsed(BaseException):
    """The command line was understood."""


@pytest.mark.parametrize(
    "words",
    [*commands(PAGE), *commands(CLASSIFIERS), *commands(SECTION)],
    ids=lambda words: " ".join(words[:3]),
)
def test_every_command_is_understood(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    if words[0] == "python":
        module = importlib.util.find_spec(words[2])
        assert module is not None
        assert module.origin is not None
        told = Path(module.origin).read_text(encoding="utf-8")
        assert all(f'"{word}"' in told for word in words if word.startswith("--"))
        return
    parse = tyro.cli

    def stop(*arguments: Any, **settings: Any) -> Any:
        raise Parsed(parse(*arguments, **settings))

    monkeypatch.setattr(tyro, "cli", stop)
    assert words[0] == "latentdrift"
    with pytest.raises(Parsed) as found:
        main(words[1:])
    if words[1] == "ladder":
        from latentdrift.cli.ladder import axis_of

        assert axis_of(found.value.args[0]) in ("stage", "age", "drift", "guidance")


def test_every_flag_and_link_exists(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentdrift.cli import (
        classifier,
        counterfactual,
        figure_counterfactuals,
        figure_seeds,
        finetune,
        ladder,
        search,
    )
    from latentdrift.cli.options import leaves

    known = set()
    for options in (
        counterfactual.CounterfactualOptions,
        search.SearchOptions,
        ladder.LadderOptions,
        classifier.TrainClassifierOptions,
        figure_counterfactuals.CounterfactualsOptions,
        figure_seeds.SeedsOptions,
        finetune.FinetuneOptions,
        ClassifierConfig,
        *(editors.get(name).config_class for name in editors.names()),
    ):
        known |= {flag(name) for name in leaves(options)}
    for name, text in PAGES.items():
        prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
        mentioned = {word for code in re.findall(r"`([^`\n]+)`", prose) for word in re.findall(r"--[a-z][a-z-]+", code)}
        assert mentioned <= {*known, "--help"}, (name, mentioned - known)
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", text):
            assert (ROOT / name).parent.joinpath(target).exists(), target
    for target in re.findall(r"\]\((docs/[^)#]+)", SECTION):
        assert (ROOT / target).exists()


def test_the_editors_and_their_settings() -> None:
    what, cost = rows(PAGE, "editor | what it does"), rows(PAGE, "editor | own settings")
    assert sorted(row[0].strip("`") for row in what) == editors.names()
    assert [row[0] for row in cost] == [row[0] for row in what]
    for name, settings, *_ in cost:
        config = editors.get(name.strip("`")).config_class
        assert flags(settings) == {flag(field.name) for field in dataclasses.fields(config)}, name


def test_the_classifiers_settings_and_networks() -> None:
    table = rows(CLASSIFIERS, "setting")
    wanted = {field.name for field in dataclasses.fields(ClassifierConfig)} - {"views"}
    wanted |= {field.name for field in dataclasses.fields(Views)} | {"autoencoder", "split"}
    assert set().union(*(flags(row[0]) for row in table)) == {flag(name) for name in wanted}
    named = {
        name.partition(":")[0] for row in rows(CLASSIFIERS, "`--network`") for name in re.findall(r"`([^`]+)`", row[0])
    }
    assert sorted(named) == classifier_network.names()


def test_objective_search_and_figures() -> None:
    told = {name for row in rows(PAGE, "part") for name in re.findall(r"`([^`]+)`", row[1])}
    assert set(SIMILARITIES) <= {name.removeprefix("--similarity ") for name in told}
    assert {f"--label-loss {name}" for name in ("cross-entropy", "hinge")} <= told
    methods = {name for row in rows(PAGE, "`--method`") for name in re.findall(r"`([a-z]+)`", row[0])}
    assert methods == set(get_args(get_type_hints(SearchConfig)["method"]))
    drawn = rows(PAGE, "| figure | what")
    assert [row[0].strip("`") for row in drawn] == list(KINDS)
    for row in drawn:
        name, number = row[0].strip("`"), row[1]
        assert f"(Figure {number})" in KINDS[name]


@pytest.fixture(scope="module")
def instructed(toy_model: Path) -> Callable[[], Any]:
    """Make the toy grown by the channels of a source image, which it heeds."""
    from latentdrift.finetune.methods.instruct_pix2pix import editing_pipeline, grow_input

    def make() -> Any:
        pipeline: Any = load_pipeline(toy_model)
        grow_input(pipeline.unet, 8)
        with torch.no_grad():
            pipeline.unet.conv_in.weight[:, 4:].normal_(std=0.2, generator=torch.Generator().manual_seed(3))
        return editing_pipeline(pipeline)

    return make


@pytest.fixture(scope="module")
def edit(toy_model: Path, instructed: Callable[[], Any]) -> Callable[..., Any]:
    """Edit two images by an editor, under a drift; return the result and the U-Net evaluations."""
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pipelines = {False: load_pipeline(toy_model), True: instructed()}

    def run(name: str, rule: str | None = None, **settings: Any) -> tuple[Any, int]:
        pipeline = pipelines[name == "instruct_pix2pix"]
        drifted = LatentDrift(0.3 if rule else 0.0, rule or "start").attach(pipeline)
        meter, steps = Meter(), settings.pop("steps", 2)
        after, before = settings.pop("after", ["a slice, none"] * 2), ["a slice, mild"] * 2
        with warnings.catch_warnings(), meter.watching(drifted.unet):
            warnings.simplefilter("ignore")
            result = make_counterfactuals(
                drifted, images, before, after, editor=name, steps=steps,
                objective=lambda x, rows: x.mean((1, 2, 3)), **settings,
            )  # fmt: skip
        return result, meter.made

    def inverted(name: str) -> Any:
        """Return an editor's own inversion."""
        request = Editing(pipelines[False], images, ["a slice, mild"] * 2, ["a slice, none"] * 2, steps=2)
        return open_editor(name).invert(request)

    run.inverted = inverted  # type: ignore[attr-defined]
    return run


@pytest.mark.parametrize("row", rows(PAGE, "editor | own settings"), ids=lambda row: row[0])
def test_the_costs_are_those_of_the_code(row: list[str], edit: Callable[..., Any]) -> None:
    name, steps = row[0].strip("`"), 3
    made = {made: edit(name, steps=steps, reconstruct=made)[1] / (2 * steps) for made in (False, True)}
    assert made[False] == int(re.fullmatch(r"(\d+)[Nn]", row[2])[1])  # type: ignore[index]
    if row[3] == "has none":
        assert edit(name)[0].reconstruction is None
        assert edit(name, editor_config={"image_guidance": 1.0})[1] / 4 == 2
    else:
        assert made[True] == int(re.fullmatch(r"(\d+)[Nn]", row[3])[1])  # type: ignore[index]
    if name == "classifier_guided":
        assert edit(name, reconstruct=False, editor_config={"captions": "target"})[1] / 4 == made[False] + 1
    if "N" in row[4]:
        kept = [edit.inverted(name) for _ in range(2)]  # type: ignore[attr-defined]
        first = [edit(name, reconstruct=bool(made), inversion=one)[1] / 4 for made, one in enumerate(kept)]
        assert first == [int(number) for number in re.findall(r"(\d)N", row[4])[:2]]
        later = edit(name, inversion=kept[1])[1] / 4
        assert later == (4 if name == "pix2pix_zero" else first[0])  # the reconstruction is kept
    if name == "sdedit":
        assert edit(name, steps=4, strength=0.5, reconstruct=False)[1] / 2 == 2 * 2


def test_what_each_rule_does_to_an_edit(edit: Callable[..., Any]) -> None:
    table = rows(PAGE, "rule")
    assert [row[0].strip("`") for row in table] == list(RULES)
    for place, name in enumerate(("prompt_swap", "sdedit", "instruct_pix2pix"), 1):
        bare = edit(name, reconstruct=False)[0].image
        for row in table:
            change = float((edit(name, row[0].strip("`"), reconstruct=False)[0].image - bare).abs().max())
            assert (change < 1e-3) == row[place].startswith("nothing"), (row[0], name, change)
    for name in ("pix2pix_zero", "classifier_guided"):
        pair = [edit(name, rule, reconstruct=False)[0].image for rule in (None, "start")]
        assert float((pair[0] - pair[1]).abs().max()) < 1e-3


@pytest.mark.parametrize("name", ["prompt_swap", "pix2pix_zero", "sdedit"])
def test_the_placebo_that_is_the_reconstruction(name: str, edit: Callable[..., Any]) -> None:
    result, _ = edit(name, after=["a slice, mild"] * 2)
    assert torch.allclose(result.image, result.reconstruction, atol=1e-3)


@pytest.fixture(scope="module")
def place(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with a cohort FOLDER, in which the page's path has been gone in few steps."""
    folder = tmp_path_factory.mktemp("page")
    cohort, rng = folder / "FOLDER", np.random.default_rng(0)
    cohort.mkdir()
    lines = ["file_name,subject,stage"]
    for person in range(60):
        level = 60 + 90 * (person % 2) + rng.integers(0, 40, (32, 32))
        name = "scan.png" if person == 0 else f"{person}.png"
        Image.fromarray(level.astype(np.uint8)).save(cohort / name)
        lines.append(f"{name},p{person},{CLASSES[person % 2]}")
    (cohort / "metadata.csv").write_text("\n".join(lines) + "\n")
    short = {
        "finetune": f"--base {toy_model} --steps 2 --batch-size 4 --sample-steps 1 --warmup-steps 1",
        "classifier": "--size 32 --epochs 2",
        "search": "--steps 2 --evaluations 5 --take 2",
        "counterfactual": "--steps 2",
        "ladder": "--steps 2 --count 3 --extractor none",
    }
    section = PAGE[PAGE.index("## The path") : PAGE.index("## Editors")]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in commands(section):
            assert main([*words[1:], *shlex.split(short[words[1]]), "--device", "cpu", "--quiet"]) == 0, words
        yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
def test_the_path_leaves_what_the_page_says(place: Path) -> None:
    out = place / "runs"
    with (out / "edits" / "metadata.csv").open() as file:
        columns = set(csv.DictReader(file).fieldnames or ())
    told = {name for row in rows(PAGE, "`metadata.csv`") for name in re.findall(r"`([^`]+)`", row[0])}
    told = {name.replace("ATTRIBUTE", "stage") for name in told} | {"stage"}
    assert columns == told - {"exported"}
    record = json.loads((out / "edits" / "result.json").read_text())
    keys = {name for row in rows(PAGE, "`result.json`") for name in re.findall(r"`([^`]+)`", row[0])}
    assert set(record) == keys
    figures = {
        name for row in rows(PAGE, "figure of result.json") for cell in row for name in re.findall(r"`([^`]+)`", cell)
    }
    for name in set(record["summary"]) - {"placebo"}:
        assert re.sub(r"^(guide|judge_stage)", "…", name) in figures, name
    leakage = next(row[1] for row in rows(PAGE, "`result.json`") if row[0] == "`leakage`")
    assert set(re.findall(r"`([^`]+)`", leakage)) <= set(record["leakage"][0])
    assert {path.name for path in (out / "edits").iterdir()} >= {"overview.png", record["images"][0]["file_name"]}

    text = " ".join(PAGE.split())
    found = json.loads((out / "search" / "search.json").read_text())
    listed = re.search(r"`search.json` \(([^)]+)\)", text)
    assert listed is not None
    assert set(re.findall(r"`([a-z_]+)`", listed[1])) <= set(found)
    steps, images = found["settings"]["steps"], len(found["images"])
    assert found["unet_evaluations"]["search"] == images * steps * (1 + 2 * found["evaluations"])

    ladder = json.loads((out / "ladder" / "result.json").read_text())
    for name in ("frames", "smoothness", "classifiers"):
        assert name in ladder
    assert {"value", "prompt", "changed_l1"} <= set(ladder["frames"][0])
    assert "monotonicity" in ladder["classifiers"][0]
    for name in ("source.png", "frame-00.png", "strip.png", "ladder.gif"):
        assert (out / "ladder" / name).exists()
        assert f"`{name}`" in PAGE

    facts = json.loads((out / "judge" / "classifier.json").read_text())
    section = CLASSIFIERS[CLASSIFIERS.index("## What comes out") :].split("```")[0]
    assert {name for name in re.findall(r"`([a-z_]+)`", section)} <= set(facts)


@pytest.mark.filterwarnings("ignore::latentdrift.drift.DriftMismatchWarning")
def test_the_python_of_the_pages_runs(place: Path) -> None:
    names: dict[str, Any] = {"__name__": "page"}
    try:
        for code in [*blocks(PAGE, "python"), *blocks(CLASSIFIERS, "python")]:
            short = re.sub(r"steps=\d+", "steps=2", code).replace("evaluations=8", "evaluations=5")
            exec(compile(short, "page", "exec", dont_inherit=True), names)
    finally:
        editors._items.pop("mirror", None)
    plain, shifted = names["plain"], names["shifted"]
    assert float((plain.image - shifted.image).abs().max()) > 1e-3  # δ acts on the way down
    assert names["guided"].image.shape == names["images"].shape
    assert {"value", "low", "high", "n"} == set(names["evidence"].summary["judge_stage_validity_above_placebo"])
    # The same by the search, under its best: the page says that a search inverts without drift.
    searched = names["render"]({"delta": 0.06}).values
    assert torch.allclose(searched, shifted.image, atol=1e-4)
    assert names["found"].control.parameters == {"delta": 0.0}
    assert names["mirrored"].image.shape == names["images"].shape
    assert names["probabilities"].shape == (len(names["images"]), 2)
    assert names["logits"].shape == (len(names["images"]), 2)
