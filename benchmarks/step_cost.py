"""A training step of the trainer beside the bare U-Net forward, backward and optimizer step."""

from __future__ import annotations

import copy
import statistics
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import DiffusionPipeline

from benchmarks.stopwatch import Stopwatch, lap
from latentdrift.finetune import LatentCache, TrainingConfig, finetune_method
from latentdrift.finetune.run import noise_schedule
from latentdrift.finetune.trainer import Report, Trainer, TrainingSet
from latentdrift.models import encode_prompts

WARM_UP = 3
LEARNING_RATE = 2e-4
CAPTIONS = ("a brain MRI slice, cognitively normal", "a brain MRI slice, Alzheimer's disease", "")


def random_set(pipeline: DiffusionPipeline, images: int, path: Path) -> TrainingSet:
    """Return a training set of random posteriors in the model's shapes, kept in a file as real ones are."""
    config = pipeline.unet.config
    shape = (images, 1, 2, config.in_channels, config.sample_size, config.sample_size)
    np.save(path, np.random.default_rng(0).random(shape, dtype=np.float32))
    rows = torch.arange(images) % (len(CAPTIONS) - 1)
    return TrainingSet(LatentCache(path, 1.0), rows, encode_prompts(pipeline, CAPTIONS))


class BareStep:
    """Forward, backward and optimizer step on one batch prepared beforehand, and nothing else."""

    def __init__(self, unet: torch.nn.Module, scheduler: Any, train: TrainingSet, config: TrainingConfig) -> None:
        generator = torch.Generator().manual_seed(0)
        horizon, device = scheduler.config.num_train_timesteps, next(unet.parameters()).device
        batch = train.batch(train.draw(config.batch_size, generator), generator, 0.0, horizon, device)
        self.unet, self.batch = unet, batch
        self.noisy = scheduler.add_noise(batch.latents, batch.noise, batch.timesteps)
        self.arguments = batch.conditioning.unet_arguments()
        self.optimizer = torch.optim.AdamW(
            unet.parameters(), lr=LEARNING_RATE, weight_decay=config.weight_decay, fused=True
        )

    def __call__(self) -> None:
        predicted = self.unet(self.noisy, self.batch.timesteps, **self.arguments).sample
        F.mse_loss(predicted, self.batch.noise).backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


def watch_parts(watch: Stopwatch, trainer: Trainer) -> None:
    """Time the parts of a step."""
    from torch.utils.tensorboard import SummaryWriter

    watch.watch(TrainingSet, "batch", "drawing the batch")
    watch.watch(trainer.module, "forward", "U-Net forward")
    watch.watch(trainer.accelerator, "backward", "backward")
    watch.watch(trainer.accelerator, "clip_grad_norm_", "gradient clipping")
    watch.watch(trainer.optimizer, "step", "optimizer")
    watch.watch(trainer.optimizer, "zero_grad", "zeroing gradients")
    # On the class: a checkpoint holds what stands in the object itself.
    watch.watch(type(trainer.schedule), "step", "learning-rate schedule")
    if trainer.average is not None:
        watch.watch(trainer.average, "step", "average of the weights")
    watch.watch(SummaryWriter, "add_scalar", "TensorBoard")


def measure_step(pipeline: DiffusionPipeline, batch_size: int, images: int, repeats: int, ema: bool) -> dict[str, Any]:
    """Return seconds a step, a step of each in turn; the trainer's from one report to the next, so all of its loop."""
    ours: tuple[list[float], list[float]] = [], []
    bare: tuple[list[float], list[float]] = [], []
    with tempfile.TemporaryDirectory() as folder:
        train = random_set(pipeline, images, Path(folder) / "latents.npy")
        config = TrainingConfig(
            steps=repeats + WARM_UP + 2,
            learning_rate=LEARNING_RATE,
            batch_size=batch_size,
            checkpoint_every=10**9,
            validate_every=0,
            **({} if ema else {"ema_decay": 0.0}),
        )
        scheduler = noise_schedule(pipeline, None)
        basic = finetune_method.get("basic")
        method = basic(basic.config_class())
        other = copy.deepcopy(pipeline.unet).train().requires_grad_(True)
        bare_step = BareStep(other, scheduler, train, config)
        trainer = Trainer(method, method.prepare(pipeline), scheduler, train, None, config, Path(folder) / "run")
        watch = Stopwatch("not counted")
        watch_parts(watch, trainer)
        device = trainer.accelerator.device
        running: list[Any] = []

        def between(report: Report) -> None:
            if running:
                running.pop().__exit__(None, None, None)
            watch.enter("bare")
            with lap(*bare, device):
                bare_step()
            # The last step writes a checkpoint, which is no part of the others.
            measured = report.step < config.steps - 1
            watch.enter("step" if report.step > WARM_UP and measured else "not counted")
            if measured:
                running.append(lap(*ours, device))
                running[-1].__enter__()

        trainer.run(between)
    measured = [[times[WARM_UP:] for times in pair] for pair in (ours, bare)]
    steps = len(measured[0][0])
    found: dict[str, Any] = {
        "trainer_seconds": statistics.median(measured[0][0]),
        "bare_seconds": statistics.median(measured[1][0]),
        "trainer_processor_seconds": statistics.median(measured[0][1]),
        "bare_processor_seconds": statistics.median(measured[1][1]),
        "trainer_all": measured[0][0],
        "bare_all": measured[1][0],
        "steps": steps,
    }
    found["ratio"] = found["trainer_seconds"] / found["bare_seconds"]
    found["processor_ratio"] = found["trainer_processor_seconds"] / found["bare_processor_seconds"]
    found["parts"] = {name: seconds / steps for name, seconds in watch.calls["step"].items()}
    found["parts"]["everything else"] = statistics.mean(measured[0][0]) - sum(found["parts"].values())
    return found
