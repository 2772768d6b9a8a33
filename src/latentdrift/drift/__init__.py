"""Latent drift: a value and a rule, put on any diffusers scheduler.

pipe = LatentDrift(0.07).attach(pipe)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentdrift.drift.attachment import drift_of, plain, remove, sampling_under, shift_start, with_drift
    from latentdrift.drift.learned import LearnedDrift
    from latentdrift.drift.moments import LatentMoments
    from latentdrift.drift.scheduler import DriftedScheduler
    from latentdrift.drift.state import DriftWarning
    from latentdrift.drift.storage import DriftMismatchWarning, check_drift, load_drift, save_drift
    from latentdrift.drift.target import noise_and_latents, noisy_latents, training_noise, training_target
    from latentdrift.drift.value import LatentDrift

_HOME = {
    "LatentDrift": "value",
    "LatentMoments": "moments",
    "LearnedDrift": "learned",
    "DriftedScheduler": "scheduler",
    "DriftWarning": "state",
    "DriftMismatchWarning": "storage",
    "check_drift": "storage",
    "load_drift": "storage",
    "save_drift": "storage",
    "drift_of": "attachment",
    "plain": "attachment",
    "remove": "attachment",
    "sampling_under": "attachment",
    "shift_start": "attachment",
    "with_drift": "attachment",
    "noise_and_latents": "target",
    "noisy_latents": "target",
    "training_noise": "target",
    "training_target": "target",
}

__all__ = [
    "DriftMismatchWarning",
    "DriftWarning",
    "DriftedScheduler",
    "LatentDrift",
    "LatentMoments",
    "LearnedDrift",
    "check_drift",
    "drift_of",
    "load_drift",
    "noise_and_latents",
    "noisy_latents",
    "plain",
    "remove",
    "sampling_under",
    "save_drift",
    "shift_start",
    "training_noise",
    "training_target",
    "with_drift",
]


def __getattr__(name: str) -> Any:
    # torch is imported when a name is first used, not when the command line looks this package over.
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
