"""Models of Stable Diffusion's architecture so small that they sample in milliseconds, and a cohort for them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

STAGES = ("NonDemented", "MildDemented")
SIZE = 32


LONGEST = (
    "test_plans.py",
    "test_notebooks.py",
    "test_demo.py",
    "test_privacy.py",
)
"""Files that take a minute, in no order: begun first, so that no process is left with one while the others are done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first where the tests are spread over processes."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(scope="session", autouse=True)
def own_feature_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep features in a folder of the tests' own, not in the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTDRIFT_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def build_tokenizer() -> Any:
    """A CLIPTokenizer of single bytes: no merges, so that a caption has about as many tokens as letters."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=77)


def text_config(tokenizer: Any, width: int = 16) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        initializer_factor=8.0,  # so that two captions give two images
    )


def build_vae() -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=SIZE,
        scaling_factor=0.9,
    )


def build_unet(width: int, **extra: Any) -> Any:
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=width,
        attention_head_dim=8,
        norm_num_groups=8,
        **extra,
    )


def build_scheduler(prediction_type: str = "epsilon") -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def save_toy(folder: Path, prediction_type: str = "epsilon") -> Path:
    import torch
    from diffusers import StableDiffusionPipeline
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    tokenizer = build_tokenizer()
    StableDiffusionPipeline(
        vae=build_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        unet=build_unet(16).eval(),
        scheduler=build_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Stable Diffusion model: 32 px images, latents (4, 8, 8), ε-prediction."""
    return save_toy(tmp_path_factory.mktemp("models") / "toy")


@pytest.fixture(scope="session")
def toy_velocity_model(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same model, said to predict v."""
    folder = tmp_path_factory.mktemp("models") / "toy-v"
    shutil.copytree(toy_model, folder)
    path = folder / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "prediction_type": "v_prediction"}))
    return folder


@pytest.fixture(scope="session")
def toy_xl_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random Stable Diffusion XL model: two text encoders, pooled text and sizes."""
    import torch
    from diffusers import StableDiffusionXLPipeline
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(1)
    folder = tmp_path_factory.mktemp("models") / "toy-xl"
    tokenizer = build_tokenizer()
    unet = build_unet(
        32,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 16,
    )
    StableDiffusionXLPipeline(
        vae=build_vae(),
        text_encoder=CLIPTextModel(text_config(tokenizer)).eval(),
        text_encoder_2=CLIPTextModelWithProjection(text_config(tokenizer)).eval(),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet.eval(),
        scheduler=build_scheduler(),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture
def overflowing_xl(toy_xl_model: Path) -> Any:
    """The XL toy in half precision, whose autoencoder's activations are beyond it, as the published one's are."""
    import torch

    from latentdrift.models import load_pipeline

    pipeline = load_pipeline(toy_xl_model, dtype=torch.float16)
    with torch.no_grad():
        for first in (pipeline.vae.encoder.conv_in, pipeline.vae.decoder.conv_in):
            first.weight.mul_(3e4 / first.weight.abs().max().item())
    return pipeline


def draw_slice(rng: np.random.Generator, stage: str) -> np.ndarray:
    """A bright disc on black with a dark hole, larger in the second stage."""
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    radius = np.hypot(x - rng.uniform(-0.1, 0.1), y - rng.uniform(-0.1, 0.1))
    hole = 0.2 if stage == STAGES[0] else 0.45
    return np.where(radius < 0.8, np.where(radius < hole, 40, 170 + rng.integers(-20, 20, x.shape)), 0).astype(np.uint8)


@pytest.fixture(scope="session")
def toy_cohort(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of 40 gray slices of 20 subjects, metadata.csv with subject, stage and age; a quarter is MildDemented."""
    folder = tmp_path_factory.mktemp("cohort") / "slices"
    (folder / "images").mkdir(parents=True)
    rng = np.random.default_rng(0)
    lines = ["file_name,subject,stage,age"]
    for subject in range(20):
        stage = STAGES[subject % 4 == 0]
        for number in range(2):
            name = f"images/s{subject:02d}-{number}.png"
            Image.fromarray(draw_slice(rng, stage)).save(folder / name)
            lines.append(f"{name},s{subject:02d},{stage},{60 + subject}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture(scope="session")
def toy_run(toy_model: Path, toy_cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run folder of the toy fine-tuned on the cohort for a few steps, under a drift."""
    from latentdrift.data import Cohort
    from latentdrift.finetune import TrainingConfig, finetune_model

    folder = tmp_path_factory.mktemp("runs") / "run"
    config = TrainingConfig(steps=4, batch_size=8, sample_steps=2, warmup_steps=1)
    finetune_model(
        Cohort.open(toy_cohort), folder, base=toy_model, drift="auto-vector", template="a slice, {stage}", config=config
    )
    return folder
