"""Measure the base model and write its card: `README.md` and a sheet, beside the weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline

from latentdrift.data import Cohort, ImageTransform
from latentdrift.evaluate import psnr, ssim
from latentdrift.report import image_grid
from training.base.autoencoder import AutoencoderTraining
from training.base.photographs import centre_square, read_photographs, split
from training.base.unet import UNetTraining

CARD = """---
license: apache-2.0
library_name: diffusers
pipeline_tag: text-to-image
---
# tiny

A Stable-Diffusion-shaped model of {parameters:.1f} million parameters for trying latent drifting on two processor
cores: AutoencoderKL (f = 4, latents 4 x 32 x 32), CLIPTextModel with its own small CLIP vocabulary,
UNet2DConditionModel, scaled-linear schedule, noise prediction, 128 pixels. It has seen photographs only, so that
going to medical images is a real change of domain. It is a starting point for fine-tuning and for tests, not a
generator of photographs.

## Training

- Data: {train} photographs, one for each ImageNet class (ILSVRC 2012) and BSDS500, with captions "a photo of a ...";
  {held_out} more were held out. Research use; no photograph is in this repository.
- Autoencoder: {ae_steps} steps of {ae_batch} crops of 64 pixels, L1 + SSIM + colour loss, {ae_minutes:.0f} minutes.
- U-Net and text encoder: {unet_steps} steps of {unet_batch} latents, {unet_minutes:.0f} minutes.
- Both on two processor cores without a GPU, other work running beside them:
  `python -m training.base autoencoder --photographs FOLDER --out OUT`, then `unet`, then `card`.

## Reconstruction by the autoencoder, 128 pixels

{table}

Tint is the largest mean difference, over the images, of a colour channel from gray, in levels of 0 to 255.

The mean latent (scaled) of a domain is what a drift makes up for: {means}.

![Samples under prompts of photographs](samples.png)
"""


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return reconstructions (N, 3, H, W) in [-1, 1] and the scaled mean latent a channel."""
    decoded, means = [], []
    for batch in images.split(16):
        mean = vae.encode(batch).latent_dist.mean
        means.append(mean.mean((2, 3)))
        decoded.append(vae.decode(mean).sample.clamp(-1, 1))
    return torch.cat(decoded), torch.cat(means).mean(0) * vae.config.scaling_factor


def spread(cohort: Cohort, count: int) -> torch.Tensor:
    """Return `count` images spread evenly over a cohort."""
    transform = ImageTransform(size=128)
    chosen = np.linspace(0, len(cohort) - 1, min(count, len(cohort))).astype(int)
    return torch.stack([transform.read(cohort[int(i)].image) for i in chosen])


def write_card(photographs: Path, out: Path, scans: dict[str, Path], count: int = 128) -> Path:
    """Measure `out/tiny` on held-out photographs and on folders of scans; write the card into it; return its path."""
    folder = out / "tiny"
    pipeline = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    images, _, _ = read_photographs(photographs)
    train, held_out = split(len(images))
    sets = {"held-out photographs": torch.stack([centre_square(images[i], 128) for i in held_out])}
    for name, path in scans.items():
        sets[name] = spread(Cohort.open(path, missing="keep"), count)
    rows, means, grid = ["| images | number | PSNR (dB) | SSIM | tint |", "|---|---|---|---|---|"], [], []
    figures = {}
    for name, batch in sets.items():
        decoded, mean = reconstruct(pipeline.vae, batch)
        levels = ((decoded + 1) * 127.5).round()
        gray = bool((batch[:, 0] == batch[:, 1]).all())
        tint = (levels.mean((2, 3)) - levels.mean((1, 2, 3))[:, None]).abs().max().item() if gray else None
        figures[name] = {
            "psnr": float(psnr(decoded, batch).mean()),
            "ssim": float(ssim(decoded, batch).mean()),
            "tint": tint,
        }
        rows.append(
            f"| {name} | {len(batch)} | {figures[name]['psnr']:.2f} | {figures[name]['ssim']:.4f} | "
            f"{'' if tint is None else f'{tint:.2f}'} |"
        )
        means.append(f"{name} ({', '.join(f'{value:+.2f}' for value in mean.tolist())})")
        grid += [list(batch[:8]), list(decoded[:8])]
    labels = [label for name in sets for label in (name, "reconstructed")]
    # Sources are other people's images: the sheet stays with the run and is not shipped.
    image_grid(out / "reconstructions.png", grid, row_labels=labels)
    prompts = ["a photo of a goldfish", "a photo of a castle", "a photo of a lakeshore", "a photo of a tiger"]
    sheet = []
    for prompt in prompts:
        generators = [torch.Generator().manual_seed(seed) for seed in range(6)]
        made = pipeline(
            [prompt] * 6, num_inference_steps=50, guidance_scale=3.0, generator=generators, output_type="np"
        )
        sheet.append(list(made.images * 2 - 1))
    image_grid(folder / "samples.png", sheet, row_labels=prompts)
    ae, unet = (json.loads((out / name).read_text()) for name in ("autoencoder.json", "unet.json"))
    parameters = sum(p.numel() for m in (pipeline.vae, pipeline.unet, pipeline.text_encoder) for p in m.parameters())
    text = CARD.format(
        parameters=parameters / 1e6,
        train=len(train),
        held_out=len(held_out),
        ae_steps=ae["steps"],
        ae_batch=AutoencoderTraining.batch,
        ae_minutes=ae["seconds"] / 60,
        unet_steps=unet["steps"],
        unet_batch=UNetTraining.batch,
        unet_minutes=unet["seconds"] / 60,
        table="\n".join(rows),
        means="; ".join(means),
    )
    (folder / "README.md").write_text(text)
    forget_paths(folder)
    (folder / "reconstruction.json").write_text(json.dumps(figures, indent=2) + "\n")
    return folder / "README.md"


def forget_paths(folder: Path) -> None:
    """Take the folder a model was loaded from out of its configurations: it means nothing elsewhere."""
    for path in folder.glob("*/config.json"):
        config = json.loads(path.read_text())
        if config.pop("_name_or_path", None) is not None:
            path.write_text(json.dumps(config, indent=2) + "\n")
