"""A model by name and a drift by wish → a pipeline, and what there is to warn about."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """What every command that runs a model takes."""

    model: str = "tiny-brain"
    """Embedded name, run folder, diffusers folder or hub id."""
    drift: str = "saved"
    """saved: the drift the model was trained with; none; a number; one number a channel with commas; a model folder."""
    batch_size: int = 16
    """Images at once."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def open_model(name: str, device: str | None, drift: str) -> tuple[DiffusionPipeline, list[str]]:
    """Return the pipeline under the wanted drift, and warnings such as a drift the model was not trained with.

    Raises:
        ModelError: the model is not to be had.
        DriftError: the drift is not understood.
    """
    from latentdrift.drift import DriftMismatchWarning
    from latentdrift.finetune.drifting import choose_drift
    from latentdrift.models import load_pipeline

    chosen = "saved" if drift == "saved" else choose_drift(drift, rule="start", means=None, scheduler=None, steps=0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DriftMismatchWarning)
        pipeline = load_pipeline(name, device=device, drift=chosen)
    return pipeline, [str(w.message) for w in caught if issubclass(w.category, DriftMismatchWarning)]
