"""Stable Diffusion 1.4 in its full size, with random weights, and a training on it that is measured.

What a toy cannot tell: whether the memory suffices, whether names and shapes of a real model are met, how long a step
takes. Nothing is downloaded: CLIP's vocabulary comes with the package open_clip_torch. As a program it does either in a
process of its own, whose memory is its own and given back:

    python tests/full_size.py build FOLDER
    python tests/full_size.py train SETTINGS.json RESULT.json
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import importlib.util
import json
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIZE = 512
PARAMETERS = {"unet": 859_520_964, "text_encoder": 123_060_480, "vae": 83_653_863}
TOKENS = 49_408
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "set_alpha_to_one": False,
    "skip_prk_steps": True,
    "steps_offset": 1,
    "clip_sample": False,  # PNDM has no use for it; schedulers made from its configuration have
}
"""As published with Stable Diffusion 1.4, for PNDM."""


def build_tokenizer() -> Any:
    """CLIP's tokenizer: single bytes, the same at the end of a word, the merges, and the two marks."""
    from tokenizers import pre_tokenizers
    from transformers import CLIPTokenizer

    found = importlib.util.find_spec("open_clip")
    assert found is not None, "Stable Diffusion's vocabulary is needed: pip install open_clip_torch"
    assert found.origin is not None
    with gzip.open(Path(found.origin).with_name("bpe_simple_vocab_16e6.txt.gz"), "rt", encoding="utf-8") as file:
        lines = file.read().split("\n")
    # CLIP uses only as many of the file's merges as fill its vocabulary; the first line is a version.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [tuple(line.split()) for line in lines[1 : 1 + TOKENS - 2 * len(letters) - 2]]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    assert len(vocabulary) == TOKENS
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=77)


def build_stable_diffusion(folder: Path, *, seed: int = 0) -> Path:
    """Write a diffusers folder of Stable Diffusion 1.4's architecture, 2.1 GB in float16; at most 4.5 GB of memory."""
    import torch
    from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    # Halved one by one: the largest alone takes 3.4 GB while it is made.
    unet = UNet2DConditionModel(sample_size=SIZE // 8, cross_attention_dim=768).half()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=TOKENS,
            hidden_size=768,
            intermediate_size=3072,
            projection_dim=768,
            num_hidden_layers=12,
            num_attention_heads=12,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            bos_token_id=0,
            eos_token_id=2,  # as published, although the tokenizer's is 49407
            pad_token_id=1,
        )
    ).half()
    vae = AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=4,
        sample_size=SIZE,
        scaling_factor=0.18215,
    ).half()
    for name, module in (("unet", unet), ("text_encoder", text_encoder), ("vae", vae)):
        count = sum(parameter.numel() for parameter in module.parameters())
        assert count == PARAMETERS[name], f"{name} has {count} parameters, not {PARAMETERS[name]}"
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=build_tokenizer(),
        unet=unet,
        scheduler=PNDMScheduler.from_config(SCHEDULE),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def write_cohort(folder: Path) -> Path:
    """Write two visits each of two subjects, five years apart: four gray slices with a hole that grows."""
    from PIL import Image

    (folder / "images").mkdir(parents=True)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    rows = []
    for subject, stage in enumerate(("NonDemented", "MildDemented")):
        for visit in range(2):
            radius = np.hypot(x, y * (1 + 0.1 * subject))
            pixels = np.where(radius < 0.8, np.where(radius < 0.2 * (1 + subject) + 0.05 * visit, 40, 170), 0)
            name = f"images/s{subject}-{visit}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
            rows.append((name, f"s{subject}", f"v{visit}", stage, 65 + 5 * visit + subject))
    with (folder / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "subject", "session", "stage", "age"), *rows])
    return folder


@dataclass(frozen=True)
class Measured:
    """What a training did.

    Args:
        losses: one a step.
        parameters: names of all parameters of the pipeline while it trained, and of what was added to train.
        trained: those that required gradients.
        moved: those whose values changed.
        words_kept: the embeddings of CLIP's own tokens are as they were.
        seconds: a step.
        gigabytes: most memory the process held at any time.
    """

    losses: list[float]
    parameters: list[str]
    trained: list[str]
    moved: list[str]
    words_kept: bool
    seconds: float
    gigabytes: float


def measure_training(
    method: str, base: Path, cohort: Path, out: Path, *, config: Mapping[str, Any], settings: Mapping[str, Any]
) -> Measured:
    """Fine-tune, and tell what happened.

    Args:
        method: fine-tuning method by name.
        base: folder of the base model.
        cohort: folder of the images.
        out: run folder.
        config: fields of TrainingConfig.
        settings: fields of the method's configuration.
    """
    import torch

    from latentdrift.data import Cohort
    from latentdrift.finetune import TrainingConfig, finetune_method, finetune_model
    from latentdrift.models.card import read_model_card

    found = finetune_method.get(method)
    prepare, finish = found.prepare, found.finish
    seen: dict[str, Any] = {}

    def watched_prepare(self: Any, pipeline: Any, *rest: Any) -> Any:
        module = prepare(self, pipeline, *rest)
        seen["before"] = digests(pipeline, module)
        seen["trained"] = [name for name, value in named(pipeline, module).items() if value.requires_grad]
        seen["words"] = words(pipeline)
        return module

    def watched_finish(self: Any, pipeline: Any, module: Any, *rest: Any) -> Any:
        seen["after"] = digests(pipeline, module)
        seen["words_kept"] = torch.equal(seen["words"], words(pipeline))
        return finish(self, pipeline, module, *rest)

    found.prepare, found.finish = watched_prepare, watched_finish  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # random text encoders hardly tell captions apart
        model = finetune_model(
            Cohort.open(cohort),
            out,
            base=base,
            method=method,
            drift="auto",
            template="an MRI of a {stage} brain",
            config=TrainingConfig(**config),
            method_config=found.config_class(**settings),
            fractions={"train": 1.0},
            cache=cohort.parent / "latents",
            device="cpu",
        )
    card = read_model_card(model)
    assert card is not None
    lines = (out / "losses.csv").read_text().splitlines()[1:]
    return Measured(
        losses=[float(line.split(",")[1]) for line in lines],
        parameters=list(seen["before"]),
        trained=seen["trained"],
        moved=[name for name, value in seen["after"].items() if seen["before"].get(name) != value],
        words_kept=seen["words_kept"],
        seconds=float(card.notes["training_seconds"]) / len(lines),
        gigabytes=peak_gigabytes(),
    )


def named(pipeline: Any, module: Any) -> dict[str, Any]:
    """Return every parameter of a pipeline's networks by name, and those that only the trained module has."""
    import torch

    parts = {name: part for name, part in pipeline.components.items() if isinstance(part, torch.nn.Module)}
    found: dict[str, Any] = {}
    known: set[int] = set()
    for prefix, part in (*parts.items(), ("module", module)):
        for name, value in part.named_parameters():
            if id(value) not in known:
                known.add(id(value))
                found[f"{prefix}.{name}"] = value
    return found


def digests(pipeline: Any, module: Any) -> dict[str, int]:
    """Return the sum of each parameter's bits, read as whole numbers: it changes with any one of them."""
    import torch

    return {
        name: int(value.detach().contiguous().view(torch.int32).sum(dtype=torch.int64))
        for name, value in named(pipeline, module).items()
    }


def words(pipeline: Any) -> Any:
    """Return a copy of the embeddings of CLIP's own tokens, (49408, 768)."""
    return pipeline.text_encoder.get_input_embeddings().weight[:TOKENS].detach().clone()


def peak_gigabytes() -> float:
    """Return the most memory that this process has had."""
    # The system's `ru_maxrss` begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e9


def main() -> None:
    if sys.argv[1] == "build":
        build_stable_diffusion(Path(sys.argv[2]))
        return
    given = json.loads(Path(sys.argv[2]).read_text())
    for name in ("base", "cohort", "out"):
        given[name] = Path(given[name])
    Path(sys.argv[3]).write_text(json.dumps(dataclasses.asdict(measure_training(**given))))


if __name__ == "__main__":
    main()
