"""A sweep of δ: in one batch, and by one call after the other; cases of `edit_reference`."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import DDIMScheduler

from benchmarks.edit_setting import BEFORE, DRIFTS, WISHES, Setting, Work
from latentdrift.counterfactual.ladder import ladder
from latentdrift.drift import LatentDrift, shift_start
from latentdrift.edit import Editing, invert
from latentdrift.edit.editor import editor
from latentdrift.generate import decode_latents, denoise
from latentdrift.models import encode_prompts


def sweep_noise(pipeline: Any) -> torch.Tensor:
    config = pipeline.unet.config
    shape = (1, config.in_channels, config.sample_size, config.sample_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(pipeline.unet.device)


def sweep_together(pipeline: Any, setting: Setting, wishes: tuple[str, ...], facts: dict[str, Any]) -> Work:
    """Ours: the same noise under every drift in one batch; rule `start` acts before the first step and never again."""

    @torch.no_grad()
    def work() -> torch.Tensor:
        scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)
        scheduler.set_timesteps(setting.steps, device=pipeline.unet.device)
        noise = sweep_noise(pipeline) * scheduler.init_noise_sigma
        starts = [shift_start(LatentDrift(value).apply(scheduler), noise) for value in DRIFTS]
        rows = [0] * len(starts)
        told, away = encode_prompts(pipeline, [BEFORE])[rows], encode_prompts(pipeline, [""])[rows]
        latents = denoise(
            pipeline.unet, scheduler, torch.cat(starts), told, unconditional=away, guidance=setting.guidance
        )
        return decode_latents(pipeline, latents)

    return work


def sweep_by_diffusers(pipeline: Any, setting: Setting, wishes: tuple[str, ...], facts: dict[str, Any]) -> Work:
    """The plain pipeline, once for every drift."""
    pipeline.set_progress_bar_config(disable=True)
    pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config)

    def work() -> torch.Tensor:
        made = []
        for value in DRIFTS:
            LatentDrift(value).attach(pipeline)
            images = pipeline(
                BEFORE,
                negative_prompt="",
                latents=sweep_noise(pipeline),
                num_inference_steps=setting.steps,
                guidance_scale=setting.guidance,
                output_type="pt",
            ).images
            made.append(images.float().cpu() * 2 - 1)
        return torch.cat(made)

    return work


def sweep_edits_together(pipeline: Any, setting: Setting, wishes: tuple[str, ...], facts: dict[str, Any]) -> Work:
    """Ours: one edit under every drift, as a ladder: one inversion, one batch."""
    image = torch.load(setting.image)
    return lambda: ladder(
        pipeline,
        image,
        {},
        DRIFTS,
        axis="drift",
        source_captions=[BEFORE],
        captions=[WISHES[0]] * len(DRIFTS),
        steps=setting.steps,
        guidance=setting.guidance,
    ).frames[0]


def sweep_edits_singly(pipeline: Any, setting: Setting, wishes: tuple[str, ...], facts: dict[str, Any]) -> Work:
    """The same by one call after the other: inverted without the drift, edited under it."""
    image = torch.load(setting.image)
    plain = pipeline.scheduler

    def edited(value: float) -> torch.Tensor:
        request = Editing(pipeline, image, [BEFORE], [WISHES[0]], steps=setting.steps, guidance=setting.guidance)
        pipeline.scheduler = plain
        inversion = invert(request)
        if value:
            LatentDrift(value).attach(pipeline)
        return editor.get("prompt_swap")().edit(request, inversion).image

    def work() -> torch.Tensor:
        try:
            return torch.cat([edited(value) for value in DRIFTS])
        finally:
            pipeline.scheduler = plain

    return work
