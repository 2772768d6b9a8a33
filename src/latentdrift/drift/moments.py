"""The first moment of a domain's latents, from which the drift's value follows without any search."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.drift.encoding import MapOrNumbers, canonical, decode, encode, kind_of
from latentdrift.errors import DriftError, UnknownNameError

if TYPE_CHECKING:
    from latentdrift.drift.value import LatentDrift

KINDS = ("scalar", "vector", "map")


@dataclass(frozen=True, eq=False)
class LatentMoments:
    """E[z_0] of a cohort, in the units the denoising network sees (after the autoencoder's scaling factor).

    Sampling starts at mean 0 where training ended at a_s E[z_0] (a_s, b_s: signal and noise level of the sampler's
    first timestep s). In units of the noise the gap is delta = a_s E[z_0] / b_s: the automatic drift.

    Args:
        mean: one number, C numbers, or a map (C, h, w). A scalar is useless where channels have opposite signs.
        count: how many latents it was estimated from.
    """

    mean: MapOrNumbers
    count: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "mean", canonical(self.mean, "mean latent's"))
        if self.count < 1:
            raise DriftError(f"Moments need at least one latent, not {self.count}.")

    @property
    def kind(self) -> str:
        """The mean's kind: "scalar", "vector" or "map"."""
        return kind_of(self.mean)

    @classmethod
    def from_latents(cls, latents: torch.Tensor, kind: str = "map") -> LatentMoments:
        """Return the mean of latents (N, C, h, w): over everything, over all but channels, or over the N only.

        Raises:
            UnknownNameError: another `kind` than scalar, vector, map.
            DriftError: not four dimensions, no latents, NaN.
        """
        return cls.accumulate([latents], kind)

    @classmethod
    def accumulate(cls, batches: Iterable[torch.Tensor], kind: str = "map") -> LatentMoments:
        """Return the mean over batches (B, C, h, w) that need not fit in memory together. Errors as `from_latents`."""
        if kind not in KINDS:
            raise UnknownNameError("kind of latent moments", kind, KINDS)
        total: torch.Tensor | None = None
        count = 0
        for batch in batches:
            if batch.ndim != 4:
                raise DriftError(f"Latents must be (N, C, h, w), not {tuple(batch.shape)}.")
            # Float64: the mean of many thousand float32 latents would otherwise lose digits.
            part = batch.detach().to("cpu", torch.float64).sum(0)
            if total is not None and total.shape != part.shape:
                raise DriftError(f"Latents of different shapes: {tuple(total.shape)} and {tuple(part.shape)}.")
            total = part if total is None else total + part
            count += len(batch)
        if total is None or count == 0:
            raise DriftError("There are no latents to take the mean of.")
        mean = total / count
        return cls(mean if kind == "map" else mean.mean((1, 2)) if kind == "vector" else mean.mean(), count)

    def drift_for(
        self,
        scheduler: Any,
        steps: int = 25,
        rule: str = "forward",
        target: str | None = None,
        spacing: str | None = None,
        per_step: str = "literal",
    ) -> LatentDrift:
        """Return a drift of fixed value: the automatic one for `steps` steps of this scheduler.

        Training adds noise at all timesteps, so the rules that drift it (`forward`, `paper`, `matched`) need one
        constant; which one depends on where sampling will start, and that on the number of steps and on the spacing
        (t = 981 with 50 "leading" steps, 901 with 10, 999 with "trailing"). A model trained for 25 steps and sampled
        with 50 keeps a part of the gap, the difference of the two a_s / b_s.

        Args:
            scheduler: the scheduler that will sample; it is copied, not changed.
            steps: the number of sampling steps that the drift is made for.
            rule: as in `LatentDrift`.
            target: as in `LatentDrift`.
            spacing: another `timestep_spacing` ("leading", "trailing", "linspace") than the scheduler's own.
            per_step: as in `LatentDrift`.
        """
        from latentdrift.drift.attachment import plain
        from latentdrift.drift.value import LatentDrift

        sampler = copy.deepcopy(plain(scheduler))
        if spacing is not None:
            if "timestep_spacing" not in sampler.config:
                raise DriftError(f"{type(sampler).__name__} has no timestep spacing to set to {spacing!r}.")
            sampler = type(sampler).from_config(sampler.config, timestep_spacing=spacing)
        sampler.set_timesteps(steps)
        return LatentDrift(LatentDrift(self).resolve(sampler), rule, target, per_step)

    def to_dict(self) -> dict[str, Any]:
        """Return the moments as JSON-able values."""
        return {"kind": "moments", "count": self.count, "mean": encode(self.mean)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatentMoments:
        """Return the moments that `to_dict` wrote."""
        return cls(decode(data["mean"]), int(data["count"]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LatentMoments) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(str(self.to_dict()))
