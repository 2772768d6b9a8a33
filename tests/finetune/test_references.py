"""Loss and gradients of every method against the mathematics of diffusers' examples.

The references are written anew with a second load of the same weights, plain torch and nothing of this package.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call

from latentdrift.data import PromptTemplate
from latentdrift.drift import LatentDrift
from latentdrift.finetune import LatentCache
from latentdrift.finetune.batch import Batch
from latentdrift.finetune.denoiser import Denoiser
from latentdrift.finetune.method import FinetuneMethod
from latentdrift.finetune.methods.basic import Basic, BasicConfig
from latentdrift.finetune.methods.custom_diffusion import CustomDiffusion, CustomDiffusionConfig
from latentdrift.finetune.methods.dreambooth import DreamBooth, DreamBoothConfig
from latentdrift.finetune.methods.instruct_pix2pix import InstructPix2Pix, InstructPix2PixConfig
from latentdrift.finetune.methods.lora import LoRA, LoRAConfig
from latentdrift.finetune.methods.textual_inversion import TextualInversion, TextualInversionConfig
from latentdrift.finetune.schedules import noise_schedule
from latentdrift.finetune.sets import PairSet
from latentdrift.models import encode_prompts, load_pipeline, tokenize_prompts
from tests.finetune.short_runs import TEMPLATE, paired_cohort

DRIFT = LatentDrift(0.3, rule="forward")
CASES = pytest.mark.parametrize(
    ("model", "drift"),
    [("toy_model", None), ("toy_model", DRIFT), ("toy_velocity_model", DRIFT), ("toy_xl_model", DRIFT)],
    ids=["plain", "drifted", "velocity", "xl"],
)
TIMESTEPS = torch.tensor([1, 250, 600, 999])

CAPTIONS = ("an a", "bb", "an a", "c")
VALUES = ("MildDemented", "NonDemented", "NonDemented", "MildDemented")
TOKENS = ["<stage-mild-demented>", "<stage-mild-demented>_1", "<stage-non-demented>", "<stage-non-demented>_1"]
"""Of the concepts of `stage` with two vectors, in the order of the values."""
SPELLED = {"MildDemented": " ".join(TOKENS[:2]), "NonDemented": " ".join(TOKENS[2:])}

Values = Mapping[str, torch.Tensor | None]


# The references.


def plain(folder: Path) -> Any:
    """A second load of the model, nothing of it in training."""
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False)
    return pipeline


def is_xl(pipeline: Any) -> bool:
    return hasattr(pipeline, "text_encoder_2")


def towers(pipeline: Any) -> list[tuple[Any, torch.nn.Module]]:
    first = (pipeline.tokenizer, pipeline.text_encoder)
    return [first, (pipeline.tokenizer_2, pipeline.text_encoder_2)] if is_xl(pipeline) else [first]


def text(pipeline: Any, captions: Sequence[str], changed: Sequence[Values] = ({}, {})) -> dict[str, Any]:
    """The U-Net's arguments for `captions`; `changed` replaces weights of the text encoders."""
    found = []
    for (tokenizer, encoder), weights in zip(towers(pipeline), changed, strict=False):
        ids = tokenizer(list(captions), padding="max_length", max_length=77, return_tensors="pt").input_ids
        found.append(functional_call(encoder, dict(weights), (ids,), {"output_hidden_states": True}))
    if not is_xl(pipeline):
        return {"encoder_hidden_states": found[0].last_hidden_state}
    times = torch.tensor([[32.0, 32.0, 0.0, 0.0, 32.0, 32.0]] * len(captions))
    return {
        "encoder_hidden_states": torch.cat([states.hidden_states[-2] for states in found], -1),
        "added_cond_kwargs": {"text_embeds": found[1].text_embeds, "time_ids": times},
    }


def squared_errors(
    pipeline: Any,
    batch: Batch,
    arguments: Mapping[str, Any],
    drift: LatentDrift | None,
    *,
    beside: torch.Tensor | None = None,
    changed: Values | None = None,
) -> torch.Tensor:
    """(B, C, h, w). Of `batch` only latents, noise and timesteps are looked at."""
    a = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)[batch.timesteps].reshape(-1, 1, 1, 1)
    # Rule forward starts from N(0, 1) and so has trained with noise that lies as far on the other side.
    noise = batch.noise if drift is None else batch.noise - 0.3
    noisy = a.sqrt() * batch.latents + (1 - a).sqrt() * noise
    if beside is not None:
        noisy = torch.cat([noisy, beside], 1)
    predicted = functional_call(pipeline.unet, dict(changed or {}), (noisy, batch.timesteps), dict(arguments)).sample
    velocity = pipeline.scheduler.config.prediction_type == "v_prediction"
    target = a.sqrt() * noise - (1 - a).sqrt() * batch.latents if velocity else noise
    return (predicted - target) ** 2


def with_prior(errors: torch.Tensor, weight: float) -> torch.Tensor:
    """The loss of a batch whose second half is of the class."""
    own, prior = errors.chunk(2)
    return own.mean() + weight * prior.mean()


# What is compared.


def make_batch(conditioning: Any, prior: int = 0, source: torch.Tensor | None = None) -> Batch:
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(4, 4, 8, 8, generator=generator) for _ in range(2))
    return Batch(latents, conditioning, noise, TIMESTEPS, source, prior)


def our_loss(
    method: FinetuneMethod, module: Denoiser, pipeline: Any, batch: Batch, drift: LatentDrift | None
) -> torch.Tensor:
    loss = method.loss(module, noise_schedule(pipeline.scheduler, drift), batch)
    loss.backward()
    return loss


def our_gradients(module: Denoiser, pipeline: Any) -> dict[str, torch.Tensor | None]:
    """Gradients of what is trained by name; nothing else in the pipeline has one."""
    trained = dict(module.trained())
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            others = {id(p): p for p in part.parameters()}.keys() - {id(p) for p in trained.values()}
            assert all(p.grad is None for p in part.parameters() if id(p) in others)
    return {name: parameter.grad for name, parameter in trained.items()}


def check(mine: torch.Tensor, theirs: torch.Tensor, gradients: Values, expected: Values) -> None:
    """Loss and gradients are the same, parameter by parameter."""
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert gradients.keys() == expected.keys()
    largest = max(value.abs().max().item() for value in expected.values() if value is not None)
    assert largest > 1e-4
    for name, value in expected.items():
        own = gradients[name]
        assert (own is None) == (value is None), name
        if own is not None and value is not None:
            # Some, as those of the keys' bias, are zero but for rounding.
            assert (own - value).norm() < 1e-3 * value.norm() + 1e-5 * largest, name


def with_concepts(method: TextualInversion | CustomDiffusion, pipeline: Any, cohort: Path) -> Denoiser:
    """Let a method add its tokens; their rows are made random, so that every one is another."""
    method.wording(PromptTemplate(TEMPLATE), paired_cohort(cohort))
    method.adapt(pipeline)
    generator = torch.Generator().manual_seed(1)
    for embedding in method.embeddings:
        embedding.rows.data = torch.randn(embedding.rows.shape, generator=generator)
    return method.prepare(pipeline)


def add_tokens(pipeline: Any, rows: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Grow a plain pipeline by the tokens, as the examples do; return the matrices, which require gradients."""
    for (tokenizer, encoder), values in zip(towers(pipeline), rows, strict=True):
        assert tokenizer.add_tokens(TOKENS) == len(TOKENS)
        encoder.resize_token_embeddings(len(tokenizer), mean_resizing=False)
        matrix = encoder.get_input_embeddings().weight
        matrix.data[-len(TOKENS) :] = values
        matrix.requires_grad_(True)
    return [encoder.get_input_embeddings().weight for _, encoder in towers(pipeline)]


@CASES
def test_basic(model: str, drift: LatentDrift | None, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    pipeline, reference = load_pipeline(folder), plain(folder)
    method = Basic(BasicConfig())
    module = method.prepare(pipeline)
    mine = our_loss(method, module, pipeline, make_batch(encode_prompts(pipeline, CAPTIONS)), drift)
    reference.unet.requires_grad_(True)
    theirs = squared_errors(reference, make_batch(None), text(reference, CAPTIONS), drift).mean()
    theirs.backward()
    expected = {f"unet.{name}": value.grad for name, value in reference.unet.named_parameters()}
    check(mine, theirs, our_gradients(module, pipeline), expected)


@CASES
def test_textual_inversion(
    model: str, drift: LatentDrift | None, toy_cohort: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    pipeline, reference = load_pipeline(folder), plain(folder)
    method = TextualInversion(TextualInversionConfig(concepts="stage", vectors=2))
    module = with_concepts(method, pipeline, toy_cohort)
    captions = [f"a {TOKENS[0 if value == 'MildDemented' else 2]} x" for value in VALUES]
    mine = our_loss(method, module, pipeline, make_batch(tokenize_prompts(pipeline, captions)), drift)

    matrices = add_tokens(reference, [embedding.rows.detach() for embedding in method.embeddings])
    states = text(reference, [f"a {SPELLED[value]} x" for value in VALUES])
    theirs = squared_errors(reference, make_batch(None), states, drift).mean()
    theirs.backward()
    # The example computes gradients of the whole matrix, and puts all other rows back after each step.
    expected = [matrix.grad[-len(TOKENS) :] for matrix in matrices if matrix.grad is not None]
    assert all(matrix.grad is not None and matrix.grad[: -len(TOKENS)].abs().max() > 0 for matrix in matrices)
    assert all(row.abs().max() > 0 for rows in expected for row in rows)
    gradients = our_gradients(module, pipeline)
    assert all(name.endswith(".rows") for name in gradients)
    check(mine, theirs, gradients, dict(zip(gradients, expected, strict=True)))


@CASES
@pytest.mark.parametrize("encoder", [False, True], ids=["unet", "text"])
def test_dreambooth(model: str, drift: LatentDrift | None, encoder: bool, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    pipeline, reference = load_pipeline(folder), plain(folder)
    method = DreamBooth(DreamBoothConfig(prior_weight=0.7, train_text_encoder=encoder))
    module = method.prepare(pipeline)
    encode: Callable[..., Any] = tokenize_prompts if encoder else encode_prompts
    mine = our_loss(method, module, pipeline, make_batch(encode(pipeline, CAPTIONS), prior=2), drift)

    parts = {"unet": reference.unet}
    if encoder:
        parts |= {f"text.encoders.{index}": part for index, (_, part) in enumerate(towers(reference))}
    for part in parts.values():
        part.requires_grad_(True)
    theirs = with_prior(squared_errors(reference, make_batch(None), text(reference, CAPTIONS), drift), 0.7)
    theirs.backward()
    expected = {f"{name}.{key}": p.grad for name, part in parts.items() for key, p in part.named_parameters()}
    check(mine, theirs, our_gradients(module, pipeline), expected)


def test_dreambooth_weighs_only_its_own_images_by_snr(toy_model: Path) -> None:
    pipeline, reference = load_pipeline(toy_model), plain(toy_model)
    method = DreamBooth(DreamBoothConfig(snr_gamma=5.0))
    module = method.prepare(pipeline)
    mine = our_loss(method, module, pipeline, make_batch(encode_prompts(pipeline, CAPTIONS), prior=2), None)
    errors = squared_errors(reference, make_batch(None), text(reference, CAPTIONS), None).mean((1, 2, 3))
    a = (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)[TIMESTEPS[:2]]
    weights = (a / (1 - a)).clamp(max=5.0) / (a / (1 - a))
    assert weights.min() < 0.1  # of t = 1
    assert mine.item() == pytest.approx(((weights * errors[:2]).mean() + errors[2:].mean()).item(), rel=1e-5)


@CASES
@pytest.mark.parametrize("wide", [False, True], ids=["kv", "kvqo"])
def test_custom_diffusion(
    model: str, drift: LatentDrift | None, wide: bool, toy_cohort: Path, request: pytest.FixtureRequest
) -> None:
    folder = request.getfixturevalue(model)
    pipeline, reference = load_pipeline(folder), plain(folder)
    method = CustomDiffusion(CustomDiffusionConfig(concepts="stage", vectors=2, prior_weight=0.7, train_q_out=wide))
    module = with_concepts(method, pipeline, toy_cohort)
    placeholders = [f"a {TOKENS[0]} x", f"a {TOKENS[2]} x", "a x", "x"]
    batch = make_batch(tokenize_prompts(pipeline, placeholders), prior=2)
    mine = our_loss(method, module, pipeline, batch, drift)

    matrices = add_tokens(reference, [embedding.rows.detach() for embedding in method.embeddings])

    def without_first(layer: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        # Custom Diffusion keeps the start token's key and value out of the gradients.
        return torch.cat([output[:, :1].detach(), output[:, 1:]], 1)

    expected_names = {}
    for name, layer in reference.unet.named_modules():
        if not name.endswith("attn2"):
            continue
        layer.to_k.register_forward_hook(without_first)
        layer.to_v.register_forward_hook(without_first)
        layers = {"to_k": layer.to_k.weight, "to_v": layer.to_v.weight}
        ours = {part: f"unet.{name}.processor.{part}_custom_diffusion.weight" for part in layers}
        if wide:
            layers |= {"to_q": layer.to_q.weight, "out": layer.to_out[0].weight, "bias": layer.to_out[0].bias}
            processor = f"unet.{name}.processor"
            ours["to_q"] = f"{processor}.to_q_custom_diffusion.weight"
            ours["out"] = f"{processor}.to_out_custom_diffusion.0.weight"
            ours["bias"] = f"{processor}.to_out_custom_diffusion.0.bias"
        expected_names |= {ours[part]: value.requires_grad_(True) for part, value in layers.items()}
    states = text(reference, [f"a {SPELLED['MildDemented']} x", f"a {SPELLED['NonDemented']} x", "a x", "x"])
    theirs = with_prior(squared_errors(reference, make_batch(None), states, drift), 0.7)
    theirs.backward()
    expected: dict[str, torch.Tensor | None] = {name: value.grad for name, value in expected_names.items()}
    gradients = our_gradients(module, pipeline)
    rows = [name for name in gradients if name.endswith(".rows")]
    assert len(rows) == len(matrices)
    for name, matrix in zip(rows, matrices, strict=True):
        assert matrix.grad is not None
        expected[name] = matrix.grad[-len(TOKENS) :]
    check(mine, theirs, gradients, expected)


def low_rank(
    part: torch.nn.Module, module: Mapping[str, torch.Tensor], prefix: str, scale: float, leaves: dict[str, Any]
) -> dict[str, torch.Tensor]:
    """Weights W + scale B A of the layers of `part` that have matrices under `prefix` in ours, whose names end so."""
    changed = {}
    for name, weight in part.state_dict().items():
        layer = name.removesuffix(".weight")
        a, b = (f"{prefix}.{layer}.lora_{letter}.default.weight" for letter in "AB")
        if a not in module:
            continue
        leaves[a], leaves[b] = (module[key].detach().clone().requires_grad_(True) for key in (a, b))
        # A convolution's product is one of matrices too: B is 1 x 1.
        product = leaves[b].flatten(1) @ leaves[a].flatten(1)
        changed[name] = weight + scale * product.reshape(weight.shape)
    return changed


@CASES
@pytest.mark.parametrize("encoder", [False, True], ids=["unet", "text"])
def test_lora(model: str, drift: LatentDrift | None, encoder: bool, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(model)
    pipeline, reference = load_pipeline(folder), plain(folder)
    targets = ("to_q", "to_k", "to_v", "to_out.0", "conv1")
    method = LoRA(LoRAConfig(rank=3, alpha=2.0, targets=targets, train_text_encoder=encoder))
    module = method.prepare(pipeline)
    generator = torch.Generator().manual_seed(1)
    for _, value in module.trained():
        # B begins at zero, and then A has no gradient.
        value.data = 0.3 * torch.randn(value.shape, generator=generator)
    encode: Callable[..., Any] = tokenize_prompts if encoder else encode_prompts
    mine = our_loss(method, module, pipeline, make_batch(encode(pipeline, CAPTIONS)), drift)

    leaves: dict[str, torch.Tensor] = {}
    ours = dict(module.trained())
    unet = low_rank(reference.unet, ours, "unet", 2 / 3, leaves)
    texts = [
        low_rank(part, ours, f"text.encoders.{index}", 2 / 3, leaves)
        for index, (_, part) in enumerate(towers(reference))
    ]
    count = sum(name.endswith(tuple(f"{t}.weight" for t in targets)) for name in reference.unet.state_dict())
    assert len(unet) == count > 8
    assert [len(changed) for changed in texts] == [8 if encoder else 0] * len(texts)  # 4 of each of 2 layers
    theirs = squared_errors(reference, make_batch(None), text(reference, CAPTIONS, texts), drift, changed=unet).mean()
    theirs.backward()
    check(mine, theirs, our_gradients(module, pipeline), {name: leaf.grad for name, leaf in leaves.items()})


@CASES
def test_instruct_pix2pix(
    model: str,
    drift: LatentDrift | None,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The batch is drawn by the set itself, so that what it leaves out is in the comparison."""
    folder = request.getfixturevalue(model)
    pipeline, reference = load_pipeline(folder), plain(folder)
    method = InstructPix2Pix(InstructPix2PixConfig())
    pipeline = method.adapt(pipeline)
    module = method.prepare(pipeline)
    extra = torch.randn(pipeline.unet.conv_in.weight[:, 4:].shape, generator=torch.Generator().manual_seed(1))
    assert not pipeline.unet.conv_in.weight[:, 4:].any()
    pipeline.unet.conv_in.weight.data[:, 4:] = extra
    # Posteriors without a spread, and the chances of the four cases: instruction dropped, both, image, none.
    means = np.random.default_rng(0).standard_normal((5, 1, 2, 4, 8, 8)).astype(np.float32)
    means[:, :, 1] = 0
    np.save(tmp_path / "latents.npy", means)
    chance = torch.tensor([0.05, 0.15, 0.25, 0.9])
    sources, targets = torch.tensor([0, 1, 2, 3]), torch.tensor([4, 0, 3, 1])
    conditioning = encode_prompts(pipeline, ["grow", "shrink", ""])
    rows = torch.tensor([0, 1, 1, 0])
    made = PairSet(LatentCache(tmp_path / "latents.npy", 0.9), rows, conditioning, None, sources, targets)
    with monkeypatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **settings: chance)
        batch = made.batch(torch.arange(4), torch.Generator().manual_seed(0), 0.1, 1000, torch.device("cpu"))
    mine = our_loss(method, module, pipeline, batch, drift)

    former = reference.unet.conv_in
    grown = torch.nn.Conv2d(8, former.out_channels, 3, padding=1)
    grown.weight.data = torch.cat([former.weight, extra], 1)
    grown.bias.data = former.bias.data.clone()
    reference.unet.conv_in = grown
    reference.unet.requires_grad_(True)
    latents = torch.from_numpy(means[:, 0, 0])
    known = Batch(latents[targets] * 0.9, None, batch.noise, batch.timesteps)
    without_text = (chance < 2 * 0.1).reshape(4, 1, 1)
    keeps_image = 1 - ((chance >= 0.1) & (chance < 3 * 0.1)).float()
    beside = keeps_image.reshape(4, 1, 1, 1) * latents[sources]
    states = text(reference, ["grow", "shrink", "shrink", "grow"])
    empty = text(reference, [""])
    if is_xl(reference):
        # Where the example takes the empty prompt, this pipeline's configuration wants zeros.
        assert reference.config.force_zeros_for_empty_prompt
        empty = {"encoder_hidden_states": torch.zeros_like(empty["encoder_hidden_states"])}
        pooled = torch.where(without_text[:, 0], 0.0, states["added_cond_kwargs"]["text_embeds"])
        states["added_cond_kwargs"]["text_embeds"] = pooled
    hidden = torch.where(without_text, empty["encoder_hidden_states"], states["encoder_hidden_states"])
    states["encoder_hidden_states"] = hidden
    theirs = squared_errors(reference, known, states, drift, beside=beside).mean()
    theirs.backward()
    expected = {f"unet.{name}": value.grad for name, value in reference.unet.named_parameters()}
    check(mine, theirs, our_gradients(module, pipeline), expected)
