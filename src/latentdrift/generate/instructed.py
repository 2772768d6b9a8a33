"""Images edited by an instruction: InstructPix2Pix (Brooks et al., CVPR 2023, arXiv 2211.09800).

The U-Net sees the noisy latents and, beside them as further channels, the latents of the image to be edited.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.errors import ConfigurationError
from latentdrift.generate.checks import check_batch_size, check_counts, check_images, check_number
from latentdrift.generate.images import Progress, decode_latents
from latentdrift.generate.loop import check_steps, denoise, image_generators, start_noise
from latentdrift.models import Conditioning, encode_prompts
from latentdrift.models.upcast import upcast_autoencoder

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@torch.no_grad()
def edit_by_instruction(
    pipeline: DiffusionPipeline,
    images: torch.Tensor,
    instructions: Sequence[str],
    *,
    seeds: Sequence[int],
    steps: int = 25,
    guidance: float = 4.0,
    image_guidance: float = 1.5,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Return one edited image an instruction, (N, 3, H, W) in [-1, 1], float32 on the CPU.

    Args:
        pipeline: from `load_pipeline`, trained by `instruct_pix2pix`; its scheduler says the sampler and the drift.
        images: what to edit, (N, 3, H, W) in [-1, 1]; the sides are multiples of the autoencoder's factor.
        instructions: one an image, in the words the model was trained with.
        seeds: one an image; the same seed, image and instruction give the same result in any batch, up to rounding.
        steps: denoising steps.
        guidance: how far to go beyond the instruction, s_T of the paper's Eq. 3.
        image_guidance: how closely to keep to the image, s_I of Eq. 3; with 1 a step costs two evaluations of the
            U-Net instead of three, and with both at 1 a single one.
        batch_size: images at once.
        progress: called with the number of images finished since the last call.

    Raises:
        ConfigurationError: a model that does not edit by instruction; numbers of images, instructions and seeds that
            differ; images of another shape or range; a setting out of range.
        DataError: an instruction longer than the tokenizer takes.
    """
    check_instructed(pipeline)
    check_counts(images=len(images), instructions=len(instructions), seeds=len(seeds))
    check_images(images, pipeline.vae_scale_factor)
    check_batch_size(batch_size)
    check_number("guidance", guidance)
    check_number("image_guidance", image_guidance)
    check_steps(pipeline.scheduler, steps)
    unet, height, width = pipeline.unet, images.shape[-2], images.shape[-1]
    conditioning = encode_instructions(pipeline, instructions, height, width)
    unconditional = encode_instructions(pipeline, [""], height, width)
    edited = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        generators = image_generators(seeds[part])
        source = source_latents(pipeline, images[part])
        seeing = SourceGuidedUNet(
            unet, source, conditioning[part], unconditional[[0] * len(source)], guidance, image_guidance
        )
        pipeline.scheduler.set_timesteps(steps, device=unet.device)
        shape = (source.shape[1], source.shape[2], source.shape[3])
        noise = start_noise(shape, generators, unet.device, unet.dtype) * pipeline.scheduler.init_noise_sigma
        # `denoise` scales, and drifts, the latents alone; the source joins them behind that.
        latents = denoise(seeing, pipeline.scheduler, noise, conditioning[part], generators=generators)
        edited.append(decode_latents(pipeline, latents, batch_size))
        if progress is not None:
            progress(len(source))
    return torch.cat(edited)


class SourceGuidedUNet(torch.nn.Module):
    """A U-Net that sees the source image, as one that sees only latents: what it returns is guided already.

    With the source c_I and the instruction c_T, Eq. 3 of Brooks et al. is

        e(z, 0, 0) + s_I (e(z, c_I, 0) - e(z, 0, 0)) + s_T (e(z, c_I, c_T) - e(z, c_I, 0)),

    a sum of three predictions with the weights 1 - s_I, s_I - s_T and s_T. Those whose weight is 0 are not made.

    Args:
        unet: takes twice the channels of the latents.
        source: latents of the images to be edited, unscaled, (B, C, h, w).
        conditioning: the instructions, one row an image.
        unconditional: the empty instruction, one row an image.
        guidance: s_T.
        image_guidance: s_I.
    """

    def __init__(
        self,
        unet: torch.nn.Module,
        source: torch.Tensor,
        conditioning: Conditioning,
        unconditional: Conditioning,
        guidance: float,
        image_guidance: float,
    ) -> None:
        super().__init__()
        self.unet = unet
        nothing = torch.zeros_like(source)
        terms = [
            (1.0 - image_guidance, nothing, unconditional),
            (image_guidance - guidance, source, unconditional),
            (guidance, source, conditioning),
        ]
        terms = [term for term in terms if term[0] != 0.0]
        self.weights = [weight for weight, _, _ in terms]
        self.source = torch.cat([seen for _, seen, _ in terms])
        self.arguments = Conditioning.stack([told for _, _, told in terms]).unet_arguments()

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, **_: Any) -> SimpleNamespace:
        """Return the guided prediction, (B, C, h, w), as `sample`."""
        seen = torch.cat([torch.cat([latents] * len(self.weights)), self.source], dim=1)
        predicted = self.unet(seen, timestep, **self.arguments).sample.chunk(len(self.weights))
        return SimpleNamespace(sample=sum(w * p for w, p in zip(self.weights, predicted, strict=True)))


@torch.no_grad()
def source_latents(pipeline: DiffusionPipeline, images: torch.Tensor) -> torch.Tensor:
    """Return the latents (B, C, h, w) of images (B, 3, H, W) in [-1, 1] as the U-Net is shown them.

    They are the posterior's mode without the autoencoder's scaling, unless `pipeline.is_cosxl_edit` says otherwise.
    """
    with upcast_autoencoder(pipeline) as vae:
        mode = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode()
    if getattr(pipeline, "is_cosxl_edit", False):
        mode = mode * pipeline.vae.config.scaling_factor
    return mode.to(pipeline.unet.device, pipeline.unet.dtype)


def encode_instructions(
    pipeline: DiffusionPipeline, instructions: Sequence[str], height: int, width: int
) -> Conditioning:
    """Return the conditioning of instructions, "" the unconditional one, for a pipeline of either class."""
    conditioning = encode_prompts(pipeline, instructions, width)
    if conditioning.times is not None:
        conditioning.times[:, [0, 4]] = height
    return conditioning


def edits_by_instruction(pipeline: DiffusionPipeline) -> bool:
    """Return whether the pipeline's U-Net takes the latents of a source image beside those that it denoises."""
    return bool(pipeline.unet.config.in_channels == 2 * pipeline.vae.config.latent_channels)


def check_instructed(pipeline: DiffusionPipeline) -> None:
    """Raise ConfigurationError unless the pipeline edits images by instruction."""
    if not edits_by_instruction(pipeline):
        channels, latent = pipeline.unet.config.in_channels, pipeline.vae.config.latent_channels
        raise ConfigurationError(
            f"This model does not edit by instruction: its U-Net takes {channels} channels, {2 * latent} are needed. "
            "Train one with the method instruct_pix2pix, or use make_counterfactuals."
        )
