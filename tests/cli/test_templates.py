"""Captions from optional parts and from files, from training to the images that are asked for."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from latentdrift.cli.__main__ import main
from latentdrift.models import read_model_card


@pytest.fixture
def patchy_cohort(toy_cohort: Path, tmp_path: Path) -> Path:
    """The toy cohort, where every second image lacks the age."""
    import shutil

    folder = shutil.copytree(toy_cohort, tmp_path / "patchy")
    lines = (folder / "metadata.csv").read_text().splitlines()
    lines = [line if index % 2 else line.rsplit(",", 1)[0] + "," for index, line in enumerate(lines[1:])]
    (folder / "metadata.csv").write_text("\n".join(["file_name,subject,stage,age", *lines]) + "\n")
    return folder


def finetune(cohort: Path, model: Path, out: Path, template: str) -> int:
    words = ["finetune", "--data", str(cohort), "--base", str(model), "--out", str(out), "--template", template]
    return main([*words, "--steps", "1", "--batch-size", "2", "--sample-steps", "1", "--warmup-steps", "0", "--quiet"])


def test_an_optional_part_is_left_out_where_the_value_is_missing(
    patchy_cohort: Path, toy_model: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert finetune(patchy_cohort, toy_model, run, "a(n) {stage} slice[, {age}]") == 0
    card = read_model_card(run / "model")
    assert card is not None
    assert card.template == "a(n) {stage} slice[, {age}]"
    assert set(card.attributes) == {"stage", "age"}
    words = ["generate", "--model", str(run), "--count", "4", "--steps", "1", "--quiet"]
    assert main([*words, "--out", str(tmp_path / "plain")]) == 0
    with (tmp_path / "plain" / "metadata.csv").open(newline="") as file:
        prompts = [row["prompt"] for row in csv.DictReader(file)]
    # Each value of what a caption needs in turn; what it may do without is left out unless it is asked for.
    assert prompts == ["a mild demented slice", "a non demented slice"] * 2
    assert main([*words, "--out", str(tmp_path / "aged"), "--attributes", "age=70"]) == 0
    with (tmp_path / "aged" / "metadata.csv").open(newline="") as file:
        assert {row["prompt"] for row in csv.DictReader(file)} == {
            "a mild demented slice, 70",
            "a non demented slice, 70",
        }


def test_a_needed_value_that_is_missing_names_the_image(
    patchy_cohort: Path, toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert finetune(patchy_cohort, toy_model, tmp_path / "run", "a {stage} slice, {age}") == 2
    assert "missing values" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_file_of_wordings_goes_with_the_model(
    toy_cohort: Path, toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.txt"
    file.write_text("a {stage} slice\none {stage} scan\nthe {stage} brain\n")
    run = tmp_path / "run"
    assert finetune(toy_cohort, toy_model, run, str(file)) == 0
    file.unlink()
    assert (
        json.loads((run / "run.json").read_text())["template"]
        == json.loads((run / "model" / "latentdrift.json").read_text())["template"]
    )
    words = ["generate", "--model", str(run), "--count", "12", "--steps", "1", "--quiet", "--out", str(tmp_path / "g")]
    assert main([*words, "--attributes", "stage=MildDemented"]) == 0
    with (tmp_path / "g" / "metadata.csv").open(newline="") as table:
        prompts = {row["prompt"] for row in csv.DictReader(table)}
    assert prompts == {"a mild demented slice", "one mild demented scan", "the mild demented brain"}
    image = next((toy_cohort / "images").iterdir())
    words = ["counterfactual", "--model", str(run), "--image", str(image), "--out", str(tmp_path / "c"), "--steps", "2"]
    assert main([*words, "--source", "stage=NonDemented", "--target", "stage=MildDemented", "--quiet"]) == 0
    captions = json.loads((tmp_path / "c" / "result.json").read_text())["captions"]
    assert captions == {"source": "a non demented slice", "target": "a mild demented slice"}
    capsys.readouterr()
    assert finetune(toy_cohort, toy_model, tmp_path / "other", "divers") == 2
    assert "Did you mean" in capsys.readouterr().err
