"""Basic fine-tuning: the whole U-Net is trained, the autoencoder and the text encoder stay (paper, Table 1)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from latentdrift.finetune.denoiser import Denoiser, freeze
from latentdrift.finetune.method import FinetuneMethod, check_snr_gamma, finetune_method

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class BasicConfig:
    """Settings of basic fine-tuning."""

    snr_gamma: float = 0.0
    """Min-SNR loss weighting (arXiv 2303.09556), 5 is usual; 0 weighs all timesteps alike, as Stable Diffusion does."""

    def __post_init__(self) -> None:
        check_snr_gamma(self.snr_gamma)


@finetune_method("basic")
class Basic(FinetuneMethod):
    """Train every weight of the U-Net."""

    config_class = BasicConfig
    config: BasicConfig

    def prepare(self, pipeline: DiffusionPipeline) -> Denoiser:
        """Freeze everything but the U-Net."""
        freeze(pipeline)
        pipeline.unet.requires_grad_(True)
        pipeline.unet.train()
        return Denoiser(pipeline)
