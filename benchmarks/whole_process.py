"""The same training as two whole processes: `latentdrift finetune` and an example script of diffusers.

Both get the same model (float32), the same images, batch size, steps, constant learning rate, float32 arithmetic and
TensorBoard, and both save what they trained; validation, sample sheets, and checkpoints along the way, are off. Ours
still encodes its validation set and writes a last checkpoint; these stay in its time. The reference does nothing like
them. What else belongs to a method stands in `method_table`.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NEVER = 10**9

Flags = Mapping[str, Any]
"""Flags of a command line by name; True is a flag without a value."""

MEASURES = {
    "ratio": "seconds",
    "loop_ratio": "loop_seconds",
    "processor_ratio": "processor_seconds",
    "memory_ratio": "peak_bytes",
}


class ProcessError(Exception):
    """A training process failed, or trained on something else than it should."""


@dataclass(frozen=True)
class Setting:
    """What is the same for both trainings.

    Attributes:
        steps: of the optimizer.
        batch_size: images a step; with prior preservation as many images of the class beside them.
        images: simulated images, of which ours splits off a part for validation and one for tests.
        size: side of the images the model is trained on.
        image_size: side of the images' files.
        class_images: for prior preservation; 0 is as many as the script would generate by default.
        ema: averaged weights in both, where the reference has them; else in neither.
    """

    steps: int
    batch_size: int
    images: int
    size: int
    image_size: int
    class_images: int = 0
    ema: bool = False


@dataclass(frozen=True)
class Comparison:
    """One method on both sides.

    Attributes:
        method: our name of it.
        script: file name of diffusers' example.
        write: (empty folder, setting, script) → facts on the data; see `method_data`.
        ours: (folder with the data, facts, setting) → our flags beside `our_arguments`' own.
        reference: likewise the script's.
        learning_rate: the script's own default.
        trained: what moves: "unet", "embeddings", "keys and values" with embeddings, or "adapter".
        bar: highest ratio of whole seconds; None where there is none.
    """

    method: str
    script: str
    write: Callable[[Path, Setting, Path], dict[str, Any]]
    ours: Callable[[Path, dict[str, Any], Setting], Flags]
    reference: Callable[[Path, dict[str, Any], Setting], Flags]
    learning_rate: float
    trained: str = "unet"
    bar: float | None = 0.6


def as_words(flags: Flags) -> list[str]:
    """Return flags as words of a command line."""
    return [
        word
        for name, value in flags.items()
        for word in ([f"--{name}"] if value is True else [f"--{name}", str(value)])
    ]


def our_arguments(own: Flags, comparison: Comparison, model: Path, out: Path, setting: Setting) -> list[str]:
    """Return the arguments of `latentdrift`."""
    flags = {
        "base": model,
        "out": out,
        "cache": out.with_name(out.name + "-latents"),
        "method": comparison.method,
        "drift": "none",
        "steps": setting.steps,
        "batch-size": setting.batch_size,
        "learning-rate": comparison.learning_rate,
        "lr-schedule": "constant",
        "warmup-steps": 0,
        "drop-captions": 0.0,
        "validate-every": 0,
        "validation-images": 0,
        "sample-columns": 0,
        "checkpoint-every": NEVER,
        "mixed-precision": "no",
    }
    if not setting.ema:
        flags["ema-decay"] = 0.0
    return ["finetune", *as_words(flags | own), "--quiet"]


def reference_arguments(
    own: Flags, comparison: Comparison, script: Path, model: Path, out: Path, setting: Setting
) -> list[str]:
    """Return the script and its arguments; what is not set here or for the method has the script's own default."""
    flags = {
        "pretrained_model_name_or_path": model,
        "output_dir": out,
        "resolution": setting.size,
        "train_batch_size": setting.batch_size,
        "max_train_steps": setting.steps,
        "learning_rate": comparison.learning_rate,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "checkpointing_steps": NEVER,
        "mixed_precision": "no",
        "seed": 0,
        "center_crop": True,
    }
    return [str(script), *as_words(flags | own)]


def run_process(side: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run one training in a process of its own; return its seconds and its stages', and its peak memory.

    Raises:
        ProcessError: it failed; the message ends with its last lines.
    """
    stages, log = folder / f"{side}.json", folder / f"{side}.log"
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "hub")}
    environment = os.environ | offline | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    began, before = time.time(), os.times()
    command = [sys.executable, "-m", "benchmarks.timed_process", side, repr(began), str(stages), *arguments]
    with log.open("w") as out:
        status = subprocess.run(command, cwd=folder, env=environment, stdout=out, stderr=out, check=False).returncode
    seconds, after = time.time() - began, os.times()
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ProcessError(f"The {side} training ended with status {status}:\n{tail}")
    found = json.loads(stages.read_text())
    found["stages"]["interpreter's end"] = seconds - sum(found["stages"].values())
    # What other programs took of the machine is not in it.
    processor = sum(after[2:4]) - sum(before[2:4])
    return found | {
        "seconds": seconds,
        "loop_seconds": found["stages"]["training loop"],
        "processor_seconds": processor,
        # Without the folders, which are temporary.
        "arguments": [word if Path(word).name == word else Path(word).name for word in arguments],
    }


def check_training_part(run: Path, files: list[str]) -> None:
    """Raise ProcessError if our run did not train on the very images that the reference was given."""
    with (run / "split.csv").open(newline="") as file:
        trained = {row["file_name"] for row in csv.DictReader(file) if row["part"] == "train"}
    if trained != set(files):
        raise ProcessError(f"Ours trained on {len(trained)} images, which are not the {len(files)} of the reference.")


def measure_processes(
    comparison: Comparison, script: Path, model: Path, folder: Path, setting: Setting, repeats: int
) -> dict[str, Any]:
    """Return both trainings' median seconds, whole and loop only, their ratios and the stages of the median runs.

    Args:
        comparison: the method.
        script: the reference.
        model: the base model as a diffusers folder.
        folder: an empty folder to work in.
        setting: what is the same for both.
        repeats: pairs of processes that count.

    Raises:
        ProcessError: a training failed.
    """
    script = script.resolve()
    facts = comparison.write(folder / "data", setting, script)
    flags = {side: getattr(comparison, side)(folder / "data", facts, setting) for side in ("ours", "reference")}
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
    # The first pair, of one step, only brings the libraries' files into memory for both. It begins with the reference,
    # which fails at once where a package that it imports is missing.
    for repeat in range(repeats + 1):
        now = setting if repeat else replace(setting, steps=1)
        for side in sorted(runs, reverse=not repeat % 2):
            out = folder / f"{side}-{repeat}"
            if side == "ours":
                arguments = our_arguments(flags[side], comparison, model, out, now)
            else:
                caches = {"cache_dir": out.with_name(out.name + "-datasets")} if uses_datasets(script) else {}
                arguments = reference_arguments(flags[side] | caches, comparison, script, model, out, now)
            found = run_process(side, arguments, folder)
            if side == "ours":
                check_training_part(out, facts["training_files"])
            if repeat:
                runs[side].append(found)
            for path in folder.glob(f"{out.name}*"):
                shutil.rmtree(path, ignore_errors=True)
    facts["training_files"] = len(facts["training_files"])
    result: dict[str, Any] = {
        "method": comparison.method,
        "script": script.name,
        "data": facts,
        "ema": setting.ema,
        "steps": setting.steps,
        "batch_size": setting.batch_size,
    }
    for side, found in runs.items():
        middle = sorted(found, key=lambda run: run["seconds"])[(len(found) - 1) // 2]
        result[side] = middle | {"seconds_all": [run["seconds"] for run in found]}
    for name, measure in MEASURES.items():
        medians = {side: statistics.median(run[measure] for run in found) for side, found in runs.items()}
        result[name] = medians["ours"] / medians["reference"]
    return result


def uses_datasets(script: Path) -> bool:
    """Return whether a script reads its images with Hugging Face's `datasets`."""
    return "load_dataset(" in script.read_text()
