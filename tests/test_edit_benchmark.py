"""The pieces of the editing benchmark, on a toy; its timings are no tests."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import edit_reference
from benchmarks.edit_reference import CASES, by_part, count_evaluations, load, prepare
from benchmarks.edit_setting import DRIFTS, Setting
from benchmarks.edit_speed import (
    COMPARISONS,
    CaseError,
    Comparison,
    case_operations,
    compared,
    image_difference,
    parse_arguments,
    print_comparison,
    summed_up,
)


@pytest.fixture(scope="module")
def setting(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Setting:
    image = tmp_path_factory.mktemp("image") / "image.pt"
    torch.save(torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1, image)
    return Setting(str(toy_model), str(image), steps=2)


@pytest.fixture(autouse=True)
def short_captions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Words that the toy's tokenizer knows."""
    monkeypatch.setattr(edit_reference, "BEFORE", "a slice, mild demented")
    monkeypatch.setattr(edit_reference, "WISHES", ("a slice, non demented", "a slice, aged 80"))


def images_of(case: str, setting: Setting) -> tuple[torch.Tensor, dict[str, int], dict[str, Any]]:
    pipeline, facts = load(setting.base), {}
    work = prepare(case, pipeline, setting, facts)
    counts = count_evaluations(pipeline.unet)
    return work(), dict(counts), facts


def test_all_cases_of_an_edit_make_the_same_images(setting: Setting) -> None:
    made = {case: images_of(case, setting) for case in ("diffusers, 8 runs", "ours, 8 runs", "ours, one batch of 8")}
    images = [found[0] for found in made.values()]
    assert images[0].shape == (2, 3, 32, 32)
    assert (images[0][0] - images[0][1]).abs().max() > 1e-3
    for other in images[1:]:
        torch.testing.assert_close(other, images[0], atol=1e-3, rtol=0)
    # An inversion and a reconstruction of one row, an edit of two for the gradient and two for the step, each step.
    assert made["diffusers, 8 runs"][1] == {"calls": 2 * 2 * 4, "rows": 2 * 2 * 7, "rows_for_gradient": 2 * 2 * 2}
    ours = made["ours, 8 runs"][1]
    assert (ours["rows"], ours["rows_for_gradient"], ours["rows_cut_off"]) == (2 * 2 * 6, 2 * 2 * 2, 2 * 2 * 2)
    assert ours["calls"] == 2 * (2 * 4 - 1)  # the second step of the reconstruction goes beside the edit's first
    together = made["ours, one batch of 8"]
    assert together[1]["rows"] == 2 * (1 + 1 + 4 + 4)
    # Theirs keeps the maps of both halves.
    assert made["diffusers, 8 runs"][2]["reference_maps_bytes"] == 2 * together[2]["reference_maps_bytes"] > 0


def test_a_sweep_in_one_batch_is_nine_calls(setting: Setting) -> None:
    together, counts, _ = images_of("ours, one batch of 9", setting)
    singly, theirs, _ = images_of("pipeline, 9 calls", setting)
    assert len(together) == len(DRIFTS) == 9
    torch.testing.assert_close(together, singly, atol=1e-3, rtol=0)
    assert (together[0] - together[8]).abs().max() > 1e-2
    assert counts["rows"] == theirs["rows"] == 2 * 2 * 9
    assert (counts["calls"], theirs["calls"]) == (2, 18)


@pytest.mark.slow
def test_operations_grow_with_the_steps(setting: Setting) -> None:
    ours, theirs = (
        [case_operations(case, replace(setting, steps=steps)) for steps in (1, 2, 3)] for case in ("ours", "diffusers")
    )
    assert ours[2] - ours[1] == pytest.approx(ours[1] - ours[0], rel=1e-6)
    assert 0 < ours[2] < theirs[2]


def test_backward_in_an_inversion_is_the_regularisation() -> None:
    calls = {
        "inversion": {"U-Net forward": 3.0, "backward": 1.0, "noise kept like noise": 2.0},
        "edit": {"U-Net forward": 4.0, "backward": 5.0},
    }
    found = by_part({"stages": {"loading": 9.0, "inversion": 6.5, "edit": 9.25}, "calls": calls})
    assert found == {
        "U-Net forward": 7.0,
        "noise kept like noise": 3.0,
        "backward": 5.0,
        "rest of the inversion": 0.5,
        "rest of the edit": 0.25,
    }


def run(seconds: float, inversion: float = 0.0) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "processor_seconds": 2 * seconds,
        "working_bytes": 10,
        "peak_bytes": 30,
        "inversion_seconds": inversion,
        "unet": {"calls": 3},
        "parts": {"backward": seconds},
    }


def test_medians_spread_and_one_inversion(capsys: pytest.CaptureFixture[str]) -> None:
    comparison = COMPARISONS["eight"]
    cases = {
        comparison.ours: summed_up([run(1.0), run(3.0), run(2.0)]),
        comparison.reference: summed_up([run(10.0), run(6.0, 4.0), run(5.0)]),
    }
    found = compared(comparison, cases)
    assert found["seconds"] == pytest.approx(2 / 6)
    assert (found["seconds_lowest"], found["seconds_highest"]) == pytest.approx((0.1, 0.5))
    assert found["seconds_on_one_inversion"] == pytest.approx(2 / (6 - 4 * 7 / 8))
    for case in cases.values():
        case["steps"] = 5
    print_comparison("eight", comparison, {"cases": cases, "comparisons": {"eight": found}})
    printed = capsys.readouterr().out
    assert "0.333 (at most 0.4: met)" in printed
    assert "ratio of single turns 0.100 to 0.500" in printed


def test_different_images_are_no_comparison(tmp_path: Path) -> None:
    comparison = Comparison("t", "a", "b", 0.5)
    torch.save(torch.zeros(1, 3, 4, 4), tmp_path / "image.pt")
    for name, value in (("a", 0.21), ("b", 0.2)):
        torch.save(torch.full((1, 3, 4, 4), value), tmp_path / f"{name}.pt")
    found = image_difference(tmp_path, comparison, tmp_path / "image.pt")
    assert (found["levels_apart"], found["levels_from_source"]) == pytest.approx((1.275, 25.5), rel=1e-3)
    torch.save(torch.zeros(1, 3, 4, 4), tmp_path / "a.pt")
    with pytest.raises(CaseError, match="made different images: 25.50 of 255 levels apart"):
        image_difference(tmp_path, comparison, tmp_path / "image.pt")


def test_every_comparison_has_its_cases() -> None:
    assert {case for c in COMPARISONS.values() for case in (c.ours, c.reference)} == set(CASES)
    assert json.loads(edit_reference.as_json(Setting("tiny", "x", 3))) == {
        "base": "tiny",
        "image": "x",
        "steps": 3,
        "guidance": 2.0,
    }


def test_memory_is_counted_from_the_level() -> None:
    held = torch.ones(2**24)  # 64 MiB, touched
    peak = edit_reference.resident()
    del held
    level = edit_reference.level()
    assert level <= peak
    if os.access("/proc/self/clear_refs", os.W_OK):
        assert peak - level > 40 * 2**20


@pytest.mark.parametrize(
    ("words", "says"),
    [(["--repeats", "0"], "--repeats must be at least 1"), (["--guidance", "1"], "--guidance must be above 1")],
)
def test_settings_that_cannot_be(
    words: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["edit_speed", *words])
    with pytest.raises(SystemExit):
        parse_arguments()
    assert says in capsys.readouterr().err


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["edit_speed"])
    args: argparse.Namespace = parse_arguments()
    assert (args.steps, args.repeats, args.only) == (50, 3, list(COMPARISONS))
