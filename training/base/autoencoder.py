"""Train the autoencoder of `tiny` on photographs.

Run through `python -m training.base autoencoder`; every `--checkpoint-every` steps the whole state is saved, and the
same command continues from it.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torchmetrics.functional.image import structural_similarity_index_measure as ssim

from training.base.photographs import change_tones, random_crop, read_photographs, split

ARCHITECTURE = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 4,
    "block_out_channels": (32, 64, 128),
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "down_block_types": ("DownEncoderBlock2D",) * 3,
    "up_block_types": ("UpDecoderBlock2D",) * 3,
    "sample_size": 128,
}


@dataclass(frozen=True)
class AutoencoderTraining:
    """What the autoencoder's training depends on.

    Until step `colour_from` a quarter of the crops is gray and contrast varies widely; from there on one in eight is
    gray and errors of colour weigh `chroma` times as much: with gray crops alone the code forgets colour. After `steps`
    steps the encoder is frozen, so that the U-Net can be trained meanwhile; the decoder goes on for `decoder_steps`.
    """

    steps: int = 2500
    decoder_steps: int = 400
    batch: int = 16
    crop: int = 64
    learning_rate: float = 1e-3
    kl: float = 1e-5
    ssim: float = 0.5
    chroma: float = 3.0
    tint: float = 0.25
    colour_from: int = 1000
    ema: float = 0.998
    full_precision_from: float = 0.9
    seed: int = 0


def loss_terms(model: AutoencoderKL, images: torch.Tensor, half: bool, frozen: bool) -> dict[str, torch.Tensor]:
    """Return the loss terms of a batch (B, 3, H, W) in [-1, 1]; `tint` is the colour added to gray images.

    `half` computes in bfloat16; `frozen` leaves the encoder without gradients.
    """
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        with torch.set_grad_enabled(not frozen):
            posterior = model.encode(images).latent_dist
        decoded = model.decode(posterior.sample()).sample.float()
    gray = (images.amax(1) - images.amin(1)).amax((1, 2)) < 1e-3
    colour = decoded - decoded.mean(1, keepdim=True)
    tint = (colour.abs().mean((1, 2, 3)) * gray).sum() / gray.sum().clamp(min=1)
    return {
        "l1": (decoded - images).abs().mean(),
        "ssim": 1 - ssim(decoded, images, data_range=2.0),
        "kl": posterior.kl().mean() / posterior.mean[0].numel(),
        "chroma": (colour - images + images.mean(1, keepdim=True)).abs().mean(),
        "tint": tint,
    }


def learning_rate(step: int, cfg_steps: int, top: float, warmup: int = 100) -> float:
    """Linear warm-up, then a cosine to 1% of `top`."""
    if step < warmup:
        return top * (step + 1) / warmup
    done = (step - warmup) / max(1, cfg_steps - warmup)
    return top * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, done))))


def train_autoencoder(photographs: Path, out: Path, cfg: AutoencoderTraining, checkpoint_every: int = 200) -> Path:
    """Train, resume where a former run stopped, and write the averaged weights to `out/vae`; return that folder."""
    out.mkdir(parents=True, exist_ok=True)
    images, _, _ = read_photographs(photographs)
    train, _ = split(len(images))
    torch.manual_seed(cfg.seed)
    model = AutoencoderKL(**ARCHITECTURE).to(memory_format=torch.channels_last)
    average = AutoencoderKL(**ARCHITECTURE)
    average.load_state_dict(model.state_dict())
    optimizer = torch.optim.AdamW(model.parameters(), lr=cfg.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    start, seconds = 0, 0.0
    checkpoint = out / "autoencoder.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds = state["step"], state["seconds"]
    began = time.time() - seconds
    total = cfg.steps + cfg.decoder_steps
    for step in range(start, total):
        rng = np.random.default_rng((cfg.seed, step))
        torch.manual_seed(cfg.seed * 1_000_003 + step)
        picks = rng.choice(train, cfg.batch)
        wide = step < cfg.colour_from
        zoom = (1.0, 1.9) if wide else (1.0, 1.5)
        batch = torch.stack([change_tones(random_crop(images[i], cfg.crop, zoom, rng), rng, wide) for i in picks])
        for group in optimizer.param_groups:
            group["lr"] = (
                learning_rate(step, cfg.steps, cfg.learning_rate)
                if step < cfg.steps
                else learning_rate(step - cfg.steps, cfg.decoder_steps, cfg.learning_rate / 2)
            )
        frozen = step >= cfg.steps
        if step == cfg.steps:
            # The U-Net sees the averaged encoder, so that is the one the decoder must fit.
            model.load_state_dict(average.state_dict())
        half = step < cfg.full_precision_from * (total if frozen else cfg.steps)
        terms = loss_terms(model, batch.contiguous(memory_format=torch.channels_last), half, frozen)
        loss = terms["l1"] + cfg.ssim * terms["ssim"] + cfg.kl * terms["kl"] + cfg.tint * terms["tint"]
        if not wide:
            loss = loss + cfg.chroma * terms["chroma"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        with torch.no_grad():
            decay = min(cfg.ema, (1 + step) / (10 + step))
            for a, b in zip(average.parameters(), model.parameters(), strict=True):
                a.lerp_(b, 1 - decay)
        if step % 25 == 0 or step in (cfg.steps - 1, total - 1):
            row = {"step": step, "seconds": round(time.time() - began, 1)}
            row |= {k: round(v.item(), 5) for k, v in terms.items()}
            print(json.dumps(row), flush=True)
        if (step + 1) % checkpoint_every == 0 or step in (cfg.steps - 1, total - 1):
            state = {"model": model.state_dict(), "average": average.state_dict(), "optimizer": optimizer.state_dict()}
            partial = checkpoint.with_suffix(".partial")
            torch.save(state | {"step": step + 1, "seconds": time.time() - began}, partial)
            partial.replace(checkpoint)
        if step in (cfg.steps - 1, total - 1):
            average.save_pretrained(out / "vae")
            (out / "autoencoder.json").write_text(json.dumps({"steps": step + 1, "seconds": time.time() - began}))
    return out / "vae"
