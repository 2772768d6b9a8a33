"""From what the user asks for ("auto", "0.07", "learned", a file) to the drift of a run, or what stands for it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.drift import LatentDrift, LatentMoments, LearnedDrift, load_drift
from latentdrift.errors import DriftError

if TYPE_CHECKING:
    import torch

AUTO_KINDS = {"auto": "map", "auto-map": "map", "auto-vector": "vector", "auto-scalar": "scalar"}
"""`auto` is the map: the first moment of every latent pixel, which measured best (see the results in the README)."""

LEARNED_KINDS = {"learned": "vector", "learned-vector": "vector", "learned-scalar": "scalar"}
"""`learned` is the vector: a scalar is useless where channels have means of opposite signs."""

OFFSET_NOISE, ZERO_SNR = "offset-noise", "zero-terminal-snr"
OFFSET_STRENGTH = 0.1
"""Strength of offset noise where none is given, as in the post that proposed it."""

TRAINING_ONLY = (*LEARNED_KINDS, OFFSET_NOISE, f"{OFFSET_NOISE}:0.05", ZERO_SNR)
"""What only fine-tuning can do, as a user would write it."""


@dataclass(frozen=True)
class NoiseChoice:
    """What is done about the noise of a run. At most one of the four is other than its default."""

    drift: LatentDrift | None = None
    """The drift, fixed or automatic."""
    learned: LearnedDrift | None = None
    """The drift as a parameter, to be trained beside the weights."""
    offset: float = 0.0
    """Strength of offset noise: standard deviation of a random shift of the training noise, an image and channel."""
    zero_snr: bool = False
    """Train and sample on a schedule rescaled to zero terminal SNR, predicting v."""


def choose_noise(
    wish: str | float | LatentDrift | None,
    *,
    rule: str,
    means: Callable[[], Iterator[torch.Tensor]],
    scheduler: Any,
    steps: int,
    channels: int,
) -> NoiseChoice:
    """Return what is done about the noise of a fine-tuning run.

    A drift under rule `forward` is learned by the likelihood of the start, because the denoising loss leads it away
    from the gap; see `LearnedDrift`.

    Args:
        wish: what `choose_drift` takes; "learned" (also "learned-vector", "learned-scalar"), a drift learned in
            training; "offset-noise" or "offset-noise:0.05", a random shift of the training noise's mean (Guttenberg
            2023); "zero-terminal-snr", a schedule that ends in pure noise (arXiv 2305.08891).
        rule: where a drift given as a number, as "auto" or as "learned" acts.
        means: the cohort's scaled latents in batches (B, C, h, w), asked for only by "auto".
        scheduler: the undrifted scheduler.
        steps: sampling steps that an automatic drift of a rule that acts in training is resolved for.
        channels: of the latents.

    Raises:
        DriftError: not understood, or a strength that cannot be; the message lists what can be given.
    """
    text = wish.strip() if isinstance(wish, str) else ""
    if text in LEARNED_KINDS:
        by = "start" if rule == "forward" else None
        return NoiseChoice(learned=LearnedDrift(LEARNED_KINDS[text], channels, rule, by=by))
    if text == ZERO_SNR:
        return NoiseChoice(zero_snr=True)
    name, _, strength = text.partition(":")
    if name == OFFSET_NOISE:
        return NoiseChoice(offset=offset_strength(strength) if ":" in text else OFFSET_STRENGTH)
    return NoiseChoice(drift=_drift(wish, rule, means, scheduler, steps, TRAINING_ONLY))


def choose_drift(
    wish: str | float | LatentDrift | None,
    *,
    rule: str,
    means: Callable[[], Iterator[torch.Tensor]] | None,
    scheduler: Any,
    steps: int,
) -> LatentDrift | None:
    """Return a drift to sample or to train under.

    Args:
        wish: "none", "auto" (moment matching; also "auto-map", "auto-vector", "auto-scalar"), a number, numbers with
            commas (one a latent channel), a folder or file with a saved drift, or a LatentDrift.
        rule: where a drift given as a number or as "auto" acts.
        means: the cohort's scaled latents in batches (B, C, h, w), asked for only by "auto"; None where there is no
            cohort.
        scheduler: the undrifted scheduler.
        steps: sampling steps that an automatic drift of a rule that acts in training is resolved for.

    Raises:
        DriftError: not understood, or of those that only `choose_noise` knows; the message lists what can be given.
    """
    text = str(wish).strip()
    if text in (*LEARNED_KINDS, ZERO_SNR) or text.partition(":")[0] == OFFSET_NOISE:
        raise DriftError(
            f"{text!r} is a way to fine-tune a model; what it left is saved with the model. Fine-tune with --drift "
            f"{text}, and to sample give saved, none, a number, or a model folder whose drift is to be used."
        )
    return _drift(wish, rule, means, scheduler, steps, ())


def _drift(
    wish: str | float | LatentDrift | None,
    rule: str,
    means: Callable[[], Iterator[torch.Tensor]] | None,
    scheduler: Any,
    steps: int,
    also: Sequence[str],
) -> LatentDrift | None:
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
            names = ", ".join(("none", *AUTO_KINDS, *also))
            raise DriftError(
                f"The drift {text!r} is not understood. Give {names}, a number such as 0.07, one number a latent "
                "channel such as 0.01,0.06,-0.08,0.03, or a model folder whose drift is to be used."
            ) from None
        return drift
    return LatentDrift(numbers[0] if len(numbers) == 1 else numbers, rule=rule)


def offset_strength(text: str) -> float:
    """Return the strength in "offset-noise:0.05".

    Raises:
        DriftError: no number, or one that is negative or not finite.
    """
    try:
        strength = float(text)
    except ValueError:
        strength = math.nan
    if not 0 <= strength < math.inf:
        raise DriftError(
            f"The strength of offset noise is {text!r}; give a number of at least 0, such as {OFFSET_NOISE}:0.05, or "
            f"{OFFSET_NOISE} for {OFFSET_STRENGTH}."
        )
    return strength


def saved_drift(path: Path) -> LatentDrift | None:
    """Return the drift of a model folder, of a run folder or of a latent_drift.json; None where there is none."""
    folders = (path, path / "model") if path.is_dir() else (path.parent,) if path.is_file() else ()
    return next((drift for folder in folders if (drift := load_drift(folder)) is not None), None)
