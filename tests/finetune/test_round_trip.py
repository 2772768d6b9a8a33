"""What each method leaves is loaded by plain diffusers, whole or as an adapter on its base: the image is the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import DriftMismatchWarning, LatentDrift, drift_of, load_drift
from latentdrift.errors import ConfigurationError
from latentdrift.models import load_pipeline
from tests.finetune.short_runs import METHODS, every_weight, short_run

DRIFT = LatentDrift(0.3)
ADAPTERS = {
    "textual_inversion": {"learned_embeds.safetensors"},
    "custom_diffusion": {"learned_embeds.safetensors", "pytorch_custom_diffusion_weights.safetensors"},
    "lora": {"pytorch_lora_weights.safetensors"},
}
"""Methods that leave an adapter, and its files."""
CASES = [
    *((name, "toy_model") for name in METHODS),
    *((name, "toy_xl_model") for name in ("lora", "instruct_pix2pix")),
    *(pytest.param(name, "toy_xl_model", marks=pytest.mark.slow) for name in ("textual_inversion", "custom_diffusion")),
]
PROMPTS = {
    "textual_inversion": "a <stage-mild-demented> x",
    "custom_diffusion": "a <stage-mild-demented> x",
    "instruct_pix2pix": "grow",
}

SAVES = ("pipeline", "adapter")
Run = Callable[..., Path]


@pytest.fixture(scope="module")
def run(request: pytest.FixtureRequest, toy_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the model's folder of a method's run under a drift; each is made once."""
    home = tmp_path_factory.mktemp("round-trip")

    def make(method: str, model: str, save: str = "pipeline", drift: LatentDrift | str = DRIFT) -> Path:
        out = home / f"{method}-{model}-{save}-{drift}"
        if out.exists():
            return out / "model"
        base = request.getfixturevalue(model)
        return short_run(method, toy_cohort, out, base=base, cache=home / "latents", drift=drift, save=save)

    return make


def plain(folder: Path) -> Any:
    from diffusers import DiffusionPipeline

    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def image(pipeline: Any, method: str, shift: float = 0.0) -> torch.Tensor:
    """An image (3, 32, 32) in [0, 1], with guidance, of latents that are moved by `shift`."""
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(1, 4, 8, 8, generator=generator) + shift
    extra: dict[str, Any] = {}
    if method == "instruct_pix2pix":
        extra = {"image": torch.rand(1, 3, 32, 32, generator=generator), "image_guidance_scale": 1.5}
    else:
        extra = {"negative_prompt": "b"}
    made = pipeline(
        PROMPTS.get(method, "a mild demented x"),
        latents=start,
        num_inference_steps=2,
        guidance_scale=3.0,
        height=32,
        width=32,
        output_type="pt",
        generator=generator,
        **extra,
    )
    return made.images[0]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


@pytest.mark.parametrize(("method", "model"), CASES)
def test_plain_diffusers_loads_the_whole_model(method: str, model: str, run: Run) -> None:
    folder = run(method, model)
    pipeline = plain(folder)
    made = image(pipeline, method)
    with pytest.warns(DriftMismatchWarning):
        ours = load_pipeline(folder.parent, drift=None)
    assert type(ours) is type(pipeline)
    assert torch.equal(image(ours, method), made)
    if method == "instruct_pix2pix":
        assert type(pipeline).__name__ in (
            "StableDiffusionInstructPix2PixPipeline",
            "StableDiffusionXLInstructPix2PixPipeline",
        )
        assert pipeline.unet.config.in_channels == pipeline.unet.conv_in.in_channels == 8


@pytest.mark.parametrize(("method", "model"), CASES)
def test_the_drift_is_beside_it_and_acts(method: str, model: str, run: Run) -> None:
    folder = run(method, model)
    saved = load_drift(folder)
    assert saved == DRIFT
    pipeline = load_pipeline(folder.parent)
    assert drift_of(pipeline.scheduler) == DRIFT
    # Rule start moves the first latents by b_s delta; the first of two steps is s = 501.
    b = (1 - (1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2).cumprod(0)[501]).sqrt().item()
    made = image(pipeline, method)
    assert apart(made, image(plain(folder), method, shift=0.3 * b)) < 1e-4
    assert apart(made, image(plain(folder), method)) > 1e-3


def put_by_diffusers(pipeline: Any, folder: Path, method: str) -> None:
    """Put the adapter on a plain pipeline as the documentation of diffusers does."""
    from safetensors.torch import load_file

    if method == "lora":
        pipeline.load_lora_weights(folder)
        return
    towers = [("", pipeline.tokenizer, pipeline.text_encoder)]
    if hasattr(pipeline, "text_encoder_2"):
        towers.append(("_2", pipeline.tokenizer_2, pipeline.text_encoder_2))
    for suffix, tokenizer, encoder in towers:
        for token, value in load_file(folder / f"learned_embeds{suffix}.safetensors").items():
            assert len(value) == 2
            pipeline.load_textual_inversion({token: value}, tokenizer=tokenizer, text_encoder=encoder)
    if method == "custom_diffusion":
        name = "pytorch_custom_diffusion_weights.safetensors"
        pipeline.unet.load_attn_procs(folder, weight_name=name, _pipeline=pipeline)


@pytest.mark.parametrize("model", ["toy_model", "toy_xl_model"])
@pytest.mark.parametrize("method", ADAPTERS)
def test_plain_diffusers_puts_the_adapter_on_the_base(
    method: str, model: str, run: Run, request: pytest.FixtureRequest
) -> None:
    folder = run(method, model)
    base = request.getfixturevalue(model)
    pipeline = plain(base)
    before = image(pipeline, method)
    put_by_diffusers(pipeline, folder, method)
    made = image(pipeline, method)
    assert apart(made, image(plain(folder), method)) < 1e-4
    assert apart(made, before) > 1e-2


@pytest.mark.parametrize("model", ["toy_model", "toy_xl_model"])
@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapter_is_saved_without_its_base(method: str, model: str, run: Run) -> None:
    whole, folder = run(method, model), run(method, model, "adapter")
    files = set(ADAPTERS[method])
    if model == "toy_xl_model" and "learned_embeds.safetensors" in files:
        files.add("learned_embeds_2.safetensors")
    assert {path.name for path in folder.rglob("*")} == {
        *("latentdrift.json", "latent_drift.json", "README.md", "samples.png", "scheduler", "scheduler_config.json"),
        *files,
    }
    beside = {key: value for key, value in every_weight(whole).items() if key.partition(":")[0] in files}
    alone = every_weight(folder)
    assert beside.keys() == alone.keys()
    assert all(torch.equal(beside[key], alone[key]) for key in beside)
    pipeline = load_pipeline(folder.parent)
    assert drift_of(pipeline.scheduler) == DRIFT
    assert apart(image(pipeline, method), image(load_pipeline(whole), method)) < 1e-4


def test_an_adapter_is_sampled_on_the_noise_levels_it_was_trained_on(run: Run) -> None:
    whole, alone = (load_pipeline(run("lora", "toy_model", save, "zero-terminal-snr")) for save in SAVES)
    assert alone.scheduler.config.prediction_type == "v_prediction"
    assert dict(alone.scheduler.config) == dict(whole.scheduler.config)
    assert apart(image(alone, "lora"), image(whole, "lora")) < 1e-4


@pytest.mark.parametrize("method", ADAPTERS)
def test_a_finished_adapter_is_not_trained_again(method: str, run: Run, toy_model: Path, toy_cohort: Path) -> None:
    folder = run(method, "toy_model", "adapter")
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    settings = {"base": toy_model, "cache": folder.parents[1] / "latents", "drift": DRIFT, "save": "adapter"}
    assert short_run(method, toy_cohort, folder.parent, **settings) == folder
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


@pytest.mark.parametrize("method", sorted(METHODS.keys() - ADAPTERS.keys()))
def test_what_changes_the_base_itself_is_no_adapter(
    method: str, toy_model: Path, toy_cohort: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="Use --save pipeline"):
        short_run(method, toy_cohort, tmp_path / "run", base=toy_model, cache=tmp_path, save="adapter")
    assert not (tmp_path / "run").exists()


def test_files_are_in_the_layouts_of_the_ecosystem(run: Run) -> None:
    from safetensors import safe_open

    with safe_open(run("lora", "toy_model") / "pytorch_lora_weights.safetensors", "pt") as file:
        metadata = file.metadata()
        shape = file.get_slice(next(name for name in file.keys() if "to_q" in name)).get_shape()  # noqa: SIM118
    assert 4 in shape
    # Where diffusers looks for alpha, when it is not the rank.
    assert '"unet.lora_alpha": 2' in metadata["lora_adapter_metadata"]
    with safe_open(run("textual_inversion", "toy_model") / "learned_embeds.safetensors", "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    assert shapes == {"<stage-mild-demented>": [2, 16], "<stage-non-demented>": [2, 16]}
