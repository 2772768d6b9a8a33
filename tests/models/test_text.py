from __future__ import annotations

from pathlib import Path

import pytest
import torch

from latentdrift.errors import DataError
from latentdrift.models import Conditioning, encode_prompts, load_pipeline


def test_each_distinct_prompt_is_encoded_once(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_pipeline(toy_model)
    calls = []
    forward = pipeline.text_encoder.forward
    monkeypatch.setattr(
        pipeline.text_encoder, "forward", lambda ids, *a, **k: (calls.append(len(ids)), forward(ids, *a, **k))[1]
    )
    found = encode_prompts(pipeline, ["a", "b", "a", "a"])
    assert found.hidden.shape == (4, 77, 16)
    assert found.pooled is None
    assert torch.equal(found.hidden[0], found.hidden[3])
    assert not torch.allclose(found.hidden[0], found.hidden[1])
    assert calls == [2]


def test_prompts_are_encoded_as_transformers_does(toy_model: Path) -> None:
    pipeline = load_pipeline(toy_model)
    ids = pipeline.tokenizer("a slice", padding="max_length", max_length=77, return_tensors="pt").input_ids
    with torch.no_grad():
        expected = pipeline.text_encoder(ids)[0]
    assert torch.allclose(encode_prompts(pipeline, ["a slice"]).hidden, expected, atol=1e-6)


def test_a_prompt_too_long_is_refused(toy_model: Path) -> None:
    with pytest.raises(DataError, match="tokens long, and the text encoder takes 77"):
        encode_prompts(load_pipeline(toy_model), ["fine", "long " * 40])


def test_xl_is_told_sizes_and_has_zeros_for_the_empty_prompt(toy_xl_model: Path) -> None:
    pipeline = load_pipeline(toy_xl_model)
    found = encode_prompts(pipeline, ["a", "", "a"], 24)
    assert found.hidden.shape == (3, 77, 32)
    assert found.pooled is not None
    assert found.times is not None
    assert found.pooled.shape == (3, 16)
    assert found.times.tolist() == [[24, 24, 0, 0, 24, 24]] * 3
    assert not found.hidden[1].any()
    assert not found.pooled[1].any()
    assert found.hidden[0].any()
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    assert encode_prompts(pipeline, [""]).hidden.any()


def test_conditioning_is_indexed_and_stacked_as_a_batch() -> None:
    rows = torch.arange(6.0).reshape(3, 2)
    many = Conditioning(rows[:, None], rows, rows + 10)
    assert len(many) == 3
    stacked = Conditioning.stack([many[[2]], many[:1]])
    assert stacked.unet_arguments()["added_cond_kwargs"]["text_embeds"].tolist() == [[4, 5], [0, 1]]
    assert stacked.unet_arguments()["added_cond_kwargs"]["time_ids"].tolist() == [[14, 15], [10, 11]]
    plain = Conditioning.stack([Conditioning(rows), Conditioning(rows)])
    assert plain.unet_arguments().keys() == {"encoder_hidden_states"}
