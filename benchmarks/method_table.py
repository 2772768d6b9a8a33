"""The fine-tuning methods on both sides, and the flags that make them the same training.

The scripts' own defaults stay wherever ours can do the same. Flags that are not a default:

- textual inversion: the script draws one of its captions for each image and step and mirrors half of the images; ours
  has the same captions, one an image, and `--flip`.
- DreamBooth and Custom Diffusion: prior preservation with ready-made images of the class, as many as the script would
  generate by default.
- Custom Diffusion: `--noaug`, so that both see the same images; the script would shrink or enlarge three of four.
- LoRA: the script's rank for both.
- Textual inversion, Custom Diffusion and LoRA: the scripts save what they trained and not its base, so ours does too.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.method_data import (
    CLASS_PROMPT,
    CONCEPT_TEMPLATE,
    TEMPLATE,
    write_captioned,
    write_pairs,
    write_prior,
    write_wordings,
)
from benchmarks.whole_process import NEVER, Comparison, Flags, Setting

PLACEHOLDER = "<concept-brain>"
Facts = dict[str, Any]


def basic_ours(data: Path, facts: Facts, setting: Setting) -> Flags:
    return {"data": data / "ours", "template": TEMPLATE}


def basic_reference(data: Path, facts: Facts, setting: Setting) -> Flags:
    # The averaging is the faster of the script's two, which ours uses too.
    return {"train_data_dir": data / "reference"} | ({"use_ema": True, "foreach_ema": True} if setting.ema else {})


def textual_inversion_ours(data: Path, facts: Facts, setting: Setting) -> Flags:
    return {
        "data": data / "ours",
        "template": data / "wordings.txt",
        "concepts": "concept",
        "placeholder": "<{name}-{value}>",
        "initializer": "brain",
        "flip": True,
        "save": "adapter",
    }


def textual_inversion_reference(data: Path, facts: Facts, setting: Setting) -> Flags:
    return {
        "train_data_dir": data / "reference",
        "placeholder_token": PLACEHOLDER,
        "initializer_token": "brain",
        "save_steps": NEVER,
    }


def prior_ours(data: Path, facts: Facts, setting: Setting) -> Flags:
    return {
        "data": data / "ours",
        "template": CONCEPT_TEMPLATE,
        "class-prompt": CLASS_PROMPT,
        "class-images": data / "class",
        "prior-images": facts["class_images"],
        "prior-weight": 1.0,
    }


def prior_reference(data: Path, facts: Facts, setting: Setting, *, value: str) -> Flags:
    return {
        "instance_data_dir": data / "reference",
        "instance_prompt": CONCEPT_TEMPLATE.format(concept=value),
        "with_prior_preservation": True,
        "class_prompt": CLASS_PROMPT,
        "class_data_dir": data / "class",
        "num_class_images": facts["class_images"],
        "prior_loss_weight": 1.0,
    }


def custom_diffusion_ours(data: Path, facts: Facts, setting: Setting) -> Flags:
    own = {"concepts": "concept", "placeholder": "<{name}-{value}>", "initializer": "brain", "save": "adapter"}
    return {**prior_ours(data, facts, setting), **own}


def custom_diffusion_reference(data: Path, facts: Facts, setting: Setting) -> Flags:
    own = {"modifier_token": PLACEHOLDER, "initializer_token": "brain", "noaug": True}
    return {**prior_reference(data, facts, setting, value=PLACEHOLDER), **own}


def pairs_ours(data: Path, facts: Facts, setting: Setting) -> Flags:
    return {"data": data / "ours", "pairs": "truth"}


def lora_ours(data: Path, facts: Facts, setting: Setting) -> Flags:
    return {**basic_ours(data, facts, setting), "rank": 4, "save": "adapter"}


def lora_reference(data: Path, facts: Facts, setting: Setting) -> Flags:
    return {"train_data_dir": data / "reference", "rank": 4}


def folder_only(data: Path, facts: Facts, setting: Setting) -> Flags:
    return {"train_data_dir": data / "reference"}


COMPARISONS = {
    comparison.method: comparison
    for comparison in (
        Comparison("basic", "train_text_to_image.py", write_captioned, basic_ours, basic_reference, 1e-4),
        Comparison(
            "textual_inversion",
            "textual_inversion.py",
            write_wordings,
            textual_inversion_ours,
            textual_inversion_reference,
            1e-4,
            trained="embeddings",
        ),
        Comparison(
            "dreambooth",
            "train_dreambooth.py",
            lambda folder, setting, script: write_prior(folder, setting, value="sks", class_images=100, text=False),
            prior_ours,
            partial(prior_reference, value="sks"),
            5e-6,
        ),
        Comparison(
            "custom_diffusion",
            "train_custom_diffusion.py",
            lambda folder, setting, script: write_prior(folder, setting, value="brain", class_images=200, text=True),
            custom_diffusion_ours,
            custom_diffusion_reference,
            1e-5,
            trained="keys and values",
        ),
        Comparison("instruct_pix2pix", "train_instruct_pix2pix.py", write_pairs, pairs_ours, folder_only, 1e-4),
        Comparison(
            "lora",
            "train_text_to_image_lora.py",
            write_captioned,
            lora_ours,
            lora_reference,
            1e-4,
            trained="adapter",
            bar=None,
        ),
    )
}
"""By our name of the method."""
