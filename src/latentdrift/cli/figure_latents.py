"""`latentdrift figure latents`: the paper's Figure 3."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.figure_common import RunOptions, check_out, finish, prompts_of, split_part
from latentdrift.cli.options import parse_options
from latentdrift.cli.show import counting, print_result, progress

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.drift import LatentDrift
    from latentdrift.report import LatentCurve

DESCRIPTION = """Draw mean, standard deviation and spread of the latents at each reverse step, with and without drift
(Figure 3 of the paper).

With --data or --cache the training latents stand beside them, noised to each step's level in closed form: where
sampling should be if it went back the way that training came."""


@dataclass(frozen=True, kw_only=True)
class LatentsOptions(RunOptions):
    """Draw the latents' statistics at each reverse step, with and without the drift."""

    data: Path | None = None
    """Cohort whose latents stand beside them: of a run, its training part."""
    cache: Path | None = None
    """File of cached latents (latents-….npy, which fine-tuning keeps), in place of --data."""
    data_images: int = 256
    """Most images of the cohort to encode, drawn at random."""
    count: int = 16
    """Samples, shared out over the prompts in turn."""
    attributes: tuple[str, ...] = ()
    """Classes, such as stage=MildDemented; those not given take all their values."""
    prompt: tuple[str, ...] = ()
    """Prompts in place of attributes."""
    seed: int = 0
    """Seed of the first sample; each next has the next seed."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 1.0
    """Classifier-free guidance scale; 1 is none."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(LatentsOptions, arguments, "figure latents", DESCRIPTION)
    from latentdrift.cli.models import open_model
    from latentdrift.drift import drift_of, remove
    from latentdrift.errors import ConfigurationError
    from latentdrift.report import latent_curve_figure

    check_out(options)
    if options.data is not None and options.cache is not None:
        raise ConfigurationError("Give --data or --cache, not both.")
    if options.count < 2:
        raise ConfigurationError(f"--count is {options.count}; a spread over images needs at least 2.")
    pipeline, warnings = open_model(options.run, options.device, options.drift)
    classes, _ = prompts_of(pipeline, options.run, options.attributes, options.prompt)
    prompts = [classes[index % len(classes)] for index in range(options.count)]
    drift = drift_of(pipeline)
    curves: dict[str, LatentCurve] = {}
    with progress(options.quiet) as tell:
        finished = counting(tell, "samples", options.count * (1 if drift is None else 2))
        known, which = training_latents(options, pipeline)
        if drift is None:
            warnings.append("The model has no drift: give --drift to see one beside it, such as --drift 0.07.")
        else:
            curves["drift"] = sampled(options, pipeline, prompts, finished)
            if known is not None and drift.forward_sign:
                curves["training latents, drifted noise"] = noised(pipeline, known, drift)
            remove(pipeline)
        curves["no drift"] = sampled(options, pipeline, prompts, finished)
        if known is not None:
            curves["training latents, noised"] = noised(pipeline, known, None)
    title = "Latents from noise to image" + ("" if drift is None else f": {drift}")
    latent_curve_figure(options.out, curves, title=title if len(title) < 110 else title[:107] + "…")
    numbers = {
        "drift": None if drift is None else drift.to_dict(),
        "data": None if known is None else {"latents": len(known), "which": which},
        "curves": {
            name: {key: getattr(curve, key).tolist() for key in ("steps", "mean", "std", "spread")}
            for name, curve in curves.items()
        },
    }
    record = finish("latents", arguments, options, numbers, warnings)
    ends = [
        f"{name}: mean {curve.mean[0]:+.3f} → {curve.mean[-1]:+.3f}, standard deviation {curve.std[0]:.3f} → "
        f"{curve.std[-1]:.3f}, spread {curve.spread[0]:.3f} → {curve.spread[-1]:.3f}"
        for name, curve in curves.items()
    ]
    print_result({"figure": options.out, "numbers": record, "latents": ends, "warnings": warnings}, options.json)
    return 0


def sampled(options: LatentsOptions, pipeline: DiffusionPipeline, prompts: Sequence[str], finished: Any) -> LatentCurve:
    """Return the curve of samples, from the first latents, with the drift's shift, to the last."""
    import copy

    import torch

    from latentdrift.drift import drift_of
    from latentdrift.generate import generate_images, image_generators, start_noise
    from latentdrift.report import LatentCurve

    seeds = range(options.seed, options.seed + len(prompts))
    passed: dict[int, list[torch.Tensor]] = {}

    def follow(step: int, latents: torch.Tensor) -> None:
        passed.setdefault(step, []).append(latents.detach().float().cpu())

    generate_images(
        pipeline,
        prompts,
        seeds=seeds,
        steps=options.steps,
        guidance=options.guidance,
        batch_size=options.batch_size,
        on_step=follow,
        progress=finished,
    )
    side, channels = pipeline.unet.config.sample_size, pipeline.unet.config.in_channels
    # A copy: shifting the start tells a scheduler that this run's start was shifted.
    scheduler: Any = copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(options.steps)
    noise = start_noise((channels, side, side), image_generators(seeds), torch.device("cpu"), torch.float32)
    first = noise * scheduler.init_noise_sigma
    first = scheduler.shift_start(first) if drift_of(scheduler) is not None else first
    way = [first, *(torch.cat(passed[step]) for step in sorted(passed))]
    return LatentCurve.from_latents(torch.stack(way))


def training_latents(options: LatentsOptions, pipeline: DiffusionPipeline) -> tuple[torch.Tensor | None, str]:
    """Return scaled latents (N, C, h, w) of the cohort or the cache, None without either, and which they are.

    Raises:
        DataError: a cohort or a cache that cannot be read, or a cache of another model.
    """
    import torch

    from latentdrift.data import Cohort, ImageTransform
    from latentdrift.errors import DataError
    from latentdrift.finetune.cache import LatentCache
    from latentdrift.generate import encode_images

    vae, unet = pipeline.vae, pipeline.unet
    if options.cache is not None:
        try:
            cache = LatentCache(options.cache, vae.config.scaling_factor, vae.config.shift_factor or 0.0)
            shape, known = cache.shape, torch.cat(list(cache.means()))
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{options.cache} is no file of cached latents: {error}.") from error
        if shape[0] != vae.config.latent_channels:
            raise DataError(f"{options.cache} has latents of {shape[0]} channels, not {vae.config.latent_channels}.")
        return known, options.cache.name
    if options.data is None:
        return None, ""
    cohort, which = split_part(Cohort.open(options.data, missing="keep"), options.run, "train")
    if len(cohort) > options.data_images:
        cohort = cohort.take(options.data_images, seed=options.seed)
    read = ImageTransform(size=unet.config.sample_size * pipeline.vae_scale_factor).read
    images = torch.stack([read(record.image) for record in cohort])
    return encode_images(pipeline, images, options.batch_size).float().cpu(), which


def noised(pipeline: DiffusionPipeline, latents: torch.Tensor, drift: LatentDrift | None) -> LatentCurve:
    """Return the curve of latents (N, C, h, w) noised to the level before and after each call of the sampler.

    At a level the state is a z_0 + b (ε + sign δ), ε being independent of z_0: only its variance b², and b² / (C h w)
    of an image's mean, are added to what z_0 and δ have.
    """
    import numpy as np

    from latentdrift.drift.levels import trajectory
    from latentdrift.report import LatentCurve

    scheduler: Any = pipeline.scheduler
    run = trajectory(scheduler)
    data = latents.double()
    size = data[0].numel()
    shift: Any = 0.0
    if drift is not None:
        shift = drift.forward_sign * drift.delta(data, run.gain)
    figures = []
    for a, b in zip(run.signal, run.noise, strict=True):
        state = a * data + b * shift
        own = state.mean((1, 2, 3))
        figures.append(
            (
                float(state.mean()),
                math.sqrt(float(state.var(correction=0)) + b * b),
                math.sqrt(float(own.var(correction=0)) + b * b / size),
            )
        )
    mean, std, spread = (np.array(column) for column in zip(*figures, strict=True))
    return LatentCurve(np.arange(len(figures), dtype=np.float64), mean, std, spread)
