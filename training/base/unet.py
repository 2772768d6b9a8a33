"""Pretrain the U-Net of `tiny`, with its text encoder, on photographs and their captions.

The photographs' latents are computed once: a few random squares of each, posterior mean and deviation, drawn anew at
every step. The text encoder is trained with the U-Net here and frozen ever after, as Stable Diffusion's is.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from training.base.autoencoder import learning_rate
from training.base.photographs import random_crop, read_photographs, split
from training.base.text import build_text_encoder, build_tokenizer

UNET = {
    "sample_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (32, 64, 128, 192),
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "cross_attention_dim": 128,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
}
SCHEDULER = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


@dataclass(frozen=True)
class UNetTraining:
    """What the U-Net's pretraining depends on."""

    steps: int = 2500
    batch: int = 16
    size: int = 128
    squares: int = 6
    learning_rate: float = 8e-4
    drop_captions: float = 0.1
    ema: float = 0.999
    seed: int = 0


@torch.no_grad()
def encode_photographs(photographs: Path, vae: AutoencoderKL, out: Path, cfg: UNetTraining) -> dict[str, torch.Tensor]:
    """Return posterior mean and std, (photographs, squares, 4, h, w), computed once and kept in `out`."""
    file = out / "photograph-latents.pt"
    if file.exists():
        return torch.load(file, weights_only=True)
    images, _, _ = read_photographs(photographs)
    means, stds = [], []
    for index in split(len(images))[0]:
        rng = np.random.default_rng((cfg.seed, index))
        squares = [random_crop(images[index], cfg.size, (1.0, 1.375), rng) for _ in range(cfg.squares)]
        posterior = vae.encode(torch.stack(squares)).latent_dist
        means.append(posterior.mean)
        stds.append(posterior.std)
    latents = {"mean": torch.stack(means), "std": torch.stack(stds)}
    torch.save(latents, file)
    return latents


def train_unet(photographs: Path, out: Path, cfg: UNetTraining, checkpoint_every: int = 250) -> Path:
    """Train, resume where a former run stopped, and write the whole pipeline to `out/tiny`; return that folder."""
    vae = AutoencoderKL.from_pretrained(out / "vae").eval()
    latents = encode_photographs(photographs, vae, out, cfg)
    scale = 1 / latents["mean"].std().item()
    vae.register_to_config(scaling_factor=scale)
    images, captions, _ = read_photographs(photographs)
    train, _ = split(len(images))
    del images
    tokenizer = build_tokenizer(captions)
    tokens = tokenizer(
        [captions[i] for i in train], padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids
    empty = tokenizer("", padding="max_length", return_tensors="pt").input_ids

    torch.manual_seed(cfg.seed)
    modules = torch.nn.ModuleDict({"unet": UNet2DConditionModel(**UNET), "text": build_text_encoder(tokenizer)})
    average = [p.detach().clone() for p in modules.parameters()]
    optimizer = torch.optim.AdamW(modules.parameters(), lr=cfg.learning_rate, betas=(0.9, 0.99), weight_decay=1e-3)
    scheduler = DDIMScheduler(**SCHEDULER)
    start, seconds = 0, 0.0
    checkpoint = out / "unet.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        modules.load_state_dict(state["modules"])
        average = state["average"]
        optimizer.load_state_dict(state["optimizer"])
        start, seconds = state["step"], state["seconds"]
    began, running = time.time() - seconds, []
    for step in range(start, cfg.steps):
        rng = torch.Generator().manual_seed(cfg.seed * 1_000_003 + step)
        picks = torch.randint(len(train), (cfg.batch,), generator=rng)
        squares = torch.randint(cfg.squares, (cfg.batch,), generator=rng)
        mean, std = latents["mean"][picks, squares], latents["std"][picks, squares]
        clean = scale * (mean + std * torch.randn(mean.shape, generator=rng))
        flip = torch.rand(cfg.batch, generator=rng) < 0.5
        clean = torch.where(flip[:, None, None, None], clean.flip(-1), clean)
        drop = torch.rand(cfg.batch, generator=rng) < cfg.drop_captions
        ids = torch.where(drop[:, None], empty, tokens[picks])
        noise = torch.randn(clean.shape, generator=rng)
        timesteps = torch.randint(scheduler.config.num_train_timesteps, (cfg.batch,), generator=rng)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, cfg.steps, cfg.learning_rate)
        with torch.autocast("cpu", torch.bfloat16):
            text = modules["text"](ids).last_hidden_state
            predicted = modules["unet"](scheduler.add_noise(clean, noise, timesteps), timesteps, text).sample
        loss = (predicted.float() - noise).pow(2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(modules.parameters(), 1.0)
        optimizer.step()
        running.append(loss.item())
        with torch.no_grad():
            torch._foreach_lerp_(average, list(modules.parameters()), 1 - min(cfg.ema, (1 + step) / (10 + step)))
        if (step + 1) % 25 == 0:
            row = {"step": step + 1, "seconds": round(time.time() - began, 1), "loss": float(np.mean(running[-25:]))}
            print(json.dumps(row), flush=True)
        if (step + 1) % checkpoint_every == 0 or step == cfg.steps - 1:
            state = {"modules": modules.state_dict(), "average": average, "optimizer": optimizer.state_dict()}
            partial = checkpoint.with_suffix(".partial")
            torch.save(state | {"step": step + 1, "seconds": time.time() - began}, partial)
            partial.replace(checkpoint)
    with torch.no_grad():
        for parameter, value in zip(modules.parameters(), average, strict=True):
            parameter.copy_(value)
    pipeline = StableDiffusionPipeline(
        vae=vae,
        text_encoder=modules["text"],
        tokenizer=tokenizer,
        unet=modules["unet"],
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.to(torch.float16).save_pretrained(out / "tiny")
    (out / "unet.json").write_text(json.dumps({"steps": cfg.steps, "seconds": time.time() - began}))
    return out / "tiny"
