"""A whole fine-tuning run: from a cohort to a folder with the model and all that is needed to repeat it."""

from __future__ import annotations

import functools
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.data import Cohort, ImageTransform, PromptTemplate, check_caption_length, default_template
from latentdrift.data.prepare import read_preparation
from latentdrift.data.prompts import as_template
from latentdrift.data.splits import DEFAULT_FRACTIONS
from latentdrift.drift import DriftMismatchWarning, LatentDrift
from latentdrift.errors import ConfigurationError
from latentdrift.finetune.checkpoint import FOLDER as CHECKPOINTS
from latentdrift.finetune.config import TrainingConfig
from latentdrift.finetune.contrast import LowContrastWarning, low_contrast
from latentdrift.finetune.drifting import choose_drift
from latentdrift.finetune.folder import begin_run, describe_run, has_finished, write_losses
from latentdrift.finetune.memory import explained_memory
from latentdrift.finetune.method import finetune_method
from latentdrift.finetune.samples import sample_captions, write_samples
from latentdrift.finetune.sets import TrainingSet, training_set
from latentdrift.finetune.trainer import Report, Trainer
from latentdrift.models import ModelCard, load_pipeline, save_pipeline

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Stage = Callable[[str, int, int], None]
"""Called with what is being done ("latents", "training", "samples"), how much of it is done, and how much there is."""


def finetune_model(
    cohort: Cohort,
    out: str | Path,
    *,
    base: str | Path = "tiny",
    method: str = "basic",
    drift: str | float | LatentDrift | None = "auto",
    rule: str = "start",
    template: str | Path | Mapping[str, Any] | PromptTemplate | None = None,
    config: TrainingConfig | None = None,
    method_config: Any = None,
    fractions: Mapping[str, float] | None = None,
    cache: str | Path | None = None,
    device: str | None = None,
    stage: Stage | None = None,
) -> Path:
    """Fine-tune a base model on a cohort; return the folder of the model, `out/model`.

    The run folder holds `run.json` (settings, drift, data hash, package versions), `split.csv`, `losses.csv`,
    TensorBoard's `logs`, `samples`, `checkpoints` while training, and `model`, which plain diffusers loads. Calling it
    again with the same settings goes on from the last checkpoint, or returns at once if the run has finished.

    Args:
        cohort: images with attributes; split by subject where there is one.
        out: run folder.
        base: "tiny", "tiny-brain", a diffusers folder, a run folder or a hub id.
        method: fine-tuning method by name.
        drift: see `choose_drift`; "none" trains and saves without.
        rule: where the drift acts: start, forward, paper or matched.
        template: caption template such as "an MRI of a {stage} brain", a set of them by name ("diverse+patient"), or a
            template file; made from the attributes by default.
        config: settings shared by all methods.
        method_config: settings of the method.
        fractions: parts of the cohort, {"train": 0.8, "validation": 0.1, "test": 0.1} by default.
        cache: folder of the cached latents; `.latents` beside the run folder by default.
        device: where to train; a GPU by default where there is one.
        stage: called with progress.

    Warns:
        LowContrastWarning: the text encoder hardly tells the captions of the cohort's classes apart.

    Raises:
        LatentDriftError: with what was wrong and the remedy, as ConfigurationError, DataError, DriftError, ModelError
            or TrainingError.
    """
    config = config or TrainingConfig()
    method_class = finetune_method.get(method)
    settings = method_config or method_class.config_class()
    out, shares = Path(out), dict(fractions or DEFAULT_FRACTIONS)
    tell = stage or (lambda *_: None)
    prompts = as_template(template, cohort, attribute=config.balance) if template else default_template(cohort)
    prompts.check(cohort)
    captions = sample_captions(cohort, prompts)
    if config.balance is not None:
        cohort.values(config.balance)
    if "train" not in shares:
        raise ConfigurationError(f"No part of the split is called 'train': {', '.join(shares)}. Name one so.")
    parts = cohort.split(shares, seed=config.seed)
    facts = describe_run(cohort, base, method, drift, rule, prompts.stored(), config, settings, shares)
    if has_finished(out, facts):
        return out / "model"

    pipeline = load_base(base, device)
    check_caption_length(prompts.captions(cohort), pipeline.tokenizer)
    weak = low_contrast(pipeline, cohort, prompts)
    if weak is not None:
        warnings.warn(weak, LowContrastWarning, stacklevel=2)
    side = pipeline.unet.config.sample_size
    transform = ImageTransform(size=side * pipeline.vae_scale_factor)
    folder = Path(cache) if cache else out.resolve().parent / ".latents"

    @functools.cache
    def part(name: str) -> TrainingSet:
        progress = functools.partial(tell, "latents")
        return training_set(parts[name], pipeline, transform, prompts, folder, config, progress)

    with explained_memory(config):
        chosen = choose_drift(
            drift,
            rule=rule,
            means=lambda: part("train").cache.means(),
            scheduler=pipeline.scheduler,
            steps=config.sample_steps,
        )
        if chosen is not None:
            chosen.delta(torch.zeros(1, pipeline.unet.config.in_channels, side, side))
            chosen.attach(pipeline)
        trained = method_class(settings)
        module = trained.prepare(pipeline)
        trainer = Trainer(
            trained,
            module,
            noise_schedule(pipeline, chosen),
            part("train"),
            part("validation") if "validation" in parts else None,
            config,
            out,
            on_sample=lambda step: write_samples(pipeline, captions, sheet(out, step), config),
        )
        begin_run(out, facts, parts, chosen)

        def told(report: Report) -> None:
            if report.step % 50 == 0 or report.validation is not None:
                write_losses(out, trainer.losses, trainer.validations)
            tell(f"training, loss {report.loss:.3f}", report.step, config.steps)

        trainer.run(told)
        write_losses(out, trainer.losses, trainer.validations)
        trained.finish(pipeline, trainer.accelerator.unwrap_model(trainer.module, keep_fp32_wrapper=False))
        tell("samples", 0, 1)
        write_samples(pipeline, captions, sheet(out, config.steps), config)
        tell("samples", 1, 1)
    notes: dict[str, Any] = {"training_seconds": round(trainer.seconds, 1)}
    if trainer.validations:
        notes["validation_loss"] = round(trainer.validations[-1][1], 5)
    preparation = read_preparation(cohort.root)
    if preparation is not None:
        # So that a scan to be edited is cut and scaled as those were.
        notes["preparation"] = dict(preparation)
    card = ModelCard(
        base=str(base),
        method=method,
        steps=config.steps,
        size=transform.size,
        gray=parts["train"].is_gray(64),
        template=prompts.stored(),
        attributes={
            name: attribute_values(cohort, name) for name in prompts.attribute_names if name in cohort.attribute_names
        },
        data={"name": cohort.name, "images": len(parts["train"]), "content_hash": facts["data"]["content_hash"]},
        notes=notes,
    )
    save_pipeline(pipeline, out / "model", card)
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return out / "model"


def load_base(base: str | Path, device: str | None) -> DiffusionPipeline:
    """Return the base model without a drift it may have been trained with: this training brings its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DriftMismatchWarning)
        return load_pipeline(base, device=device, dtype=torch.float32, drift=None)


def noise_schedule(pipeline: DiffusionPipeline, drift: LatentDrift | None) -> Any:
    """Return the scheduler that adds noise in training: the pipeline's schedule, drifted."""
    from diffusers import DDPMScheduler

    from latentdrift.drift import remove

    scheduler = DDPMScheduler.from_config(remove(pipeline.scheduler).config)
    return scheduler if drift is None else drift.apply(scheduler)


def sheet(out: Path, step: int) -> Path:
    """Return the file of a sample sheet."""
    return out / "samples" / f"step-{step:06d}.png"


def attribute_values(cohort: Cohort, name: str, most: int = 50) -> list[Any]:
    """Return the values an attribute has; quartiles of numbers that take many; nothing for free text."""
    known = {record.attributes[name] for record in cohort if name in record.attributes}
    values = sorted(known, key=lambda value: (isinstance(value, str), value))
    if len(values) <= most:
        return list(values)
    if any(isinstance(value, str) for value in values):
        return []
    return [values[round(quarter * (len(values) - 1) / 4)] for quarter in range(5)]
