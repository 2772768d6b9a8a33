from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.errors import DataError
from latentdrift.models import Conditioning, PromptTokens, encode_prompts, load_pipeline, tokenize_prompts
from latentdrift.models.text import TextEncoders


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


PROMPTS = ["a slice", "another", "a slice", "b", "another"]


def by_diffusers(pipeline: Any, prompts: list[str]) -> Conditioning:
    """What the pipeline itself gives the U-Net."""
    found = pipeline.encode_prompt(prompts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False)
    return Conditioning(found[0], found[2] if len(found) == 4 else None)


@pytest.mark.parametrize("model", ["toy_model", "toy_xl_model"])
def test_states_are_those_of_the_pipeline_itself(model: str, request: pytest.FixtureRequest) -> None:
    pipeline = load_pipeline(request.getfixturevalue(model))
    with torch.no_grad():
        expected = by_diffusers(pipeline, PROMPTS)
    for found in (encode_prompts(pipeline, PROMPTS), TextEncoders(pipeline)(tokenize_prompts(pipeline, PROMPTS))):
        assert found.hidden.shape == expected.hidden.shape
        assert torch.allclose(found.hidden, expected.hidden, atol=1e-5)
        assert torch.equal(found.hidden[0], found.hidden[2])
        assert (found.pooled is None) == (expected.pooled is None) == ("xl" not in model)
        if found.pooled is not None:
            assert torch.allclose(found.pooled, expected.pooled, atol=1e-5)


def test_the_unconditional_prompt_is_the_pipeline_s(toy_xl_model: Path, toy_model: Path) -> None:
    for folder in (toy_model, toy_xl_model):
        pipeline = load_pipeline(folder)
        found = pipeline.encode_prompt(["a"], device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True)
        own = TextEncoders(pipeline)(tokenize_prompts(pipeline, ["a", "", "a", ""]))
        assert torch.allclose(own.hidden[[1, 3]], found[1].expand(2, -1, -1), atol=1e-5)
        if own.pooled is not None:
            assert torch.allclose(own.pooled[[1, 3]], found[3].expand(2, -1), atol=1e-5)
            assert not own.pooled[1].any()
    # A blank row is none of the encoder's business: an empty prompt that is not blank is encoded.
    pipeline.register_to_config(force_zeros_for_empty_prompt=False)
    own, expected = encode_prompts(pipeline, ["", "a"]), by_diffusers(pipeline, ["", "a"])
    assert torch.allclose(own.hidden, expected.hidden, atol=1e-5)


@pytest.mark.parametrize("model", ["toy_model", "toy_xl_model"])
def test_gradients_reach_every_encoder_as_through_the_pipeline(model: str, request: pytest.FixtureRequest) -> None:
    pipeline = load_pipeline(request.getfixturevalue(model))
    encoders = [pipeline.text_encoder, *([pipeline.text_encoder_2] if "xl" in model else [])]
    with torch.no_grad():
        one = encode_prompts(pipeline, PROMPTS)
    weights = torch.randn(one.hidden.shape, generator=torch.Generator().manual_seed(0))
    grown = []
    for states in (TextEncoders(pipeline)(tokenize_prompts(pipeline, PROMPTS)), by_diffusers(pipeline, PROMPTS)):
        loss = (states.hidden * weights).sum()
        (loss if states.pooled is None else loss + states.pooled.square().sum()).backward()
        grown.append([p.grad for encoder in encoders for p in encoder.parameters() if p.grad is not None])
        for encoder in encoders:
            assert encoder.get_input_embeddings().weight.grad.any()
            encoder.zero_grad(set_to_none=True)
    assert len(grown[0]) == len(grown[1]) > 20
    largest = max(float(grad.abs().max()) for grad in grown[1])
    # Some gradients are zero but for rounding: softmax does not see a shift of all keys.
    for ours, theirs in zip(*grown, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-5 * largest)
    assert not encode_prompts(pipeline, PROMPTS).hidden.requires_grad


def test_a_batch_encodes_what_repeats_once(toy_xl_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = load_pipeline(toy_xl_model)
    calls = []
    for encoder in (pipeline.text_encoder, pipeline.text_encoder_2):
        forward = encoder.forward
        monkeypatch.setattr(
            encoder, "forward", lambda ids, *a, forward=forward, **k: (calls.append(len(ids)), forward(ids, *a, **k))[1]
        )
    TextEncoders(pipeline)(tokenize_prompts(pipeline, [*PROMPTS, "", ""]))
    assert calls == [4, 4]


def test_token_ids_are_indexed_and_stacked_as_a_batch(toy_xl_model: Path, toy_model: Path) -> None:
    tokens = tokenize_prompts(load_pipeline(toy_xl_model), ["a", "", "b"], 24)
    assert len(tokens) == 3
    assert tokens.blank.tolist() == [False, True, False]
    assert tokens.times is not None
    assert tokens.times.tolist() == [[24, 24, 0, 0, 24, 24]] * 3
    picked = PromptTokens.stack([tokens[torch.tensor([2, 1])], tokens[:1]]).to("cpu")
    assert picked.blank.tolist() == [False, True, False]
    assert picked.times is not None
    assert picked.times.shape == (3, 6)
    for ids, own in zip(tokens.ids, picked.ids, strict=True):
        assert torch.equal(own, ids[[2, 1, 0]])
    plain = tokenize_prompts(load_pipeline(toy_model), ["a", ""])
    assert (len(plain.ids), plain.times, plain.blank.any().item()) == (1, None, False)
    assert PromptTokens.stack([plain, plain]).ids[0].shape == (4, 77)


def test_a_prompt_too_long_is_refused_as_token_ids(toy_model: Path) -> None:
    with pytest.raises(DataError, match="tokens long, and the text encoder takes 77"):
        tokenize_prompts(load_pipeline(toy_model), ["long " * 40])
