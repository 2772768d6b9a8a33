"""From what the user asks for ("auto", "0.07", a file) to the drift of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.drift import LatentDrift, LatentMoments, load_drift
from latentdrift.errors import DriftError

if TYPE_CHECKING:
    import torch

AUTO_KINDS = {"auto": "map", "auto-map": "map", "auto-vector": "vector", "auto-scalar": "scalar"}
"""`auto` is the map: the first moment of every latent pixel, which measured best (see the results in the README)."""


def choose_drift(
    wish: str | float | LatentDrift | None,
    *,
    rule: str,
    means: Callable[[], Iterator[torch.Tensor]] | None,
    scheduler: Any,
    steps: int,
) -> LatentDrift | None:
    """Return the drift of a run.

    Args:
        wish: "none", "auto" (moment matching; also "auto-map", "auto-vector", "auto-scalar"), a number, numbers with
            commas (one a latent channel), a folder or file with a saved drift, or a LatentDrift.
        rule: where a drift given as a number or as "auto" acts.
        means: the cohort's scaled latents in batches (B, C, h, w), asked for only by "auto"; None where there is no
            cohort.
        scheduler: the undrifted scheduler.
        steps: sampling steps that an automatic drift of a rule that acts in training is resolved for.

    Raises:
        DriftError: not understood; the message lists what can be given.
    """
    if wish is None or isinstance(wish, LatentDrift):
        return wish
    text = str(wish).strip()
    if text == "none":
        return None
    if text in AUTO_KINDS:
        if means is None:
            raise DriftError(
                f"The drift {text!r} is estimated from a cohort when a model is fine-tuned; here the model's own is "
                "saved with it. Give saved, none, a number, or a model folder whose drift is to be used."
            )
        moments = LatentMoments.accumulate(means(), kind=AUTO_KINDS[text])
        if rule == "start":
            return LatentDrift(moments, rule="start")
        return moments.drift_for(scheduler, steps=steps, rule=rule)
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        drift = saved_drift(Path(text).expanduser())
        if drift is None:
            raise DriftError(
                f"The drift {text!r} is not understood. Give none, {', '.join(AUTO_KINDS)}, a number such as 0.07, one "
                "number a latent channel such as 0.01,0.06,-0.08,0.03, or a model folder whose drift is to be used."
            ) from None
        return drift
    return LatentDrift(numbers[0] if len(numbers) == 1 else numbers, rule=rule)


def saved_drift(path: Path) -> LatentDrift | None:
    """Return the drift of a model folder, of a run folder or of a latent_drift.json; None where there is none."""
    folders = (path, path / "model") if path.is_dir() else (path.parent,) if path.is_file() else ()
    return next((drift for folder in folders if (drift := load_drift(folder)) is not None), None)
