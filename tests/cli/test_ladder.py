"""`latentdrift ladder`, from flags to the folder it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.cli.ladder import LadderOptions, ladder_values
from latentdrift.cli.ladder_folder import label_of
from latentdrift.models import ModelCard
from latentdrift.models.classifier import Classifier, ClassScheme


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["ladder", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def usual(toy_run: Path, toy_cohort: Path, out: Path) -> list[object]:
    image = toy_cohort / "images" / "s01-0.png"
    base = ["--model", toy_run, "--image", image, "--source", "stage=NonDemented", "--out", out]
    return [*base, "--steps", 3, "--extractor", "none", "--quiet"]


def test_words_with_a_later_scan(
    toy_run: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, later = tmp_path / "out", toy_cohort / "images" / "s01-1.png"
    status, text, error = run(
        capsys,
        *usual(toy_run, toy_cohort, out),
        *("--attribute", "stage", "--values", "NonDemented", "MildDemented", "--later", f"{later}=MildDemented"),
    )
    assert status == 0, error
    assert "doing nothing" in text
    result = json.loads((out / "result.json").read_text())
    first, last = result["frames"]
    assert [first["value"], last["value"]] == ["NonDemented", "MildDemented"]
    assert last["prompt"] == "a slice, mild demented"
    assert "later" not in first
    source, scan = (np.asarray(Image.open(path).convert("L"), float) for path in (out / "source.png", later))
    assert last["later"]["doing_nothing"]["l1"] == pytest.approx(np.abs(source - scan).mean(), abs=0.01)
    # Asked for what it shows, the image is its reconstruction.
    with Image.open(out / first["file_name"]) as file:
        assert file.text["SyntheticData"] == "YES"
    assert first["changed_l1"] == pytest.approx(result["round_trip_l1"], rel=1e-3)
    assert abs(last["changed_l1"] - first["changed_l1"]) > 0.05
    assert {path.name for path in out.iterdir()} == {
        *("frame-00.png", "frame-01.png", "source.png", "strip.png", "ladder.gif", "result.json"),
        *("manifest.json", "page.html"),
    }


def test_drifts(toy_run: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    flags = ["--drift-from", -0.2, "--drift-to", 0.2, "--count", 3, "--target", "stage=MildDemented", "--json"]
    status, _, error = run(capsys, *usual(toy_run, toy_cohort, out), *flags)
    assert status == 0, error
    result = json.loads((out / "result.json").read_text())
    assert result["values"] == [-0.2, 0.0, 0.2]
    assert result["smoothness"]["even_step"] == 0.5
    assert {row["prompt"] for row in result["frames"]} == {"a slice, mild demented"}


def test_a_shorter_ladder_leaves_no_frames_of_a_longer_one(
    toy_run: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    for count in (3, 2):
        flags = ["--drift-from", 0, "--drift-to", 0.2, "--count", count, "--target", "stage=MildDemented"]
        status, _, error = run(capsys, *usual(toy_run, toy_cohort, out), *flags)
        assert status == 0, error
        (out / "notes.txt").write_text("mine")
        assert sorted(path.name for path in out.glob("frame-*")) == [f"frame-0{i}.png" for i in range(count)]
    assert (out / "notes.txt").read_text() == "mine"


class Fixed(torch.nn.Module):
    """Says the first of two classes, by 60 %."""

    def __init__(self) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([0.6, 0.4]).log())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def test_judges_of_one_attribute_and_of_what_should_stay(
    toy_run: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = ClassScheme("stage", ("NonDemented", "MildDemented"))
    # Of the source's stage the last one knows nothing; it is of no wish, and so no reason to refuse.
    schemes = {"a": stage, "b": stage, "sex": ClassScheme("sex", ("F", "M"))}
    monkeypatch.setattr(
        "latentdrift.models.classifier.load_classifier",
        lambda path, device=None: Classifier(Fixed(), schemes[path.name], role="judge", size=32, gray=True, path=path),
    )
    flags = ["--attribute", "stage", "--values", "NonDemented", "MildDemented", "--judge", "a", "b", "sex"]
    status, text, error = run(capsys, *usual(toy_run, toy_cohort, tmp_path / "out"), *flags)
    assert status == 0, error
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    first, second, sex = result["classifiers"][-3:]
    assert [one["name"] for one in (first, second, sex)] == ["judge_stage", "judge_stage_2", "judge_sex"]
    assert (first["class"], first["wanted"], sex["class"], sex["wanted"]) == ("MildDemented", True, "F", False)
    for row in result["frames"]:
        assert row["judge_stage_2"]["MildDemented"] == pytest.approx(0.4)
    assert "MildDemented: source 40%, frames 40% → 40%" in text
    assert "F: source 60%, frames 60% → 60%, should stay" in text


def test_a_class_that_a_judge_does_not_know_of_the_source_alone_is_no_error(
    toy_run: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheme = ClassScheme("stage", ("CN", "AD"))
    monkeypatch.setattr(
        "latentdrift.models.classifier.load_classifier",
        lambda path, device=None: Classifier(Fixed(), scheme, role="judge", size=32, gray=True, path=path),
    )
    flags = ["--drift-from", 0, "--drift-to", 0.1, "--count", 2, "--judge", "a"]
    status, text, error = run(capsys, *usual(toy_run, toy_cohort, tmp_path / "out"), *flags)
    assert status == 0, error
    assert "CN: source 60%, frames 60% → 60%, should stay" in text


def test_labels() -> None:
    assert [label_of("drift", value) for value in (-0.1, 0.0, 0.1)] == ["δ -0.1", "δ 0", "δ +0.1"]
    assert [label_of("age", 70), label_of("stage", "AD")] == ["70", "AD"]


CARD = ModelCard("b", "basic", 1, 32, True, "{age}, {stage}", {"age": [60, 70, 80], "stage": ["CN", "AD"]})


def options(**given: Any) -> LadderOptions:
    return LadderOptions(image=Path("x.png"), source=("age=60",), out=Path("o"), **given)


def test_values_are_those_the_model_knows() -> None:
    def values(axis: str, later: tuple[Any, ...] = (), **given: Any) -> list[Any]:
        return ladder_values(options(**given), CARD, axis, later)

    assert values("age", attribute="age", start=60, end=90) == [60, 65, 70, 75, 80, 85, 90]
    assert values("age", attribute="age", start=60, end=63, count=3) == [60, 62, 63]  # whole years, as it has seen
    assert values("age", (72,), attribute="age", start=80, end=60, count=3) == [80, 72, 70, 60]
    assert values("stage", attribute="stage", values=("AD", "CN")) == ["AD", "CN"]
    assert values("drift", drift_from=-0.1, drift_to=0.1, count=3) == [-0.1, 0.0, 0.1]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ([], "Say what the ladder goes along"),
        (["--attribute", "stage", "--axis", "guidance"], "Say what the ladder goes along"),
        (["--axis", "guidanse", "--target", "stage=MildDemented"], "guidance"),
        (["--axis", "guidance", "--from", 1, "--to", 3], "give --target"),
        (["--drift-from", 0.1], "needs --drift-from and --drift-to"),
        (["--drift-from", 0.1, "--drift-to", 0.1], "is no ladder"),
        (["--attribute", "stage", "--values", "Demented"], "MildDemented"),
        (["--attribute", "stege", "--values", "MildDemented"], "'stage'"),
        (["--attribute", "stage", "--values", "MildDemented", "--from", 1], "not both"),
        (["--attribute", "stage", "--values", "MildDemented", "--later", "x.png"], "write FILE=VALUE"),
        (["--attribute", "stage", "--values", "MildDemented", "--later", "x.png=NonDemented"], "not among --values"),
    ],
)
def test_what_cannot_be_is_said_and_leaves_nothing(
    toy_run: Path,
    toy_cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    flags: list[object],
    says: str,
) -> None:
    status, _, error = run(capsys, *usual(toy_run, toy_cohort, tmp_path / "out"), *flags)
    assert status == 2
    assert says in error
    assert not list(tmp_path.iterdir())
