"""The one training loop of all methods.

Every random draw of a step comes from a generator seeded with (seed, step, process), so a run that was stopped and
resumed draws exactly what an uninterrupted one draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from latentdrift.errors import OutOfMemoryError, TrainingError
from latentdrift.finetune.cache import LatentCache
from latentdrift.finetune.config import TrainingConfig
from latentdrift.finetune.method import Batch, FinetuneMethod
from latentdrift.models import Conditioning


@dataclass(frozen=True)
class TrainingSet:
    """Latents with the row of the conditioning that belongs to each, and how often each is drawn.

    Args:
        cache: posteriors of N samples.
        captions: row of `conditioning` of each sample, (N,).
        conditioning: distinct captions' conditioning; its last row is the empty caption.
        weights: relative frequency of each sample, (N,), or None for all alike.
    """

    cache: LatentCache
    captions: torch.Tensor
    conditioning: Conditioning
    weights: torch.Tensor | None = None

    def batch(
        self, indices: torch.Tensor, generator: torch.Generator, drop: float, horizon: int, device: torch.device
    ) -> Batch:
        """Return a batch of the samples `indices`; captions are left empty with probability `drop`."""
        latents = self.cache.draw(indices, generator)
        rows = self.captions[indices]
        empty = torch.rand(len(indices), generator=generator) < drop
        rows = torch.where(empty, len(self.conditioning) - 1, rows)
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(horizon, (len(indices),), generator=generator)
        moved = (tensor.to(device) for tensor in (latents, noise, timesteps))
        latents, noise, timesteps = moved
        return Batch(latents, self.conditioning[rows.to(self.conditioning.hidden.device)], noise, timesteps)

    def draw(self, count: int, generator: torch.Generator) -> torch.Tensor:
        """Return `count` indices."""
        if self.weights is None:
            return torch.randint(len(self.captions), (count,), generator=generator)
        return torch.multinomial(self.weights, count, replacement=True, generator=generator)


@dataclass(frozen=True)
class Report:
    """What the loop tells while it runs."""

    step: int
    loss: float
    validation: float | None = None


class Trainer:
    """Train one method on one set, with checkpoints.

    Args:
        method: what is trained and with which loss.
        module: the trained module, from `method.prepare`.
        scheduler: noise schedule, drifted or not.
        train: training set.
        validation: validation set, or None.
        config: settings.
        folder: run folder; checkpoints, `losses.csv` and TensorBoard's `logs` go there.
        on_sample: called with the step when a sample sheet is due, while the averaged weights are in the module.
    """

    def __init__(
        self,
        method: FinetuneMethod,
        module: torch.nn.Module,
        scheduler: Any,
        train: TrainingSet,
        validation: TrainingSet | None,
        config: TrainingConfig,
        folder: Path,
        on_sample: Callable[[int], None] | None = None,
    ) -> None:
        self.method, self.scheduler, self.train_set, self.validation = method, scheduler, train, validation
        self.config, self.folder, self.on_sample = config, folder, on_sample
        self.accelerator = Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.gradient_accumulation,
            cpu=next(module.parameters()).device.type == "cpu",
        )
        if config.gradient_checkpointing and hasattr(module, "enable_gradient_checkpointing"):
            module.enable_gradient_checkpointing()
        self.parameters = [p for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        )
        self.schedule = get_scheduler(
            config.lr_schedule, self.optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.steps
        )
        self.average = (
            EMAModel(self.parameters, decay=config.ema_decay, foreach=True) if config.ema_decay > 0 else None
        )
        self.module, self.optimizer = self.accelerator.prepare(module, self.optimizer)
        self.horizon = scheduler.config.num_train_timesteps
        self.losses: list[float] = []
        self.validations: list[tuple[int, float]] = []
        self.step = 0

    def run(self, report: Callable[[Report], None] | None = None) -> None:
        """Train to the last step, from the newest checkpoint if there is one.

        Raises:
            OutOfMemoryError: with the settings that need less.
            TrainingError: the loss is no longer finite, or a checkpoint cannot be written.
        """
        self.resume()
        from torch.utils.tensorboard import SummaryWriter

        writer = SummaryWriter(str(self.folder / "logs")) if self.accelerator.is_main_process else None
        try:
            while self.step < self.config.steps:
                loss = self.one_step()
                self.step += 1
                due = self.step % self.config.validate_every == 0 if self.config.validate_every else False
                validation = self.validation_loss() if due or self.step == self.config.steps else None
                if writer is not None:
                    writer.add_scalar("loss", loss, self.step)
                    writer.add_scalar("learning_rate", self.schedule.get_last_lr()[0], self.step)
                    if validation is not None:
                        writer.add_scalar("validation_loss", validation, self.step)
                if self.step % self.config.checkpoint_every == 0 and self.step < self.config.steps:
                    self.save_checkpoint()
                if self.config.sample_every and self.step % self.config.sample_every == 0:
                    self.sample()
                if report is not None:
                    report(Report(self.step, loss, validation))
            self.use_average()
        except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):
                raise OutOfMemoryError(out_of_memory_hint(self.config)) from error
            raise
        finally:
            if writer is not None:
                writer.close()

    def one_step(self) -> float:
        """Draw, predict, and move the weights once; return the mean loss."""
        config, accelerator = self.config, self.accelerator
        generator = self.generator(self.step)
        total = 0.0
        for _ in range(config.gradient_accumulation):
            indices = self.train_set.draw(config.batch_size, generator)
            batch = self.train_set.batch(indices, generator, config.drop_captions, self.horizon, accelerator.device)
            with accelerator.accumulate(self.module), accelerator.autocast():
                loss = self.method.loss(self.module, self.scheduler, batch)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(self.parameters, config.max_grad_norm)
                self.optimizer.step()
                self.optimizer.zero_grad()
            total += loss.item() / config.gradient_accumulation
        self.schedule.step()
        if self.average is not None:
            self.average.step(self.parameters)
        if not math.isfinite(total):
            raise TrainingError(
                f"The loss is {total} at step {self.step}. Lower --learning-rate, or train with --mixed-precision no."
            )
        self.losses.append(total)
        return total

    def generator(self, step: int) -> torch.Generator:
        """Return the source of all randomness of a step."""
        rank = self.accelerator.process_index
        return torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) * 1_009 + rank)

    @torch.no_grad()
    def validation_loss(self) -> float | None:
        """Return the loss of the averaged weights on fixed samples, noise and timesteps."""
        if self.validation is None or not len(self.validation.captions):
            return None
        count = min(self.config.validation_images, len(self.validation.captions))
        chosen = torch.linspace(0, len(self.validation.captions) - 1, count).long()
        generator = torch.Generator().manual_seed(self.config.seed)
        losses = []
        with self.averaged():
            for indices in chosen.split(self.config.batch_size):
                batch = self.validation.batch(indices, generator, 0.0, self.horizon, self.accelerator.device)
                with self.accelerator.autocast():
                    losses.append(self.method.loss(self.module, self.scheduler, batch).item() * len(indices))
        value = sum(losses) / count
        self.validations.append((self.step, value))
        return value

    def sample(self) -> None:
        """Let a sample sheet be made with the averaged weights."""
        if self.on_sample is not None and self.accelerator.is_main_process:
            with self.averaged():
                self.on_sample(self.step)

    def averaged(self) -> _Averaged:
        """Return a context in which the module holds the averaged weights."""
        return _Averaged(self.average, self.parameters)

    def use_average(self) -> None:
        """Leave the averaged weights in the module for good."""
        if self.average is not None:
            self.average.copy_to(self.parameters)

    def save_checkpoint(self) -> None:
        """Write everything needed to go on, whole or not at all, and drop the checkpoint before."""
        if not self.accelerator.is_main_process:
            return
        folder = self.folder / "checkpoints"
        path, partial = folder / f"step-{self.step:07d}.pt", folder / "checkpoint.partial"
        state = {
            "step": self.step,
            "config": self.config.seed,
            "module": self.accelerator.unwrap_model(self.module).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "losses": self.losses,
            "validations": self.validations,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(state, partial)
            partial.replace(path)
        except (OSError, RuntimeError) as error:
            partial.unlink(missing_ok=True)
            raise TrainingError(
                f"The checkpoint of step {self.step} cannot be written to {folder}: {error}. The one before is kept; "
                "free space and run the same command again to go on from it."
            ) from error
        for former in folder.glob("step-*.pt"):
            if former != path:
                former.unlink()

    def resume(self) -> None:
        """Load the newest checkpoint, if any."""
        checkpoints = sorted((self.folder / "checkpoints").glob("step-*.pt"))
        if not checkpoints:
            return
        try:
            state = torch.load(checkpoints[-1], map_location=self.accelerator.device, weights_only=True)
        except Exception as error:
            raise TrainingError(f"{checkpoints[-1]} cannot be read: {error}. Delete it to start anew.") from error
        self.accelerator.unwrap_model(self.module).load_state_dict(state["module"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.losses, self.validations = state["losses"], [tuple(row) for row in state["validations"]]
        self.step = state["step"]


class _Averaged:
    """Swap the averaged weights in, and the trained ones back."""

    def __init__(self, average: EMAModel | None, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.average, self.parameters = average, parameters

    def __enter__(self) -> None:
        if self.average is not None:
            self.average.store(self.parameters)
            self.average.copy_to(self.parameters)

    def __exit__(self, *_: object) -> None:
        if self.average is not None:
            self.average.restore(self.parameters)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch means that memory ran out; on the processor it is a plain RuntimeError."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        part in text for part in ("can't allocate memory", "out of memory", "not enough memory")
    )


def out_of_memory_hint(config: TrainingConfig) -> str:
    """Return what to change, in the order of what it costs."""
    return (
        f"Memory ran out with --batch-size {config.batch_size}. Use --batch-size {max(1, config.batch_size // 4)} "
        f"--gradient-accumulation {config.gradient_accumulation * 4} for the same result, then --gradient-checkpointing, "
        "then --mixed-precision bf16. Nothing saved so far is lost."
    )


def write_losses(folder: Path, losses: Sequence[float], validations: Sequence[tuple[int, float]]) -> None:
    """Write `losses.csv` (step, loss, validation_loss)."""
    by_step = dict(validations)
    lines = ["step,loss,validation_loss"]
    lines += [f"{i},{loss:.6f},{by_step.get(i, '')}" for i, loss in enumerate(losses, 1)]
    (folder / "losses.csv").write_text("\n".join(lines) + "\n")
