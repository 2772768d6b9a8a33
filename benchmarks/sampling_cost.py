"""Sampling through a drifted scheduler beside the plain one."""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
from diffusers import DDIMScheduler, DiffusionPipeline

from benchmarks.stopwatch import lap
from latentdrift.drift import LatentDrift

RULES = ("start", "forward", "paper", "matched")


def scheduler_microseconds(scheduler: Any, shape: tuple[int, ...], steps: int, runs: int = 20) -> float:
    """Return processor microseconds a step of `scale_model_input` and `step` alone on the CPU; the median run."""
    generator = torch.Generator().manual_seed(0)
    sample, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    times = []
    for _ in range(runs):
        scheduler.set_timesteps(steps)
        latents, began = sample, time.process_time()
        for timestep in scheduler.timesteps:
            scheduler.scale_model_input(latents, timestep)
            latents = scheduler.step(noise, timestep, latents).prev_sample
        times.append((time.process_time() - began) / steps * 1e6)
    return statistics.median(times)


def measure_sampling(pipeline: DiffusionPipeline, repeats: int, steps: int = 25, batch_size: int = 8) -> dict[str, Any]:
    """Return seconds of sampling plain and drifted (start rule, a value a latent pixel, as `auto` makes), in turns.

    A pair's order is reversed from one pair to the next, so that neither gains by being the first or the second.
    """
    config, device = pipeline.unet.config, pipeline.unet.device
    shape = (config.in_channels, config.sample_size, config.sample_size)
    value = 0.07 * torch.randn(shape, generator=torch.Generator().manual_seed(1))
    plain = DDIMScheduler.from_config(pipeline.scheduler.config)
    schedulers = {"plain": plain, "drifted": LatentDrift(value, rule="start").apply(plain)}
    wall: dict[str, list[float]] = {name: [] for name in schedulers}
    processor: dict[str, list[float]] = {name: [] for name in schedulers}

    def sample(name: str, count: int) -> None:
        pipeline.scheduler = schedulers[name]
        pipeline(
            ["a brain MRI slice"] * batch_size,
            num_inference_steps=count,
            guidance_scale=1.0,
            generator=torch.Generator().manual_seed(0),
            output_type="latent",
        )

    for name in schedulers:
        sample(name, 2)
    for repeat in range(repeats):
        for name in sorted(schedulers, reverse=bool(repeat % 2)):
            with lap(wall[name], processor[name], device):
                sample(name, steps)
    pipeline.scheduler = plain
    batch = (batch_size, *shape)
    alone = {"none": scheduler_microseconds(plain, batch, steps)}
    for rule in RULES:
        alone[rule] = scheduler_microseconds(LatentDrift(value, rule=rule).apply(plain), batch, steps)
    seconds = {name: statistics.median(times) for name, times in wall.items()}
    cpu = {name: statistics.median(times) for name, times in processor.items()}
    a_step = seconds["plain"] / steps * 1e6
    return {
        "plain_seconds": seconds["plain"],
        "drifted_seconds": seconds["drifted"],
        "ratio": seconds["drifted"] / seconds["plain"],
        "processor_ratio": cpu["drifted"] / cpu["plain"],
        "plain_all": wall["plain"],
        "drifted_all": wall["drifted"],
        "scheduler_microseconds": alone,
        "ratio_from_scheduler": {rule: 1 + (alone[rule] - alone["none"]) / a_step for rule in RULES},
    }
