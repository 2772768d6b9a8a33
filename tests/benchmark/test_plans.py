"""Every benchmark from its first cell to its page, on a model that samples in milliseconds."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import latentdrift.benchmark
from latentdrift.benchmark import (
    BenchmarkData,
    Workshop,
    benchmark,
    open_benchmark,
    run_cells,
    run_workers,
    write_results,
)
from latentdrift.benchmark.paper import TABLE1
from latentdrift.benchmark.plans.drift_rules import GROUPS, DriftRulesConfig
from latentdrift.benchmark.plans.truth import decomposed
from latentdrift.benchmark.runner import finished, problems
from latentdrift.benchmark.summary import summarise
from latentdrift.cli.__main__ import main
from latentdrift.errors import ConfigurationError

SMALL: dict[str, Any] = {
    "steps": 2, "batch_size": 4, "samples": 16, "sampling_steps": 3, "sampling_batch": 8, "seeds": (0,),
    "guidance": 1.0,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all benchmarks of this file share the simulated cohort and models."""
    return tmp_path_factory.mktemp("benchmark")


def measured(name: str, toy_model: Path, folder: Path, data: BenchmarkData | None = None, **settings: Any) -> Any:
    config = benchmark.get(name).config_class(base=str(toy_model), **{**SMALL, **settings})
    data = data or BenchmarkData(subjects=24)
    plan, workshop = open_benchmark(name, config), Workshop(data, config, folder, "cpu")
    found = run_cells(plan, workshop)
    assert not problems(found)
    return plan, workshop, found


@pytest.mark.parametrize(
    ("groups", "count"),
    [
        (("start", "latents"), 8),
        pytest.param(("start", "paper", "relatives", "latents"), 14, marks=pytest.mark.slow),
    ],
)
def test_drift_rules(groups: tuple[str, ...], count: int, toy_model: Path, folder: Path) -> None:
    plan, workshop, found = measured(
        "drift-rules",
        toy_model,
        folder,
        groups=groups,
        values=(0.1,),
        few=2,
        many=4,
        search_samples=6,
        search_steps=2,
        search_points=3,
    )
    rows = summarise(plan, found)
    assert len(rows) == len(plan.cells(workshop.data)) == count
    plain = rows[0]
    assert plain.row["trained with"] == "no drift"
    assert plain.against is None
    # Every row but the undrifted ones, at their own number of steps and size, has a control.
    assert sum(row.against is None for row in rows) == 2
    assert all("fid" in row.differences for row in rows if row.against is not None)
    by_name = {
        (row.row["trained with"], row.row["sampled with"], row.row["steps"], row.row["latent"]): row for row in rows
    }
    searched = by_name["no drift", "searched, start", "", ""]
    assert searched.figures["evaluations"].value == 3 * 2 * 6
    assert searched.figures["delta"].value in (0.0, 0.2)
    assert by_name["no drift", "+0.1, start", "", ""].figures["delta"].value == 0.1
    # One model serves all rows that are drifted in sampling alone.
    models = {path.name.rsplit("-", 1)[0] for path in (folder / "models").iterdir() if "none" in path.name}
    assert models == {"basic-none-0"}
    files = write_results(plan, workshop, found, "latentdrift benchmark drift-rules", folder / "results")
    record = json.loads(files["json"].read_text())
    assert record["config"]["values"] == [0.1]
    assert record["work"]["cells"] == count
    assert record["data"]["test"] == len(workshop.parts.test)
    with files["csv"].open(newline="") as file:
        fids = {row["sampled with"]: float(row["value"]) for row in csv.DictReader(file) if row["figure"] == "fid"}
    assert fids["searched, start"] == searched.figures["fid"].value
    page = files["html"].read_text()
    assert "searched, start" in page
    assert page.count("data:image/png") == 2
    assert "--report-only" not in page
    assert "biased upwards" in page
    assert files["md"].read_text().count("\n") == count + 2
    assert "\\bottomrule" in files["tex"].read_text()


def test_groups_leave_out_what_was_not_asked(toy_model: Path) -> None:
    def count(*groups: str) -> int:
        return len(open_benchmark("drift-rules", DriftRulesConfig(groups=groups, seeds=(0,))).cells(BenchmarkData()))

    assert count() == 1
    assert sum(count(group) - 1 for group in GROUPS) == count(*GROUPS) - 1


def test_table1(toy_model: Path, folder: Path) -> None:
    plan, workshop, found = measured(
        "table1", toy_model, folder, methods=("textual_inversion", "basic"), samples=24, utility_network="small",
        utility_epochs=1,
    )  # fmt: skip
    rows = {tuple(row.row.values()): row for row in summarise(plan, found)}
    assert list(rows) == [
        ("real data", "", ""), ("real data, autoencoded", "", ""),
        ("textual_inversion", "none", ""), ("textual_inversion", "auto", "start"),
        ("textual_inversion", "auto", "forward"),
        ("basic", "none", ""), ("basic", "auto", "start"), ("basic", "auto", "forward"),
    ]  # fmt: skip
    assert set(rows["real data", "", ""].figures) == {"auc"}
    assert set(rows["real data, autoencoded", "", ""].figures) >= {"fid", "kid", "coverage"}
    for row in list(rows.values())[2:]:
        assert 0 <= row.figures["auc"].value <= 1
        assert 0 <= row.figures["copies"].value <= 1
        assert ("auc_half" in row.figures) == (row.row["method"] == "basic")
    published = {tuple(row.values()): figures for row, figures in plan.published(workshop.data)}
    assert (
        published["basic", "auto", "start"]
        == published["basic", "auto", "forward"]
        == {"FID": 49.68, "KID × 1000": 35.0, "AUC": 0.724, "AUC, with real": 0.883}
    )
    assert published["basic", "none", ""]["FID"] == TABLE1["mri"]["basic", False][0]
    # Under rule start there is one model, without drift, and other images of it.
    assert rows["basic", "auto", "start"].differences["background"].value != 0
    assert not [path for path in (folder / "models").iterdir() if path.name.startswith("basic-auto-start")]
    # The images of a cell stay, marked as synthetic, with their class.
    (samples,) = [path for path in (folder / "samples").iterdir() if path.name.startswith("basic-auto-forward-s0")]
    assert len(list(samples.glob("*.png"))) == 24
    assert "diagnosis" in (samples / "metadata.csv").read_text()
    manifest = json.loads((samples / "manifest.json").read_text())
    assert len(manifest["files"]) == 24
    assert {file["attributes"]["diagnosis"] for file in manifest["files"]} <= {"CN", "MCI", "AD"}
    assert len(manifest["model"]["sha256"]) == 64
    with Image.open(samples / "00000.png") as image:
        assert any("ynthetic" in f"{name}{text}" for name, text in image.text.items())  # type: ignore[attr-defined]


def test_table1_with_few_real_images(toy_model: Path, folder: Path) -> None:
    asked: dict[str, Any] = {"methods": ("basic",), "drifts": ("none",), "samples": 24, "utility_network": "small"}
    plan, workshop, found = measured(
        "table1", toy_model, folder, **asked, utility_epochs=1, utility_share=0.9, utility_repeats=2
    )
    rows = {row.row["method"]: row.figures for row in summarise(plan, found)}
    assert set(rows["real data"]) == {"auc"}
    assert {"auc", "auc_half"} <= set(rows["basic"])
    studies = [json.loads(path.read_text()) for path in (folder / "utility").glob("*/utility.json")]
    halves = [one for study in studies for one in study["utilities"] if one["kind"] == "half" and one["amount"] == 0.9]
    assert [len(one["auc_by_seed"]) for one in halves] == [2]
    assert halves[0]["real_images"] == pytest.approx(0.9 * len(workshop.parts.train), abs=3)
    whole = open_benchmark("table1", benchmark.get("table1").config_class(base=str(toy_model), **SMALL))
    cells = {plan.key(cell, {}) for cell in plan.cells(workshop.data) if cell.row["method"] == "real data"}
    assert cells.isdisjoint(whole.key(cell, {}) for cell in whole.cells(workshop.data))


@pytest.mark.parametrize("settings", [{"utility_share": 0.0}, {"utility_share": 1.1}, {"utility_repeats": 0}])
def test_classifiers_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="give a share above 0"):
        benchmark.get("table1").config_class(**settings)


def test_prompts(toy_model: Path, folder: Path) -> None:
    plan, workshop, found = measured("prompts", toy_model, folder, sets=("simple", "diverse+patient"), drifts=("none",))
    templates = {path.name for path in (folder / "models").iterdir()}
    assert len(summarise(plan, found)) == 2
    assert len({name for name in templates if "basic-none-0" in name}) >= 2
    assert plan.published(workshop.data) == [
        ({"captions": "diverse+patient", "drift": "auto"}, {"FID": 51.35, "KID × 1000": pytest.approx(35.1)})
    ]


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 20 subjects with two visits each, three years apart, the later one a little darker."""
    folder = tmp_path_factory.mktemp("visits")
    rng = np.random.default_rng(0)
    lines = ["file_name,subject,session,age,stage"]
    for subject in range(20):
        pixels = rng.integers(40, 240, (32, 32), dtype=np.uint8)
        for session in (0, 1):
            name = f"{subject:02d}-{session}.png"
            Image.fromarray(pixels - np.uint8(8 * session)).save(folder / name)
            lines.append(f"{name},s{subject:02d},{session},{70 + 3 * session},{('CN', 'AD')[subject % 2]}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_aging(toy_model: Path, folder: Path, visits: Path) -> None:
    data = BenchmarkData(data=str(visits), attribute="stage")
    plan, _workshop, found = measured("aging", toy_model, folder, data, ages=("number",))
    nothing, number, auto = summarise(plan, found)
    assert number.against == nothing.row
    assert auto.against == number.row
    # The later scan is the first one, 8 levels darker; a model trained for two steps makes something else.
    assert nothing.figures["error"].value == pytest.approx(8.0, abs=0.01)
    assert number.figures["error"].value > 20
    assert {"fid", "ssim", "psnr", "error"} <= set(number.figures)
    assert number.differences["error"].value == number.figures["error"].value - nothing.figures["error"].value


def test_truth(toy_model: Path, folder: Path) -> None:
    plan, _workshop, found = measured(
        "truth",
        toy_model,
        folder,
        BenchmarkData(subjects=24, classes=("CN", "AD")),
        editors=("prompt_swap",),
        edit_steps=3,
        count=2,
        judge_network="small",
        judge_epochs=1,
    )
    none, forward, start = summarise(plan, found)
    for row in (none, forward, start):
        figures = {name: mean.value for name, mean in row.figures.items()}
        assert figures["against_nothing"] == pytest.approx(figures["error"] - figures["nothing"])
        assert figures["images"] == 4  # two of each class
    # What doing nothing costs does not depend on who does it.
    assert len({row.figures["nothing"].value for row in (none, forward, start)}) == 1


def test_the_perfect_edit_is_all_along_and_nothing_beside() -> None:
    generator = torch.Generator().manual_seed(0)
    source, true = (torch.rand(3, 3, 8, 8, generator=generator) * 0.5 for _ in range(2))
    other = torch.rand(3, 3, 8, 8, generator=generator)
    other -= (
        (other * true).flatten(1).sum(1).view(-1, 1, 1, 1) / (true * true).flatten(1).sum(1).view(-1, 1, 1, 1) * true
    )
    along, beside = decomposed(source, source + 0.5 * true + other, source + true)
    np.testing.assert_allclose(along, 0.5, atol=1e-6)
    lengths = other.flatten(1).norm(dim=1) / true.flatten(1).norm(dim=1)
    np.testing.assert_allclose(beside, lengths, rtol=1e-5)
    along, beside = decomposed(source, source + true, source + true)
    np.testing.assert_allclose(along, 1.0, atol=1e-6)
    np.testing.assert_allclose(beside, 0.0, atol=1e-5)


def test_the_command_goes_on_and_reports(
    toy_model: Path, toy_cohort: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [
        "benchmark", "prompts", "--data", str(toy_cohort), "--attribute", "stage", "--out", str(tmp_path / "out"),
        "--base", str(toy_model), "--steps", "2", "--batch-size", "4", "--samples", "16", "--sampling-steps", "2",
        "--seeds", "0", "--sets", "simple", "--drifts", "none", "auto", "--quiet",
    ]  # fmt: skip
    assert main([*words, "--report-only", "--json"]) == 0
    before = json.loads(capsys.readouterr().out)
    assert before["rows"] == []
    assert before["missing"] == ["simple, none, seed 0", "simple, auto, seed 0"]
    # One here, the other in a process of its own: no more are started than there are cells left.
    assert main([word for word in words if word != "auto"]) == 0
    started = []

    def watched(*settings: Any) -> None:
        started.append(settings[-1])
        run_workers(*settings)

    monkeypatch.setattr(latentdrift.benchmark, "run_workers", watched)
    assert main([*words, "--workers", "2", "--results", str(tmp_path / "results")]) == 0
    assert started == [[None]]
    assert "missing" not in capsys.readouterr().out
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "cells").glob("*.json")}
    assert len(cells) == 2
    assert main([*words, "--workers", "2", "--json"]) == 0
    assert len(started) == 1
    after = json.loads(capsys.readouterr().out)
    assert [row["row"]["drift"] for row in after["rows"]] == ["none", "auto"]
    assert after["missing"] == []
    assert all(path.stat().st_mtime_ns == then for path, then in cells.items())
    assert {path.suffix for path in (tmp_path / "results").iterdir()} == {
        ".json",
        ".md",
        ".tex",
        ".csv",
        ".png",
        ".html",
    }


def test_help_lists_the_benchmarks(capsys: Any) -> None:
    assert main(["benchmark", "--help"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in benchmark.names())
    assert main(["benchmark", "nothing"]) == 2
    assert "There is no benchmark 'nothing'" in capsys.readouterr().err


def test_failed_cells_are_told(
    toy_model: Path, toy_cohort: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cohort has one visit a subject, so that there is nothing to learn ageing from.
    words = [
        "benchmark", "aging", "--data", str(toy_cohort), "--attribute", "stage", "--out", str(tmp_path),
        "--base", str(toy_model), "--seeds", "0", "--ages", "number", "--drifts", "none", "--min-years", "400",
    ]  # fmt: skip
    assert main([*words, "--quiet", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert len(told["failed"]) == 2
    assert "NoPairsError" in told["failed"][0]
    # They are tried again, by as many workers as there are of them.
    started = []
    monkeypatch.setattr(latentdrift.benchmark, "run_workers", lambda *settings: started.append(len(settings[-1])))
    assert main([*words, "--quiet", "--workers", "3"]) == 1
    assert started == [2]
    assert finished([]) == []
