from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.data import Cohort
from latentdrift.finetune import TrainingConfig, finetune_model

OWN = ("base", "template", "stage", "method", "method_config", "rule")
"""What is told to `finetune_model` itself, not to `TrainingConfig`."""

Train = Callable[..., Path]
QUICK = {
    "batch_size": 4,
    "warmup_steps": 1,
    "sample_steps": 1,
    "validate_every": 0,
    "validation_images": 4,
    "checkpoint_every": 1000,
    "ema_decay": 0.0,
    "learning_rate": 2e-3,
}


@pytest.fixture(scope="session")
def latents(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of cached latents that all tests share."""
    return tmp_path_factory.mktemp("latents")


@pytest.fixture
def train(toy_model: Path, toy_cohort: Path, latents: Path, tmp_path: Path) -> Train:
    """Fine-tune the toy for a few steps; return the run folder `name`."""

    def run(name: str = "run", *, drift: Any = "none", cohort: Cohort | None = None, **settings: Any) -> Path:
        own = {key: settings.pop(key) for key in OWN if key in settings}
        config = TrainingConfig(**{"steps": 4, **QUICK, **settings})
        given = {"base": toy_model, "template": "a slice, {stage}", "cache": latents, **own}
        finetune_model(cohort or Cohort.open(toy_cohort), tmp_path / name, drift=drift, config=config, **given)
        return tmp_path / name

    return run


def weights(run: Path, part: str = "unet") -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(next((run / part).glob("*.safetensors")))


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
