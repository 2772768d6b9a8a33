from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentdrift.cli.__main__ import main


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = main(["classifier", *(str(argument) for argument in arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.fixture(scope="module")
def squares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seventy noisy images of as many people, half with a bright square; two without a stage."""
    folder = tmp_path_factory.mktemp("squares")
    rng = np.random.default_rng(0)
    lines = ["file_name,subject,stage"]
    for person in range(70):
        pixels = rng.integers(20, 60, (32, 32))
        if person % 2:
            pixels[8:20, 8:20] += 150
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{person}.png")
        stage = "" if person > 67 else ("square" if person % 2 else "plain")
        lines.append(f"{person}.png,p{person},{stage}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


TRAIN = ("--attribute", "stage", "--size", 32, "--epochs", 6, "--batch-size", 16, "--device", "cpu", "--quiet")


def test_train_then_evaluate(squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "judge"
    command = ("train", "--data", squares, "--out", out, "--role", "judge", "--classes", "square", "plain", *TRAIN)
    status, text, error = run(capsys, *command)
    assert status == 0, error
    assert "AUC" in text
    assert "95 % intervals over subjects" in text
    assert "images left out: their stage is missing" in text
    facts = json.loads((out / "classifier.json").read_text())
    assert (facts["role"], facts["classes"]) == ("judge", ["square", "plain"])
    assert facts["test"]["auc"]["value"] > 0.9

    status, text, _ = run(
        capsys, "evaluate", "--classifier", out, "--data", squares, "--json", "--quiet", "--out", tmp_path / "e.json"
    )
    assert status == 0
    found = json.loads(text)
    assert Path(found.pop("page")).read_text(encoding="utf-8").lower().startswith("<!doctype html>")
    assert found == json.loads((tmp_path / "e.json").read_text())
    assert found["figures"]["images"] == 68
    assert found["figures"]["auc"]["low"] <= found["figures"]["auc"]["value"]
    assert f"trained on {len(facts['trained_on'])} of these 68 images" in found["warnings"][0]

    status, _, error = run(capsys, *command)
    assert status == 2
    assert "is not empty" in error


def test_a_part_that_was_not_trained_on_has_no_warning(
    squares: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split, out = tmp_path / "split.csv", tmp_path / "guide"
    lines = [f"{person}.png,{'test' if person < 20 else 'train'}" for person in range(70)]
    split.write_text("\n".join(["file_name,part", *lines]) + "\n")
    status, text, error = run(capsys, "train", "--data", squares, "--out", out, "--split", split, *TRAIN, "--json")
    assert status == 0, error
    facts = json.loads(text)
    assert "trained_on" not in facts
    assert facts["split"]["images"]["test"] == 20
    given = ("evaluate", "--classifier", out, "--data", squares, "--split", split, "--quiet")
    status, text, _ = run(capsys, *given)
    assert status == 0
    assert "20 images of 20 subjects" in text
    assert "warnings" not in text
    status, _, error = run(capsys, *given, "--part", "tset")
    assert status == 2
    assert "Did you mean 'test'" in error


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, says in (
        ((), "actions:"),
        (("--help",), "measure a classifier on another cohort"),
        (("train", "--help"), "--autoencoder"),
        (("evaluate", "--help"), "--classifier"),
    ):
        status, out, err = run(capsys, *arguments)
        assert status == (0 if arguments else 2)
        assert says in out + err
    status, out, _ = run(capsys, "train", "--help")
    assert all(flag in out for flag in ("--bins", "--contains", "--network", "--degrees", "--role {guide,judge}"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("tran",), "Did you mean 'train'"),
        (("train", "--data", "{data}", "--out", "{out}", "--attribute", "stag"), "Did you mean 'stage'"),
        (("train", "--data", "{data}", "--out", "{out}", "--attribute", "stage", "--network", "smal"), "'small'"),
        (
            ("train", "--data", "{data}", "--out", "{out}", "--attribute", "stage", "--split", "{out}/s.csv"),
            "as a split",
        ),
        (("evaluate", "--classifier", "{out}", "--data", "{data}"), "holds no classifier"),
    ],
)
def test_wrong_words_are_told(
    squares: Path, tmp_path: Path, arguments: tuple[str, ...], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word.replace("{data}", str(squares)).replace("{out}", str(tmp_path / "out")) for word in arguments]
    status, out, err = run(capsys, *words)
    assert status == 2, out
    assert says in err
    assert not (tmp_path / "out").exists()


def test_a_classifier_that_may_be_guessing_is_doubted() -> None:
    from latentdrift.models.classifier.classifier import doubt_of

    figures = {"auc": {"value": 0.6, "low": 0.5, "high": 0.7}, "images": 40}
    assert doubt_of(figures) == "the AUC of 0.60 [0.50, 0.70] on 40 test images may be that of chance, 0.5"
    assert doubt_of(figures | {"auc": {"value": 0.6, "low": 0.51, "high": 0.7}}) is None
    assert doubt_of({}) is None
