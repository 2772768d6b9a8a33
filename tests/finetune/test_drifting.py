from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import LatentDrift, save_drift
from latentdrift.errors import DriftError, UnknownNameError
from latentdrift.finetune.drifting import NoiseChoice, choose_drift, choose_noise
from tests.conftest import build_scheduler

LATENTS = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5


def choose(wish: Any, rule: str = "start", **settings: Any) -> LatentDrift | None:
    settings = {"means": lambda: iter(LATENTS.split(4)), "scheduler": build_scheduler(), "steps": 25, **settings}
    return choose_drift(wish, rule=rule, **settings)


def choose_for_training(wish: Any, rule: str = "start", **settings: Any) -> NoiseChoice:
    settings = {"means": refuse, "scheduler": build_scheduler(), "steps": 25, "channels": 4, **settings}
    return choose_noise(wish, rule=rule, **settings)


def refuse() -> Any:
    raise AssertionError("no latents are needed")


def test_what_needs_no_latents() -> None:
    assert choose("none", means=refuse) is None
    assert choose(None, means=refuse) is None
    assert choose(LatentDrift(0.1), means=refuse) == LatentDrift(0.1)
    assert choose("0.07", means=refuse) == LatentDrift(0.07)
    assert choose(0.07, means=refuse) == LatentDrift(0.07)
    assert choose("-0.1, 0.2,0.3,0", "forward", means=refuse) == LatentDrift([-0.1, 0.2, 0.3, 0.0], rule="forward")


@pytest.mark.parametrize(
    ("wish", "mean"),
    [
        ("auto", LATENTS.mean(0)),
        ("auto-map", LATENTS.mean(0)),
        ("auto-vector", LATENTS.mean((0, 2, 3))),
        ("auto-scalar", LATENTS.mean()),
    ],
)
@pytest.mark.parametrize(("rule", "steps", "first"), [("start", 25, 961), ("forward", 10, 901)])
def test_the_automatic_drift_closes_the_gap(wish: str, mean: torch.Tensor, rule: str, steps: int, first: int) -> None:
    drift = choose(wish, rule, steps=steps)
    assert drift is not None
    assert drift.rule == rule
    assert drift.automatic is (rule == "start")
    scheduler = build_scheduler()
    scheduler.set_timesteps(steps)
    level = scheduler.alphas_cumprod[first]
    assert torch.allclose(drift.resolve(scheduler), mean * (level / (1 - level)).sqrt(), atol=1e-5)


def test_a_saved_drift(tmp_path: Path) -> None:
    path = save_drift(tmp_path / "run" / "model", LatentDrift(0.3))
    for wish in (path, path.parent, tmp_path / "run"):
        assert choose(str(wish)) == LatentDrift(0.3)


@pytest.mark.parametrize("wish", ["auto-matic", "much", "0.1;0.2", "no/such/folder"])
def test_what_is_not_understood(wish: str) -> None:
    with pytest.raises(DriftError, match="not understood. Give none, auto, auto-map"):
        choose(wish)


def test_a_folder_without_a_drift(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline"}))
    with pytest.raises(DriftError, match="not understood"):
        choose(str(tmp_path))


@pytest.mark.parametrize("wish", ["nan", "0.1,inf"])
def test_numbers_that_cannot_be(wish: str) -> None:
    with pytest.raises(DriftError, match="contains (nan|inf)"):
        choose(wish)


def test_auto_without_a_cohort() -> None:
    with pytest.raises(DriftError, match="estimated from a cohort when a model is fine-tuned"):
        choose("auto", means=None)


@pytest.mark.parametrize("wish", ["none", None, "0.07", 0.07, "0.1,0.2,0.3,0.4", LatentDrift(0.1, "paper")])
def test_a_drift_is_chosen_alike_for_training(wish: Any) -> None:
    assert choose_for_training(wish, "forward") == NoiseChoice(drift=choose(wish, "forward"))


def test_the_automatic_drift_is_chosen_for_training() -> None:
    made = choose_for_training("auto", means=lambda: iter(LATENTS.split(4)))
    assert made == NoiseChoice(drift=choose("auto"))
    assert made.drift is not None
    assert made.drift.automatic


@pytest.mark.parametrize("wish", ["learned", "learned-vector", "learned-scalar", " learned "])
@pytest.mark.parametrize(
    ("rule", "by"), [("start", "start"), ("forward", "start"), ("paper", "denoising"), ("matched", "denoising")]
)
def test_a_drift_to_be_learned(wish: str, rule: str, by: str) -> None:
    made = choose_for_training(wish, rule)
    assert made.learned is not None
    assert (made.learned.kind, made.learned.rule, made.learned.by) == (
        "scalar" if "scalar" in wish else "vector",
        rule,
        by,
    )
    assert made.learned.values() == [0.0] * (1 if "scalar" in wish else 4)
    assert (made.drift, made.offset, made.zero_snr) == (None, 0.0, False)


@pytest.mark.parametrize(
    ("wish", "strength"), [("offset-noise", 0.1), ("offset-noise:0.05", 0.05), ("offset-noise:0", 0.0)]
)
def test_offset_noise_and_its_strength(wish: str, strength: float) -> None:
    assert choose_for_training(wish) == NoiseChoice(offset=strength)


def test_zero_terminal_snr() -> None:
    assert choose_for_training("zero-terminal-snr") == NoiseChoice(zero_snr=True)


@pytest.mark.parametrize("strength", ["", "-0.1", "nan", "inf", "much", "0.1,0.2"])
def test_strengths_that_cannot_be(strength: str) -> None:
    with pytest.raises(DriftError, match=f"strength of offset noise is '{strength}'; give a number of at least 0"):
        choose_for_training(f"offset-noise:{strength}")


@pytest.mark.parametrize("wish", ["learnt", "learned-map", "offset_noise", "offset-noises", "zero-snr", "auto-matic"])
def test_what_is_not_understood_lists_what_training_knows(wish: str) -> None:
    listed = (
        "Give none, auto, auto-map, auto-vector, auto-scalar, learned, learned-vector, learned-scalar, offset-noise"
    )
    with pytest.raises(DriftError, match=f"'{wish}' is not understood. {listed}, .*zero-terminal-snr, a number"):
        choose_for_training(wish)


def test_an_unknown_rule_of_a_learned_drift() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'start'"):
        choose_for_training("learned", "stat")


@pytest.mark.parametrize("wish", ["learned", "learned-scalar", "offset-noise", "offset-noise:0.2", "zero-terminal-snr"])
def test_what_only_training_can_do_is_no_drift_to_sample_under(wish: str) -> None:
    with pytest.raises(DriftError, match=f"'{wish}' is a way to fine-tune a model; .* give saved, none, a number"):
        choose(wish, means=None)
