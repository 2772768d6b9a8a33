"""Whole diffusers pipelines of random tiny networks: attached, saved, loaded by vanilla diffusers, image-to-image."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMInverseScheduler,
    DDIMScheduler,
    DiffusionPipeline,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)

from latentdrift.drift import LatentDrift, LatentMoments, drift_of, load_drift, remove, with_drift
from latentdrift.errors import DriftError

DELTA = (0.4, -0.3, 0.2, 0.5)


@pytest.fixture(scope="module")
def components() -> dict[str, Any]:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    blocks = {"block_out_channels": (8, 16), "layers_per_block": 1, "norm_num_groups": 4}
    return {
        "unet": UNet2DConditionModel(
            sample_size=8,
            cross_attention_dim=16,
            attention_head_dim=2,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            **blocks,
        ).eval(),
        "vae": AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            **blocks,
        ).eval(),
        "text_encoder": CLIPTextModel(
            CLIPTextConfig(
                vocab_size=50, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
            )
        ).eval(),
        "tokenizer": CLIPTokenizer(
            vocab={"<|startoftext|>": 0, "<|endoftext|>": 1, "a</w>": 2, "a": 3}, merges=[], model_max_length=5
        ),
        "safety_checker": None,
        "feature_extractor": None,
    }


def stable_diffusion(components: dict[str, Any], kind: Any = StableDiffusionPipeline) -> Any:
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
    )
    pipeline = kind(**components, scheduler=scheduler, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(pipeline: Any, shift: torch.Tensor | float = 0.0, **options: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    words = torch.randn(2, 1, 5, 16, generator=generator)
    if "image" not in options:
        options["latents"] = torch.randn(1, 4, 8, 8, generator=generator) + shift
    return pipeline(
        prompt_embeds=words[0],
        negative_prompt_embeds=words[1],
        guidance_scale=3.0,
        num_inference_steps=4,
        output_type="latent",
        generator=torch.Generator().manual_seed(2),
        **options,
    ).images


def test_attached_pipelines_start_at_shifted_noise(components: dict[str, Any]) -> None:
    undrifted = generate(stable_diffusion(components))
    pipeline = stable_diffusion(components)
    assert LatentDrift(0.0).attach(pipeline) is pipeline
    assert torch.equal(generate(pipeline), undrifted)
    LatentDrift(DELTA).attach(pipeline)
    for _ in range(2):  # each call is a new run
        level = (1 - pipeline.scheduler.alphas_cumprod[751]) ** 0.5
        expected = generate(stable_diffusion(components), level * torch.tensor(DELTA).reshape(4, 1, 1))
        assert torch.allclose(generate(pipeline), expected, atol=1e-5)
    assert not torch.allclose(expected, undrifted, atol=1e-2)
    assert remove(pipeline) is pipeline
    assert drift_of(pipeline) is None
    assert torch.equal(generate(pipeline), undrifted)


def test_a_saved_pipeline_loads_without_this_package_and_quietly(
    components: dict[str, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pipeline = LatentDrift(torch.full((4, 8, 8), 0.3)).attach(stable_diffusion(components))
    pipeline.save_pretrained(tmp_path)
    assert '"DDIMScheduler"' in (tmp_path / "model_index.json").read_text()
    diffusers.utils.logging.enable_propagation()
    try:
        with caplog.at_level(logging.WARNING, logger="diffusers"):
            loaded = DiffusionPipeline.from_pretrained(tmp_path)
            swapped = EulerDiscreteScheduler.from_config(loaded.scheduler.config)
    finally:
        diffusers.utils.logging.disable_propagation()
    assert "drift" not in caplog.text
    assert type(loaded.scheduler) is DDIMScheduler
    assert drift_of(loaded) is None
    assert drift_of(with_drift(swapped)) == drift_of(pipeline) == load_drift(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert torch.equal(generate(loaded), generate(stable_diffusion(components)))
    assert with_drift(loaded) is loaded
    assert torch.equal(generate(loaded), generate(pipeline))
    # The way users swap schedulers, from the drifted class.
    again = type(loaded.scheduler).from_config(loaded.scheduler.config, timestep_spacing="trailing")
    assert drift_of(again) == drift_of(pipeline)
    assert again.config.timestep_spacing == "trailing"


@pytest.mark.parametrize("swap", [DDIMScheduler, EulerDiscreteScheduler])
@pytest.mark.parametrize("strength", [0.5, 1.0])
def test_image_to_image_is_not_shifted_at_its_start(components: dict[str, Any], swap: Any, strength: float) -> None:
    pictures = []
    for drift in (None, LatentDrift(DELTA)):
        pipeline = stable_diffusion(components, StableDiffusionImg2ImgPipeline)
        pipeline.scheduler = swap.from_config(pipeline.scheduler.config)
        if drift is not None:
            drift.attach(pipeline)
        pictures.append(generate(pipeline, image=torch.zeros(1, 3, 16, 16), strength=strength))
    assert torch.equal(*pictures)


def test_an_inverse_scheduler_is_drifted_too(components: dict[str, Any]) -> None:
    pipeline = stable_diffusion(components)
    pipeline.inverse_scheduler = DDIMInverseScheduler.from_config(pipeline.scheduler.config)
    drift = LatentDrift(DELTA)
    drift.attach(pipeline)
    assert drift_of(pipeline.inverse_scheduler) == drift
    assert isinstance(pipeline.inverse_scheduler, DDIMInverseScheduler)
    with pytest.raises(DriftError, match="no scheduler"):
        drift.attach(object())


class Flow(DiffusionPipeline):
    """The order of Stable Diffusion 3 and Flux: latents first, timesteps afterwards."""

    def __init__(self, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(scheduler=scheduler)

    def prepare_latents(self, image: torch.Tensor | None = None) -> Any:
        start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        if image is None:
            return start, "positions"
        return self.scheduler.scale_noise(image, self.scheduler.timesteps[:1], start), "positions"

    def __call__(self, image: torch.Tensor | None = None) -> torch.Tensor:
        if image is not None:
            self.scheduler.set_timesteps(3)
        latents, positions = self.prepare_latents(image)
        assert positions == "positions"
        if image is None:
            self.scheduler.set_timesteps(3)
        self.seen = []
        for timestep in self.scheduler.timesteps:
            self.seen.append(latents)
            latents = self.scheduler.step(latents / 3, timestep, latents).prev_sample
        return latents


@pytest.mark.filterwarnings("error::latentdrift.drift.DriftWarning")
def test_flow_matching_is_shifted_where_latents_are_made() -> None:
    undrifted = Flow(FlowMatchEulerDiscreteScheduler())
    undrifted()
    pipeline = Flow(FlowMatchEulerDiscreteScheduler())
    for times in (1, 2):  # attaching again replaces
        LatentDrift(tuple(times * value for value in DELTA)).attach(pipeline)
        for _ in range(2):
            pipeline()
            shift = times * torch.tensor(DELTA).reshape(4, 1, 1)
            assert torch.allclose(pipeline.seen[0], undrifted.seen[0] + shift)
    image = torch.ones(1, 4, 8, 8)
    assert torch.equal(pipeline(image), undrifted(image))
    remove(pipeline)()
    assert torch.equal(pipeline.seen[0], undrifted.seen[0])


def test_moments_travel_with_the_pipeline(components: dict[str, Any], tmp_path: Path) -> None:
    drift = LatentDrift(LatentMoments((0.1, 0.2, -0.3, 0.4), 9))
    pipeline = drift.attach(stable_diffusion(components))
    pipeline.scheduler.save_pretrained(tmp_path)
    assert drift_of(with_drift(DDIMScheduler.from_pretrained(tmp_path))) == drift
