"""Putting a drift on a pipeline or a scheduler, finding it there, and taking it off."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from latentdrift.drift.scheduler import CONFIG_KEY, STATE, _rebuild_plain
from latentdrift.drift.value import LatentDrift
from latentdrift.errors import DriftError

T = TypeVar("T")
_PLACES = ("scheduler", "inverse_scheduler")


def attach(pipeline: T, drift: LatentDrift) -> T:
    """Replace the pipeline's schedulers by drifted ones and return it. See `LatentDrift.attach`.

    Raises:
        DriftError: the object has no scheduler.
    """
    _replace(pipeline, lambda scheduler: drift.apply(scheduler))
    return pipeline


def plain(scheduler: Any) -> Any:
    """Return the undrifted scheduler: the same object if it has no drift, else a copy in its present state.

    The drift is taken out of the configuration as well.
    """
    if STATE not in scheduler.__dict__ and CONFIG_KEY not in scheduler.config:
        return scheduler
    attributes = copy.deepcopy({name: value for name, value in scheduler.__dict__.items() if name != STATE})
    return _rebuild_plain(getattr(scheduler, "_plain_class", type(scheduler)), attributes)


def remove(target: T) -> T:
    """Take the drift off: of a pipeline, which is changed and returned, or of a scheduler, as `plain` does."""
    if not hasattr(target, "scheduler"):
        return plain(target)
    _replace(target, plain)
    return target


def drift_of(target: Any) -> LatentDrift | None:
    """Return the drift that acts in a scheduler or a pipeline, or None.

    A drift that merely stands in the configuration of an undrifted scheduler does not act; see `with_drift`.
    """
    state = getattr(target, "scheduler", target).__dict__.get(STATE)
    return state.drift if state else None


def with_drift(target: T) -> T:
    """Apply the drift found in the configuration, if there is one and it does not act yet.

    Takes a scheduler or a pipeline loaded by vanilla diffusers, or made by `SomeScheduler.from_config(other.config)`:
    both keep the drift in their configuration, but cannot apply it.
    """
    if hasattr(target, "scheduler"):
        _replace(target, with_drift)
        return target
    config: Any = getattr(target, "config", {})
    saved = config.get(CONFIG_KEY)
    return target if saved is None or drift_of(target) else LatentDrift.from_dict(saved).apply(target)


@contextmanager
def sampling_under(pipeline: Any, drift: LatentDrift | None) -> Iterator[None]:
    """Put a drift in place of the pipeline's own within the block; None takes it off."""
    own = pipeline.scheduler
    bare = plain(own)
    pipeline.scheduler = bare if drift is None else drift.apply(bare)
    try:
        yield
    finally:
        pipeline.scheduler = own


def shift_start(scheduler: Any, latents: torch.Tensor) -> torch.Tensor:
    """Return initial latents with the start's shift of a drifted scheduler; unchanged for an undrifted one."""
    return scheduler.shift_start(latents) if drift_of(scheduler) else latents


def _replace(pipeline: Any, change: Any) -> None:
    if getattr(pipeline, "scheduler", None) is None:
        raise DriftError(f"{type(pipeline).__name__} has no scheduler to put a drift on.")
    for place in _PLACES:
        scheduler = getattr(pipeline, place, None)
        if scheduler is not None:
            setattr(pipeline, place, change(scheduler))
    if not hasattr(pipeline.scheduler, "scale_model_input") and hasattr(pipeline, "prepare_latents"):
        _wrap_prepare_latents(pipeline)


def _wrap_prepare_latents(pipeline: Any) -> None:
    """Shift the initial latents where they are made: without `scale_model_input` the network sees them as they are."""
    original = pipeline.prepare_latents
    if getattr(original, "shifts_start", False):
        return

    @functools.wraps(original)
    def prepare_latents(*args: Any, **kwargs: Any) -> Any:
        scheduler = pipeline.scheduler
        state = scheduler.__dict__.get(STATE)
        if state is None:
            return original(*args, **kwargs)
        state.noised = False
        prepared = original(*args, **kwargs)
        if state.noised:  # image-to-image: the scheduler has drifted the noise it added
            return prepared
        if isinstance(prepared, tuple):
            return (scheduler.shift_start(prepared[0]), *prepared[1:])
        return scheduler.shift_start(prepared)

    prepare_latents.shifts_start = True  # type: ignore[attr-defined]
    pipeline.prepare_latents = prepare_latents
