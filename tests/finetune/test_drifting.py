from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import LatentDrift, save_drift
from latentdrift.errors import DriftError
from latentdrift.finetune.drifting import choose_drift
from tests.conftest import build_scheduler

LATENTS = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(0)) + 0.5


def choose(wish: Any, rule: str = "start", **settings: Any) -> LatentDrift | None:
    settings = {"means": lambda: iter(LATENTS.split(4)), "scheduler": build_scheduler(), "steps": 25, **settings}
    return choose_drift(wish, rule=rule, **settings)


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
