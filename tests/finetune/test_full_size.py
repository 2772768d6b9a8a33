"""All methods on a model of Stable Diffusion 1.4's size: 4.3 GB of weights in memory, 512 px, a few minutes each."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.full_size import PARAMETERS, SCHEDULE, SIZE, build_tokenizer, write_cohort

PROGRAM = Path(__file__).parents[1] / "full_size.py"
SOURCE = Path(__file__).parents[2] / "src"
MOST_GIGABYTES = 23.0

SMALL = {
    "steps": 2,
    "batch_size": 1,
    "gradient_checkpointing": True,
    "ema_decay": 0.0,
    "warmup_steps": 0,
    "sample_steps": 2,
    "sample_columns": 1,  # one image a caption, not six: each takes half a minute on a processor
    "validation_images": 0,
    "drop_captions": 0.0,
}
"""What whoever has little memory chooses, and both steps at a learning rate above zero."""

WHOLE = {**SMALL, "optimizer": "adafactor", "learning_rate": 1e-5}
EIGHT_BIT = {**WHOLE, "optimizer": "adamw8bit" if importlib.util.find_spec("bitsandbytes") else "adafactor"}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any], str, int]] = {
    "basic": (WHOLE, {}, r"unet\..*", 686),
    "dreambooth": (EIGHT_BIT, {"class_prompt": "an MRI of a brain"}, r"unet\..*", 686),
    "instruct_pix2pix": ({**WHOLE, "sample_columns": 2}, {}, r"unet\..*", 686),
    "lora": (
        {**SMALL, "save": "adapter", "learning_rate": 1e-4},
        {"rank": 4},
        r"unet\..*\.attn[12]\.to_(q|k|v|out\.0)\.lora_[AB]\..*",
        2 * 4 * 2 * 16,
    ),
    "custom_diffusion": (
        {**SMALL, "save": "adapter", "learning_rate": 1e-5},
        {"class_prompt": "an MRI of a brain"},
        r"unet\..*\.attn2\.processor\.to_[kv]_custom_diffusion\.weight|text_encoder\..*\.rows",
        2 * 16 + 1,
    ),
    "textual_inversion": (
        {**SMALL, "save": "adapter", "learning_rate": 5e-3},
        {"vectors": 1},
        r"text_encoder\..*\.rows",
        1,
    ),
}
"""Settings of the training and of the method, a pattern of the names of what is trained, and how many those are: a
U-Net has 686 parameters, and 16 transformer blocks with two attentions of four matrices each."""


def run_program(*arguments: str | Path) -> None:
    """Run the program in a process of its own, whose memory is given back."""
    path = os.pathsep.join([str(SOURCE), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, str(PROGRAM), *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False)
    killed = " (killed: memory ran out?)" if done.returncode == -9 else ""
    assert done.returncode == 0, f"status {done.returncode}{killed}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that is removed at once: pytest would keep its own, with gigabytes in it, for three more runs."""
    with tempfile.TemporaryDirectory(prefix="full-size-") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def base(place: Path) -> Path:
    run_program("build", place / "base")
    return place / "base"


@pytest.fixture(scope="module")
def cohort(place: Path) -> Path:
    return write_cohort(place / "cohort")


@pytest.fixture(scope="module")
def class_images(place: Path) -> Path:
    """Two pictures for prior preservation; generating them takes 25 steps each."""
    folder = place / "class"
    folder.mkdir()
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    for number in range(2):
        disc = np.where(np.hypot(x, y) < 0.6 + 0.2 * number, 160, 0)
        Image.fromarray(disc.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def shapes(path: Path) -> dict[str, tuple[int, ...]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def test_the_tokenizer_is_that_of_clip() -> None:
    pytest.importorskip("open_clip")
    tokenizer = build_tokenizer()
    assert len(tokenizer) == 49_408
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]
    padded = tokenizer("a photo", padding="max_length").input_ids
    assert padded == [49406, 320, 1125, *[49407] * 74]


@pytest.mark.slow
def test_the_model_is_that_of_stable_diffusion(base: Path) -> None:
    from transformers import CLIPTokenizer

    stems = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
    for name, stem in stems.items():
        found = shapes(base / name / f"{stem}.safetensors")
        assert sum(math.prod(shape) for shape in found.values()) == PARAMETERS[name]
    index = json.loads((base / "model_index.json").read_text())
    assert index["scheduler"] == ["diffusers", "PNDMScheduler"]
    assert index["safety_checker"] == index["feature_extractor"] == [None, None]
    stored = json.loads((base / "scheduler" / "scheduler_config.json").read_text())
    assert {name: stored[name] for name in SCHEDULE} == SCHEDULE
    tokenizer = CLIPTokenizer.from_pretrained(base / "tokenizer")
    assert tokenizer("a photo of a cat").input_ids == [49406, 320, 1125, 539, 320, 2368, 49407]


@pytest.mark.slow
@pytest.mark.parametrize("method", CASES)
def test_a_method_trains_and_samples(method: str, base: Path, cohort: Path, class_images: Path, place: Path) -> None:
    config, settings, pattern, count = CASES[method]
    if "class_prompt" in settings:
        settings = {**settings, "class_images": str(class_images)}
    with tempfile.TemporaryDirectory(dir=place) as name:
        out, told, result = Path(name) / "run", Path(name) / "settings.json", Path(name) / "result.json"
        given = {"method": method, "base": str(base), "cohort": str(cohort), "out": str(out)}
        told.write_text(json.dumps({**given, "config": config, "settings": settings}))
        run_program("train", told, result)
        found = json.loads(result.read_text())
        print(f"\n{method}: {found['seconds']:.0f} s a step, at most {found['gigabytes']:.1f} GB")
        check_training(found, pattern, count)
        check_samples(out / "samples" / "step-000002.png", edits=method == "instruct_pix2pix")
        check_files(method, out / "model", settings)


def check_training(found: dict[str, Any], pattern: str, count: int) -> None:
    """What is to move has moved, all of it, and nothing else."""
    assert len(found["losses"]) == 2
    assert all(math.isfinite(loss) and loss > 0 for loss in found["losses"])
    trained, moved = set(found["trained"]), set(found["moved"])
    assert len(trained) == count
    assert all(re.fullmatch(pattern, name) for name in trained)
    assert {name for name in found["parameters"] if re.fullmatch(pattern, name)} == trained
    assert moved == trained
    assert found["words_kept"]
    assert found["gigabytes"] < MOST_GIGABYTES


def check_samples(path: Path, *, edits: bool) -> None:
    """Every cell that the model made holds a picture; not a number is drawn as black."""
    sheet = np.asarray(Image.open(path).convert("L"), dtype=float)
    assert sheet.shape == (2 * (SIZE + 1) + 1, (3 if edits else 1) * (SIZE + 1) + 1)
    left = 1 + (SIZE + 1) * edits  # between the images before and after
    for top in (1, SIZE + 2):
        assert sheet[top : top + SIZE, left : left + SIZE].std() > 1


def check_files(method: str, model: Path, settings: dict[str, Any]) -> None:
    card = json.loads((model / "latentdrift.json").read_text())
    assert (card["method"], card["steps"], card["size"]) == (method, 2, SIZE)
    assert (model / "latent_drift.json").exists()
    if method in ("basic", "dreambooth", "instruct_pix2pix"):
        channels = 8 if method == "instruct_pix2pix" else 4
        unet = shapes(model / "unet" / "diffusion_pytorch_model.safetensors")
        assert unet["conv_in.weight"] == (320, channels, 3, 3)
        assert sum(map(math.prod, unet.values())) == PARAMETERS["unet"] + 320 * (channels - 4) * 9
        assert json.loads((model / "unet" / "config.json").read_text())["in_channels"] == channels
        return
    assert not (model / "unet").exists(), "save=adapter keeps the base out of the run folder"
    files = {path.name for path in model.glob("*.safetensors")}
    if method == "lora":
        assert files == {"pytorch_lora_weights.safetensors"}
        found = shapes(model / "pytorch_lora_weights.safetensors")
        down = {name: shape for name, shape in found.items() if name.endswith(".lora.down.weight")}
        up = {name: shape for name, shape in found.items() if name.endswith(".lora.up.weight")}
        assert len(down) == len(up) == 128
        assert len(found) == 256
        assert {shape[0] for shape in down.values()} == {shape[1] for shape in up.values()} == {settings["rank"]}
        return
    expected = {"learned_embeds.safetensors"}
    words = shapes(model / "learned_embeds.safetensors")
    assert len(words) == 2
    assert all(name.startswith("<stage-") and shape == (1, 768) for name, shape in words.items())
    if method == "custom_diffusion":
        expected |= {"pytorch_custom_diffusion_weights.safetensors"}
        found = shapes(model / "pytorch_custom_diffusion_weights.safetensors")
        own = {name: shape for name, shape in found.items() if name.endswith("_custom_diffusion.weight")}
        assert len(own) == 32
        assert {shape for shape in own.values()} == {(320, 768), (640, 768), (1280, 768)}
        # Self-attention has none; diffusers must find its name all the same.
        assert {shape for name, shape in found.items() if name not in own} == {(0,)}
        assert len(found) == 48
    assert files == expected
