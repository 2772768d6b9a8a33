"""What a step of each method must compute, counted, and what that leaves to gain."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers import DiffusionPipeline

from benchmarks.operations import ceiling, count
from latentdrift.models import tokenize_prompts

PROMPT = "an MRI slice of a brain"


def method_operations(pipeline: DiffusionPipeline, trained: str, channels: int, rank: int = 4) -> dict[str, float]:
    """Return GFLOP an image of a Stable Diffusion 1.x or 2.x: U-Net and text encoder, forward and backward; VAE.

    Args:
        pipeline: the model.
        trained: see `Comparison`.
        channels: that the U-Net takes, twice a latent's where an image is edited.
        rank: of the adapter.
    """
    vae, device = pipeline.vae, pipeline.unet.device
    unet = copy.deepcopy(pipeline.unet).requires_grad_(False)
    text = copy.deepcopy(pipeline.text_encoder).requires_grad_(False)
    if channels != unet.config.in_channels:
        unet.conv_in = torch.nn.Conv2d(channels, unet.conv_in.out_channels, 3, padding=1).to(device)
    through_text = trained in ("embeddings", "keys and values")
    if trained == "unet":
        unet.requires_grad_(True)
    elif trained == "adapter":
        from peft import LoraConfig

        unet.add_adapter(LoraConfig(r=rank, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    elif trained == "keys and values":
        for name, weight in unet.named_parameters():
            weight.requires_grad_(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")))
    text.get_input_embeddings().requires_grad_(through_text)
    ids = tokenize_prompts(pipeline, [PROMPT]).ids[0]
    side = unet.config.sample_size
    pixels = side * pipeline.vae_scale_factor
    with torch.no_grad():
        hidden = text(ids)[0]
        encoding = count(lambda: vae.encode(torch.randn(1, 3, pixels, pixels, device=device)))
    hidden.requires_grad_(through_text)
    noisy, timestep = torch.randn(1, channels, side, side, device=device), torch.tensor([500], device=device)

    def predict() -> torch.Tensor:
        return unet(noisy, timestep, hidden).sample

    found = {"vae_encode": encoding, "unet_forward": count(predict), "text_forward": count(lambda: text(ids))}
    found["unet_backward"] = count(lambda: predict().mean().backward()) - found["unet_forward"]
    found["text_backward"] = 0.0
    if through_text:
        found["text_backward"] = count(lambda: text(ids)[0].mean().backward()) - found["text_forward"]
    return found


def split_operations(cost: dict[str, float]) -> dict[str, float]:
    """Return what `training_operations` counted, of a training of the whole U-Net, as `method_operations` gives it."""
    forward = cost["unet_forward"]
    backward = cost["unet_forward_backward"] - forward
    return {
        "vae_encode": cost["vae_encode"],
        "unet_forward": forward,
        "unet_backward": backward,
        "text_forward": cost["text"],
        "text_backward": 0.0,
    }


def method_ceilings(process: dict[str, Any], cost: dict[str, float]) -> dict[str, dict[str, float]]:
    """Return the ratios if all but U-Net, text encoder and VAE were free: by operations, by the reference's seconds.

    Args:
        process: of `measure_processes`.
        cost: of `method_operations`.

    Returns:
        For "operations" and "reference_seconds": `ratio`, and `limit` for endless training.
    """
    data, calls = process["data"], process["reference"]["calls"]["training loop"]
    drawn = process["steps"] * process["batch_size"] * data["rows"]
    every = {
        "operations": {
            "unet": cost["unet_forward"] + cost["unet_backward"],
            "vae": cost["vae_encode"] * data["encodings"],
            "text": cost["text_forward"] + cost["text_backward"],
        },
        # The backward pass of the text encoder is in that of the U-Net.
        "reference_seconds": {
            "unet": (calls["U-Net forward"] + calls["backward"]) / drawn,
            "vae": calls["VAE encoding"] / drawn,
            "text": calls["text encoder"] / drawn,
        },
    }
    found = {}
    for name, parts in every.items():
        # A text encoder in the training has to encode each caption of a step, but only once.
        again = (data["captions_a_step"] or 0) / (process["batch_size"] * data["rows"])
        shares = {
            "unet_forward_backward": parts["unet"] + again * parts["text"],
            "vae_encode": parts["vae"],
            "text": (1 - again) * parts["text"],
        }
        captions = 0 if data["captions_a_step"] else data["captions"]
        found[name] = ceiling(shares, drawn, data["encoded_images"] / data["encodings"], captions)
    return found
