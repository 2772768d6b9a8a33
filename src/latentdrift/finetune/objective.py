"""The denoising loss that all methods share; what differs is what moves, and what stands beside the latents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from latentdrift.drift import training_target

if TYPE_CHECKING:
    from latentdrift.finetune.batch import Batch


def denoising_loss(
    module: torch.nn.Module, scheduler: Any, batch: Batch, *, snr_gamma: float = 0.0, prior_weight: float = 1.0
) -> torch.Tensor:
    """Return the mean squared error of the network's prediction, a scalar.

    Args:
        module: a `Denoiser`.
        scheduler: adds the noise, drifted or not, and says what is predicted.
        batch: latents and all that belongs to them.
        snr_gamma: min-SNR weighting (arXiv 2303.09556); 0 weighs all timesteps alike. Not for the prior's rows.
        prior_weight: weight of the mean over the prior's rows (DreamBooth, arXiv 2208.12242, Eq. 2), which is added to
            the mean over the others.
    """
    noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
    if batch.source is not None:
        # InstructPix2Pix (arXiv 2211.09800): the image to be edited stands beside the noisy one, as channels.
        noisy = torch.cat([noisy, batch.source], 1)
    predicted = module(noisy, batch.timesteps, batch.conditioning).float()
    target = training_target(scheduler, batch.latents, batch.noise, batch.timesteps).float()
    errors = (predicted - target).pow(2).flatten(1).mean(1)
    own = len(errors) - batch.prior
    weighted = errors[:own]
    if snr_gamma:
        weighted = weighted * snr_weights(scheduler, batch.timesteps[:own], snr_gamma)
    loss = weighted.mean()
    return loss + prior_weight * errors[own:].mean() if batch.prior else loss


def snr_weights(scheduler: Any, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return min(SNR, gamma) in the units of the scheduler's target, (B,)."""
    from diffusers.training_utils import compute_snr

    snr = compute_snr(scheduler, timesteps)
    # The paper weighs the error of x_0; errors of noise and velocity are 1 / snr and 1 / (snr + 1) of it.
    unit = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
    return snr.clamp(max=gamma) / unit[scheduler.config.prediction_type]
