"""A drift's value as a parameter, learned while a model is fine-tuned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from latentdrift.drift.encoding import MapOrNumbers
from latentdrift.drift.value import RULES, LatentDrift
from latentdrift.errors import DriftError, UnknownNameError

KINDS = ("scalar", "vector")
LOSSES = ("start", "denoising")


class LearnedDrift(torch.nn.Module):
    """One parameter `value`, () or (C,), the rule under which it acts, and the loss it is learned by.

    By "start" it follows `start_loss`, the likelihood of the sampler's start, whose minimum is the automatic value.
    That is for the rules `start` and `forward`; `paper` and `matched` shift the start as much as the training noise, so
    that their value is not in it. By "denoising" it follows the network's own loss, through the scheduler that
    `drift.apply(scheduler)` gives. That is for the rules that drift the training noise; `start` does not.

    The denoising loss does not look for the gap at the start. With data N(m, s^2 I), a frozen network that is exact for
    N(m_0, s^2 I) and predicts the noise, and V = a^2 s^2 + b^2, it is a parabola in delta. Its curvature, the pull, is
    E_t[(b^2 / V)^2] for `paper` and `matched` (target "plain") and E_t[(a^2 s^2 / V)^2] for `forward` ("drifted"): 0.64
    and 0.15 on Stable Diffusion's schedule with s = 0.6. The pull is towards 0 in both, but only where m = m_0. Else
    the minimum lies at -0.49 (m - m_0) and -1.12 (m - m_0), where noisy latents come nearest to those the network
    knows: of the opposite sign to the gap, which asks for +0.086 m at 25 steps. A network that is trained along levels
    the parabola, for its best loss is the same under every delta; where delta then stops depends on the learning rates:
    with one exact offset a timestep to train, under `paper` at -0.03, -0.19 or -0.42 (m - m_0) for a rate of delta's
    that is 0.1, 1 or 10 times the network's. So learn `forward` by "start", and read a value learned under `paper` or
    `matched` as one more weight of the network, not as a gap.

    Args:
        kind: "scalar", or "vector" for one number a latent channel.
        channels: C of the latents.
        rule: where the drift acts.
        init: where learning begins: one number, or C numbers for a vector.
        by: "start" or "denoising"; by default "start" for rule `start`, "denoising" for the others.

    Raises:
        UnknownNameError: another kind, rule or loss.
        DriftError: a loss that does not depend on the rule's value, no channels, or an `init` that is NaN, infinite or
            of another length.
    """

    def __init__(
        self,
        kind: str,
        channels: int,
        rule: str = "start",
        init: float | Sequence[float] = 0.0,
        by: str | None = None,
    ) -> None:
        super().__init__()
        for what, name, known in (
            ("kind of learned drift", kind, KINDS),
            ("drift rule", rule, tuple(RULES)),
            ("loss of a learned drift", by or LOSSES[0], LOSSES),
        ):
            if name not in known:
                raise UnknownNameError(what, str(name), known)
        if channels < 1:
            raise DriftError(f"A learned drift needs the number of latent channels, at least 1, not {channels}.")
        by = by or ("start" if RULES[rule].forward == 0 else "denoising")
        if by == "start" and RULES[rule].start == RULES[rule].forward:
            raise DriftError(
                f"Under rule {rule!r} sampling starts where training ended, whatever delta is: it cannot be learned by "
                "'start'. Give by='denoising', or rule start or forward."
            )
        if by == "denoising" and RULES[rule].forward == 0:
            raise DriftError(f"Rule {rule!r} leaves the training noise as it is: learn it by 'start', not 'denoising'.")
        shape = (channels,) if kind == "vector" else ()
        given = torch.as_tensor(init, dtype=torch.float32)
        if given.ndim and given.shape != shape:
            raise DriftError(f"A learned {kind} of {channels} channels cannot begin at {init}: give one number.")
        self.kind, self.rule, self.by = kind, rule, by
        self.value = torch.nn.Parameter(given.expand(shape).clone())
        self.frozen()  # names an init that is NaN or infinite

    @property
    def drift(self) -> LatentDrift:
        """The drift that holds the parameter itself: updates act at once, also in schedulers it was applied to.

        Gradients reach the parameter through it where it is learned by "denoising". What a scheduler's configuration
        holds is the value at the time it was applied: attach `frozen()` before a pipeline is saved.

        Raises:
            DriftError: the value is no longer finite.
        """
        return (_Live if self.by == "denoising" else _Detached)(self.value, self.rule)

    def start_loss(self, latents: torch.Tensor, noise: torch.Tensor | None, gain: float) -> torch.Tensor:
        """Return the negative log-likelihood of the sampler's start, a scalar; 0 where it is learned by "denoising".

        Under N(b_s delta, b_s^2 I), where sampling starts (or, for `forward`, with as much less in training), the
        forward process's z_s = a_s z_0 + b_s eps has -log p = |a_s / b_s z_0 + eps - delta|^2 / 2 + const.

        It is the mean over images, pixels and the channels that share a number, and the sum over numbers. So its
        curvature in each number is 1 for latents of any size and number of channels, and a learning rate means the same
        for all: gradient descent with rate r comes nearer to the minimum a_s E[z_0] / b_s by the factor 1 - r a step.

        Args:
            latents: clean latents (B, C, h, w) of the target domain, scaled as the U-Net sees them.
            noise: eps ~ N(0, I), (B, C, h, w). None for the mean over all eps, less the constant 1 / 2 a number: the
                same gradient in expectation, without the noise's variance of 1 / (B h w).
            gain: a_s / b_s of the sampler's first timestep s.

        Raises:
            DriftError: latents with another number of channels, or a value that is no longer finite.
        """
        if self.by == "denoising":
            return 0.0 * self.value.sum()
        mean = latents.float() * gain
        residual = (mean if noise is None else mean + noise.float()) - _Live(self.value, self.rule).delta(mean)
        return 0.5 * residual.pow(2).mean() * self.value.numel()

    def values(self) -> list[float]:
        """Return delta as one number or C numbers, for logs."""
        return self.value.detach().reshape(-1).tolist()

    def frozen(self) -> LatentDrift:
        """Return the drift with plain numbers, to save. Errors as `drift`."""
        return LatentDrift(self.value.detach().clone(), self.rule)

    def extra_repr(self) -> str:
        """Return what torch shows of the module."""
        return f"{self.kind}, rule {self.rule!r}, by {self.by!r}, {self.values()}"


class _Live(LatentDrift):
    """Holds a parameter. A scheduler caches a delta that needs no gradient; this one always needs it."""

    def delta(self, like: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
        # Else a validation without gradients would leave its delta in the cache, and training would stay at that.
        with torch.enable_grad():
            return super().delta(like, gain)


class _Detached(_Live):
    """Follows a parameter; the gradient that reaches it is zero, not absent, for the reason above."""

    @property
    def numbers(self) -> MapOrNumbers:
        value: Any = self.value
        with torch.enable_grad():
            return value.detach() + 0.0 * value
