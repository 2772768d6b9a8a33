"""DreamBooth (arXiv 2208.12242): the U-Net, and if asked for the text encoder, with prior preservation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentdrift.finetune.batch import Batch
from latentdrift.finetune.denoiser import Denoiser, freeze
from latentdrift.finetune.method import FinetuneMethod, check_snr_gamma, finetune_method
from latentdrift.finetune.objective import denoising_loss
from latentdrift.finetune.prior import PriorConfig, class_prompt, with_prior

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.data import Cohort
    from latentdrift.finetune.sets import SetMaker, TrainingSet


@dataclass(frozen=True)
class DreamBoothConfig(PriorConfig):
    """Settings of DreamBooth. A rare word that is to stand for the domain goes into the template."""

    train_text_encoder: bool = False
    """Train the text encoder too."""
    snr_gamma: float = 0.0
    """Min-SNR loss weighting (arXiv 2303.09556) of the images in training; 0 weighs all timesteps alike."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_snr_gamma(self.snr_gamma)


@finetune_method("dreambooth")
class DreamBooth(FinetuneMethod):
    """Train every weight of the U-Net while it goes on making the class's images as before."""

    config_class = DreamBoothConfig
    config: DreamBoothConfig

    def prepare(self, pipeline: DiffusionPipeline) -> Denoiser:
        """Freeze everything but the U-Net, and the text encoders where they are trained."""
        freeze(pipeline)
        module = Denoiser(pipeline, text=self.config.train_text_encoder)
        module.requires_grad_(True)
        module.train()
        return module

    def training_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet:
        """Return the cohort's images with the class's beside them."""
        tokens = self.config.train_text_encoder
        own = make.images(cohort, tokens=tokens)
        return with_prior(own, self.config, make, tokens=tokens, fallback=class_prompt(make.prompts))

    def validation_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet | None:
        """Return another part's images, without the class's."""
        return make.images(cohort, tokens=self.config.train_text_encoder)

    def loss(self, module: torch.nn.Module, scheduler: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss of the images plus `prior_weight` times that of the class's."""
        return denoising_loss(
            module, scheduler, batch, snr_gamma=self.config.snr_gamma, prior_weight=self.config.prior_weight
        )
