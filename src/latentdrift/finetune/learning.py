"""A drift that is learned beside the weights (paper, Section 3: "learned jointly with the model's parameters")."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from latentdrift.drift import LearnedDrift

if TYPE_CHECKING:
    from accelerate import Accelerator

    from latentdrift.finetune.batch import Batch


@dataclass(frozen=True)
class DriftLearner:
    """What the trainer needs to know of a learned drift.

    Args:
        drift: the parameter and its rule.
        gain: a_s / b_s of the sampler's first timestep s, for rule "start", where the denoising loss says nothing.
    """

    drift: LearnedDrift
    gain: float

    def loss(self, batch: Batch) -> torch.Tensor:
        """Return what is added to the denoising loss, a scalar: 0 for rules whose drift that loss sees itself."""
        own = len(batch.latents) - batch.prior
        # The prior's images are not of the domain that the drift leads to. The mean over all noise, in place of the
        # batch's, has the same gradient in expectation and a tenth of its error.
        return self.drift.start_loss(batch.latents[:own], None, self.gain)

    def share_gradients(self, accelerator: Accelerator, most: float) -> None:
        """Average the drift's gradient over the processes, and clip it to the norm `most`."""
        for parameter in self.drift.parameters():
            if parameter.grad is not None:
                parameter.grad = accelerator.reduce(parameter.grad, reduction="mean")
        torch.nn.utils.clip_grad_norm_(self.drift.parameters(), most)
