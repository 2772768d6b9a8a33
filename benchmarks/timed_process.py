"""Run one of the two trainings in this process, with its stages timed. Started by `whole_process`, not by hand.

`python -m benchmarks.timed_process ours|reference STARTED OUT ARGUMENTS…`: STARTED is `time.time()` when the process
was started, so that the interpreter and the imports count; OUT gets the stages as JSON.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from benchmarks.stopwatch import Stopwatch


def watch_loop(watch: Stopwatch) -> None:
    """Time what both trainings call in their loops."""
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from diffusers import UNet2DConditionModel
    from diffusers.training_utils import EMAModel

    watch.watch(UNet2DConditionModel, "forward", "U-Net forward")
    watch.watch(Accelerator, "backward", "backward")
    watch.watch(Accelerator, "clip_grad_norm_", "gradient clipping")
    watch.watch(AcceleratedOptimizer, "step", "optimizer")
    watch.watch(EMAModel, "step", "average of the weights")


def run_ours(watch: Stopwatch, arguments: list[str]) -> int:
    """Run `latentdrift` with `arguments`."""
    from latentdrift import finetune
    from latentdrift.cli.__main__ import main
    from latentdrift.data import Cohort
    from latentdrift.finetune import LatentCache, run, sets
    from latentdrift.finetune.trainer import Trainer

    watch_loop(watch)
    watch.before(Cohort, "open", "reading the folder")
    watch.before(finetune, "finetune_model", "reading the folder")
    watch.before(run, "load_pipeline", "loading the model")
    watch.before(run, "training_set", "caching latents and text")
    watch.watch(LatentCache, "build", "latents")
    watch.watch(sets, "encode_prompts", "text")
    watch.before(Trainer, "__init__", "preparing the trainer")
    watch.before(Trainer, "run", "training loop")
    watch.after(Trainer, "run", "finishing")
    watch.watch(sets.TrainingSet, "batch", "drawing the batch")
    watch.watch(Trainer, "validation_loss", "validation")
    watch.watch(Trainer, "save_checkpoint", "last checkpoint")
    watch.before(run, "write_samples", "sample sheet")
    watch.after(run, "write_samples", "finishing")
    watch.before(run, "save_pipeline", "saving")
    watch.after(run, "save_pipeline", "finishing")
    return main(arguments)


def run_reference(watch: Stopwatch, arguments: list[str]) -> int:
    """Run the script that is the first argument with the others."""
    import datasets
    import transformers
    from accelerate import Accelerator
    from diffusers import AutoencoderKL
    from torch.utils.data._utils.fetch import _MapDatasetFetcher

    watch_loop(watch)
    watch.before(Accelerator, "__init__", "loading the model")
    watch.before(datasets, "load_dataset", "reading the folder")
    watch.before(Accelerator, "prepare", "preparing the trainer")
    watch.after(Accelerator, "init_trackers", "training loop")
    watch.before(Accelerator, "wait_for_everyone", "saving")
    watch.after(Accelerator, "end_training", "finishing")
    watch.watch(AutoencoderKL, "encode", "latents")
    watch.watch(transformers.CLIPTextModel, "forward", "text")
    watch.watch(_MapDatasetFetcher, "fetch", "drawing the batch")
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


def main() -> int:
    side, started, out, *arguments = sys.argv[1:]
    watch = Stopwatch("start-up and imports", float(started))
    status = (run_ours if side == "ours" else run_reference)(watch, arguments)
    Path(out).write_text(json.dumps(watch.result()))
    return status


if __name__ == "__main__":
    sys.exit(main())
