from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from latentdrift.generate import generate_images
from latentdrift.models import (
    AdapterMismatchWarning,
    ModelCard,
    base_fingerprint,
    encode_prompts,
    load_adapter,
    load_pipeline,
    write_model_card,
)
from latentdrift.models.adapters import same_base
from tests.models.adapter_artifacts import (
    LORA,
    PROCESSORS,
    SECOND,
    TARGETS,
    TOKENS,
    add_lora,
    custom_processors,
    embeddings,
    fill_empty,
    write_lora,
    write_processors,
    write_tokens,
)

CARD = ModelCard(base="toy", method="lora", steps=3, size=32, gray=True, template="a slice")


def picture(pipeline: Any, prompt: str = "a brain") -> torch.Tensor:
    return generate_images(pipeline, [prompt], seeds=[0], steps=3)


MODELS = pytest.mark.parametrize("fixture", ["toy_model", "toy_xl_model"])


@pytest.fixture
def model(fixture: str, request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(fixture))


@MODELS
def test_tokens_are_those_plain_diffusers_loads(model: Path, tmp_path: Path) -> None:
    tokens = {"<stage-mild>": embeddings(3)}
    write_tokens(tmp_path, tokens)
    ours, theirs = load_pipeline(model), load_pipeline(model)
    theirs.load_textual_inversion(tmp_path, weight_name=TOKENS)
    if hasattr(theirs, "text_encoder_2"):
        write_tokens(tmp_path, {"<stage-mild>": embeddings(3, seed=1)}, SECOND)
        theirs.load_textual_inversion(
            tmp_path, weight_name=SECOND, tokenizer=theirs.tokenizer_2, text_encoder=theirs.text_encoder_2
        )
    assert load_adapter(ours, tmp_path) is ours
    prompts = ["a <stage-mild> brain", "a brain", ""]
    wanted, found = encode_prompts(theirs, prompts), encode_prompts(ours, prompts)
    assert torch.equal(found.hidden, wanted.hidden)
    assert not torch.allclose(found.hidden[0], found.hidden[1], atol=0.1)
    ids = ours.tokenizer.convert_tokens_to_ids(["<stage-mild>", "<stage-mild>_1", "<stage-mild>_2"])
    assert torch.equal(ours.text_encoder.get_input_embeddings().weight[ids], tokens["<stage-mild>"])


def test_several_tokens_of_one_file_and_those_of_others(toy_model: Path, tmp_path: Path) -> None:
    write_tokens(tmp_path, {"<a>": embeddings(), "<b>": embeddings(2, seed=1)})
    torch.save({"<new1>": embeddings(seed=2)[0]}, tmp_path / "<new1>.bin")
    pipeline = load_adapter(load_pipeline(toy_model), tmp_path)
    ids = pipeline.tokenizer("<a><b><new1>", add_special_tokens=False).input_ids
    assert pipeline.tokenizer.convert_ids_to_tokens(ids) == ["<a>", "<b>", "<new1>"]
    weight = pipeline.text_encoder.get_input_embeddings().weight[ids]
    assert torch.equal(weight, torch.cat([embeddings(), embeddings(2, seed=1)[:1], embeddings(seed=2)]))


@pytest.mark.parametrize("layout", ["diffusers", "automatic1111"])
def test_a_pickled_file_is_read(toy_model: Path, tmp_path: Path, layout: str) -> None:
    value = embeddings(2)
    content = {"<a>": value} if layout == "diffusers" else {"name": "<a>", "string_to_param": {"*": value}}
    torch.save(content, tmp_path / "learned_embeds.bin")
    pipeline = load_adapter(load_pipeline(toy_model), tmp_path)
    ids = pipeline.tokenizer.convert_tokens_to_ids(["<a>", "<a>_1"])
    assert torch.equal(pipeline.text_encoder.get_input_embeddings().weight[ids], value)


def test_capitals_do_not_cost_vectors(toy_model: Path, tmp_path: Path) -> None:
    """CLIP's tokenizer puts prompts into lower case; plain diffusers then uses the first vector alone."""
    write_tokens(tmp_path, {"<stage-MildDemented>": embeddings(3)})
    pipeline = load_adapter(load_pipeline(toy_model), tmp_path)
    written = pipeline.maybe_convert_prompt("A <stage-MildDemented> brain", pipeline.tokenizer)
    assert written == "A <stage-MildDemented> <stage-MildDemented>_1 <stage-MildDemented>_2 brain"
    ids = pipeline.tokenizer(written, add_special_tokens=False).input_ids
    wanted = pipeline.tokenizer.convert_tokens_to_ids([f"<stage-MildDemented>{end}" for end in ("", "_1", "_2")])
    assert [i for i in ids if i >= min(wanted)] == wanted
    assert pipeline.tokenizer.convert_ids_to_tokens(ids[0]) == "a</w>"


@MODELS
@pytest.mark.parametrize("layout", ["empty tensors", "as diffusers saves", "pickled"])
def test_processors_are_those_that_were_trained(model: Path, layout: str, tmp_path: Path) -> None:
    write_processors(model, tmp_path, safe_serialization=layout != "pickled")
    if layout == "empty tensors":
        fill_empty(tmp_path, model)
    wanted = load_pipeline(model)
    plain = picture(wanted)
    wanted.unet.set_attn_processor(custom_processors(wanted.unet))
    ours = load_adapter(load_pipeline(model), tmp_path)
    assert torch.equal(picture(ours), picture(wanted))
    assert not torch.allclose(picture(ours), plain, atol=1e-3)
    if layout != "as diffusers saves":  # which diffusers cannot load
        theirs = load_pipeline(model)
        name = PROCESSORS if layout == "empty tensors" else PROCESSORS.replace("safetensors", "bin")
        theirs.unet.load_attn_procs(tmp_path, weight_name=name, _pipeline=theirs)
        assert torch.equal(picture(ours), picture(theirs))


def test_processors_of_queries_and_outputs_too(toy_model: Path, tmp_path: Path) -> None:
    wanted = load_pipeline(toy_model)
    wanted.unet.set_attn_processor(custom_processors(wanted.unet, q_out=True))
    wanted.unet.save_attn_procs(tmp_path)
    ours = load_adapter(load_pipeline(toy_model, dtype=torch.float32), tmp_path)
    assert torch.equal(picture(ours), picture(wanted))
    half = load_adapter(load_pipeline(toy_model, dtype=torch.bfloat16), tmp_path)
    assert {weight.dtype for weight in half.unet.parameters()} == {torch.bfloat16}
    assert torch.isfinite(picture(half)).all()


@MODELS
@pytest.mark.parametrize("safe", [True, False])
def test_a_lora_acts_as_in_plain_diffusers(model: Path, safe: bool, tmp_path: Path) -> None:
    write_lora(model, tmp_path, safe_serialization=safe)
    ours, theirs = load_pipeline(model), load_pipeline(model)
    plain = picture(ours)
    load_adapter(ours, tmp_path)
    theirs.load_lora_weights(tmp_path, weight_name=LORA if safe else LORA.replace("safetensors", "bin"))
    assert torch.equal(picture(ours), picture(theirs))
    assert not torch.allclose(picture(ours), plain, atol=1e-3)


@MODELS
@pytest.mark.parametrize(("safe", "scale"), [(True, 2.0), (False, 1.0)])
@pytest.mark.slow
def test_a_lora_acts_in_the_text_encoders_too(model: Path, safe: bool, scale: float, tmp_path: Path) -> None:
    """W + alpha / rank * B A: 4 / 2 by the metadata; a pickled file has none, and the factors stand for themselves."""
    from diffusers.utils import convert_state_dict_to_peft

    write_lora(model, tmp_path, text=True, safe_serialization=safe)
    (file,) = tmp_path.iterdir()
    content = load_file(file) if safe else torch.load(file)
    wanted = load_pipeline(model)
    plain = encode_prompts(wanted, ["a brain"]).hidden
    for prefix in ("text_encoder", "text_encoder_2") if hasattr(wanted, "text_encoder_2") else ("text_encoder",):
        part = {name.removeprefix(f"{prefix}."): v for name, v in content.items() if name.startswith(f"{prefix}.")}
        part = convert_state_dict_to_peft(part)
        names = [name.removesuffix(".lora_A.weight") for name in part if name.endswith("lora_A.weight")]
        assert len(names) == 4
        for name in names:
            layer = getattr(wanted, prefix).get_submodule(name)
            with torch.no_grad():
                layer.weight += scale * part[f"{name}.lora_B.weight"] @ part[f"{name}.lora_A.weight"]
    ours = load_adapter(load_pipeline(model), tmp_path)
    found = encode_prompts(ours, ["a brain"]).hidden
    torch.testing.assert_close(found, encode_prompts(wanted, ["a brain"]).hidden, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(found, plain, atol=1e-2)
    half = load_adapter(load_pipeline(model, dtype=torch.bfloat16), tmp_path)
    assert {weight.dtype for weight in half.text_encoder.parameters()} == {torch.bfloat16}


def test_the_alpha_of_the_metadata_counts(toy_model: Path, tmp_path: Path) -> None:
    """W + alpha / rank * B A, with alpha 4 and rank 2."""
    write_lora(toy_model, tmp_path)
    pipeline = load_pipeline(toy_model)
    name = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
    before = pipeline.unet.get_submodule(name).weight.clone()
    load_adapter(pipeline, tmp_path)
    pipeline.fuse_lora()
    pipeline.unload_lora_weights()
    content = load_file(tmp_path / LORA)
    product = content[f"unet.{name}.lora.up.weight"] @ content[f"unet.{name}.lora.down.weight"]
    torch.testing.assert_close(pipeline.unet.get_submodule(name).weight, before + 2 * product)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.slow
def test_two_loras_act_together(toy_model: Path, text: bool, tmp_path: Path) -> None:
    folders = [write_lora(toy_model, tmp_path / str(seed), text=text, seed=seed) for seed in (2, 3)]
    both = load_pipeline(toy_model)
    fused = load_pipeline(toy_model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for folder in folders:
            load_adapter(both, folder)
            load_adapter(fused, folder)
            fused.fuse_lora()
            fused.unload_lora_weights()
    torch.testing.assert_close(picture(both), picture(fused), atol=2e-3, rtol=0)
    alone = load_adapter(load_pipeline(toy_model), folders[1])
    assert not torch.allclose(picture(both), picture(alone), atol=2e-2)


def test_all_files_of_a_folder_are_put_on(toy_model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    write_tokens(run / "model", {"<a>": embeddings()})
    write_processors(toy_model, run / "model")
    pipeline = load_adapter(load_pipeline(toy_model), run)
    assert "<a>" in pipeline.tokenizer.get_vocab()
    assert {type(p).__name__ for p in pipeline.unet.attn_processors.values()} == {"CustomDiffusionAttnProcessor"}


def test_another_base_of_the_same_shapes_is_told(toy_model: Path, tmp_path: Path) -> None:
    write_lora(toy_model, tmp_path)
    pipeline = load_pipeline(toy_model)
    notes = {"base_fingerprint": base_fingerprint(pipeline.unet)}
    write_model_card(tmp_path, ModelCard(**{**CARD.__dict__, "notes": notes}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_adapter(pipeline, tmp_path)
        load_adapter(pipeline, tmp_path)  # a LoRA that acts already makes no other base
        load_adapter(load_pipeline(toy_model, dtype=torch.float16), tmp_path)
    other = load_pipeline(toy_model)
    with torch.no_grad():
        other.unet.conv_in.weight.mul_(1.01)
    with pytest.warns(AdapterMismatchWarning, match="was trained on toy, whose weights are not those"):
        load_adapter(other, tmp_path)
    assert any("lora" in name for name in other.unet.state_dict())


def test_the_fingerprint_tells_bases_apart_and_nothing_else(toy_model: Path, toy_xl_model: Path) -> None:
    unet = load_pipeline(toy_model).unet
    plain = base_fingerprint(unet)
    assert re.fullmatch(r"float32:[0-9a-f]{16} float16:[0-9a-f]{16} bfloat16:[0-9a-f]{16}", plain)
    for dtype in (torch.float16, torch.bfloat16):
        half = base_fingerprint(load_pipeline(toy_model, dtype=dtype).unet)
        assert half in plain
        assert same_base(half, plain)
        assert same_base(plain, half)
    assert not same_base(plain, base_fingerprint(load_pipeline(toy_xl_model).unet))
    unet.set_attn_processor(custom_processors(unet))
    add_lora(unet, TARGETS, 0)
    assert base_fingerprint(unet) == plain
    with torch.no_grad():
        unet.get_submodule("up_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.base_layer").weight.add_(1e-6)
    changed = base_fingerprint(unet)
    assert not same_base(changed, plain)
    assert same_base("float16:0", "bfloat16:1"), "nothing in common to compare"


def test_a_note_of_another_kind_is_left_alone(toy_model: Path, tmp_path: Path) -> None:
    write_tokens(tmp_path, {"<a>": embeddings()})
    write_model_card(tmp_path, CARD)
    card = json.loads((tmp_path / "latentdrift.json").read_text())
    (tmp_path / "latentdrift.json").write_text(json.dumps({**card, "notes": {"base_fingerprint": 3}}))
    assert "<a>" in load_adapter(load_pipeline(toy_model), tmp_path).tokenizer.get_vocab()


def test_loading_says_nothing(toy_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, write in (("tokens", None), ("lora", write_lora), ("processors", write_processors)):
        (tmp_path / name).mkdir()
        write_tokens(tmp_path / name, {"<a>": embeddings(2)}) if write is None else write(toy_model, tmp_path / name)
    pipelines = [load_pipeline(toy_model) for _ in range(3)]
    capfd.readouterr()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for pipeline, name in zip(pipelines, ("tokens", "lora", "processors"), strict=True):
            load_adapter(pipeline, tmp_path / name)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
