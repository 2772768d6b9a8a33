"""Adapters as others write them: by diffusers' own savers, with random weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from latentdrift.models import load_pipeline

TOKENS, SECOND = "learned_embeds.safetensors", "learned_embeds_2.safetensors"
PROCESSORS, LORA = "pytorch_custom_diffusion_weights.safetensors", "pytorch_lora_weights.safetensors"
TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def embeddings(vectors: int = 1, width: int = 16, seed: int = 0) -> torch.Tensor:
    return torch.randn(vectors, width, generator=torch.Generator().manual_seed(seed))


def write_tokens(folder: Path, tokens: dict[str, torch.Tensor], name: str = TOKENS) -> Path:
    save_file(tokens, folder / name)
    return folder


def custom_processors(unet: Any, q_out: bool = False, seed: int = 1) -> dict[str, Any]:
    """Processors as diffusers' own example makes them, with random weights in the cross-attentions."""
    from diffusers.models.attention_processor import CustomDiffusionAttnProcessor

    torch.manual_seed(seed)
    made = {}
    for name in unet.attn_processors:
        attention = unet.get_submodule(name.removesuffix(".processor"))
        cross = name.endswith("attn2.processor")
        made[name] = CustomDiffusionAttnProcessor(
            train_kv=cross,
            train_q_out=cross and q_out,
            hidden_size=attention.to_q.out_features if cross else None,
            cross_attention_dim=unet.config.cross_attention_dim if cross else None,
        )
    return made


def write_processors(model: Path, folder: Path, **options: Any) -> Path:
    """Write the file by diffusers' own saver."""
    unet = load_pipeline(model).unet
    unet.set_attn_processor(custom_processors(unet))
    unet.save_attn_procs(folder, **options)
    return folder


def fill_empty(folder: Path, model: Path) -> None:
    """Add the zero-length tensors by which diffusers knows processors without weights."""
    content = load_file(folder / PROCESSORS)
    empty = {name: torch.zeros(0) for name in load_pipeline(model).unet.attn_processors if "attn1" in name}
    save_file({**content, **empty}, folder / PROCESSORS)


def add_lora(module: Any, targets: list[str], seed: int, alpha: float = 4.0) -> dict[str, torch.Tensor]:
    from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model

    torch.manual_seed(seed)
    config = LoraConfig(r=2, lora_alpha=alpha, target_modules=targets, init_lora_weights="gaussian")
    inject_adapter_in_model(config, module)
    for name, weight in module.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.3)
    return get_peft_model_state_dict(module)


def write_lora(model: Path, folder: Path, *, text: bool = False, seed: int = 2, **options: Any) -> Path:
    """Write the file by diffusers' own saver, with its metadata."""
    from diffusers.training_utils import _collate_lora_metadata
    from diffusers.utils import convert_state_dict_to_diffusers

    pipeline = load_pipeline(model)
    trained = {"unet": pipeline.unet}
    layers = {"unet_lora_layers": add_lora(pipeline.unet, TARGETS, seed)}
    names = ["text_encoder", "text_encoder_2"] if hasattr(pipeline, "text_encoder_2") else ["text_encoder"]
    for name in names if text else []:
        trained[name] = getattr(pipeline, name)
        layers[f"{name}_lora_layers"] = add_lora(trained[name], ["q_proj", "v_proj"], seed)
    layers = {name: convert_state_dict_to_diffusers(part) for name, part in layers.items()}
    metadata = _collate_lora_metadata(trained) if options.get("safe_serialization", True) else {}
    type(pipeline).save_lora_weights(folder, **layers, **metadata, **options)
    return folder
