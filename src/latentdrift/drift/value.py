"""What a drift is: a value and a rule.

A latent is z_t = a_t z_0 + b_t eps: a the signal level, b the noise level. Signs and places of the four rules:

| rule    | training noise | start of sampling | reverse step                                   |
|---------|----------------|-------------------|------------------------------------------------|
| start   | eps            | + b_s delta       | as it is                                       |
| forward | eps - delta    | as it is          | as it is                                       |
| paper   | eps + delta    | + b_s delta       | + delta each, or delta / N (Eq. 4 of the paper) |
| matched | eps + delta    | + b_s delta       | in undrifted coordinates: changes nothing      |
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from latentdrift.drift.encoding import MapOrNumbers, canonical, decode, encode, kind_of, shaped
from latentdrift.drift.moments import LatentMoments
from latentdrift.errors import DriftError, UnknownNameError

S = TypeVar("S")
P = TypeVar("P")
FORMAT = 1


@dataclass(frozen=True)
class Rule:
    """Where a drift acts: signs of the training noise's and the start's shift, and the default network target."""

    forward: int
    start: int
    target: str


RULES: Mapping[str, Rule] = {
    "start": Rule(0, 1, "drifted"),
    "forward": Rule(-1, 0, "drifted"),
    "paper": Rule(1, 1, "plain"),
    "matched": Rule(1, 1, "plain"),
}


@dataclass(frozen=True, eq=False)
class LatentDrift:
    """A shift of the latent's mean, for any diffusers scheduler (Latent Drifting, CVPR 2025, arXiv 2412.20651).

    In every rule a positive value means the same effective drift: sampling starts at a higher mean than training ended.

    Args:
        value: delta, in units of the noise's standard deviation: one number, C numbers (one a latent channel), a map
            (C, h, w) as array or tensor, or `LatentMoments`. Moments make the drift automatic: delta is
            a_s E[z_0] / b_s, computed anew for the sampler's own first timestep s at each `set_timesteps`.
        rule: `start` works on any model. `forward` is made in fine-tuning, and any unmodified deterministic sampler
            then draws the right mean. `paper` is the paper's Eq. 4 to the letter. `matched` is the control, a change of
            variables that changes nothing.
        target: what the network predicts: the noise really added, eps + delta_f ("drifted"), or eps ("plain"). By
            default "drifted" for `start` (where the two are the same) and `forward`, "plain" for `paper` and `matched`.
        per_step: only for `paper`: "literal" adds delta to each reverse step, "shared" delta / N. A reverse step is one
            move to a lower noise level, however many network evaluations the sampler needs for it.

    `start` adds b_s delta to the first latent, in the scheduler's own coordinates. This is the paper's z_T + delta but
    for the factor b_s (0.997 at t = 981 in Stable Diffusion's schedule); it makes the automatic value exact for every
    family of schedulers, whatever `init_noise_sigma` is.

    `forward`, and `matched` with target "drifted", hold for deterministic samplers: a stochastic one (DDPM, ancestral,
    SDE, LCM) adds fresh noise without delta at every step, which such a network was not trained on.

    Raises:
        DriftError: a value that is NaN, infinite, empty or of no usable shape, or a setting that does not fit the rule.
        UnknownNameError: an unknown rule, target or `per_step`, with the closest names.
    """

    value: float | Sequence[float] | torch.Tensor | LatentMoments
    rule: str = "start"
    target: str | None = None
    per_step: str = "literal"

    def __post_init__(self) -> None:
        for kind, name, known in (
            ("drift rule", self.rule, tuple(RULES)),
            ("drift target", self.target, (None, "plain", "drifted")),
            ("per_step of a drift", self.per_step, ("literal", "shared")),
        ):
            if name not in known:
                raise UnknownNameError(kind, str(name), [option for option in known if option])
        if self.per_step != "literal" and self.rule != "paper":
            raise DriftError(f"per_step={self.per_step!r} belongs to rule 'paper'; {self.rule!r} has no such choice.")
        object.__setattr__(self, "target", self.target or RULES[self.rule].target)
        if not isinstance(self.value, LatentMoments):
            object.__setattr__(self, "value", canonical(self.value, "drift"))

    @classmethod
    def auto(
        cls,
        latents: torch.Tensor | LatentMoments,
        kind: str = "map",
        rule: str = "start",
        target: str | None = None,
    ) -> LatentDrift:
        """Return the drift that matches the first moment of `latents` (N, C, h, w), scaled as the U-Net sees them.

        Args:
            latents: encoded images of the target domain, or their `LatentMoments` (then `kind` is theirs).
            kind: "scalar", "vector" (one a channel) or "map" (one a latent pixel).
            rule: for `forward`, `paper` and `matched` use `LatentMoments.drift_for`, which fixes the value, to train.
            target: as in the constructor.
        """
        moments = latents if isinstance(latents, LatentMoments) else LatentMoments.from_latents(latents, kind)
        return cls(moments, rule, target)

    @property
    def automatic(self) -> bool:
        """Whether the value comes from moments, so that it depends on the sampler's first timestep."""
        return isinstance(self.value, LatentMoments)

    @property
    def kind(self) -> str:
        """The value's kind: "scalar", "vector" or "map"."""
        return kind_of(self.numbers)

    @property
    def numbers(self) -> MapOrNumbers:
        """The numbers behind the value: delta itself, or E[z_0] for an automatic drift."""
        return self.value.mean if isinstance(self.value, LatentMoments) else self.value  # type: ignore[return-value]

    @property
    def is_zero(self) -> bool:
        """Whether the drift changes nothing at all. A value that is being learned never counts as zero."""
        numbers = self.numbers
        if isinstance(numbers, torch.Tensor):
            return not numbers.requires_grad and not bool(numbers.any())
        return not any(numbers) if isinstance(numbers, tuple) else numbers == 0

    @property
    def forward_sign(self) -> int:
        """delta_f / delta: what is added to the training noise."""
        return RULES[self.rule].forward

    @property
    def start_sign(self) -> int:
        """delta_s / delta: what is added at the start of sampling."""
        return RULES[self.rule].start

    @property
    def changes_coordinates(self) -> bool:
        """Whether steps are taken in undrifted coordinates: the network predicts plain noise of drifted latents."""
        return self.rule in ("matched", "forward") and self.target == "plain"

    def delta(self, like: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        """Return delta shaped to be added to `like` (B, C, ...), in its dtype and on its device.

        Args:
            like: latents; a wrong number of channels or another size is an error that says which was expected.
            gain: a_s / b_s of the sampler's first timestep; only an automatic drift uses it.
        """
        return shaped(self.numbers, like, gain if self.automatic else 1.0)

    def resolve(self, scheduler: Any) -> torch.Tensor:
        """Return delta, as () or (C,) or (C, h, w) float32, for the first timestep that `scheduler` was set to.

        Raises:
            DriftError: the drift is automatic and the scheduler's `set_timesteps` was not called yet.
        """
        from latentdrift.drift.scheduler import start_gain

        delta = torch.as_tensor(self.numbers, dtype=torch.float32)
        return delta * start_gain(scheduler) if self.automatic else delta.clone()

    def apply(self, scheduler: S) -> S:
        """Return a drifted copy of a diffusers scheduler, a `DriftedScheduler`; the original stays as it is.

        A drift that the scheduler had already is replaced. Signature, configuration, outputs, compatibles, saving,
        copying and pickling are those of the undrifted class.
        """
        from latentdrift.drift.scheduler import drifted_copy

        return drifted_copy(scheduler, self)

    def attach(self, pipeline: P) -> P:
        """Replace the scheduler of a diffusers pipeline (and its `inverse_scheduler`) by drifted ones; return it.

        The pipeline's `prepare_latents` is wrapped where the scheduler has no `scale_model_input` (flow matching).
        """
        from latentdrift.drift.attachment import attach

        return attach(pipeline, self)

    def to_dict(self) -> dict[str, Any]:
        """Return the drift as JSON-able values; `from_dict` reads it back, equal."""
        return {
            "format": FORMAT,
            "rule": self.rule,
            "target": self.target,
            "per_step": self.per_step,
            "value": self.value.to_dict() if isinstance(self.value, LatentMoments) else encode(self.numbers),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> LatentDrift:
        """Return the drift that `to_dict` wrote.

        Raises:
            DriftError: `data` is not a drift, or one of a newer format.
        """
        try:
            if int(data["format"]) > FORMAT:
                raise DriftError(f"The drift has format {data['format']}, not {FORMAT}: update latentdrift to read it.")
            value = data["value"]
            decoded = LatentMoments.from_dict(value) if value["kind"] == "moments" else decode(value)
            return cls(decoded, data["rule"], data["target"], data["per_step"])
        except (KeyError, TypeError, AttributeError) as error:
            raise DriftError(f"This is not a saved drift ({error!r}): {str(data)[:200]}") from error

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LatentDrift) and self.to_dict() == other.to_dict()

    def __hash__(self) -> int:
        return hash(json.dumps(self.to_dict(), sort_keys=True))

    def __str__(self) -> str:
        numbers, kind = self.numbers, self.kind
        if isinstance(numbers, torch.Tensor) and numbers.ndim < 3:
            text = ", ".join(f"{number:+.4g}" for number in numbers.detach().reshape(-1).tolist())
        elif isinstance(numbers, torch.Tensor):
            text = f"map {tuple(numbers.shape)} of mean {numbers.mean().item():+.4f}"
        else:
            text = ", ".join(f"{number:+.4g}" for number in (numbers if isinstance(numbers, tuple) else (numbers,)))
        if isinstance(self.value, LatentMoments):
            text = f"automatic {kind} from {self.value.count} latents"
        steps = f", per_step {self.per_step!r}" if self.rule == "paper" else ""
        return f"drift {text} (rule {self.rule!r}, target {self.target!r}{steps})"
