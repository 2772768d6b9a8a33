"""Classifier guidance: the image's own noise, denoised under its own caption and pulled towards an objective.

At each step the network says which image its state leads to. The autoencoder decodes that image, an objective judges
it, and the gradient of the judgement with respect to the state shifts the noise prediction (Dhariwal & Nichol, arXiv
2105.05233, Eq. 14). Gradients through the predicted image, from an inversion, are Diff-SCM's (Sanchez & Tsaftaris,
arXiv 2202.10166); a step of a size relative to the model's own, and an objective that holds on to the image, are DVCE's
(Augustin et al., arXiv 2210.11841), here for latents.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal, get_args, get_type_hints

import torch

from latentdrift.drift import noise_and_latents
from latentdrift.drift.target import noise_weights
from latentdrift.edit.editor import Edited, Editor, editor
from latentdrift.edit.inversion import Inversion, reconstruct, way_down
from latentdrift.edit.mask import confine, keep_outside
from latentdrift.edit.request import Editing, check_finite
from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.generate import denoise
from latentdrift.models import Conditioning, encode_prompts
from latentdrift.models.upcast import upcast_autoencoder


@dataclass(frozen=True)
class ClassifierGuidedConfig:
    """Settings of classifier guidance. What is wanted is the request's objective."""

    scale: float = 0.1
    """How strongly each step heeds the objective; 0 does not. Normalised, it is the part of the predicted noise, by
    norm, that changes where all is noise; less is changed where less is noise."""
    normalise: bool = True
    """Scale each image's gradient to the norm of its predicted noise, as DVCE does, so that one scale serves objectives
    and images alike. Without, the gradient counts as it is, as in Diff-SCM, and fades where the objective is content;
    scales of 1 to 100 are then usual."""
    through: Literal["unet", "decoder"] = "unet"
    """Where the gradient goes: on from the predicted image through the U-Net, as in Diff-SCM and DVCE, or no further
    than through the decoder, which costs less and knows less of what images can be."""
    captions: Literal["source", "target"] = "source"
    """What the network is told: the images' own captions, so that the objective alone brings the change about, or the
    wanted ones under the request's guidance, as prompt_swap does, so that it adds to theirs."""
    begin: float = 0.0
    """Part of the way down, in [0, 1), that goes by before guidance begins; later leaves the coarse shapes alone."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("through", "captions"):
            known = get_args(hints[name])
            if getattr(self, name) not in known:
                raise UnknownNameError(name, str(getattr(self, name)), known)
        if not 0 <= self.scale < math.inf:
            raise ConfigurationError(f"scale is {self.scale}; give a finite number of 0 or more.")
        if not 0 <= self.begin < 1:
            raise ConfigurationError(f"begin is {self.begin}; it is a part of the way down, at least 0 and below 1.")


@editor("classifier_guided")
class ClassifierGuided(Editor):
    """Denoise the image's own noise, each step shifted down the gradient of the request's objective.

    By default the images' own captions are kept. Then the way down without guidance is the reconstruction, so that all
    that changes is the objective's doing, and the guided classifier can be compared with a changed caption. The wanted
    captions and the request's guidance have no effect there.
    """

    config_class = ClassifierGuidedConfig
    config: ClassifierGuidedConfig

    def check(self, request: Editing) -> None:
        """Raise ConfigurationError for what cannot be edited, or without an objective."""
        super().check(request)
        if request.objective is None:
            raise ConfigurationError(
                "classifier_guided follows an objective, and the request has none. Train a guide with `latentdrift "
                "classifier train --role guide` and give objective=image_objective(load_classifier(folder), ...), or "
                "use an editor that follows captions, such as prompt_swap."
            )

    def run(self, request: Editing, inversion: Inversion | None) -> Iterator[Edited]:
        """Yield each batch, edited."""
        assert inversion is not None, "edit gives one"
        pipeline, own_captions = request.pipeline, self.config.captions == "source"
        target = None if own_captions else encode_prompts(pipeline, request.target_captions, request.images.shape[-1])
        for part in request.parts():
            own = inversion[part]
            wanted = own.source if target is None else target[part]
            scheduler, timesteps = way_down(pipeline, own)
            mask = None if request.mask is None else request.mask[part]
            # Around all steps, since gradients go through the weights that decoded.
            with frozen(pipeline.unet, pipeline.vae), upcast_autoencoder(pipeline):
                edited = denoise(
                    GuidedUNet(request, part.start, own, wanted, self.config),
                    scheduler,
                    own.noise,
                    wanted,
                    timesteps=timesteps,
                    on_step=keep_outside(mask, pipeline.vae_scale_factor, own.source_at),
                )
            yield edited, reconstruct(pipeline, own, request.batch_size) if request.reconstruct else None


class GuidedUNet(torch.nn.Module):
    """A U-Net whose predictions are shifted down an objective's gradient; for the loop it is a U-Net as any other.

    Args:
        request: with an objective.
        start: the request's first row in this batch.
        own: the inversion of the batch, B images.
        wanted: what the network is told, one row an image; if it is not `own.source`, the request's guidance acts too.
        config: how strongly, and through what.
    """

    def __init__(
        self, request: Editing, start: int, own: Inversion, wanted: Conditioning, config: ClassifierGuidedConfig
    ) -> None:
        super().__init__()
        assert request.objective is not None, "check asks for one"
        self.unet, self.vae = request.pipeline.unet, request.pipeline.vae
        self.objective, self.config = request.objective, config
        self.rows = slice(start, start + len(own))
        # Not the run's own scheduler: adding noise tells it that its run has begun.
        self.scheduler, timesteps = way_down(request.pipeline, own)
        late = timesteps[round(config.begin * len(timesteps)) :]
        # Where there is no signal at all (zero terminal SNR), no noise makes another image more likely.
        self.guided = {int(t) for t in late if config.scale and self.scheduler.alphas_cumprod[int(t)] > 0}
        self.guidance = 1.0 if wanted is own.source else request.guidance
        told = wanted if self.guidance == 1.0 else Conditioning.stack([own.source, wanted])
        self.arguments = told.unet_arguments()
        self.source = self.mask = None
        if request.mask is not None:
            self.source = own.images.to(self.vae.device, torch.float32)
            self.mask = request.mask[self.rows].to(self.vae.device)

    def forward(self, latents: torch.Tensor, timestep: torch.Tensor, **_: Any) -> SimpleNamespace:
        """Return the guided prediction, (B, C, h, w), as `sample`."""
        if int(timestep) not in self.guided:
            return SimpleNamespace(sample=self.predict(latents, timestep))
        predicted, noise, gradient = self.gradient(latents, timestep)
        check_finite(gradient, "The objective's gradients")
        if self.config.normalise:
            # A gradient of 0 stays 0: that image's objective is content.
            gradient = gradient / norms(gradient).clamp(min=torch.finfo(gradient.dtype).tiny) * norms(noise)
        alpha = self.scheduler.alphas_cumprod[int(timestep)].item()
        level = (1 - alpha) ** 0.5
        slope = noise_weights(self.scheduler.config.prediction_type, alpha**0.5, level)[0]
        shift = self.config.scale * level * gradient
        return SimpleNamespace(sample=(predicted + shift / slope).to(predicted.dtype))

    def predict(self, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Return the prediction under the captions alone, (B, C, h, w)."""
        if self.guidance == 1.0:
            return self.unet(latents, timestep, **self.arguments).sample
        away, towards = self.unet(torch.cat([latents, latents]), timestep, **self.arguments).sample.chunk(2)
        return away + self.guidance * (towards - away)

    def gradient(
        self, latents: torch.Tensor, timestep: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return the unguided prediction, its noise, and each objective's gradient with respect to the latents.

        Through the decoder alone, the predicted image is taken to move with the state as it does for data of variance
        1, by sqrt(abar). All are (B, C, h, w), without graphs.
        """
        whole = self.config.through == "unet"
        with torch.set_grad_enabled(whole):
            asked = latents.detach().requires_grad_(whole)
            predicted = self.predict(asked, timestep)
            noise, clean = noise_and_latents(self.scheduler, predicted, asked, timestep)
        with torch.enable_grad():
            if not whole:
                asked = clean = clean.detach().requires_grad_()
            images = self.decode(clean)
            values = self.objective(images, self.rows)
            if tuple(values.shape) != (len(latents),) or not values.requires_grad:
                raise ConfigurationError(
                    f"The objective gave shape {tuple(values.shape)} {'with' if values.requires_grad else 'without'} a "
                    f"gradient for {len(latents)} images; one value an image, differentiable in it, is needed."
                )
            # The gradients of means over pixels are below what half precision can tell from 0.
            lift = float(images[0].numel()) if latents.dtype == torch.float16 else 1.0
            (gradient,) = torch.autograd.grad(values.sum() * lift, asked)
        gradient = gradient.to(noise.dtype) / lift
        if not whole:
            gradient = gradient * self.scheduler.alphas_cumprod[int(timestep)].item() ** 0.5
        return predicted.detach(), noise.detach(), gradient

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the images (B, 3, H, W) in [-1, 1] that the edit would end with; outside a mask the source's own."""
        config = self.vae.config
        unscaled = latents.to(self.vae.dtype) / config.scaling_factor + (config.shift_factor or 0.0)
        images = self.vae.decode(unscaled).sample
        images = _Clamp.apply(images.to(torch.promote_types(images.dtype, torch.float32)))
        return images if self.source is None else confine(images, self.source.to(images.dtype), self.mask)


class _Clamp(torch.autograd.Function):
    """Clamping to [-1, 1] that lets gradients through which lead back inside, so that black can become brighter."""

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor) -> torch.Tensor:
        """Return the images, clamped."""
        ctx.save_for_backward(images)
        return images.clamp(-1, 1)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient but where descending it leads further outside."""
        (images,) = ctx.saved_tensors
        outwards = ((images > 1) & (gradient < 0)) | ((images < -1) & (gradient > 0))
        return gradient.masked_fill(outwards, 0)


def norms(latents: torch.Tensor) -> torch.Tensor:
    """Return each image's Euclidean norm, (B, 1, 1, 1)."""
    return torch.linalg.vector_norm(latents, dim=(1, 2, 3), keepdim=True)


@contextmanager
def frozen(*networks: torch.nn.Module) -> Iterator[None]:
    """Within this context the networks' weights take no gradients."""
    trained = [weight for network in networks for weight in network.parameters() if weight.requires_grad]
    for weight in trained:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in trained:
            weight.requires_grad_(True)
