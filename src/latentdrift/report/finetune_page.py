"""The page of a fine-tuning run, made from its folder alone: it can be written whenever the run has finished."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentdrift.errors import DataError
from latentdrift.report.page import Picture, Section, Table
from latentdrift.report.run_page import PAGE_FILE, DriftInUse, RunPage, write_run_page

SMOOTH = 15
"""Losses averaged into a point of the curve."""


def write_finetune_page(run: str | Path, *, command: str, options: Any = None, warnings: Sequence[str] = ()) -> Path:
    """Write `page.html` into a run folder that has finished, and return its path.

    Args:
        run: folder of `finetune_model`.
        command: how to make it again.
        options: all settings; those of run.json if not given.
        warnings: what was warned of.

    Raises:
        DataError: no such run, or one that has not finished.
    """
    from latentdrift.drift import load_drift
    from latentdrift.models import read_model_card

    run = Path(run)
    card = read_model_card(run / "model")
    if card is None:
        raise DataError(f"{run} holds no run that has finished. Run the same command again, then there is a page.")
    facts = read_facts(run)
    training = facts["training"]
    drift = load_drift(run / "model")
    use = DriftInUse(drift, gain_of(run / "model", training["sample_steps"]), training["sample_steps"])
    data = facts["data"]
    words = "without a drift" if drift is None else f"under a drift of rule *{drift.rule}*"
    seconds = card.notes.get("training_seconds")
    took = "" if seconds is None else f" Training took {duration(float(seconds))}."
    done = (
        f"The model `{facts['base']}` was fine-tuned by *{facts['method']}* on {card.data.get('images', '?')} of "
        f"{data['images']} images of the data set {data['name']}, {words}: {training['steps']} steps of "
        f"{training['batch_size'] * training['gradient_accumulation']} images.{took} The result is in `model`, which "
        "diffusers loads."
    )
    results = [
        Section("Training", curves(run, training)),
        *samples(run, training["sample_steps"]),
        *data_sections(facts, card.template),
    ]
    page = RunPage(
        f"Fine-tuning: {run.resolve().name}",
        done,
        results,
        command,
        warnings=warnings,
        options=options if options is not None else {**training, **facts["method_settings"]},
        drift=use,
        facts={"seed": training["seed"], "content hash of the data": data["content_hash"]},
        versions=facts["versions"],
    )
    return write_run_page(run / PAGE_FILE, page)


def read_facts(run: Path) -> dict[str, Any]:
    """Return run.json.

    Raises:
        DataError: it is missing or damaged.
    """
    try:
        return dict(json.loads((run / "run.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{run / 'run.json'} cannot be read: {error}. Give the folder of a run.") from error


def gain_of(model: Path, steps: int) -> float | None:
    """Return a_s / b_s of the first timestep of a model's own sampler; None where an adapter has no sampler saved."""
    from diffusers import SchedulerMixin

    from latentdrift.drift.scheduler import start_gain

    file = model / "scheduler" / "scheduler_config.json"
    if not file.is_file():
        return None
    import diffusers

    config = json.loads(file.read_text(encoding="utf-8"))
    kind: type[SchedulerMixin] = getattr(diffusers, config["_class_name"])
    scheduler: Any = kind.from_config({name: value for name, value in config.items() if not name.startswith("_")})
    scheduler.set_timesteps(steps)
    return float(start_gain(scheduler))


def curves(run: Path, training: Mapping[str, Any]) -> list[Any]:
    """Return the losses, the learning rate and the numbers of a learned drift."""
    import tempfile

    import pandas as pd

    from latentdrift.report.curves import training_figure

    table = pd.read_csv(run / "losses.csv")
    checked = table.dropna(subset=["validation_loss"])
    last = table["loss"].tail(max(1, len(table) // 10)).mean()
    rows = [
        {"": "loss, mean of the first tenth", "value": float(table["loss"].head(max(1, len(table) // 10)).mean())},
        {"": "loss, mean of the last tenth", "value": float(last)},
    ]
    if len(checked):
        rows.append({"": "validation loss, first", "value": float(checked["validation_loss"].iloc[0])})
        rows.append({"": "validation loss, last", "value": float(checked["validation_loss"].iloc[-1])})
    losses = {"training": (table["step"].tolist(), table["loss"].tolist())}
    if len(checked):
        losses["validation"] = (checked["step"].tolist(), checked["validation_loss"].tolist())
    learned = {name.replace("_", " "): table[name].tolist() for name in table.columns if name.startswith("drift_")}
    with tempfile.TemporaryDirectory() as folder:
        drawn = training_figure(
            Path(folder, "curves.png"), losses, rates_of(training), learned, table["step"].tolist(), smooth=SMOOTH
        )
        picture = drawn.read_bytes()
    caption = (
        "Loss of each step (pale) and its running mean, validation loss on the same noise each time, and the learning "
        "rate. The loss falls little however much is learned: what is left is the noise itself."
    )
    return [Picture(picture, caption), Table(rows)]


def rates_of(training: Mapping[str, Any], most: int = 400) -> tuple[list[int], list[float]]:
    """Return steps and learning rates of a run's schedule."""
    from latentdrift.finetune.rates import learning_rates

    return learning_rates(
        training["lr_schedule"], training["learning_rate"], training["warmup_steps"], training["steps"], most
    )


def samples(run: Path, steps: int) -> list[Section]:
    """Return the first and the last sample sheet."""
    sheets = sorted((run / "samples").glob("step-*.png"))
    if not sheets:
        return []
    shown = [sheets[0], sheets[-1]] if len(sheets) > 1 else sheets
    blocks: list[Any] = ["A row a caption, the same noise in each row."]
    for sheet in shown:
        step = int(sheet.stem.removeprefix("step-"))
        blocks.append(Picture(sheet, f"Synthetic images after {step} training steps, {steps} denoising steps."))
    return [Section("Samples", blocks)]


def data_sections(facts: Mapping[str, Any], template: Any) -> list[Section]:
    """Return what the run learned from: counts by part, class and group, and the captions."""
    blocks: list[Any] = []
    if isinstance(template, str):
        blocks.append(f"Captions: `{template}`.")
    parts = facts.get("parts")
    if parts:
        rows = [{"part": name, "images": part["images"], "subjects": part["subjects"]} for name, part in parts.items()]
        blocks.append(Table(rows, "The split. Parts share no subject where subjects are known."))
        for attribute in dict.fromkeys(name for part in parts.values() for name in part["by"]):
            values = dict.fromkeys(value for part in parts.values() for value in part["by"].get(attribute, {}))
            table = [
                {attribute: value} | {name: part["by"].get(attribute, {}).get(value, 0) for name, part in parts.items()}
                for value in values
            ]
            blocks.append(Table(table, f"Images by {attribute} and part."))
    return [Section("Data", blocks)] if blocks else []


def duration(seconds: float) -> str:
    """Return a time in words."""
    if seconds < 90:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
