"""A whole fine-tuning run: from a cohort to a folder with the model and all that is needed to repeat it."""

from __future__ import annotations

import dataclasses
import json
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from latentdrift.data import Cohort, ImageTransform, PromptTemplate, default_template
from latentdrift.drift import LatentDrift
from latentdrift.errors import DataError, TrainingError
from latentdrift.finetune.cache import LatentCache
from latentdrift.finetune.config import TrainingConfig
from latentdrift.finetune.drifting import choose_drift
from latentdrift.finetune.method import finetune_method
from latentdrift.finetune.trainer import Report, Trainer, TrainingSet, write_losses
from latentdrift.models import ModelCard, encode_prompts, load_pipeline, save_pipeline

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
    template: str | None = None,
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
        template: caption template such as "a brain MRI slice, {stage}"; made from the attributes by default.
        config: settings shared by all methods.
        method_config: settings of the method.
        fractions: parts of the cohort, {"train": 0.8, "validation": 0.1, "test": 0.1} by default.
        cache: folder of the cached latents; `.latents` beside the run folder by default.
        device: where to train; a GPU by default where there is one.
        stage: called with progress.

    Raises:
        ConfigurationError, DataError, DriftError, ModelError, TrainingError: with what was wrong and the remedy.
    """
    config = config or TrainingConfig()
    method_class = finetune_method.get(method)
    settings = method_config or method_class.config_class()
    out = Path(out)
    tell = stage or (lambda *_: None)
    prompts = PromptTemplate(template) if template else default_template(cohort)
    prompts.check(cohort)
    text = prompts.texts[0]
    if config.balance is not None:
        cohort.values(config.balance)
    parts = cohort.split(dict(fractions) if fractions else {"train": 0.8, "validation": 0.1, "test": 0.1}, seed=config.seed)
    if not len(parts["train"]):
        raise DataError(f"{cohort.name}: the training part of {len(cohort)} images is empty; give a larger --data folder.")
    facts = describe_run(cohort, base, method, drift, rule, text, config, settings)
    if begin_run(out, facts):
        return out / "model"

    pipeline = load_pipeline(base, device=device, dtype=torch.float32, drift=None)
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    transform = ImageTransform(size=size)
    write_split(out, parts)
    folder = Path(cache) if cache else out.resolve().parent / ".latents"
    sets = {}
    for name in ("train", "validation"):
        if name in parts and len(parts[name]):
            sets[name] = training_set(parts[name], pipeline, transform, prompts, folder, config, tell)
    chosen = choose_drift(
        drift, rule=rule, means=sets["train"].cache.means, scheduler=pipeline.scheduler, steps=config.sample_steps
    )
    scheduler = noise_schedule(pipeline, chosen)
    if chosen is not None:
        chosen.attach(pipeline)
    trained = method_class(settings)
    module = trained.prepare(pipeline)
    captions = sample_captions(parts["train"], prompts)
    trainer = Trainer(
        trained,
        module,
        scheduler,
        sets["train"],
        sets.get("validation"),
        config,
        out,
        on_sample=lambda step: write_samples(pipeline, captions, out / "samples" / f"step-{step:06d}.png", config),
    )
    began = time.monotonic()
    tell("training", trainer.step, config.steps)

    def told(report: Report) -> None:
        tell(f"training, loss {report.loss:.3f}", report.step, config.steps)
        if report.step % 50 == 0 or report.validation is not None:
            write_losses(out, trainer.losses, trainer.validations)

    trainer.run(told)
    seconds = time.monotonic() - began
    trained.finish(pipeline, trainer.accelerator.unwrap_model(trainer.module))
    tell("samples", 0, 1)
    write_samples(pipeline, captions, out / "samples" / f"step-{config.steps:06d}.png", config)
    tell("samples", 1, 1)
    card = ModelCard(
        base=str(base),
        method=method,
        steps=config.steps,
        size=size,
        gray=all(transform.is_gray(record.image) for record in parts["train"].take(64, seed=0)),
        template=text,
        attributes={name: attribute_values(cohort, name) for name in prompts.attribute_names},
        data={"name": cohort.name, "images": len(parts["train"]), "content_hash": facts["data"]["content_hash"]},
        notes={"training_seconds": round(seconds, 1)},
    )
    save_pipeline(pipeline, out / "model", card)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return out / "model"


def describe_run(
    cohort: Cohort, base: str | Path, method: str, drift: Any, rule: str, template: str, config: Any, settings: Any
) -> dict[str, Any]:
    """Return what `run.json` holds: everything the result depends on."""
    return {
        "base": str(base),
        "method": method,
        "drift": drift.to_dict() if isinstance(drift, LatentDrift) else drift,
        "rule": rule,
        "template": template,
        "training": dataclasses.asdict(config),
        "method_settings": dataclasses.asdict(settings),
        "data": {"name": cohort.name, "images": len(cohort), "content_hash": cohort.content_hash()},
        "versions": package_versions(),
    }


def package_versions() -> dict[str, str]:
    """Return the versions of what the result depends on."""
    found = {"python": platform.python_version()}
    for name in ("latentdrift", "torch", "diffusers", "transformers", "accelerate", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def begin_run(out: Path, facts: dict[str, Any]) -> bool:
    """Start or go on with a run folder; return whether the run has finished already.

    Raises:
        TrainingError: the folder holds another run, or something else.
    """
    path = out / "run.json"
    if path.exists():
        former = json.loads(path.read_text())
        now = json.loads(json.dumps(facts))
        changed = [key for key in now if key != "versions" and now[key] != former.get(key)]
        if changed:
            details = "; ".join(f"{key}: {former.get(key)!r} there, {now[key]!r} now" for key in changed)
            raise TrainingError(
                f"{out} holds a run with other settings ({details}). Choose another --out, or delete the folder."
            )
        return (out / "model" / "model_index.json").exists()
    if out.exists() and any(out.iterdir()):
        raise TrainingError(f"{out} is not empty and holds no run. Choose another --out.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(facts, indent=2) + "\n")
        partial.replace(path)
    except OSError as error:
        raise TrainingError(f"The run folder {out} cannot be made: {error}. Choose another --out.") from error
    return False


def write_split(out: Path, parts: Mapping[str, Cohort]) -> None:
    """Write which image went into which part, `split.csv` (file_name, part)."""
    import pandas as pd

    rows = [(record.key, name) for name, part in parts.items() for record in part]
    partial = out / "split.partial"
    pd.DataFrame(rows, columns=["file_name", "part"]).to_csv(partial, index=False)
    partial.replace(out / "split.csv")


def training_set(
    cohort: Cohort,
    pipeline: DiffusionPipeline,
    transform: ImageTransform,
    prompts: PromptTemplate,
    folder: Path,
    config: TrainingConfig,
    tell: Stage,
) -> TrainingSet:
    """Return the cached latents and text conditioning of a cohort."""
    cache = LatentCache.build(
        cohort,
        transform,
        pipeline.vae,
        folder,
        flip=config.flip,
        batch_size=config.batch_size,
        progress=lambda done, total: tell("latents", done, total),
    )
    captions = [prompts.caption(record) for record in cohort]
    distinct = sorted(set(captions))
    rows = {caption: row for row, caption in enumerate(distinct)}
    weights = None
    if config.balance is not None:
        values = cohort.values(config.balance)
        counts = cohort.counts(config.balance)
        weights = torch.tensor([1.0 / counts[value] for value in values])
    conditioning = encode_prompts(pipeline, [*distinct, ""], transform.size)
    return TrainingSet(cache, torch.tensor([rows[caption] for caption in captions]), conditioning, weights)


def noise_schedule(pipeline: DiffusionPipeline, drift: LatentDrift | None) -> Any:
    """Return the scheduler that adds noise in training: the pipeline's schedule, drifted."""
    from diffusers import DDPMScheduler

    from latentdrift.drift import remove

    scheduler = DDPMScheduler.from_config(remove(pipeline.scheduler).config)
    return scheduler if drift is None else drift.apply(scheduler)


def sample_captions(cohort: Cohort, prompts: PromptTemplate, most: int = 6) -> list[str]:
    """Return the commonest captions, one a row of a sample sheet."""
    counts: dict[str, int] = {}
    for record in cohort:
        caption = prompts.caption(record)
        counts[caption] = counts.get(caption, 0) + 1
    return sorted(sorted(counts, key=lambda caption: -counts[caption])[:most])


def attribute_values(cohort: Cohort, name: str, most: int = 50) -> list[Any]:
    """Return an attribute's values: all of a category, the range of a number that takes many."""
    values = sorted(set(cohort.values(name)), key=lambda value: (str(type(value)), value))
    if len(values) > most and all(isinstance(value, int | float) for value in values):
        return [values[0], values[-1]]
    return list(values[:most])


def write_samples(
    pipeline: DiffusionPipeline, captions: list[str], path: Path, config: TrainingConfig, columns: int = 6
) -> None:
    """Write a sheet of samples, a row a caption, the same seeds in each row, made by the pipeline itself."""
    from torchvision.utils import save_image

    prompts = [caption for caption in captions for _ in range(columns)]
    images = []
    for start in range(0, len(prompts), config.batch_size):
        part = range(start, min(start + config.batch_size, len(prompts)))
        generators = [torch.Generator().manual_seed(config.seed + index % columns) for index in part]
        images.append(
            pipeline(
                [prompts[index] for index in part],
                num_inference_steps=config.sample_steps,
                guidance_scale=1.0,
                generator=generators,
                output_type="pt",
            ).images.float()
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    save_image(torch.cat(images), path, nrow=columns, padding=1)
