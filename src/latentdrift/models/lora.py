"""A LoRA's file (Hu et al., arXiv 2106.09685), checked against a pipeline and put onto it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.errors import ModelError
from latentdrift.models.adapter_files import ANOTHER_BASE, module_of, read_tensors, text_towers
from latentdrift.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline


@dataclass(frozen=True)
class LoraFile:
    """What a file of any layout that diffusers reads holds.

    Args:
        tensors: in diffusers' layout, by component and layer.
        alphas: scale of every layer, of files in other layouts; None where the file has none.
        metadata: the settings it was trained with, by component; None where the file has none.
        encoders: the factors of each text encoder's layers ("text_encoder", "text_encoder_2"), named as peft does.
    """

    tensors: Mapping[str, torch.Tensor]
    alphas: Mapping[str, float] | None
    metadata: Mapping[str, Any] | None
    encoders: Mapping[str, Mapping[str, torch.Tensor]]


def fitting_lora(pipeline: DiffusionPipeline, path: Path) -> LoraFile:
    """Return a LoRA that fits the pipeline's U-Net and text encoders.

    Raises:
        ModelError: the file is damaged, no LoRA, or of another base.
    """
    from diffusers.utils import convert_unet_state_dict_to_peft

    read_tensors(path)
    try:
        with quiet_libraries():
            content, alphas, metadata = pipeline.lora_state_dict(
                path.parent, weight_name=path.name, unet_config=pipeline.unet.config, return_lora_metadata=True
            )
    except Exception as error:
        raise ModelError(f"{path} is no LoRA that diffusers reads: {error}. Convert it to its layout.") from error
    strange = [name for name in content if "lora" not in name or "." not in name]
    if strange:
        raise ModelError(
            f"{path} holds {strange[0]!r}, which is no part of a LoRA. Give a file written by save_lora_weights."
        )
    modules = named_modules(pipeline)
    encoders = {}
    for prefix in dict.fromkeys(name.partition(".")[0] for name in content):
        if prefix not in modules:
            raise ModelError(f"{path} has weights for {prefix!r}, which this model has not. {ANOTHER_BASE}")
        part = of_prefix(prefix, content)
        if prefix != "unet":
            part = encoders[prefix] = encoder_part(modules[prefix], part)
        elif "lora_A" not in next(iter(part)):
            part = convert_unet_state_dict_to_peft(part)
        check_low_rank(modules[prefix], part, path, prefix)
    return LoraFile(content, alphas, metadata, encoders)


def named_modules(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Return what a LoRA can be put on, by the names that its file has for them."""
    encoders = [encoder for _, encoder in text_towers(pipeline)]
    return {"unet": pipeline.unet, **dict(zip(("text_encoder", "text_encoder_2"), encoders, strict=False))}


def encoder_part(encoder: Any, part: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return a text encoder's factors by peft's names of its layers."""
    from diffusers.utils import convert_state_dict_to_diffusers, convert_state_dict_to_peft

    named: dict[str, torch.Tensor] = convert_state_dict_to_peft(convert_state_dict_to_diffusers(dict(part)))
    if hasattr(encoder, "text_model"):
        return named
    # transformers 5 has left out a level that the names of older files have.
    return {name.removeprefix("text_model."): value for name, value in named.items()}


def check_low_rank(module: Any, part: Mapping[str, torch.Tensor], path: Path, prefix: str) -> None:
    """Raise ModelError unless the two factors of every layer, named as peft does, fit the layer's weight."""
    for name, value in part.items():
        layer, _, factor = name.rpartition(".lora_")
        if factor not in ("A.weight", "B.weight"):
            continue
        weight = getattr(module_of(module, layer), "weight", None)
        if weight is None:
            raise ModelError(f"{path} holds {prefix}.{name}, whose layer this model has not. {ANOTHER_BASE}")
        side = 1 if factor == "A.weight" else 0
        if value.ndim < 2 or value.shape[side] != weight.shape[side]:
            raise ModelError(
                f"{path} holds {prefix}.{name} as {tuple(value.shape)}, which does not fit the layer's "
                f"{tuple(weight.shape)}. {ANOTHER_BASE}"
            )
        other = part.get(f"{layer}.lora_{'B' if side else 'A'}.weight")
        if other is None or other.ndim < 2 or other.shape[side] != value.shape[1 - side]:
            raise ModelError(f"{path} lacks the fitting counterpart of {prefix}.{name}. Save the adapter again.")


def put_lora(pipeline: DiffusionPipeline, lora: LoraFile) -> None:
    """Add a LoRA to those that act; diffusers alone would turn the others off."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    modules = named_modules(pipeline)
    acting: dict[str, list[str]] = {}
    for prefix, module in modules.items():
        layers = (layer for layer in module.modules() if isinstance(layer, BaseTunerLayer))
        acting[prefix] = next((list(layer.active_adapters) for layer in layers), [])
    if any(name.startswith("unet.") for name in lora.tensors):
        pipeline.load_lora_into_unet(
            dict(lora.tensors),
            network_alphas=lora.alphas,
            unet=pipeline.unet,
            metadata=lora.metadata,
            _pipeline=pipeline,
        )
    for prefix, part in lora.encoders.items():
        put_on_encoder(modules[prefix], prefix, part, lora)
    for prefix, before in acting.items():
        for layer in modules[prefix].modules():
            if before and isinstance(layer, BaseTunerLayer):
                layer.set_adapter(list(dict.fromkeys([*before, *layer.active_adapters])))


def put_on_encoder(encoder: Any, prefix: str, part: Mapping[str, torch.Tensor], lora: LoraFile) -> None:
    """Add a LoRA to a text encoder by peft itself.

    diffusers would go through transformers, which accepts only versions of peft that came out with it or later.
    """
    from diffusers.utils import get_adapter_name, get_peft_kwargs
    from peft import LoraConfig, inject_adapter_in_model, set_peft_model_state_dict

    ranks = {name: value.shape[1] for name, value in part.items() if name.endswith(".lora_B.weight")}
    told = {} if lora.metadata is None else of_prefix(prefix, lora.metadata)
    if not told:
        alphas = None if lora.alphas is None else of_prefix(prefix, lora.alphas)
        told = get_peft_kwargs(ranks, alphas, dict(part), is_unet=False)
    wanted = ("r", "lora_alpha", "rank_pattern", "alpha_pattern", "use_rslora", "lora_bias")
    config = LoraConfig(
        target_modules=[name.removesuffix(".lora_B.weight") for name in ranks],
        inference_mode=True,
        **{name: told[name] for name in wanted if told.get(name) is not None},
    )
    name, device, dtype = get_adapter_name(encoder), encoder.device, encoder.dtype
    inject_adapter_in_model(config, encoder, adapter_name=name)
    set_peft_model_state_dict(encoder, dict(part), adapter_name=name)
    encoder.to(device=device, dtype=dtype)


def of_prefix(prefix: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values whose names begin with a component, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): value for name, value in values.items() if name.startswith(start)}
