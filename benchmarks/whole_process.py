"""The same training as two whole processes: `latentdrift finetune` and diffusers' `train_text_to_image.py`.

Both get the same model (float32), the same training images and captions, batch size, steps, AdamW settings, constant
learning rate and clipping, float32 arithmetic, averaged weights or none, and TensorBoard; both write the whole pipeline
at the end; validation, and checkpoints along the way, are off. Ours still encodes its validation set, draws a sample
sheet of one denoising step and writes a last checkpoint; these stay in its time. The reference does nothing like them.
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
from pathlib import Path
from typing import Any

from diffusers import DiffusionPipeline

from latentdrift.data import PromptTemplate
from latentdrift.data.simulate import simulate_cohort

ROOT = Path(__file__).resolve().parents[1]
TEMPLATE = "a brain MRI slice, {diagnosis}"
LEARNING_RATE = "1e-4"


class ProcessError(Exception):
    """A training process failed."""


def write_data(folder: Path, images: int, size: int) -> dict[str, Any]:
    """Write `folder/ours` and `folder/reference`, the latter with the former's training part; return what they hold."""
    simulated = simulate_cohort(folder / "ours", subjects=images, size=size, truth=False)
    prompts = PromptTemplate(TEMPLATE)
    # The split of `finetune` with the same seed: the reference is given the images that ours trains on, and no others.
    parts = simulated.split({"train": 0.8, "validation": 0.1, "test": 0.1}, seed=0)
    (folder / "reference").mkdir()
    rows = []
    for index, record in enumerate(parts["train"]):
        name = f"{index:06d}{record.image.suffix}"
        shutil.copyfile(record.image, folder / "reference" / name)
        rows.append((name, prompts.caption(record)))
    with (folder / "reference" / "metadata.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("file_name", "text"), *rows])
    return {
        "images": images,
        "training_images": len(parts["train"]),
        "encoded_images": len(parts["train"]) + len(parts["validation"]),
        "captions": len({caption for _, caption in rows}) + 1,
        "image_size": size,
    }


def our_arguments(data: Path, model: Path, out: Path, steps: int, batch_size: int, ema: bool) -> list[str]:
    """Return the arguments of `latentdrift`."""
    flags = {
        "data": data,
        "base": model,
        "out": out,
        "cache": out.with_name(out.name + "-latents"),
        "method": "basic",
        "drift": "none",
        "template": TEMPLATE,
        "steps": steps,
        "batch-size": batch_size,
        "learning-rate": LEARNING_RATE,
        "lr-schedule": "constant",
        "warmup-steps": 0,
        "drop-captions": 0.0,
        "validate-every": 0,
        "validation-images": 0,
        "sample-steps": 1,
        "checkpoint-every": 10**9,
        "mixed-precision": "no",
    }
    if not ema:
        flags["ema-decay"] = 0.0
    return ["finetune", *(word for name, value in flags.items() for word in (f"--{name}", str(value))), "--quiet"]


def reference_arguments(
    script: Path, data: Path, model: Path, out: Path, steps: int, batch_size: int, size: int, ema: bool
) -> list[str]:
    """Return the script and its arguments. The averaging is the faster of the script's two, which ours uses too."""
    flags = {
        "pretrained_model_name_or_path": model,
        "train_data_dir": data,
        "output_dir": out,
        "cache_dir": out.with_name(out.name + "-datasets"),
        "resolution": size,
        "train_batch_size": batch_size,
        "max_train_steps": steps,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler": "constant",
        "lr_warmup_steps": 0,
        "checkpointing_steps": 10**9,
        "mixed_precision": "no",
        "seed": 0,
    }
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return [str(script), *words, "--center_crop", *(["--use_ema", "--foreach_ema"] if ema else [])]


def run_process(side: str, arguments: list[str], folder: Path) -> dict[str, Any]:
    """Run one training in a process of its own; return its seconds and its stages'.

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
    }


def measure_processes(
    pipeline: DiffusionPipeline,
    reference: Path,
    folder: Path,
    *,
    steps: int,
    batch_size: int,
    images: int,
    image_size: int,
    repeats: int,
    ema: bool,
) -> dict[str, Any]:
    """Return both trainings' median seconds, whole and loop only, their ratios and the stages of the median runs."""
    pipeline.save_pretrained(folder / "base")
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    data = write_data(folder / "data", images, image_size or size)
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "reference": []}
    # The first pair, of one step, only brings the libraries' files into memory for both. It begins with the reference,
    # which fails at once where a package that it imports is missing.
    for repeat in range(repeats + 1):
        count = steps if repeat else 1
        for side in sorted(runs, reverse=not repeat % 2):
            out = folder / f"{side}-{repeat}"
            common = (folder / "data" / side, folder / "base", out, count, batch_size)
            if side == "ours":
                arguments = our_arguments(*common, ema)
            else:
                arguments = reference_arguments(reference.resolve(), *common, size, ema)
            found = run_process(side, arguments, folder)
            if repeat:
                runs[side].append(found)
            for path in folder.glob(f"{out.name}*"):
                shutil.rmtree(path, ignore_errors=True)
    result: dict[str, Any] = {"data": data, "ema": ema, "steps": steps, "batch_size": batch_size}
    for side, found in runs.items():
        middle = sorted(found, key=lambda run: run["seconds"])[(len(found) - 1) // 2]
        result[side] = middle | {"seconds_all": [run["seconds"] for run in found]}
    for name, measure in (
        ("ratio", "seconds"),
        ("loop_ratio", "loop_seconds"),
        ("processor_ratio", "processor_seconds"),
    ):
        medians = {side: statistics.median(run[measure] for run in found) for side, found in runs.items()}
        result[name] = medians["ours"] / medians["reference"]
    return result
