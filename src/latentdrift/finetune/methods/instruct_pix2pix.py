"""InstructPix2Pix (arXiv 2211.09800): an image and an instruction → the edited image, learned from pairs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args, get_type_hints

import torch

from latentdrift.data import edit_pairs, write_png
from latentdrift.data.edits import TRUTH
from latentdrift.data.prompts.ages import check_style
from latentdrift.data.prompts.instructions import DIFFERENCE
from latentdrift.errors import ConfigurationError, NoPairsError, UnknownNameError
from latentdrift.finetune.denoiser import Denoiser, freeze
from latentdrift.finetune.method import FinetuneMethod, check_snr_gamma, finetune_method

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.data import Cohort, EditPair, PromptTemplate
    from latentdrift.finetune.config import TrainingConfig
    from latentdrift.finetune.sets import SetMaker, TrainingSet


@dataclass(frozen=True)
class InstructPix2PixConfig:
    """Settings of InstructPix2Pix. --drop-captions is the probability of dropping instruction, image and both, each."""

    pairs: Literal["auto", "visits", "truth", "table"] = "auto"
    """visits: an earlier and a later visit of a subject. truth: a simulated image and its true counterfactuals. table:
    a column source_file names the image before the edit. auto takes what the cohort has."""
    min_years: float = 0.5
    """Least time between two visits; 0 takes visits of the same age too."""
    max_years: float = float("inf")
    """Most time between two visits."""
    both_ways: bool = False
    """Take each pair of visits backwards too."""
    modality: Literal["mri", "xray"] = "mri"
    """What instructions talk about: a brain or a chest."""
    style: Literal["command", "question"] = "command"
    """Form of the instructions."""
    age: str = "number"
    """How instructions say ages: number, words, decade, bin, bin5, difference or difference-words."""
    snr_gamma: float = 0.0
    """Min-SNR loss weighting (arXiv 2303.09556); 0 weighs all timesteps alike."""

    def __post_init__(self) -> None:
        check_snr_gamma(self.snr_gamma)
        if not 0 <= self.min_years <= self.max_years:
            raise ConfigurationError(
                f"The years between are {self.min_years} to {self.max_years}; write 0 or more, the less first."
            )
        hints = get_type_hints(type(self))
        for name in ("pairs", "modality", "style"):
            if getattr(self, name) not in get_args(hints[name]):
                raise UnknownNameError(name, str(getattr(self, name)), get_args(hints[name]))
        if self.age.removesuffix("-words") != DIFFERENCE:
            check_style(self.age)


@finetune_method("instruct_pix2pix")
class InstructPix2Pix(FinetuneMethod):
    """Train a U-Net that sees the image to be edited as further input channels."""

    config_class = InstructPix2PixConfig
    config: InstructPix2PixConfig
    drop_captions = 0.05
    every_attribute = True
    told: str | None = None
    """The attribute that the instructions called the class, once there is a training set."""

    def settle(self, config: TrainingConfig) -> TrainingConfig:
        """Return the settings; the three ways of dropping must leave something."""
        if config.drop_captions is not None and config.drop_captions > 1 / 3:
            raise ConfigurationError(
                f"drop_captions is {config.drop_captions}; instruct_pix2pix drops the instruction, the image and both "
                "that often each, so at most a third (0.05 is usual)."
            )
        return super().settle(config)

    def adapt(self, pipeline: DiffusionPipeline) -> DiffusionPipeline:
        """Return an InstructPix2Pix pipeline, its U-Net grown by the image's channels where it has none for it."""
        channels = pipeline.vae.config.latent_channels
        if pipeline.unet.config.in_channels == channels:
            grow_input(pipeline.unet, 2 * channels)
        if pipeline.unet.config.in_channels != 2 * channels:
            raise ConfigurationError(
                f"The base's U-Net takes {pipeline.unet.config.in_channels} channels; {channels} or {2 * channels} are "
                "needed. Give another --base."
            )
        return editing_pipeline(pipeline)

    def check_captions(self, pipeline: DiffusionPipeline, cohort: Cohort, prompts: PromptTemplate) -> str | None:
        """Return None: captions are not used, and instructions are checked where they are encoded."""
        return None

    def prepare(self, pipeline: DiffusionPipeline) -> Denoiser:
        """Freeze everything but the U-Net."""
        freeze(pipeline)
        pipeline.unet.requires_grad_(True)
        pipeline.unet.train()
        return Denoiser(pipeline)

    def find(self, cohort: Cohort) -> list[EditPair]:
        """Return the pairs of a part of the cohort.

        Raises:
            NoPairsError: there is none.
        """
        own = self.config
        return edit_pairs(
            cohort,
            kind=own.pairs,
            min_years=own.min_years,
            max_years=own.max_years,
            both_ways=own.both_ways,
            modality=own.modality,
            style=own.style,
            age=own.age,
        )

    def training_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet:
        """Return the pairs of a part of the cohort."""
        pairs = self.find(cohort)
        self.told = class_told(cohort, pairs)
        return make.pairs(cohort, pairs)

    def validation_set(self, cohort: Cohort, make: SetMaker) -> TrainingSet | None:
        """Return the pairs of another part; None where it has none."""
        try:
            pairs = self.find(cohort)
        except NoPairsError:
            # A part of a few subjects may well be without a pair; training goes on, without its validation loss.
            return None
        return make.pairs(cohort, pairs)

    def samples(
        self, pipeline: DiffusionPipeline, cohort: Cohort, make: SetMaker, config: TrainingConfig
    ) -> Callable[[Path], None]:
        """Return what writes a sheet of pairs: before the edit, edited by the model, after it."""
        pairs = self.find(cohort)
        chosen = [
            pairs[round(index)]
            for index in torch.linspace(0, len(pairs) - 1, min(config.sample_columns, len(pairs))).tolist()
        ]
        before, after = (
            torch.stack([make.transform.read(record.image) for record in records])
            for records in ([pair.source for pair in chosen], [pair.target for pair in chosen])
        )

        def write(path: Path) -> None:
            from torchvision.utils import make_grid

            parts = []
            for part in torch.arange(len(chosen)).split(config.batch_size):
                made = pipeline(
                    [chosen[index].instruction for index in part],
                    image=before[part].to(pipeline.unet.device) / 2 + 0.5,
                    num_inference_steps=config.sample_steps,
                    guidance_scale=4.0,
                    image_guidance_scale=1.5,
                    generator=[torch.Generator().manual_seed(config.seed + int(index)) for index in part],
                    output_type="pt",
                    **sizes(pipeline, make.transform.size),
                ).images
                parts.append(torch.nan_to_num(made.float().cpu()) * 2 - 1)
            edited = torch.cat(parts)
            rows = torch.stack([before, edited, after], 1).flatten(0, 1)
            write_png(path, make_grid(rows / 2 + 0.5, nrow=3, padding=1) * 2 - 1, synthetic=True)

        return write

    def notes(self) -> Mapping[str, Any]:
        """Return how instructions were written, so that an edit can be asked for in the same words."""
        own = self.config
        said = {"modality": own.modality, "style": own.style, "age": own.age, "attribute": self.told}
        return {"instructions": said}


def class_told(cohort: Cohort, pairs: Sequence[EditPair]) -> str | None:
    """Return the attribute that is the class in instructions of `edit_pairs`; None where it goes by a usual name.

    The truth of a simulation has a class of its own, of a usual name; otherwise the cohort's label is the class.
    """
    truth = any(Path(pair.target.key).parts[:1] == (TRUTH,) for pair in pairs)
    return cohort.label if not truth and cohort.label in cohort.attribute_names else None


@torch.no_grad()
def grow_input(unet: Any, channels: int) -> None:
    """Give a U-Net's first layer more input channels; zero weights, so that nothing changes before training."""
    former = unet.conv_in
    grown: Any = torch.nn.Conv2d(channels, former.out_channels, former.kernel_size, former.stride, former.padding)
    grown.weight.zero_()
    grown.weight[:, : former.in_channels] = former.weight
    grown.bias.copy_(former.bias)
    unet.conv_in = grown.to(former.weight.device, former.weight.dtype)
    unet.register_to_config(in_channels=channels)


def editing_pipeline(pipeline: DiffusionPipeline) -> DiffusionPipeline:
    """Return diffusers' InstructPix2Pix pipeline on the same components."""
    from diffusers import StableDiffusionInstructPix2PixPipeline, StableDiffusionXLInstructPix2PixPipeline

    parts = dict(pipeline.components)
    made: Any
    if "text_encoder_2" in parts:
        parts = {name: part for name, part in parts.items() if name not in ("image_encoder", "feature_extractor")}
        zeros = pipeline.config.get("force_zeros_for_empty_prompt", True)
        made = StableDiffusionXLInstructPix2PixPipeline(
            **parts, force_zeros_for_empty_prompt=zeros, add_watermarker=False
        )
    else:
        made = StableDiffusionInstructPix2PixPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    made.latentdrift_card = getattr(pipeline, "latentdrift_card", None)
    return made


def sizes(pipeline: DiffusionPipeline, size: int) -> dict[str, int]:
    """Return the size that Stable Diffusion XL's pipeline must be told."""
    return {"height": size, "width": size} if hasattr(pipeline, "text_encoder_2") else {}
