"""Pages of runs: complete, escaped, small, and made for whoever did not run the command."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.drift import LatentDrift
from latentdrift.errors import DataError
from latentdrift.report import Picture, Section
from latentdrift.report.finetune_page import rates_of, write_finetune_page
from latentdrift.report.intervals import interval_figure
from latentdrift.report.measuring_pages import write_classifier_page
from latentdrift.report.page import STATEMENT
from latentdrift.report.run_page import DriftInUse, RunPage, drift_blocks, fitted, settings_rows, write_run_page

NASTY = "<script>alert('x')</script>"


def text_of(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    status = main([*map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert status == 0, captured.err
    found: dict[str, Any] = json.loads(captured.out)
    return found


@dataclass(frozen=True)
class Nested:
    rate: float = 0.5


@dataclass(frozen=True)
class Options:
    names: tuple[str, ...] = field(default=("a", NASTY), metadata={"help": "What they are called."})
    json: bool = True
    settings: Nested = field(default_factory=Nested)
    nothing: None = None


def test_order_escaping_and_settings(tmp_path: Path) -> None:
    page = RunPage(
        f"Title {NASTY}",
        f"Done with `{NASTY}`.",
        [Section("Result", [NASTY])],
        f"latentdrift generate --prompt '{NASTY}'",
        warnings=[f"careful {NASTY}"],
        options=Options(),
        drift=DriftInUse(LatentDrift(0.1), 0.07, 25),
        facts={"seed": 3},
        versions={"torch": "9"},
    )
    html = text_of(write_run_page(tmp_path / "page.html", page))
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 6
    places = [
        html.index(text) for text in (STATEMENT, "Done with", "careful", "Drift</h2>", "Configuration</h2>", "seed: 3")
    ]
    assert places == sorted(places)
    assert "prefers-color-scheme: dark" in html
    assert "@media print" in html
    assert "gain at the first timestep" in html
    assert settings_rows(Options()) == [
        {"setting": "names", "value": f"a, {NASTY}", "meaning": "What they are called."},
        {"setting": "rate", "value": "0.5", "meaning": ""},
        {"setting": "nothing", "value": "–", "meaning": ""},
    ]


def test_drift_figures_are_those_at_the_first_timestep() -> None:
    latents = torch.full((3, 4, 8, 8), 2.0)
    blocks = drift_blocks(DriftInUse(LatentDrift.auto(latents, "map"), 0.25, 10))
    table = {row[""]: row["drift"] for row in blocks[1].rows}
    assert table["mean"] == table["largest"] == "0.5"
    assert table["kind"].startswith("map")
    assert any(isinstance(block, Picture) for block in blocks)
    vector = drift_blocks(DriftInUse(LatentDrift((0.1, -0.2, 0.0, 0.3), "paper")))
    assert [row["δ"] for row in vector[2].rows] == pytest.approx([0.1, -0.2, 0.0, 0.3])
    assert "No drift" in drift_blocks(DriftInUse(None))[0]


def test_a_page_stays_small(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    files = []
    for index in range(4):
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(rng.integers(0, 255, (700, 1100, 3)).astype(np.uint8)).save(files[-1])
    assert sum(file.stat().st_size for file in files) > 8_000_000
    page = RunPage("t", "d", [Section("s", [Picture(file, "noise") for file in files])], "c")
    path = write_run_page(tmp_path / "page.html", page)
    assert path.stat().st_size < 1_500_000
    with pytest.raises(DataError, match=r"none\.png cannot be put on the page"):
        fitted([Section("s", [Picture(tmp_path / "none.png", "")])])


def test_intervals_and_rates(tmp_path: Path) -> None:
    with Image.open(interval_figure(tmp_path / "i.png", [("a", 0.6, 0.5, 0.7)], "AUC", mark=0.5)) as image:
        assert min(image.size) > 60
    with pytest.raises(DataError, match="no figure"):
        interval_figure(tmp_path / "i.png", [], "AUC")
    training = {"lr_schedule": "cosine", "learning_rate": 2e-4, "warmup_steps": 10, "steps": 1000}
    steps, rates = rates_of(training)
    assert (steps[0], steps[-1]) == (1, 1000)
    assert rates[0] == 0
    assert max(rates) == pytest.approx(2e-4, rel=1e-3)
    assert rates[-1] < 1e-8
    assert len(steps) <= 400


def test_finetune_is_told_from_its_folder_and_quickly(
    toy_model: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    tune = ["finetune", "--data", toy_cohort, "--base", toy_model, "--out", out, "--steps", 3, "--batch-size", 4]
    tune += ["--sample-steps", 1, "--warmup-steps", 1, "--template", "a slice, {stage}", "--cache", tmp_path / "c"]
    told = run(capsys, *tune, "--quiet")
    page = Path(told["page"])
    assert page == out / "page.html"
    html = text_of(page)
    for words in ("was fine-tuned by <em>basic</em>", "rule <em>start</em>", "Learning rate".lower(), "NonDemented",
                  "validation loss", "All ", "latentdrift finetune --data", "content hash"):  # fmt: skip
        assert words in html, words
    assert html.count("data:image/") >= 3  # curves, samples, drift
    assert str(Path.home()) not in html
    # A run that has finished keeps the page of the command that made it.
    page.write_text("kept")
    run(capsys, *tune, "--quiet")
    assert text_of(page) == "kept"
    # A run from before there were pages gets one, and so does one that was stopped.
    page.unlink()
    run(capsys, *tune, "--quiet")
    assert "was fine-tuned" in text_of(page)
    started = time.process_time()
    write_finetune_page(out, command="c")
    assert time.process_time() - started < 3
    with pytest.raises(DataError, match="holds no run that has finished"):
        write_finetune_page(tmp_path, command="c")


def test_generate_and_verify(toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "images"
    make = [
        "generate",
        "--model",
        toy_run,
        "--out",
        out,
        "--count",
        3,
        "--steps",
        2,
        "--quiet",
        "--prompt",
        f"a {NASTY}",
    ]
    told = run(capsys, *make)
    html = text_of(Path(told["page"]))
    assert "3 synthetic images were made" in html
    assert "<script" not in html
    assert STATEMENT in html
    manifest = json.loads(text_of(out / "manifest.json"))
    assert re.fullmatch("[0-9a-f]{64}", manifest["model"]["sha256"])
    assert manifest["model"]["sha256"] in html
    found = run(capsys, "verify", out, "--model", toy_run)
    assert found["agree"]
    assert len(found["files"]) == 3
    assert {row["model_sha256"] for row in found["files"]} == {manifest["model"]["sha256"]}
    with Image.open(out / "000001.png") as image:
        assert image.text["model_sha256"] == manifest["model"]["sha256"]  # type: ignore[attr-defined]
    Image.new("L", (32, 32)).save(out / "000001.png")
    assert main(["verify", str(out)]) == 1
    said = capsys.readouterr().out
    assert "000001.png has changed since it was made" in said
    assert "1 files do not agree" in said
    Image.new("L", (32, 32)).save(tmp_path / "plain.png")
    assert main(["verify", str(tmp_path / "plain.png")]) == 0
    assert main(["verify", str(tmp_path / "plain.png"), "--require"]) == 1
    assert main(["verify", str(tmp_path / "gone.png")]) == 2
    assert main(["verify", str(out / "000000.png"), "--model", "tiny"]) == 1
    assert main(["verify"]) == 2


def test_counterfactual_and_ladder(
    toy_run: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    image = toy_cohort / "images" / "s01-0.png"
    usual = ["--model", toy_run, "--image", image, "--source", "stage=NonDemented", "--steps", 2, "--quiet"]
    edits = run(capsys, "counterfactual", *usual, "--target", "stage=MildDemented", "--out", tmp_path / "e")
    html = text_of(Path(edits["page"]))
    for words in ("1 image was edited", "stage=MildDemented", "Source, counterfactual and difference", "levels of 255"):
        assert words in html
    rungs = ["--attribute", "stage", "--values", "NonDemented", "MildDemented", "--extractor", "none"]
    ladder = run(capsys, "ladder", *usual, *rungs, "--out", tmp_path / "l")
    assert "under 2 values of <em>stage</em>" in text_of(Path(ladder["page"]))
    found = run(capsys, "verify", tmp_path / "e", tmp_path / "l", "--source", image)
    by_name = {Path(row["file"]).name: row for row in found["files"]}
    assert found["agree"]
    for name in ("s01-0.png", "s01-0-difference.png", "overview.png", "frame-00.png", "strip.png", "ladder.gif"):
        assert by_name[name]["synthetic"], name
        assert by_name[name]["in_manifest"], name
    assert not by_name["source.png"]["synthetic"]
    assert main(["verify", str(tmp_path / "e"), "--source", str(toy_cohort / "images" / "s01-1.png")]) == 1
    assert "none of the sources" in capsys.readouterr().out


def test_classifier_page(tmp_path: Path) -> None:
    figure = {"value": 0.75, "low": 0.6, "high": 0.9}
    figures = {"auc": figure, "accuracy": figure, "images": 20, "subjects": 10, "images_by_class": [12, 8]}
    history = [{"loss": 1.0, "validation_loss": 1.1}, {"loss": 0.5, "validation_loss": 0.8}]
    path = write_classifier_page(
        tmp_path / "page.html",
        {"seed": 1, "history": history, "versions": {"torch": "9"}, "data": {"content_hash": "abc"}},
        figures,
        done="A classifier.",
        command="c",
        options={"epochs": 2},
        classes=["CN", NASTY],
        warnings=["few images"],
    )
    html = text_of(path)
    for words in (
        "0.75",
        "0.6 to 0.9",
        "over 10 subjects",
        "few images",
        "abc",
        "data:image/",
        "no images on this page",
    ):
        assert words in html
    assert "<script" not in html
