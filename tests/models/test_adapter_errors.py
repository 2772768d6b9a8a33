from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from latentdrift.errors import ModelError
from latentdrift.models import load_adapter, load_pipeline
from tests.models.adapter_artifacts import (
    LORA,
    PROCESSORS,
    SECOND,
    TOKENS,
    embeddings,
    write_lora,
    write_processors,
    write_tokens,
)

Break = Callable[[Path, Path, Path], Any]
"""Called with a folder, the toy and the XL toy; writes files that do not fit the toy."""


def rename(folder: Path, name: str, change: Callable[[str], str]) -> None:
    save_file({change(key): value for key, value in load_file(folder / name).items()}, folder / name)


def reshape(folder: Path, name: str, part: str) -> None:
    content = load_file(folder / name)
    save_file(
        {key: value[:, :-1].contiguous() if part in key else value for key, value in content.items()}, folder / name
    )


BROKEN: dict[str, tuple[Break, str]] = {
    "nothing": (lambda folder, toy, xl: None, r"holds no adapter: .*learned_embeds\.safetensors.*Give a run folder"),
    "a word the tokenizer has": (
        lambda folder, toy, xl: write_tokens(folder, {"a</w>": embeddings()}),
        r"has 'a</w>' of .* already.*plain base",
    ),
    "another width": (
        lambda folder, toy, xl: write_tokens(folder, {"<a>": embeddings(2, 24)}),
        r"'<a>' as \(2, 24\).*CLIPTextModel are 16 wide.*another base",
    ),
    "no embeddings": (lambda folder, toy, xl: write_tokens(folder, {"<a>": torch.zeros(2, 2, 16)}), r"\(2, 2, 16\)"),
    "NaN": (lambda folder, toy, xl: write_tokens(folder, {"<a>": torch.full((1, 16), torch.nan)}), "NaN.*'<a>'"),
    "no tokens": (lambda folder, toy, xl: write_tokens(folder, {}), "holds nothing"),
    "a second encoder's tokens": (
        lambda folder, toy, xl: [write_tokens(folder, {"<a>": embeddings()}, name) for name in (TOKENS, SECOND)],
        "tokens for two text encoders, this model has one",
    ),
    "processors of XL": (
        lambda folder, toy, xl: write_processors(xl, folder),
        r"attn2\.processor\.to_k_custom_diffusion\.weight as \(16, 32\); \(16, 16\) is needed.*another base",
    ),
    "processors of other layers": (
        lambda folder, toy, xl: rename(write_processors(toy, folder), PROCESSORS, lambda key: f"mid_block.{key}"),
        r"'mid_block\.down_blocks.*this U-Net has not",
    ),
    "processors without weights": (
        lambda folder, toy, xl: save_file(
            {name: torch.zeros(0) for name in load_pipeline(toy).unet.attn_processors}, folder / PROCESSORS
        ),
        "no weights of Custom Diffusion",
    ),
    "LoRA of XL": (
        lambda folder, toy, xl: write_lora(xl, folder),
        r"attn2\.to_k\.lora_A\.weight as \(2, 32\), which does not fit the layer's \(16, 16\).*another base",
    ),
    "LoRA of XL's text encoders": (
        lambda folder, toy, xl: rename(
            write_lora(toy, folder, text=True), LORA, lambda key: key.replace("text_encoder.", "text_encoder_2.")
        ),
        "weights for 'text_encoder_2', which this model has not",
    ),
    "LoRA of other layers": (
        lambda folder, toy, xl: rename(
            write_lora(toy, folder), LORA, lambda key: key.replace("up_blocks.1", "up_blocks.3")
        ),
        r"unet\.up_blocks\.3.*this model has not",
    ),
    "LoRA with another rank in one factor": (
        lambda folder, toy, xl: reshape(write_lora(toy, folder), LORA, "attn1.to_q.lora.up"),
        "lacks the fitting counterpart of",
    ),
    "no LoRA": (
        lambda folder, toy, xl: save_file({"unet.conv_in.weight": torch.zeros(2)}, folder / LORA),
        r"'unet\.conv_in\.weight', which is no part of a LoRA",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_does_not_fit_is_refused_and_nothing_changed(
    case: str, toy_model: Path, toy_xl_model: Path, tmp_path: Path
) -> None:
    write, says = BROKEN[case]
    write(tmp_path, toy_model, toy_xl_model)
    if case not in ("nothing", "no tokens", "a word the tokenizer has", "another width", "no embeddings", "NaN"):
        torch.save({"<fine>": embeddings()}, tmp_path / "<fine>.bin")
        if case == "a second encoder's tokens":
            (tmp_path / "<fine>.bin").unlink()
    pipeline = load_pipeline(toy_model)
    weights, vocabulary = dict(pipeline.unet.state_dict()), len(pipeline.tokenizer)
    with pytest.raises(ModelError, match=says) as raised:
        load_adapter(pipeline, tmp_path)
    assert str(tmp_path) in str(raised.value)
    assert len(str(raised.value)) < 700
    assert len(pipeline.tokenizer) == vocabulary == len(pipeline.text_encoder.get_input_embeddings().weight)
    assert pipeline.unet.state_dict().keys() == weights.keys()


def test_tokens_of_one_encoder_do_not_do_for_xl(toy_xl_model: Path, tmp_path: Path) -> None:
    write_tokens(tmp_path, {"<a>": embeddings()})
    with pytest.raises(ModelError, match=r"embeddings of <a> for one text encoder alone, this model has two"):
        load_adapter(load_pipeline(toy_xl_model), tmp_path)


@pytest.mark.parametrize("vectors", [1, 2])
def test_the_same_tokens_are_not_loaded_twice(toy_model: Path, vectors: int, tmp_path: Path) -> None:
    write_tokens(tmp_path, {"<a>": embeddings(vectors)})
    pipeline = load_adapter(load_pipeline(toy_model), tmp_path)
    with pytest.raises(ModelError, match=r"has '<a>'.* already.*merged"):
        load_adapter(pipeline, tmp_path)


@pytest.mark.parametrize("name", [TOKENS, PROCESSORS, LORA, "learned_embeds.bin", "pytorch_lora_weights.bin"])
@pytest.mark.parametrize("content", [b"", b"\x00" * 50, b"not weights at all, but some text"])
def test_a_damaged_file(toy_model: Path, tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{re.escape(name)} is damaged \(.+\)\. Restore it"):
        load_adapter(load_pipeline(toy_model), tmp_path)


@pytest.mark.parametrize("name", [PROCESSORS, LORA])
def test_a_file_that_was_cut_short(toy_model: Path, tmp_path: Path, name: str) -> None:
    (write_processors if name == PROCESSORS else write_lora)(toy_model, tmp_path)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:-100])
    with pytest.raises(ModelError, match="is damaged"):
        load_adapter(load_pipeline(toy_model), tmp_path)


def test_a_pickle_runs_no_code(toy_model: Path, tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "run",))

    (tmp_path / "learned_embeds.bin").write_bytes(pickle.dumps({"<a>": Evil()}, protocol=2))
    with pytest.raises(ModelError, match="is damaged"):
        load_adapter(load_pipeline(toy_model), tmp_path)
    assert not (tmp_path / "run").exists()
