"""The files by which the ecosystem knows an adapter, and the parts of a pipeline that they are for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.errors import ModelError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

TOKENS = "learned_embeds"
SECOND_TOKENS = "learned_embeds_2"
PROCESSORS = "pytorch_custom_diffusion_weights"
LORA = "pytorch_lora_weights"
STEMS = (TOKENS, SECOND_TOKENS, PROCESSORS, LORA)
"""Names without ending of the files of an adapter."""

SCHEDULER = "scheduler"
"""Folder beside those files: what the adapter was trained to predict, on which noise levels, as pipelines keep it."""

ANOTHER_BASE = "It was made for another base: load that base, or another adapter."


def adapter_folder(folder: str | Path) -> Path | None:
    """Return the folder that holds adapter files: `folder` or its `model`; None if neither does."""
    path = Path(folder).expanduser()
    return next((place for place in (path, path / "model") if adapter_files(place)), None)


def adapter_files(folder: Path) -> dict[str, Path]:
    """Return the adapter files of a folder by their names without ending; .safetensors goes before .bin.

    Custom Diffusion's script of diffusers writes each token into a file of its own, such as `<new1>.bin`: those too.
    """
    found: dict[str, Path] = {}
    for ending in (".safetensors", ".bin"):
        for path in sorted(folder.glob(f"*{ending}")):
            if path.is_file() and (path.stem in STEMS or re.fullmatch("<.+>", path.stem)):
                found.setdefault(path.stem, path)
    return found


def read_tensors(path: Path) -> dict[str, Any]:
    """Return what an adapter file holds: tensors by name, or what else a .bin file of others has.

    Raises:
        ModelError: the file is damaged, empty, or holds NaN or infinite numbers.
    """
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
            content = dict(content.items())
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(f"{path} is damaged ({reason[:200]}). Restore it, or save the adapter again.") from error
    if not content:
        raise ModelError(f"{path} holds nothing. Save the adapter again.")
    for name, value in content.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point() and not torch.isfinite(value).all():
            raise ModelError(f"{path} holds NaN or infinite numbers in {name!r}. Restore it, or train it again.")
    return content


def text_towers(pipeline: DiffusionPipeline) -> list[tuple[Any, Any]]:
    """Return (tokenizer, text encoder), two of them for Stable Diffusion XL."""
    towers = [(pipeline.tokenizer, pipeline.text_encoder)]
    if getattr(pipeline, "text_encoder_2", None) is not None:
        towers.append((pipeline.tokenizer_2, pipeline.text_encoder_2))
    return towers


def module_of(module: Any, name: str) -> Any:
    """Return a submodule by its dotted name, or None."""
    try:
        return module.get_submodule(name)
    except AttributeError:
        return None
