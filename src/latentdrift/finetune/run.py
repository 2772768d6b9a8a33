"""A whole fine-tuning run: from a cohort to a folder with the model and all that is needed to repeat it."""

from __future__ import annotations

import copy
import dataclasses
import functools
import shutil
import tempfile
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.data import Cohort, ImageTransform, PromptTemplate, default_template
from latentdrift.data.prepare import read_preparation
from latentdrift.data.prompts import as_template
from latentdrift.data.splits import DEFAULT_FRACTIONS
from latentdrift.drift import DriftMismatchWarning, LatentDrift, drift_of
from latentdrift.drift.scheduler import start_gain
from latentdrift.errors import ConfigurationError
from latentdrift.finetune.checkpoint import FOLDER as CHECKPOINTS
from latentdrift.finetune.config import TrainingConfig
from latentdrift.finetune.contrast import LowContrastWarning
from latentdrift.finetune.counts import count_parts
from latentdrift.finetune.drifting import NoiseChoice, choose_noise
from latentdrift.finetune.folder import begin_run, describe_run, has_finished, write_losses
from latentdrift.finetune.learning import DriftLearner
from latentdrift.finetune.memory import explained_memory
from latentdrift.finetune.method import finetune_method
from latentdrift.finetune.readme import write_readme
from latentdrift.finetune.schedules import noise_schedule, zero_snr_scheduler
from latentdrift.finetune.sets import SetMaker, TrainingSet
from latentdrift.finetune.trainer import Report, Trainer
from latentdrift.models import ModelCard, load_pipeline, save_pipeline
from latentdrift.models.adapters import base_fingerprint

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

    The run folder holds `run.json` (settings, drift, data hash, counts, package versions), `split.csv`, `losses.csv`,
    TensorBoard's `logs`, `samples`, `checkpoints` while training, and `model`, which plain diffusers loads, with a card
    in the hub's form (README.md). Calling it
    again with the same settings goes on from the last checkpoint, or returns at once if the run has finished.

    Args:
        cohort: images with attributes; split by subject where there is one.
        out: run folder.
        base: "tiny", "tiny-brain", a diffusers folder, a run folder or a hub id.
        method: fine-tuning method by name.
        drift: see `choose_noise`; "none" trains and saves without.
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
    tell = stage or (lambda *_: None)
    method_class = finetune_method.get(method)
    trained = method_class(method_config or method_class.config_class())
    config = trained.settle(config or TrainingConfig())
    out, shares = Path(out), dict(fractions or DEFAULT_FRACTIONS)
    prompts = as_template(template, cohort, attribute=config.balance) if template else default_template(cohort)
    prompts.check(cohort)
    if config.balance is not None:
        cohort.values(config.balance)
    if "train" not in shares:
        raise ConfigurationError(f"No part of the split is called 'train': {', '.join(shares)}. Name one so.")
    parts = cohort.split(shares, seed=config.seed)
    plain, prompts = prompts, trained.wording(prompts, cohort)
    facts = describe_run(cohort, base, method, drift, rule, plain.stored(), config, trained.config, shares)
    if has_finished(out, facts):
        return out / "model"

    pipeline = trained.adapt(load_base(base, device))
    noise_schedule(pipeline.scheduler, None)  # a base that cannot be trained is refused before images are encoded
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    weak = trained.check_captions(pipeline, cohort, prompts)
    if weak is not None:
        warnings.warn(weak, LowContrastWarning, stacklevel=2)
    make = SetMaker(
        pipeline,
        ImageTransform(size=size),
        prompts,
        Path(cache) if cache else out.resolve().parent / ".latents",
        config,
        tell,
    )

    # A validation loss is on the images themselves.
    unaugmented = dataclasses.replace(make, config=dataclasses.replace(config, augment=0))

    @functools.cache
    def train() -> TrainingSet:
        return trained.training_set(parts["train"], make)

    with explained_memory(config):
        noise = choose_noise(
            drift,
            rule=rule,
            means=lambda: train().means(),
            scheduler=pipeline.scheduler,
            steps=config.sample_steps,
            channels=pipeline.vae.config.latent_channels,
        )
        check_noise(pipeline, noise, trained.config)
        # Before the drift is on the pipeline: what the base itself is to make, it makes as it is.
        train()
        base_weights = base_fingerprint(pipeline.unet)
        learner = apply_noise(pipeline, noise, config.sample_steps)
        with torch.random.fork_rng():
            # Where weights begin at random, as a LoRA's do, the seed decides that too.
            torch.manual_seed(config.seed)
            module = trained.prepare(pipeline)
        draw = trained.samples(pipeline, parts["train"], make, config) if config.sample_columns else None

        def sample(step: int) -> None:
            if learner is not None:
                learner.drift.frozen().attach(pipeline)
            if draw is not None:
                draw(sheet(out, step))

        trainer = Trainer(
            trained,
            module,
            noise_schedule(pipeline.scheduler, noise.drift if learner is None else learner.drift.drift),
            train(),
            trained.validation_set(parts["validation"], unaugmented) if "validation" in parts else None,
            config,
            out,
            on_sample=sample,
            learner=learner,
            offset=noise.offset,
        )
        counted = count_parts(cohort, parts)
        begin_run(out, {**facts, "parts": counted}, parts, drift_of(pipeline))

        def told(report: Report) -> None:
            if report.step % 50 == 0 or report.validation is not None:
                write_losses(out, trainer.losses, trainer.validations, trainer.drifts)
            tell(f"training, loss {report.loss:.3f}", report.step, config.steps)

        trainer.run(told)
        write_losses(out, trainer.losses, trainer.validations, trainer.drifts)
        module = trainer.accelerator.unwrap_model(trainer.module, keep_fp32_wrapper=False)
        with tempfile.TemporaryDirectory(prefix=".adapter-", dir=out) as folder:
            trained.write_adapter(pipeline, module, Path(folder))
            trained.finish(pipeline, module)
            tell("samples", 0, 1)
            sample(config.steps)
            tell("samples", 1, 1)
            card = describe_model(cohort, parts["train"], make, base, method, config, facts)
            notes = {**card.notes, "base_fingerprint": base_weights, "training_seconds": round(trainer.seconds, 1)}
            if noise.offset:
                notes["offset_noise"] = noise.offset
            if trainer.validations:
                notes["validation_loss"] = round(trainer.validations[-1][1], 5)
            card = dataclasses.replace(card, notes={**notes, **trained.notes()})
            write_readme(
                Path(folder),
                card,
                drift_of(pipeline),
                facts,
                counted,
                losses=trainer.losses,
                validations=trainer.validations,
                captions=prompts.captions(parts["train"][:1]),
                sheet=sheet(out, config.steps),
            )
            save_pipeline(pipeline, out / "model", card, adapter=Path(folder), whole=config.save == "pipeline")
    shutil.rmtree(out / CHECKPOINTS, ignore_errors=True)
    return out / "model"


def describe_model(
    cohort: Cohort,
    train: Cohort,
    make: SetMaker,
    base: str | Path,
    method: str,
    config: TrainingConfig,
    facts: Mapping[str, Any],
) -> ModelCard:
    """Return the card of a model: how its images and captions were made, and what is known of the data."""
    preparation = read_preparation(cohort.root)
    prompts = make.prompts
    return ModelCard(
        base=str(base),
        method=method,
        steps=config.steps,
        size=make.transform.size,
        gray=train.is_gray(64),
        template=prompts.stored(),
        attributes={
            name: attribute_values(cohort, name) for name in prompts.attribute_names if name in cohort.attribute_names
        },
        data={"name": cohort.name, "images": len(train), "content_hash": facts["data"]["content_hash"]},
        # So that a scan to be edited is cut and scaled as those were.
        notes={} if preparation is None else {"preparation": dict(preparation)},
    )


def check_noise(pipeline: DiffusionPipeline, noise: NoiseChoice, settings: Any) -> None:
    """Raise DriftError or ConfigurationError for a drift that does not fit the latents, or a loss the noise levels."""
    side, channels = pipeline.unet.config.sample_size, pipeline.vae.config.latent_channels
    if noise.drift is not None:
        noise.drift.delta(torch.zeros(1, channels, side, side))
    gamma: float = getattr(settings, "snr_gamma", 0.0)
    already = pipeline.scheduler.config.get("rescale_betas_zero_snr")
    if gamma and (noise.zero_snr or already):
        where = "for a base whose noise levels end in pure noise" if already else "with --drift zero-terminal-snr"
        raise ConfigurationError(
            "snr_gamma weighs the last timestep by 0 where its signal-to-noise ratio is 0, so that sampling would "
            f"start where nothing was learned. Leave --snr-gamma out {where}."
        )


def apply_noise(pipeline: DiffusionPipeline, noise: NoiseChoice, steps: int) -> DriftLearner | None:
    """Put the drift, or what stands in its place, on a pipeline; return what learns it, if it is learned."""
    if noise.zero_snr:
        pipeline.scheduler = zero_snr_scheduler(pipeline.scheduler)
    if noise.drift is not None:
        noise.drift.attach(pipeline)
    if noise.learned is None:
        return None
    scheduler = copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(steps)
    gain = start_gain(scheduler)
    noise.learned.to(pipeline.unet.device)
    noise.learned.frozen().attach(pipeline)
    return DriftLearner(noise.learned, gain)


def load_base(base: str | Path, device: str | None) -> DiffusionPipeline:
    """Return the base model without a drift it may have been trained with: this training brings its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DriftMismatchWarning)
        return load_pipeline(base, device=device, dtype=torch.float32, drift=None)


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
