"""What fine-tuning leaves in the ecosystem's own small files, put onto a pipeline: tokens, processors, LoRA.

`learned_embeds.safetensors` holds textual inversion's tokens (Gal et al., arXiv 2208.01618),
`pytorch_custom_diffusion_weights.safetensors` the keys and values of Custom Diffusion (Kumari et al., 2212.04488) and
`pytorch_lora_weights.safetensors` a LoRA (Hu et al., 2106.09685). diffusers loads them, but tells little or nothing
where they do not fit, so that everything is checked here before the pipeline is changed.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.errors import ModelError
from latentdrift.models.adapter_files import (
    ANOTHER_BASE,
    LORA,
    PROCESSORS,
    SECOND_TOKENS,
    STEMS,
    TOKENS,
    adapter_files,
    adapter_folder,
    module_of,
    read_tensors,
    text_towers,
)
from latentdrift.models.card import read_model_card
from latentdrift.models.lora import fitting_lora, put_lora
from latentdrift.models.quiet import quiet_libraries

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

PRECISIONS = (torch.float32, torch.float16, torch.bfloat16)


class AdapterMismatchWarning(UserWarning):
    """An adapter is put onto another base than the one it was trained on, although all shapes fit."""


def load_adapter(pipeline: DiffusionPipeline, folder: str | Path) -> DiffusionPipeline:
    """Put the adapter files of a folder onto a loaded pipeline, which is changed and returned.

    A LoRA joins those that the pipeline has already; all of them act. The drift and the scheduler are left as
    they are: `load_pipeline` of the run applies those of the adapter's training.

    Args:
        pipeline: a Stable Diffusion pipeline, XL or not.
        folder: a run folder, its `model`, or any folder with files of the ecosystem's names (`adapter_files`).

    Warns:
        AdapterMismatchWarning: the adapter was trained on another base of the same shapes.

    Raises:
        ModelError: no such files, a damaged file, a token that the tokenizer has already, or tensors that do not fit
            the pipeline's modules. The pipeline is as it was.
    """
    place = adapter_folder(folder)
    if place is None:
        raise ModelError(
            f"{folder} holds no adapter: neither it nor its folder 'model' has one of the files "
            + ", ".join(f"{stem}.safetensors" for stem in STEMS)
            + " (or .bin). Give a run folder of a method that leaves an adapter, or a folder with such a file."
        )
    files = adapter_files(place)
    tokens = read_tokens(files)
    check_tokens(pipeline, tokens, place)
    processors = read_tensors(files[PROCESSORS]) if PROCESSORS in files else None
    if processors is not None:
        processors = checked_processors(pipeline.unet, processors, files[PROCESSORS])
    lora = fitting_lora(pipeline, files[LORA]) if LORA in files else None
    card = read_model_card(place)
    trained_on = None if card is None else card.notes.get("base_fingerprint")
    if isinstance(trained_on, str) and not same_base(trained_on, base_fingerprint(pipeline.unet)):
        warnings.warn(
            f"{place} was trained on {card.base if card else 'another base'}, whose weights are not those of this "
            "pipeline's U-Net. The shapes fit and it is loaded; images may differ from those seen in training. "
            "load_pipeline of the folder takes the right base.",
            AdapterMismatchWarning,
            stacklevel=2,
        )
    try:
        with quiet_libraries(), warnings.catch_warnings():
            # peft warns where a model has a LoRA already; here that is a wish.
            warnings.filterwarnings("ignore", message="Already found a `peft_config`")
            put_tokens(pipeline, tokens)
            if processors is not None:
                # Without `_pipeline` diffusers 0.42 reads the file and sets nothing.
                pipeline.unet.load_attn_procs(processors, _pipeline=pipeline)
            if lora is not None:
                put_lora(pipeline, lora)
    except Exception as error:
        raise ModelError(
            f"The adapter {place} cannot be loaded: {error}. Load the pipeline again: it may be half changed."
        ) from error
    return pipeline


Tokens = dict[str, torch.Tensor]
"""Embeddings (vectors, width) by placeholder token."""


def read_tokens(files: Mapping[str, Path]) -> tuple[Tokens, Tokens]:
    """Return the tokens of the first and of the second text encoder.

    Raises:
        ModelError: a file that is damaged or in no known layout.
    """
    encoders: tuple[Tokens, Tokens] = {}, {}
    for stem, path in files.items():
        if stem in (PROCESSORS, LORA):
            continue
        content = read_tensors(path)
        if isinstance(content.get("string_to_param"), Mapping):  # the layout of AUTOMATIC1111's web interface
            content = {str(content.get("name")): content["string_to_param"].get("*")}
        for token, value in content.items():
            if not isinstance(value, torch.Tensor) or value.ndim not in (1, 2) or not value.numel():
                shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
                raise ModelError(
                    f"{path} holds {token!r} as {shape}; a token's embeddings are a tensor (vectors, width). "
                    "Give a file written by textual inversion."
                )
            encoders[stem == SECOND_TOKENS][token] = value.reshape(-1, value.shape[-1])
    return encoders


def check_tokens(pipeline: DiffusionPipeline, tokens: tuple[Tokens, Tokens], place: Path) -> None:
    """Raise ModelError where tokens do not fit the pipeline's text encoders, or are there already."""
    first, second = tokens
    towers = text_towers(pipeline)
    if len(towers) == 1 and second:
        raise ModelError(f"{place} has tokens for two text encoders, this model has one. {ANOTHER_BASE}")
    if len(towers) == 2 and first.keys() != second.keys():
        lacking = ", ".join(sorted(first.keys() ^ second.keys()))
        raise ModelError(
            f"{place} has embeddings of {lacking} for one text encoder alone, this model has two and reads "
            f"{TOKENS} and {SECOND_TOKENS}. {ANOTHER_BASE}"
        )
    for (tokenizer, encoder), embeddings in zip(towers, tokens, strict=False):
        width, vocabulary = encoder.get_input_embeddings().weight.shape[-1], tokenizer.get_vocab()
        for token, value in embeddings.items():
            if value.shape[-1] != width:
                raise ModelError(
                    f"{place} has {token!r} as {tuple(value.shape)}; the embeddings of this model's "
                    f"{type(encoder).__name__} are {width} wide. {ANOTHER_BASE}"
                )
            taken = [name for name in vector_names(token, len(value)) if name in vocabulary]
            if taken:
                raise ModelError(
                    f"The tokenizer has {', '.join(map(repr, taken))} of {place} already: this model is merged with "
                    "it, or the adapter was loaded before. Load it onto the plain base."
                )


def vector_names(token: str, vectors: int) -> list[str]:
    """Return the tokens that stand for the vectors of one placeholder, as diffusers names them."""
    return [token, *(f"{token}_{number}" for number in range(1, vectors))]


def put_tokens(pipeline: DiffusionPipeline, tokens: tuple[Tokens, Tokens]) -> None:
    """Add tokens to the tokenizers and their embeddings to the text encoders."""
    from transformers import AddedToken

    for (tokenizer, encoder), embeddings in zip(text_towers(pipeline), tokens, strict=False):
        if not embeddings:
            continue
        pipeline.load_textual_inversion(
            [{token: value} for token, value in embeddings.items()], tokenizer=tokenizer, text_encoder=encoder
        )
        # diffusers writes a placeholder of several vectors out only if the tokenizer gives it back as it stands in the
        # prompt, but CLIP's puts prompts into lower case first: without this only the first vector would be used.
        names = [name for token, value in embeddings.items() for name in vector_names(token, len(value))]
        tokenizer.add_tokens([AddedToken(name, normalized=False) for name in names if name != name.lower()])


def checked_processors(unet: Any, content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return Custom Diffusion's weights as diffusers reads them, with an entry for every attention of the U-Net.

    `save_attn_procs` leaves out those without weights when it writes .safetensors, and cannot load such a file.

    Raises:
        ModelError: weights of attentions that the U-Net has not, or of other shapes.
    """
    known = unet.attn_processors
    filled = set()
    for name, value in content.items():
        processor, _, weight = name.partition(".processor.")
        if name not in known and not weight:
            raise ModelError(f"{path} holds {name!r}, which this U-Net has not. {ANOTHER_BASE}")
        if not weight:
            filled.add(name)
            continue
        if f"{processor}.processor" not in known:
            raise ModelError(f"{path} holds {name!r}, which this U-Net has not. {ANOTHER_BASE}")
        filled.add(f"{processor}.processor")
        layer, _, kind = f"{processor}.{weight.replace('_custom_diffusion', '')}".rpartition(".")
        check_shape(path, name, value, getattr(module_of(unet, layer), kind, None))
    keys = {name.partition(".processor.")[0] for name in content if "to_k_custom_diffusion" in name}
    if not keys:
        raise ModelError(f"{path} holds no weights of Custom Diffusion. Give the file that such a training wrote.")
    missing: dict[str, Any] = {name: torch.zeros(0) for name in known if name not in filled}
    return {**content, **missing}


def check_shape(path: Path, name: str, value: Any, wanted: torch.Tensor | None) -> None:
    """Raise ModelError unless a tensor has the shape of the one it stands in for."""
    if wanted is None:
        raise ModelError(f"{path} holds {name!r}, which this U-Net has not. {ANOTHER_BASE}")
    if not isinstance(value, torch.Tensor) or value.shape != wanted.shape:
        shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
        raise ModelError(f"{path} holds {name} as {shape}; {tuple(wanted.shape)} is needed. {ANOTHER_BASE}")


def base_fingerprint(unet: torch.nn.Module, values: int = 64) -> str:
    """Return what tells one base from another: a hash over up to `values` numbers of every tensor, for each precision.

    Reading all of a U-Net takes seconds. Any fine-tuning moves nearly every number, so that a few of each tensor are
    enough. A base is trained in float32 and may be used in float16: the text has a hash for every precision that the
    U-Net's weights can be rounded to, such as "float32:0123456789abcdef float16:...", and `same_base` compares those
    that two have in common. A LoRA or Custom Diffusion's processors on the U-Net do not count.
    """
    names, parts = [], []
    precision = next((p.dtype for p in unet.parameters()), torch.float32)
    for name, tensor in sorted(base_tensors(unet)):
        flat = tensor.detach().reshape(-1)
        parts.append(flat[:: max(1, -(-flat.numel() // values))].to(torch.float32))
        names.append(f"{name}{tuple(tensor.shape)}")
    sample = torch.cat(parts).cpu()
    rounded = PRECISIONS if precision == torch.float32 else (precision,)
    found = []
    for wanted in rounded:
        digest = hashlib.sha256("\n".join(names).encode())
        digest.update(sample.to(wanted).view(torch.uint8).numpy().tobytes())
        found.append(f"{str(wanted).removeprefix('torch.')}:{digest.hexdigest()[:16]}")
    return " ".join(found)


def base_tensors(unet: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the floating-point tensors of a U-Net itself, by the names they have without an adapter."""
    for name, tensor in unet.state_dict().items():
        if ".lora_" not in name and ".processor." not in name and tensor.is_floating_point():
            yield name.replace(".base_layer.", "."), tensor


def same_base(first: str, second: str) -> bool:
    """Return False if two fingerprints differ in a precision that both have."""
    one, other = (dict(part.partition(":")[::2] for part in text.split()) for text in (first, second))
    return all(one[precision] == other[precision] for precision in one.keys() & other.keys())
