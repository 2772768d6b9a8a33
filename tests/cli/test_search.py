"""`latentdrift search` from flags to files: what is found, recalled, shared, told and refused."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.cli.search_folder import at_the_end, difference_words
from latentdrift.counterfactual import Trial
from latentdrift.errors import UnknownNameError
from latentdrift.models import classifier as classifiers

CLASSES = ("NonDemented", "MildDemented")


class Brightness:
    """A classifier that takes dark images for mildly demented; its file's content says who it is."""

    attribute, classes, size, gray, doubt = "stage", CLASSES, 32, False, None

    def __init__(self, path: Path, **_: Any) -> None:
        self.path = Path(path)
        self.role = "judge" if "judge" in self.path.name else "guide"
        self.trained_on = frozenset({hashlib.sha256(self.path.read_bytes()).hexdigest()})

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        light = 3 * images.mean((1, 2, 3))
        return torch.stack([light, -light], 1)

    def index(self, value: object) -> int:
        if value not in CLASSES:
            raise UnknownNameError("class", str(value), CLASSES)
        return CLASSES.index(str(value))

    def probabilities(self, images: torch.Tensor, batch_size: int = 64) -> np.ndarray:
        return self(images).softmax(1).double().numpy()


@pytest.fixture
def guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A guide, with a judge beside it."""
    monkeypatch.setattr(classifiers, "load_classifier", Brightness)
    monkeypatch.setattr(classifiers, "check_apart", lambda first, second: None)
    (tmp_path / "judge").write_text("the judge")
    (tmp_path / "guide").write_text("the guide")
    return tmp_path / "guide"


@pytest.fixture
def command(toy_run: Path, toy_cohort: Path, tmp_path: Path) -> list[Any]:
    out = ["--out", tmp_path / "out", "--model", toy_run, "--image", toy_cohort]
    return ["search", *out, "--take", 3, "--steps", 2, "--quiet", "--json"]


@pytest.fixture
def edits(command: list[Any], guide: Path) -> list[Any]:
    wish = ["--where", "stage=NonDemented", "--target", "stage=MildDemented"]
    return [*command, *wish, "--guide", guide, "--evaluations", 5]


def run(capsys: pytest.CaptureFixture[str], arguments: list[Any]) -> tuple[int, str, str]:
    status = main([str(one) for one in arguments])
    return status, *capsys.readouterr()


def found(capsys: pytest.CaptureFixture[str], arguments: list[Any]) -> dict[str, Any]:
    status, _, err = run(capsys, arguments)
    assert status == 0, err
    out = Path(arguments[arguments.index("--out") + 1])
    return json.loads((out / "search.json").read_text())


def test_the_whole_way_and_again(edits: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edits = [*edits, "--judge", tmp_path / "judge"]
    first = found(capsys, edits)
    out = tmp_path / "out"
    assert {path.name for path in out.iterdir()} == {
        "search.json", "curve.csv", "search.png", "best.png", "trials.jsonl", "page.html",
    }  # fmt: skip
    for name in ("search.png", "best.png"):
        with Image.open(out / name) as image:
            assert min(image.size) > 100
    best, control = first["best"], first["control"]
    assert control["parameters"] == {"delta": 0.0}
    assert best["scores"]["objective"] == min(trial["scores"]["objective"] for trial in first["trials"])
    total = best["scores"]["label"] + best["scores"]["similarity"]
    assert best["scores"]["objective"] == pytest.approx(total, abs=1e-6)
    difference = first["difference"]
    assert difference["value"] == pytest.approx(best["scores"]["objective"] - control["scores"]["objective"], abs=1e-6)
    assert difference["low"] <= difference["value"] <= difference["high"]
    assert difference["over"] == "subjects"
    # Three images, two steps up once; down with guidance. Nothing is made to be looked at again.
    evaluations = first["evaluations"]
    assert evaluations == 5
    assert first["unet_evaluations"]["search"] == 3 * 2 * (1 + 2 * evaluations)
    assert first["unet_evaluations"]["looking_at_the_best"] == 0
    assert first["unet_evaluations"]["spared_inversions"] == 3 * 2 * (evaluations - 1)
    (judge,) = first["judges"]
    assert judge["n"] == 3
    assert judge["wanted"] is True
    change = judge["best"]["probability"] - judge["no_drift"]["probability"]
    assert judge["probability_difference"]["value"] == pytest.approx(change)
    with (out / "curve.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["delta"]) for row in rows] == [trial["parameters"]["delta"] for trial in first["trials"]]

    again = found(capsys, edits)
    assert (again["evaluations"], again["recalled"]) == (0, 5)
    assert again["unet_evaluations"]["search"] == 0
    assert again["unet_evaluations"]["looking_at_the_best"] > 0
    assert again["best"] == best
    assert again["difference"]["value"] == pytest.approx(difference["value"], abs=1e-6)

    # Another guide is another objective.
    (tmp_path / "guide").write_text("another guide")
    assert found(capsys, edits)["evaluations"] == 5
    status, text, _ = run(capsys, [*edits[:-4], "--steps", 2, "--evaluations", 5])
    assert status == 0
    assert "recalled" in json.loads(text)["cost"]


def test_optuna_and_its_storage_are_shared(
    edits: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--method", "optuna", "--sampler", "tpe", "--storage", tmp_path / "study.log", "--guidance-range", 1, 3]
    command = [*edits[:-2], *more, "--evaluations", 6]
    first = found(capsys, command)
    assert set(first["best"]["parameters"]) == {"delta", "guidance"}
    assert first["control"]["parameters"] == {"delta": 0.0, "guidance": first["best"]["parameters"]["guidance"]}
    second = found(capsys, command)
    assert second["evaluations"] == 0
    assert second["best"] == first["best"]
    wider = found(capsys, [*command[:-1], 8])
    assert 1 <= wider["evaluations"] <= 3
    assert wider["recalled"] >= 5


def test_screening_scale_and_a_drift_that_overflows(
    edits: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scaled = found(
        capsys, [*edits, "--parameter", "scale", "--screen-steps", 1, "--screen-points", 3, "--low", "-1", "--high", 1]
    )
    assert scaled["parameter"] == "scale"
    assert scaled["screenings"] == len(scaled["screened"]) == 3
    assert scaled["screened"][0]["parameters"] == {"scale": -1.0}
    grid = [*edits, "--method", "grid", "--points", 3, "--low", 0, "--high", "1e30"]
    lost = found(capsys, grid)
    assert [trial["scores"]["objective"] for trial in lost["trials"][1:]] == ["nan", "nan"]
    assert lost["best"]["parameters"] == {"delta": 0.0}
    assert any("2 of 3 evaluations gave no finite objective" in text for text in lost["warnings"])
    assert any("no image was made" in text for text in lost["warnings"])
    assert difference_words(lost["difference"]) == "none: no drift is the best"


def test_a_drift_that_does_not_act_is_told(edits: list[Any], capsys: pytest.CaptureFixture[str]) -> None:
    flat = found(capsys, [*edits, "--editor", "sdedit", "--strength", 0.5])
    assert any("the same whatever delta is" in text for text in flat["warnings"])
    acting = found(capsys, [*edits, "--editor", "sdedit", "--strength", 0.5, "--rule", "paper"])
    assert not any("the same whatever delta is" in text for text in acting["warnings"])
    assert acting["rule"] == "paper"


def test_distribution(command: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [*command, "--criterion", "distribution", "--samples", 4, "--evaluations", 5, "--parameter", "auto"]
    pixels = found(capsys, command)
    assert pixels["objective"] == "L1 distance of marginals, levels of 255"
    assert pixels["parameter"] == "scale"
    assert set(pixels["best"]["scores"]) == {"objective", "marginals", "means"}
    assert pixels["unet_evaluations"]["search"] == pixels["evaluations"] * 4 * 2 * 2
    assert pixels["difference"]["n"] == 4
    assert any("say little of distributions" in text for text in pixels["warnings"])
    latents = found(capsys, [*command, "--space", "latents", "--statistic", "means"])
    assert latents["objective"] == "L1 distance of means, latent units"
    assert latents["best"]["scores"]["objective"] == latents["best"]["scores"]["means"]
    assert latents["evaluations"] == 5


def test_two_judges_of_one_attribute_are_both_printed(
    edits: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "judge2").write_text("another judge")
    status, text, err = run(capsys, [*edits, "--judge", tmp_path / "judge", tmp_path / "judge2"])
    assert status == 0, err
    printed = json.loads(text)
    for name in ("judge", "judge2"):
        assert printed[f"judge stage ({tmp_path / name})"][-1].startswith("best: ")


def test_a_best_at_an_end_of_the_range_is_told() -> None:
    space = {"delta": (-0.1, 0.1), "guidance": (1.0, 3.0)}

    def told(**best: float) -> list[str]:
        result: Any = SimpleNamespace(best=Trial(best, {"objective": 1.0}))
        return at_the_end(result, space)

    assert told(delta=0.05, guidance=2.0) == []
    (text,) = told(delta=0.1, guidance=2.0)
    assert "best delta is 0.1, an end of the range searched, -0.1 to 0.1" in text
    assert len(told(delta=-0.1, guidance=3.0)) == 2
    space["delta"] = (0.0, 0.1)
    assert told(delta=0.0, guidance=2.0) == []  # no drift is where a search may end


def test_words_of_the_difference() -> None:
    clear = {"value": -0.2, "low": -0.3, "high": -0.1, "n": 9, "over": "subjects"}
    said = difference_words(clear)
    assert said.startswith("-0.2 against no drift, 95 % interval -0.3 to -0.1 (9 subjects, ")
    assert "the best was chosen on" in said
    assert difference_words({"value": 0.0, "low": 0.0, "high": 0.0, "n": 9}) == "none: no drift is the best"
    assert "contains 0" in difference_words(clear | {"high": 0.01})
    assert "one image alone" in difference_words(clear | {"low": None, "high": None})
    assert "not known" in difference_words(None)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--criterion", "edit"], "Nothing is wanted: give --target"),
        (["--target", "stage=MildDemented"], r"give --guide DIR .* or --weight 0"),
        (["--target", "stage=MildDemente"], "Did you mean 'MildDemented'"),
        (["--target", "stage=MildDemented", "--weight", "0", "--guidance-range", "1", "2"], "searches one parameter"),
        (["--target", "stage=MildDemented", "--weight", "0", "--low", "0.3"], "range of delta is 0.3 to 0.2"),
        (["--target", "stage=MildDemented", "--weight", "0", "--strength-range", "0.2", "1", "--method", "grid"],
         "rule 'paper', which acts at every step"),
        (["--target", "stage=MildDemented", "--weight", "0", "--screen-steps", "2"], "fewer than --steps"),
        (["--criterion", "distribution", "--target", "stage=MildDemented"], "belong to --criterion edit"),
        (["--criterion", "distribution", "--samples", "1"], "at least 2"),
        (["--criterion", "distribution", "--strength-range", "0.5", "1"], "samples start from noise alone"),
        (["--parameter", "scale", "--drift", "none", "--target", "stage=MildDemented"], "the model has none"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_a_remedy(
    more: list[str], message: str, command: list[Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, text, err = run(capsys, [*command, *more])
    assert (status, text) == (2, "")
    import re

    assert re.search(message, " ".join(err.split())), err
    assert not (tmp_path / "out" / "search.json").exists()
