"""What a fine-tuning method is: which weights move, on which batches, and how they are saved.

Adding one is one file in `methods`: a frozen config dataclass and a class under `@finetune_method("name")`. Only
`prepare` must be written; everything else has the meaning of basic fine-tuning until it is overridden.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.data import check_caption_length
from latentdrift.errors import ConfigurationError
from latentdrift.finetune.batch import Batch
from latentdrift.finetune.contrast import low_contrast
from latentdrift.finetune.objective import denoising_loss
from latentdrift.finetune.samples import sample_captions, write_samples
from latentdrift.models.text import expanded
from latentdrift.registry import Registry

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.data import Cohort, PromptTemplate
    from latentdrift.finetune.config import TrainingConfig
    from latentdrift.finetune.denoiser import Denoiser
    from latentdrift.finetune.sets import SetMaker, TrainingSet

__all__ = ["Batch", "FinetuneMethod", "finetune_method"]


class FinetuneMethod(ABC):
    """Base of all methods. It never mentions the drift: the scheduler it is given is drifted, or not.

    A run calls, in this order: `settle`, `wording`, `adapt`, `check_captions`, `training_set`, `prepare`,
    `validation_set`, `loss` at every step, `write_adapter`, `finish`.
    """

    config_class: type[Any]
    learning_rate = 2e-4
    """Where the user gives none. It suits the embedded `tiny`; a large model wants about a twentieth."""
    drop_captions = 0.1
    """Part of the captions left empty where the user says nothing."""
    has_adapter = False
    """Whether what is trained can be saved apart from its base."""
    every_attribute = False
    """Whether it uses attributes that the captions do not name, such as ages and the file before an edit."""
    learns_words = False
    """Whether it learns what captions' words mean, so that it does not matter what the base makes of them."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        """Return the training's settings with the method's own values where the user gave none.

        Raises:
            ConfigurationError: the method cannot be saved as asked.
        """
        if config.save == "adapter" and not self.has_adapter:
            raise ConfigurationError(
                "--save adapter is for methods that train something beside the base; this one changes the U-Net "
                "itself. Use --save pipeline."
            )
        rate = self.learning_rate if config.learning_rate is None else config.learning_rate
        drop = self.drop_captions if config.drop_captions is None else config.drop_captions
        return dataclasses.replace(config, learning_rate=rate, drop_captions=drop)

    def wording(self, prompts: PromptTemplate, cohort: Cohort) -> PromptTemplate:
        """Return the captions' template as this method writes it."""
        return prompts

    def adapt(self, pipeline: DiffusionPipeline) -> DiffusionPipeline:
        """Return the pipeline with what captions or batches need: new tokens, input channels."""
        channels, wanted = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
        if channels != wanted:
            raise ConfigurationError(
                f"The base's U-Net takes {channels} channels, not the {wanted} of a latent: it edits images by "
                "instruction. Fine-tune it with --method instruct_pix2pix, or give another --base."
            )
        return pipeline

    def check_captions(self, pipeline: DiffusionPipeline, cohort: Cohort, prompts: PromptTemplate) -> str | None:
        """Return what to warn of before training: classes that the text encoder hardly tells apart.

        Raises:
            DataError: a caption that is too long.
        """
        check_caption_length(expanded(pipeline, prompts.captions(cohort)), pipeline.tokenizer)
        return None if self.learns_words else low_contrast(pipeline, cohort, prompts)

    @abstractmethod
    def prepare(self, pipeline: DiffusionPipeline) -> Denoiser:
        """Freeze what stays, and return the module that is trained; its trained parameters require gradients."""

    def training_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet:
        """Return what a part of the cohort gives to train on."""
        return make.images(cohort)

    def validation_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet | None:
        """Return what another part gives to validate with; None where it gives nothing."""
        return self.training_set(cohort, make)

    def loss(self, module: torch.nn.Module, scheduler: Any, batch: Batch) -> torch.Tensor:
        """Return the loss of a batch, a scalar."""
        return denoising_loss(module, scheduler, batch, snr_gamma=getattr(self.config, "snr_gamma", 0.0))

    def write_adapter(self, pipeline: DiffusionPipeline, module: Denoiser, folder: Path) -> None:  # noqa: B027
        """Write what was trained into `folder`, in the formats diffusers loads; nothing without `has_adapter`."""

    def finish(self, pipeline: DiffusionPipeline, module: Denoiser) -> None:
        """Leave a pipeline that plain diffusers saves and loads, with what was trained in it."""
        module.eval()

    def samples(
        self, pipeline: DiffusionPipeline, cohort: Cohort, make: SetMaker, config: TrainingConfig
    ) -> Callable[[Path], None]:
        """Return what writes a sample sheet to a file, with the weights that are in the pipeline by then."""
        captions = sample_captions(cohort, make.prompts)
        return lambda path: write_samples(pipeline, captions, path, config, columns=config.sample_columns)

    def notes(self) -> Mapping[str, Any]:
        """Return facts for the model's card."""
        return {}


finetune_method: Registry[type[FinetuneMethod]] = Registry("method", "latentdrift.finetune.methods")
"""Decorator and table of the fine-tuning methods."""


def check_snr_gamma(value: float) -> None:
    """Raise ConfigurationError for a min-SNR weight that cannot be."""
    if not 0 <= value < float("inf"):
        raise ConfigurationError(f"snr_gamma is {value}; it must be 0 or more.")
