"""Run one of the two trainings in this process, with its stages timed. Started by `whole_process`, not by hand.

`python -m benchmarks.timed_process ours|reference STARTED OUT ARGUMENTS…`: STARTED is `time.time()` when the process
was started, so that the interpreter and the imports count; OUT gets the stages and the peak memory as JSON.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from benchmarks.method_memory import peak_memory
from benchmarks.stopwatch import Stopwatch
from benchmarks.whole_process import uses_datasets


def watch_parts(watch: Stopwatch) -> None:
    """Time what both trainings call, whatever the stage."""
    from accelerate import Accelerator
    from accelerate.optimizer import AcceleratedOptimizer
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from diffusers.training_utils import EMAModel
    from torch.utils.tensorboard import SummaryWriter
    from transformers import CLIPTextModel

    watch.watch(AutoencoderKL, "encode", "VAE encoding")
    watch.watch(AutoencoderKL, "decode", "VAE decoding")
    watch.watch(CLIPTextModel, "forward", "text encoder")
    watch.watch(UNet2DConditionModel, "forward", "U-Net forward")
    watch.watch(Accelerator, "backward", "backward")
    watch.watch(Accelerator, "clip_grad_norm_", "gradient clipping")
    watch.watch(AcceleratedOptimizer, "step", "optimizer")
    watch.watch(AcceleratedOptimizer, "zero_grad", "zeroing gradients")
    watch.watch(EMAModel, "step", "average of the weights")
    watch.watch(SummaryWriter, "add_scalar", "TensorBoard")


def run_ours(watch: Stopwatch, arguments: list[str]) -> int:
    """Run `latentdrift` with `arguments`."""
    from latentdrift import finetune
    from latentdrift.cli.__main__ import main
    from latentdrift.data import Cohort
    from latentdrift.finetune import LatentCache, run, sets
    from latentdrift.finetune.trainer import Trainer

    watch_parts(watch)
    watch.before(Cohort, "open", "reading the folder")
    watch.before(finetune, "finetune_model", "reading the folder")
    watch.before(run, "load_pipeline", "loading the model")
    for way in ("images", "pairs"):
        watch.before(sets.SetMaker, way, "caching latents and text")
    watch.watch(LatentCache, "build", "reading images, writing latents")
    watch.before(run, "base_fingerprint", "preparing the trainer")
    watch.before(Trainer, "__init__", "preparing the trainer")
    watch.before(Trainer, "run", "training loop")
    watch.after(Trainer, "run", "finishing")
    for kind in (sets.TrainingSet, sets.PriorSet, sets.PairSet):
        watch.watch(kind, "batch", "drawing the batch")
    watch.watch(Trainer, "validation_loss", "validation")
    watch.watch(Trainer, "save_checkpoint", "last checkpoint")
    watch.before(run, "describe_model", "finishing")
    watch.before(run, "save_pipeline", "saving")
    watch.after(run, "save_pipeline", "finishing")
    return main(arguments)


def run_reference(watch: Stopwatch, arguments: list[str]) -> int:
    """Run the script that is the first argument with the others."""
    from accelerate import Accelerator
    from accelerate.data_loader import DataLoaderShard
    from torch.utils.data import DataLoader
    from torch.utils.data.dataloader import _BaseDataLoaderIter

    watch_parts(watch)
    watch.before(Accelerator, "__init__", "loading the model")
    if uses_datasets(Path(arguments[0])):
        import datasets

        watch.before(datasets, "load_dataset", "reading the folder")
    watch.before(Accelerator, "prepare", "preparing the trainer")
    watch.before(DataLoaderShard, "__iter__", "training loop")
    watch.before(Accelerator, "wait_for_everyone", "saving")
    watch.after(Accelerator, "end_training", "finishing")
    # Processes that load ahead are started by the first, and waited for in the second.
    watch.watch(DataLoader, "__iter__", "drawing the batch")
    watch.watch(_BaseDataLoaderIter, "__next__", "drawing the batch")
    sys.argv = arguments
    runpy.run_path(arguments[0], run_name="__main__")
    return 0


def main() -> int:
    side, started, out, *arguments = sys.argv[1:]
    watch = Stopwatch("start-up and imports", float(started))
    status = (run_ours if side == "ours" else run_reference)(watch, arguments)
    Path(out).write_text(json.dumps(watch.result() | peak_memory()))
    return status


if __name__ == "__main__":
    sys.exit(main())
