"""`latentdrift figure KIND`: a picture and its numbers, from any run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from latentdrift.cli.__main__ import main
from latentdrift.cli.figure_latents import noised
from latentdrift.data import Cohort
from latentdrift.drift import LatentDrift
from latentdrift.models import load_pipeline


def draw(out: Path, *arguments: object) -> dict[str, Any]:
    """Draw a figure, check that it is marked, and return its numbers."""
    words = [*(str(argument) for argument in arguments), "--out", str(out), "--quiet"]
    assert main(["figure", *words]) == 0
    with Image.open(out) as file:
        assert file.text["SyntheticData"] == "YES"
        assert file.width > 200
    numbers: dict[str, Any] = json.loads(out.with_suffix(".json").read_text())
    assert numbers["command"].startswith(f"latentdrift figure {words[0]} ")
    return numbers


def test_counterfactuals_of_held_out_images(toy_run: Path, toy_cohort: Path, tmp_path: Path) -> None:
    numbers = draw(
        tmp_path / "f.png",
        *("counterfactuals", "--run", toy_run, "--data", toy_cohort, "--target", "stage=MildDemented"),
        *("--source", "stage=NonDemented", "--count", 2, "--steps", 3),
    )
    split = (toy_run / "split.csv").read_text().splitlines()
    held_out = {line.split(",")[0] for line in split if line.endswith(",test")}
    assert len(numbers["rows"]) == 2
    assert {row["file_name"] for row in numbers["rows"]} <= held_out
    assert {row["target_prompt"] for row in numbers["rows"]} == {"a slice, mild demented"}
    assert all(row["changed_l1"] > 0 and "error_l1" not in row for row in numbers["rows"])


def test_counterfactuals_beside_the_later_scan(toy_run: Path, toy_cohort: Path, tmp_path: Path) -> None:
    records = list(Cohort.open(toy_cohort))
    folder = tmp_path / "visits"
    folder.mkdir()
    lines = ["file_name,subject,session,stage"]
    for name, record, stage in (("a.png", records[2], "NonDemented"), ("b.png", records[0], "MildDemented")):
        (folder / name).write_bytes(record.image.read_bytes())
        lines.append(f"{name},one,{len(lines)},{stage}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    numbers = draw(
        tmp_path / "f.png",
        *("counterfactuals", "--run", toy_run / "model", "--data", folder, "--target", "stage=MildDemented"),
        *("--steps", 3),
    )
    (row,) = numbers["rows"]
    assert numbers["truth"] == "later scan"
    assert "may have seen them" in numbers["images"]
    assert row["error_l1"] > 0
    assert row["error_l1_of_doing_nothing"] > 0


def test_counterfactuals_of_a_folder_of_edits(toy_run: Path, toy_cohort: Path, tmp_path: Path) -> None:
    images = [str(toy_cohort / "images" / f"s0{subject}-0.png") for subject in (1, 2)]
    flags = ["--source", "stage=NonDemented", "--target", "stage=MildDemented", "--steps", "3", "--quiet"]
    edits = tmp_path / "edits"
    assert main(["counterfactual", "--model", str(toy_run), "--image", *images, *flags, "--out", str(edits)]) == 0
    numbers = draw(tmp_path / "f.png", "counterfactuals", "--edits", edits)
    known = {row["file_name"]: row["changed_l1"] for row in json.loads((edits / "result.json").read_text())["images"]}
    assert {row["file_name"] for row in numbers["rows"]} == set(known) == {"s01-0.png", "s02-0.png"}
    assert all(row["changed_l1"] > 0 for row in numbers["rows"])


def test_seeds(toy_run: Path, tmp_path: Path) -> None:
    numbers = draw(tmp_path / "f.png", "seeds", "--run", toy_run, "--count", 3, "--steps", 3)
    assert numbers["drifts"] == [-0.1, 0.0, 0.1]
    assert len(numbers["strips"]) == 2
    for strip in numbers["strips"]:
        assert 0.5 <= strip["smoothness"]["largest_step"] <= 1


def test_latents(toy_run: Path, toy_cohort: Path, tmp_path: Path) -> None:
    numbers = draw(
        tmp_path / "f.png",
        *("latents", "--run", toy_run, "--data", toy_cohort, "--drift", 0.5, "--steps", 3, "--count", 4),
    )
    curves = numbers["curves"]
    assert set(curves) == {"drift", "no drift", "training latents, noised"}
    assert all(len(curve["mean"]) == 4 for curve in curves.values())
    # The same noise, half a standard deviation up, at the level of the first timestep.
    scheduler: Any = load_pipeline(toy_run).scheduler
    scheduler.set_timesteps(3)
    level = math.sqrt(1 - float(scheduler.alphas_cumprod[scheduler.timesteps[0]]))
    assert curves["drift"]["mean"][0] - curves["no drift"]["mean"][0] == pytest.approx(0.5 * level, abs=1e-4)
    assert curves["drift"]["std"][0] == pytest.approx(curves["no drift"]["std"][0], abs=1e-4)
    assert "train part" in numbers["data"]["which"]


def test_noised_latents_in_closed_form_are_those_drawn(toy_model: Path) -> None:
    pipeline: Any = load_pipeline(toy_model)
    pipeline.scheduler.set_timesteps(4)
    draws = torch.Generator().manual_seed(0)
    latents = torch.randn(400, 4, 8, 8, generator=draws) * 0.5 + 0.3 + torch.randn(400, 1, 1, 1, generator=draws)
    drift = LatentDrift(0.4, rule="forward")
    curve = noised(pipeline, latents, drift)
    scheduler = pipeline.scheduler
    levels = [*scheduler.alphas_cumprod[scheduler.timesteps].tolist(), float(scheduler.final_alpha_cumprod)]
    assert len(levels) == len(curve.mean)
    for step, squared in enumerate(levels):
        a = math.sqrt(squared)
        b = math.sqrt(1 - a * a)
        # Rule forward trains on noise minus δ.
        state = a * latents + b * (torch.randn(latents.shape, generator=draws) - 0.4)
        assert curve.mean[step] == pytest.approx(float(state.mean()), abs=0.02)
        assert curve.std[step] == pytest.approx(float(state.std()), rel=0.02)
        assert curve.spread[step] == pytest.approx(float(state.mean((1, 2, 3)).std()), rel=0.1)


def test_methods(toy_run: Path, toy_cohort: Path, tmp_path: Path) -> None:
    numbers = draw(
        tmp_path / "f.png",
        *("methods", "--runs", toy_run, toy_run, "--labels", "one", "two", "--data", toy_cohort),
        *("--samples", 1, "--steps", 3),
    )
    first, second = numbers["runs"]
    assert numbers["classes"] == ["MildDemented", "NonDemented"]
    assert (first["label"], second["label"]) == ("one", "two")
    assert first["classes"] == second["classes"]
    assert first["difference_between_classes"] > 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["seedz"], "'seeds'"),
        (["seeds", "--run", "RUN", "--out", "x.jpg"], "figures are PNG files"),
        (["seeds", "--run", "RUN", "--out", "OUT/f.png", "--count", "1"], "is no strip"),
        (["counterfactuals", "--run", "RUN", "--out", "OUT/f.png"], "Give --run and --data, or --edits"),
        (["counterfactuals", "--edits", "OUT", "--out", "OUT/f.png"], "no folder of `latentdrift counterfactual`"),
        (
            ["counterfactuals", "--run", "RUN", "--data", "DATA", "--out", "OUT/f.png"],
            "--target NAME=VALUE, or --later",
        ),
        (["latents", "--run", "RUN", "--data", "DATA", "--cache", "x.npy", "--out", "OUT/f.png"], "not both"),
        (["latents", "--run", "RUN", "--cache", "OUT/x.npy", "--out", "OUT/f.png"], "no file of cached latents"),
        (["methods", "--runs", "RUN", "--labels", "a", "b", "--out", "OUT/f.png"], "1 runs and 2 labels"),
    ],
)
def test_what_cannot_be_is_said(
    toy_run: Path,
    toy_cohort: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    places = {"RUN": str(toy_run), "DATA": str(toy_cohort)}
    words = [places.get(word, word.replace("OUT", str(tmp_path))) for word in arguments]
    assert main(["figure", *words]) == 2
    assert says in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_figures_are_not_overwritten_unasked(toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "f.json").write_text("{}")
    assert main(["figure", "seeds", "--run", str(toy_run), "--out", str(tmp_path / "f.png")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "f.json").read_text() == "{}"


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["figure"]) == 2
    assert "usage: latentdrift figure KIND" in capsys.readouterr().err
    assert main(["figure", "--help"]) == 0
    assert "Figure 4" in capsys.readouterr().out
