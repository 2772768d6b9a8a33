"""What the benchmark of editing compares, each case in a process of its own. Started by `edit_speed`, not by hand.

`python -m benchmarks.edit_reference CASE SETTING OUT`: SETTING is a `Setting` as JSON; OUT gets seconds, memory, parts
and U-Net evaluations as JSON, and a file beside it the images, so that the sides can be held against each other.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler
from diffusers.pipelines.deprecated.stable_diffusion_variants.pipeline_stable_diffusion_pix2pix_zero import (
    StableDiffusionPix2PixZeroPipeline,
)

from benchmarks.edit_setting import BEFORE, WISHES, Setting, Work
from benchmarks.edit_sweeps import sweep_by_diffusers, sweep_edits_singly, sweep_edits_together, sweep_together
from benchmarks.method_memory import resident
from benchmarks.stopwatch import Stopwatch, lap
from latentdrift.edit import Editing
from latentdrift.edit.editor import editor
from latentdrift.edit.editors import pix2pix_zero
from latentdrift.edit.reference import Reference
from latentdrift.models import encode_prompts, load_pipeline


def attention_guidance(pipeline: Any) -> float:
    """Return the editor's default, or what diffusers recommends for a model that predicts velocity."""
    epsilon = pipeline.scheduler.config.prediction_type == "epsilon"
    return pix2pix_zero.Pix2PixZeroConfig().attention_guidance if epsilon else 0.01


def our_request(pipeline: Any, setting: Setting, wishes: tuple[str, ...]) -> Editing:
    count = len(wishes)
    return Editing(
        pipeline,
        torch.load(setting.image).repeat(count, 1, 1, 1),
        [BEFORE] * count,
        wishes,
        steps=setting.steps,
        guidance=setting.guidance,
        seeds=[0] * count,
    )


def our_editor(pipeline: Any) -> Any:
    config = pix2pix_zero.Pix2PixZeroConfig(attention_guidance=attention_guidance(pipeline))
    return editor.get("pix2pix_zero")(config)


def together(pipeline: Any, setting: Setting, wishes: tuple[str, ...], facts: dict[str, Any]) -> Work:
    """Ours: all wishes for one image in one batch, on one inversion."""
    make = our_editor(pipeline)

    def work() -> torch.Tensor:
        inversion = make.invert(our_request(pipeline, setting, wishes[:1]))
        made = make.edit(our_request(pipeline, setting, wishes), inversion[[0] * len(wishes)]).image
        kept = [found for _, _, found in inversion.kept.values() if isinstance(found, Reference)]
        facts["reference_maps_bytes"] = sum(found.nbytes for found in kept)
        return made

    return work


def singly(pipeline: Any, setting: Setting, wishes: tuple[str, ...], facts: dict[str, Any]) -> Work:
    """Ours: one wish after the other, everything anew."""
    make = our_editor(pipeline)
    return lambda: torch.cat([make.edit(our_request(pipeline, setting, (wish,))).image for wish in wishes])


def by_diffusers(pipeline: Any, setting: Setting, wishes: tuple[str, ...], facts: dict[str, Any]) -> Work:
    """diffusers' pipeline, one wish after the other, each with `invert` and the edit, as its documentation shows."""
    names = ("vae", "text_encoder", "tokenizer", "unet", "feature_extractor")
    other: Any = StableDiffusionPix2PixZeroPipeline(
        **{name: pipeline.components[name] for name in names},
        scheduler=DDIMScheduler.from_config(pipeline.scheduler.config),
        inverse_scheduler=DDIMInverseScheduler.from_config(pipeline.scheduler.config),
        safety_checker=None,
        caption_generator=None,
        caption_processor=None,
        requires_safety_checker=False,
    )
    other.set_progress_bar_config(disable=True)
    amount, plain = attention_guidance(pipeline), other.construct_direction

    def construct_direction(*arguments: Any) -> torch.Tensor:
        # Called between its two passes, when the maps of the first are all there.
        processors = other.unet.attn_processors.values()
        facts["reference_maps_bytes"] = sum(
            kept.nbytes
            for processor in processors
            for kept in getattr(processor, "reference_cross_attn_map", {}).values()
        )
        return plain(*arguments)

    other.construct_direction = construct_direction

    @torch.no_grad()
    def edited(wish: str) -> torch.Tensor:
        pixels = torch.load(setting.image).to(other.vae.device, other.vae.dtype)
        # It takes latents as they are; of pixels it would draw a sample, where ours takes the mean.
        latents = other.vae.encode(pixels).latent_dist.mean * other.vae.config.scaling_factor
        before, after = other.get_embeds([BEFORE]), other.get_embeds([wish])
        shared = {"num_inference_steps": setting.steps, "output_type": "pt"}
        noise = other.invert(BEFORE, image=latents, generator=torch.Generator().manual_seed(0), **shared).latents
        made = other(
            BEFORE,
            negative_prompt=BEFORE,
            source_embeds=before,
            target_embeds=after,
            latents=noise,
            guidance_scale=setting.guidance,
            cross_attention_guidance_amount=amount,
            **shared,
        ).images
        return made.float().cpu() * 2 - 1

    return lambda: torch.cat([edited(wish) for wish in wishes])


CASES: dict[str, tuple[Callable[..., Work], int]] = {
    "ours": (singly, 1),
    "diffusers": (by_diffusers, 1),
    "ours, one batch of 8": (together, 8),
    "ours, 8 runs": (singly, 8),
    "diffusers, 8 runs": (by_diffusers, 8),
    "ours, one batch of 9": (sweep_together, 0),
    "pipeline, 9 calls": (sweep_by_diffusers, 0),
    "ladder of 9": (sweep_edits_together, 0),
    "edits, 9 calls": (sweep_edits_singly, 0),
}
"""How each case is prepared, and how many of WISHES it edits by."""


def load(base: str) -> Any:
    """Return a model in float32 without drift."""
    return load_pipeline(base, dtype=torch.float32, drift=None)


def prepare(name: str, pipeline: Any, setting: Setting, facts: dict[str, Any]) -> Work:
    """Return what a case does; facts that it notes while it runs go to `facts`."""
    make, count = CASES[name]
    return make(pipeline, setting, WISHES[:count], facts)


def count_evaluations(unet: Any) -> Counter[str]:
    """Count the U-Net's evaluations from now on, in rows of a batch too, and how many are for a gradient or cut off."""
    counts: Counter[str] = Counter()
    plain = unet.forward

    def forward(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        counts["calls"] += 1
        counts["rows"] += len(latents)
        if torch.is_grad_enabled() and latents.requires_grad:
            counts["rows_for_gradient"] += len(latents)
        try:
            return plain(latents, *args, **kwargs)
        except Exception:
            # Ours leaves the U-Net behind its last cross-attention by an exception.
            counts["rows_cut_off"] += len(latents)
            raise

    unet.forward = forward
    return counts


def watch_parts(watch: Stopwatch) -> None:
    """Time what both sides call."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.models.attention_processor import Attention
    from transformers import CLIPTextModel

    from latentdrift.edit import regularisation

    watch.before(pix2pix_zero.Pix2PixZero, "invert", "inversion")
    watch.before(pix2pix_zero.Pix2PixZero, "edit", "edit")
    watch.before(StableDiffusionPix2PixZeroPipeline, "invert", "inversion")
    watch.before(StableDiffusionPix2PixZeroPipeline, "__call__", "edit")
    watch.watch(UNet2DConditionModel, "forward", "U-Net forward")
    watch.watch(Attention, "get_attention_scores", "attention maps")
    watch.watch(torch.autograd, "grad", "backward")
    watch.watch(torch.Tensor, "backward", "backward")
    watch.watch(AutoencoderKL, "encode", "VAE encoding")
    watch.watch(AutoencoderKL, "decode", "VAE decoding")
    watch.watch(CLIPTextModel, "forward", "text encoder")
    watch.watch(regularisation, "regularised", "noise kept like noise")
    for name in ("auto_corr_loss", "kl_divergence"):
        watch.watch(StableDiffusionPix2PixZeroPipeline, name, "noise kept like noise")


def by_part(found: dict[str, Any]) -> dict[str, float]:
    """Return seconds by part of the work, of all stages, and what is left of each stage."""
    parts: Counter[str] = Counter()
    for stage, seconds in found["stages"].items():
        if stage == "loading":
            continue
        calls = found["calls"].get(stage, {})
        for name, taken in calls.items():
            # Nothing but the regularisation of the noise goes backward in an inversion.
            inverts = stage == "inversion" and name == "backward"
            parts["noise kept like noise" if inverts else name] += taken
        parts[f"rest of the {stage}"] += seconds - sum(calls.values())
    return dict(parts)


def warm_up(pipeline: Any) -> None:
    """Bring the kernels of every part into memory, forward and backward, at the smallest size there is."""
    unet, vae = pipeline.unet, pipeline.vae
    side = 2 ** (len(unet.config.block_out_channels) - 1)
    latents = torch.zeros(1, unet.config.in_channels, side, side, device=unet.device, requires_grad=True)
    with torch.no_grad():
        told = encode_prompts(pipeline, [BEFORE])
        vae.encode(vae.decode(latents).sample)
    predicted = unet(latents, torch.tensor(1), **told.unet_arguments()).sample
    torch.autograd.grad(predicted.sum(), latents)


def level() -> int:
    """Return the resident bytes now, from which the peak is counted anew; where that cannot be had, the peak so far."""
    gc.collect()
    # What was freed in loading must not serve as room for the edit that nobody counts.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return resident()


def measure(name: str, setting: Setting, made: Path) -> dict[str, Any]:
    """Run a case once in this process, and return what it took; its images go to the file `made`."""
    pipeline = load(setting.base)
    device, facts = pipeline.unet.device, {}
    work = prepare(name, pipeline, setting, facts)
    warm_up(pipeline)
    watch = Stopwatch("loading")
    watch_parts(watch)
    counts = count_evaluations(pipeline.unet)
    before_bytes, loaded_bytes = resident(), level()
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        loaded_gpu_bytes = torch.cuda.memory_allocated(device)
    wall: list[float] = []
    processor: list[float] = []
    watch.enter("beside")
    with lap(wall, processor, device):
        images = work()
    peak = resident()
    torch.save(images, made)
    found = {
        "seconds": wall[0],
        "processor_seconds": processor[0],
        "loaded_bytes": loaded_bytes,
        "working_bytes": peak - loaded_bytes,
        "peak_bytes": max(peak, before_bytes),
        "unet": dict(counts),
    }
    if device.type == "cuda":
        found["working_gpu_bytes"] = torch.cuda.max_memory_allocated(device) - loaded_gpu_bytes
    times = watch.result()
    return found | facts | {"inversion_seconds": times["stages"].get("inversion", 0.0), "parts": by_part(times)}


def main() -> int:
    name, setting, out = sys.argv[1:]
    path = Path(out)
    path.write_text(json.dumps(measure(name, Setting(**json.loads(setting)), path.with_suffix(".pt"))))
    return 0


def as_json(setting: Setting) -> str:
    return json.dumps(asdict(setting))


if __name__ == "__main__":
    sys.exit(main())
