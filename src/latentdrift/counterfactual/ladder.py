"""Ladders: one image under values from a to b, all from one inversion, so that only the value differs.

An attribute's values, and values of δ, go through the U-Net as one batch. Strengths share the one way up, of which each
goes a part; guidance scales share its noise.

The δ of a ladder lies on top of the drift that the pipeline has, and the inversion knows nothing of it: it is made
once, under the pipeline's own drift. Inverting under each δ would show nothing, because inversion under a drift undoes
generation under the same drift: it takes from the noise the very shift that sampling adds. So δ is the rule `start` of
`LatentDrift`: b_s δ added to the first latent, the same noise under another mean. 0 is the model as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.data.captions import PromptTemplate
from latentdrift.drift.levels import trajectory
from latentdrift.edit.editor import Editor
from latentdrift.edit.editor import editor as editors
from latentdrift.edit.inversion import Inversion, reconstruct, way_down
from latentdrift.edit.request import Editing, ImageObjective
from latentdrift.errors import ConfigurationError
from latentdrift.generate import decode_latents, denoise, image_generators, start_noise
from latentdrift.generate.checks import check_counts
from latentdrift.generate.images import Progress
from latentdrift.generate.loop import check_steps
from latentdrift.models import check_from_noise, encode_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Value = str | float
Attributes = Mapping[str, Value]

DRIFT, GUIDANCE, STRENGTH = "drift", "guidance", "strength"
AXES = (DRIFT, GUIDANCE, STRENGTH)
"""What a ladder can go along besides an attribute."""


@dataclass(frozen=True, eq=False)
class LadderResult:
    """N images under K values each; images are in [-1, 1], float32 on the CPU."""

    axis: str
    """The attribute, or drift, guidance or strength."""
    values: tuple[Value, ...]
    """In the order of the frames, K."""
    source: torch.Tensor
    """The images that came in, (N, 3, H, W)."""
    frames: torch.Tensor
    """The images under each value, (N, K, 3, H, W)."""
    reconstruction: torch.Tensor | None
    """The same way down under the images' own captions and without a ladder's δ, (N, 3, H, W); None where there is
    none. Of a ladder of strengths, at the largest."""
    source_captions: tuple[str, ...]
    """What the images show, N."""
    target_captions: tuple[tuple[str, ...], ...]
    """What was asked for, N times K."""

    @property
    def changed_l1(self) -> torch.Tensor:
        """Mean absolute difference of each frame from its source, (N, K), in levels of 0 to 255."""
        return (self.frames - self.source[:, None]).abs().mean((2, 3, 4)) * 127.5

    @property
    def round_trip_l1(self) -> torch.Tensor | None:
        """Mean absolute difference of reconstruction and source, (N,), in levels of 0 to 255."""
        if self.reconstruction is None:
            return None
        return (self.reconstruction - self.source).abs().mean((1, 2, 3)) * 127.5

    def composed(self) -> torch.Tensor:
        """Return each frame with the details put back that the round trip lost, (N, K, 3, H, W) in [-1, 1]."""
        base = self.source if self.reconstruction is None else self.reconstruction
        return (self.source[:, None] + self.frames - base[:, None]).clamp(-1, 1)


@torch.no_grad()
def ladder(
    pipeline: DiffusionPipeline,
    images: torch.Tensor,
    source_attributes: Attributes | Sequence[Attributes],
    values: Sequence[Value],
    *,
    axis: str,
    target_attributes: Attributes | None = None,
    template: PromptTemplate | None = None,
    source_captions: Sequence[str] | None = None,
    captions: Sequence[str] | None = None,
    editor: str = "prompt_swap",
    editor_config: Any = None,
    steps: int = 50,
    guidance: float = 2.0,
    strength: float = 1.0,
    mask: torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
    objective: ImageObjective | None = None,
    batch_size: int = 16,
    inversion: Inversion | None = None,
    progress: Progress | None = None,
) -> LadderResult:
    """Return images under values from a to b: one identity, one noise, one thing that changes.

    Args:
        pipeline: from `load_pipeline`, under the drift the model was trained with.
        images: (3, H, W) or (N, 3, H, W) in [-1, 1].
        source_attributes: what the images show, for all or one an image.
        values: along the axis, in the order of the frames.
        axis: an attribute's name, or "drift", "guidance" or "strength".
        target_attributes: what else should change, alike in all frames.
        template: writes the captions; the model's own by default.
        source_captions: one an image, in place of what the template would write.
        captions: one a value, in place of what the template would write; instructions for an editor that takes those.
        editor: name of the editor. A ladder of δ needs one that starts from an inversion.
        editor_config: its settings; the defaults where None.
        steps: of the whole way between image and noise.
        guidance: how far beyond the wanted caption; of a ladder of guidance scales, not used.
        strength: part of the way to the noise, in (0, 1]; of a ladder of strengths, not used.
        mask: where the edit may act, (N, 1, H, W).
        seeds: one an image, the same for all its frames; 0, 1, 2 ... by default.
        objective: of an editor that needs one, for the batch of all frames, each image's frames together.
        batch_size: frames at once.
        inversion: of the images, made before by the editor's `invert` under the same settings.
        progress: called with the number of frames finished since the last call.

    Raises:
        ConfigurationError: no value, values that cannot be, a model without a template, or a request that the editor
            refuses.
        DataError: attributes that the template cannot write, or a caption too long for the tokenizer.
    """
    images = images[None] if images.ndim == 3 else images
    count, rungs = len(images), len(values)
    _check_values(axis, values, strength, target_attributes, captions)
    own = [source_attributes] * count if isinstance(source_attributes, Mapping) else list(source_attributes)
    if len(own) != count:
        raise ConfigurationError(f"{count} images and {len(own)} source attributes: give one an image, or one for all.")
    if source_captions is not None:
        check_counts(images=count, source_captions=len(source_captions))
        before = list(source_captions)
    else:
        before = [(template or _template_of(pipeline)).caption(attributes) for attributes in own]
    if captions is not None:
        after = [list(captions)] * count
    else:
        write, fixed = template or _template_of(pipeline), target_attributes or {}
        wishes = [{axis: value} if axis not in AXES else {} for value in values]
        after = [[write.caption({**attributes, **fixed, **wish}) for wish in wishes] for attributes in own]
    chosen = editors.get(editor)(editor_config)
    if axis == DRIFT and not chosen.starts_from_inversion:
        raise ConfigurationError(
            f"The editor {editor!r} does not start from the image's own noise, which a ladder of drifts shifts. Use "
            "prompt_swap or pix2pix_zero."
        )
    numbers = tuple(range(count)) if seeds is None else tuple(seeds)
    start = Editing(
        pipeline,
        images,
        before,
        [row[0] for row in after],
        steps=steps,
        guidance=guidance,
        strength=max(float(value) for value in values) if axis == STRENGTH else strength,
        mask=mask,
        seeds=numbers,
        batch_size=batch_size,
        objective=objective,
    )
    chosen.check(start)
    if chosen.starts_from_inversion and inversion is None:
        inversion = chosen.invert(start)
    rebuilt: torch.Tensor | None
    if axis in (GUIDANCE, STRENGTH):
        frames, rebuilt = _one_by_one(chosen, start, inversion, axis, [float(value) for value in values], progress)
    else:
        rows = [row for row in range(count) for _ in values]
        request = replace(
            start,
            images=images[rows],
            source_captions=[before[row] for row in rows],
            target_captions=[caption for captions_ in after for caption in captions_],
            mask=None if mask is None else mask[rows],
            seeds=[numbers[row] for row in rows],
            reconstruct=axis != DRIFT,
        )
        spread = None if inversion is None else inversion[rows]
        if axis == DRIFT and spread is not None:
            spread = under_drifts(pipeline, spread, [float(value) for _ in range(count) for value in values])
        result = chosen.edit(request, spread, progress=progress)
        frames = result.image.unflatten(0, (count, rungs))
        rebuilt = None if result.reconstruction is None else result.reconstruction[::rungs]
        if axis == DRIFT and inversion is not None:
            rebuilt = reconstruct(pipeline, inversion, batch_size)
    return LadderResult(
        axis=axis,
        values=tuple(values),
        source=images.float().cpu(),
        frames=frames,
        reconstruction=rebuilt,
        source_captions=tuple(before),
        target_captions=tuple(tuple(row) for row in after),
    )


@torch.no_grad()
def drift_samples(
    pipeline: DiffusionPipeline,
    prompts: Sequence[str],
    deltas: Sequence[float],
    *,
    seed: int = 0,
    steps: int = 25,
    guidance: float = 1.5,
    batch_size: int = 16,
    progress: Progress | None = None,
) -> torch.Tensor:
    """Return samples of the same noise under each δ, (P, K, 3, H, W) in [-1, 1]: the paper's strips, one a prompt.

    Args:
        pipeline: from `load_pipeline`; δ lies on top of its drift.
        prompts: one a strip, P.
        deltas: K drifts, in units of the noise's standard deviation.
        seed: of the noise, which all samples share.
        steps: denoising steps.
        guidance: classifier-free guidance scale; 1 is none.
        batch_size: images at once.
        progress: called with the number of images finished since the last call.

    Raises:
        ConfigurationError: no prompt, no δ or one that is not finite, or a model that edits images by instruction.
        DataError: a prompt longer than the tokenizer takes.
    """
    check_from_noise(pipeline)
    check_steps(pipeline.scheduler, steps)
    _check_values(DRIFT, deltas, 1.0, None, None)
    if not prompts:
        raise ConfigurationError("There is nothing to generate: the list of prompts is empty.")
    unet: Any = pipeline.unet
    scheduler: Any = pipeline.scheduler
    side = unet.config.sample_size
    size = side * pipeline.vae_scale_factor
    wanted = encode_prompts(pipeline, prompts, size)
    nothing = encode_prompts(pipeline, [""], size) if guidance != 1.0 else None
    pairs = [(row, float(delta)) for row in range(len(prompts)) for delta in deltas]
    images = []
    for begin in range(0, len(pairs), batch_size):
        part = pairs[begin : begin + batch_size]
        generators = image_generators([seed] * len(part))
        scheduler.set_timesteps(steps, device=unet.device)
        noise = start_noise((unet.config.in_channels, side, side), generators, unet.device, unet.dtype)
        noise = _shifted(scheduler, noise * scheduler.init_noise_sigma, [delta for _, delta in part])
        latents = denoise(
            unet,
            scheduler,
            noise,
            wanted[[row for row, _ in part]],
            unconditional=None if nothing is None else nothing[[0] * len(part)],
            guidance=guidance,
            generators=generators,
        )
        images.append(decode_latents(pipeline, latents, batch_size))
        if progress is not None:
            progress(len(part))
    return torch.cat(images).unflatten(0, (len(prompts), len(deltas)))


def _one_by_one(
    chosen: Editor,
    start: Editing,
    inversion: Inversion | None,
    axis: str,
    values: Sequence[float],
    progress: Progress | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return frames (N, K, 3, H, W) of scales or strengths, which a batch has only one of, and the reconstruction."""
    frames, rebuilt = [], None
    first = values.index(max(values)) if axis == STRENGTH else 0
    for number, value in enumerate(values):
        setting: Any = {axis: value}
        request = replace(start, **setting, reconstruct=number == first)
        used = inversion
        if axis == STRENGTH and inversion is not None:
            used = inversion.up_to(value)
        result = chosen.edit(request, used, progress=progress)
        frames.append(result.image)
        rebuilt = result.reconstruction if number == first else rebuilt
    return torch.stack(frames, 1), rebuilt


def under_drifts(pipeline: DiffusionPipeline, inversion: Inversion, deltas: Sequence[float]) -> Inversion:
    """Return an inversion whose noise has each row's δ on top of the pipeline's own drift, one δ a row.

    The rows are rows of their own: what is kept for one is no other's.
    """
    scheduler, _ = way_down(pipeline, inversion)
    return replace(
        inversion,
        trajectory=(*inversion.trajectory[:-1], _shifted(scheduler, inversion.noise, deltas)),
        origins=tuple(range(len(inversion))),
        kept={},
    )


def _shifted(scheduler: Any, noise: torch.Tensor, deltas: Sequence[float]) -> torch.Tensor:
    """Return a run's first latents (B, C, h, w), each with b_s times its own δ: rule `start` with a δ a row."""
    column = torch.tensor(deltas, dtype=noise.dtype, device=noise.device)[:, None, None, None]
    return noise + trajectory(scheduler).noise[0] * column


def _template_of(pipeline: DiffusionPipeline) -> PromptTemplate:
    card = getattr(pipeline, "latentdrift_card", None)
    if card is None:
        raise ConfigurationError(
            "The model does not say how its captions were written: give template=PromptTemplate(…)."
        )
    return PromptTemplate.restore(card.template)


def _check_values(
    axis: str,
    values: Sequence[Value],
    strength: float,
    target: Attributes | None,
    captions: Sequence[str] | None,
) -> None:
    """Raise ConfigurationError for a ladder that cannot be."""
    if not values:
        raise ConfigurationError(f"The ladder of {axis} has no value; give at least one.")
    if captions is not None and len(captions) != len(values):
        raise ConfigurationError(f"{len(values)} values and {len(captions)} captions: give one caption a value.")
    if axis not in AXES:
        if target and axis in target:
            raise ConfigurationError(f"The ladder goes along {axis}, and target_attributes fix it at {target[axis]!r}.")
        return
    for value in values:
        if isinstance(value, str) or not math.isfinite(value):
            raise ConfigurationError(f"A ladder of {axis} goes along finite numbers; {value!r} is none.")
        if axis == STRENGTH and not 0 < value <= 1:
            raise ConfigurationError(f"strength {value} is no part of the way to the noise: above 0, at most 1.")
    if axis == DRIFT and strength != 1:
        raise ConfigurationError(
            f"A drift acts where the way down begins, at the noise: ladders of drifts need strength 1, not {strength}."
        )
    if axis != DRIFT and not target and captions is None:
        raise ConfigurationError(f"A ladder of {axis} needs something that is wanted: give target attributes.")
