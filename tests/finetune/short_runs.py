"""A short run of each method on the toy, for what must hold for all of them."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from latentdrift.data import Cohort
from latentdrift.finetune import TrainingConfig, finetune_model
from latentdrift.finetune.methods.basic import BasicConfig
from latentdrift.finetune.methods.custom_diffusion import CustomDiffusionConfig
from latentdrift.finetune.methods.dreambooth import DreamBoothConfig
from latentdrift.finetune.methods.instruct_pix2pix import InstructPix2PixConfig
from latentdrift.finetune.methods.lora import LoRAConfig
from latentdrift.finetune.methods.textual_inversion import TextualInversionConfig

TEMPLATE = "a {stage} x"
"""Short: the toy's tokenizer has a token a letter."""

METHODS: dict[str, Any] = {
    "basic": BasicConfig(),
    "textual_inversion": TextualInversionConfig(concepts="stage", vectors=2),
    "dreambooth": DreamBoothConfig(class_prompt="x", prior_images=2, train_text_encoder=True),
    "custom_diffusion": CustomDiffusionConfig(
        concepts="stage", vectors=2, class_prompt="x", prior_images=2, train_q_out=True
    ),
    "lora": LoRAConfig(rank=4, alpha=2.0, train_text_encoder=True),
    "instruct_pix2pix": InstructPix2PixConfig(pairs="table"),
}
"""Every method with a setting of its own that is not the default."""

SHORT: dict[str, Any] = {
    "steps": 3,
    "batch_size": 4,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "ema_decay": 0.5,
    "sample_steps": 1,
    "validate_every": 0,
    "validation_images": 4,
    "checkpoint_every": 1000,
}


def paired_cohort(folder: Path) -> Cohort:
    """Return the toy cohort in which a subject's two images are edits of each other."""
    cohort = Cohort.open(folder)
    keys = [record.key for record in cohort]
    partner = dict(zip(keys, [key for a, b in zip(keys[::2], keys[1::2], strict=True) for key in (b, a)], strict=True))
    records = [
        dataclasses.replace(
            record,
            attributes={
                **record.attributes,
                "source_file": partner[record.key],
                "instruction": "grow" if record.key > partner[record.key] else "shrink",
            },
        )
        for record in cohort
    ]
    return Cohort(records, cohort.root, cohort.name)


def short_run(method: str, cohort: Path, out: Path, **settings: Any) -> Path:
    """Fine-tune the toy for a few steps; return the model's folder. Settings are those of `run_arguments`."""
    return finetune_model(**run_arguments(method, cohort, out, **settings))


def run_arguments(
    method: str,
    cohort: Path,
    out: Path,
    *,
    base: Path,
    cache: Path,
    drift: Any = "none",
    method_config: Any = None,
    **settings: Any,
) -> dict[str, Any]:
    """Return the arguments of `finetune_model`; `settings` are those of `TrainingConfig`."""
    return {
        "cohort": paired_cohort(cohort),
        "out": out,
        "base": base,
        "method": method,
        "method_config": method_config or METHODS[method],
        "drift": drift,
        "template": TEMPLATE,
        "config": TrainingConfig(**{**SHORT, **settings}),
        "cache": cache,
        "device": "cpu",
    }


def every_weight(model: Path) -> dict[str, torch.Tensor]:
    """Return all tensors of all files of a model folder."""
    from safetensors.torch import load_file

    return {
        f"{path.relative_to(model)}:{name}": value
        for path in sorted(model.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }
