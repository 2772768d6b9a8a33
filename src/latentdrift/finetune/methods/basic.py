"""Basic fine-tuning: the whole U-Net is trained, the autoencoder and the text encoder stay (paper, Table 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from latentdrift.drift import training_target
from latentdrift.errors import ConfigurationError
from latentdrift.finetune.method import Batch, FinetuneMethod, finetune_method

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class BasicConfig:
    """Settings of basic fine-tuning."""

    snr_gamma: float = 0.0
    """Min-SNR loss weighting (arXiv 2303.09556), 5 is usual; 0 weighs all timesteps alike, as Stable Diffusion does."""

    def __post_init__(self) -> None:
        if not 0 <= self.snr_gamma < float("inf"):
            raise ConfigurationError(f"snr_gamma is {self.snr_gamma}; it must be 0 or more.")


@finetune_method("basic")
class Basic(FinetuneMethod):
    """Train every weight of the U-Net."""

    config_class = BasicConfig
    config: BasicConfig

    def prepare(self, pipeline: DiffusionPipeline) -> torch.nn.Module:
        """Freeze everything but the U-Net, and return that."""
        pipeline.vae.requires_grad_(False)
        pipeline.text_encoder.requires_grad_(False)
        if getattr(pipeline, "text_encoder_2", None) is not None:
            pipeline.text_encoder_2.requires_grad_(False)
        pipeline.unet.requires_grad_(True)
        pipeline.unet.train()
        return pipeline.unet

    def loss(self, module: torch.nn.Module, scheduler: Any, batch: Batch) -> torch.Tensor:
        """Return the mean squared error of the network's prediction, weighted by `snr_gamma` if that is set."""
        noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        predicted = module(noisy, batch.timesteps, **batch.conditioning.unet_arguments()).sample.float()
        target = training_target(scheduler, batch.latents, batch.noise, batch.timesteps).float()
        if not self.config.snr_gamma:
            return F.mse_loss(predicted, target)
        from diffusers.training_utils import compute_snr

        snr = compute_snr(scheduler, batch.timesteps)
        # The paper weighs the error of x_0; errors of noise and velocity are 1 / snr and 1 / (snr + 1) of it.
        unit = {"epsilon": snr, "v_prediction": snr + 1, "sample": torch.ones_like(snr)}
        weight = snr.clamp(max=self.config.snr_gamma) / unit[scheduler.config.prediction_type]
        return (weight * (predicted - target).pow(2).flatten(1).mean(1)).mean()

    def finish(self, pipeline: DiffusionPipeline, module: torch.nn.Module) -> None:
        """Put the trained U-Net into the pipeline."""
        pipeline.unet = module
        module.eval()
