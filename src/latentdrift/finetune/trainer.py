"""The one training loop of all methods.

Every random draw of a step comes from a generator seeded with (seed, step, process), so a run that was stopped and
resumed draws exactly what an uninterrupted one draws.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel

from latentdrift.errors import TrainingError
from latentdrift.finetune.checkpoint import load_checkpoint, newest_checkpoint, save_checkpoint
from latentdrift.finetune.config import TrainingConfig
from latentdrift.finetune.denoiser import Denoiser
from latentdrift.finetune.folder import explained_disk
from latentdrift.finetune.memory import explained_memory
from latentdrift.finetune.method import FinetuneMethod
from latentdrift.finetune.optimizer import make_optimizer
from latentdrift.finetune.precision import make_accelerator
from latentdrift.finetune.sets import TrainingSet

if TYPE_CHECKING:
    from latentdrift.finetune.learning import DriftLearner


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
        folder: run folder; checkpoints and TensorBoard's `logs` go there.
        on_sample: called with the step when a sample sheet is due, while the averaged weights are in the module.
        learner: a drift that is learned with the weights, or None.
        offset: strength of offset noise in training.
    """

    def __init__(
        self,
        method: FinetuneMethod,
        module: Denoiser,
        scheduler: Any,
        train: TrainingSet,
        validation: TrainingSet | None,
        config: TrainingConfig,
        folder: Path,
        on_sample: Callable[[int], None] | None = None,
        *,
        learner: DriftLearner | None = None,
        offset: float = 0.0,
    ) -> None:
        config = method.settle(config)
        self.method, self.scheduler, self.train_set, self.validation = method, scheduler, train, validation
        self.config, self.folder, self.on_sample, self.learner, self.offset = config, folder, on_sample, learner, offset
        self.accelerator = make_accelerator(config, next(module.parameters()).device)
        if config.gradient_checkpointing:
            module.enable_gradient_checkpointing()
        self.weights = dict(module.trained())
        self.drift = [] if learner is None else list(learner.drift.parameters())
        self.parameters = [*self.weights.values(), *self.drift]
        groups: list[dict[str, Any]] = [{"params": list(self.weights.values()), "lr": config.learning_rate}]
        if learner is not None:
            groups.append({"params": self.drift, "lr": config.drift_learning_rate, "weight_decay": 0.0})
        optimizer = make_optimizer(config.optimizer, groups, weight_decay=config.weight_decay)
        self.schedule = get_scheduler(
            config.lr_schedule, optimizer, num_warmup_steps=config.warmup_steps, num_training_steps=config.steps
        )
        self.average = EMAModel(self.parameters, decay=config.ema_decay, foreach=True) if config.ema_decay > 0 else None
        self.module, self.optimizer = self.accelerator.prepare(module, optimizer)
        self.horizon = scheduler.config.num_train_timesteps
        self.losses: list[float] = []
        self.drifts: list[list[float]] = []
        self.validations: list[tuple[int, float]] = []
        self.step, self.seconds = 0, 0.0

    def run(self, report: Callable[[Report], None] | None = None) -> None:
        """Train to the last step, from the newest checkpoint if there is one, and leave the averaged weights.

        Raises:
            OutOfMemoryError: with the settings that need less.
            TrainingError: the loss is no longer finite, or a checkpoint cannot be written.
        """
        self.resume()
        from torch.utils.tensorboard import SummaryWriter

        config = self.config
        with explained_memory(config), explained_disk(self.folder):
            writer = None
            if self.accelerator.is_main_process:
                writer = SummaryWriter(str(self.folder / "logs"), purge_step=self.step + 1)
            try:
                while self.step < config.steps:
                    began = time.monotonic()
                    loss = self.one_step()
                    self.step += 1
                    last = self.step == config.steps
                    due = last or (config.validate_every and self.step % config.validate_every == 0)
                    validation = self.validation_loss() if due else None
                    self.seconds += time.monotonic() - began
                    if writer is not None:
                        writer.add_scalar("loss", loss, self.step)
                        writer.add_scalar("learning_rate", self.schedule.get_last_lr()[0], self.step)
                        if validation is not None:
                            writer.add_scalar("validation_loss", validation, self.step)
                        for name, value in self.drift_values().items():
                            writer.add_scalar(name, value, self.step)
                    # The last one too: a disk that is full when the model is saved must not cost the steps before.
                    if last or self.step % config.checkpoint_every == 0:
                        self.save_checkpoint()
                    if config.sample_every and self.step % config.sample_every == 0 and not last:
                        self.sample()
                    if report is not None:
                        report(Report(self.step, loss, validation))
            finally:
                if writer is not None:
                    writer.close()
        self.use_average()

    def one_step(self) -> float:
        """Draw, predict, and move the weights once; return the mean loss."""
        config, accelerator = self.config, self.accelerator
        generator = self.generator(self.step)
        # Dropout draws from torch's own generators.
        torch.manual_seed(generator.initial_seed())
        losses = []
        for _ in range(config.gradient_accumulation):
            indices = self.train_set.draw(config.batch_size, generator)
            batch = self.train_set.batch(
                indices, generator, config.drop_captions or 0.0, self.horizon, accelerator.device, self.offset
            )
            with accelerator.accumulate(self.module):
                with accelerator.autocast():
                    loss = self.method.loss(self.module, self.scheduler, batch)
                # The drift's own loss has no part in the weights' gradients, nor in the loss that is reported.
                accelerator.backward(loss if self.learner is None else loss + self.learner.loss(batch))
                losses.append(loss.detach())
                if accelerator.sync_gradients:
                    norm = accelerator.clip_grad_norm_(self.weights.values(), config.max_grad_norm)
                    if self.learner is not None:
                        self.learner.share_gradients(accelerator, config.max_grad_norm)
                    total = self.finite(torch.stack(losses).mean().item(), "loss")
                    # Loss scaling makes infinite gradients now and then, and then skips the step by itself.
                    if config.mixed_precision != "fp16":
                        self.finite(float(norm), "gradient's norm")
                self.optimizer.step()
                self.optimizer.zero_grad()
        self.schedule.step()
        if self.average is not None:
            self.average.step(self.parameters)
        self.losses.append(total)
        if self.learner is not None:
            self.drifts.append(self.learner.drift.values())
        return total

    def drift_values(self) -> dict[str, float]:
        """Return the learned drift's numbers after the last step by name; nothing where none is learned."""
        return {f"drift/{index}": value for index, value in enumerate(self.drifts[-1] if self.drifts else ())}

    def finite(self, value: float, what: str) -> float:
        """Return the value; raise TrainingError, before it reaches a weight, if it is NaN or infinite."""
        if not math.isfinite(value):
            raise TrainingError(
                f"The {what} is {value} at step {self.step + 1}. Lower --learning-rate, or train with "
                "--mixed-precision no. The last checkpoint is kept."
            )
        return value

    def generator(self, step: int) -> torch.Generator:
        """Return the source of all randomness of a step."""
        rank = self.accelerator.process_index
        return torch.Generator().manual_seed((self.config.seed * 1_000_003 + step) * 1_009 + rank)

    @torch.no_grad()
    def validation_loss(self) -> float | None:
        """Return the loss of the averaged weights on fixed samples, noise and timesteps."""
        if self.validation is None or not self.config.validation_images:
            return None
        count = min(self.config.validation_images, len(self.validation))
        chosen = torch.linspace(0, len(self.validation) - 1, count).long()
        generator = torch.Generator().manual_seed(self.config.seed)
        total = 0.0
        with self.averaged():
            for indices in chosen.split(self.config.batch_size):
                batch = self.validation.batch(indices, generator, 0.0, self.horizon, self.accelerator.device)
                with self.accelerator.autocast():
                    total += self.method.loss(self.module, self.scheduler, batch).item() * len(indices)
        self.validations.append((self.step, total / count))
        return total / count

    def sample(self) -> None:
        """Let a sample sheet be made with the averaged weights."""
        if self.on_sample is not None and self.accelerator.is_main_process:
            with self.averaged():
                self.on_sample(self.step)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the averaged weights into the module, without dropout, and the trained ones back."""
        modes = [(part, part.training) for part in self.module.modules()]
        self.module.eval()
        if self.average is not None:
            self.average.store(self.parameters)
            self.average.copy_to(self.parameters)
        try:
            yield
        finally:
            if self.average is not None:
                self.average.restore(self.parameters)
            for part, mode in modes:
                part.training = mode

    def use_average(self) -> None:
        """Leave the averaged weights in the module for good."""
        if self.average is not None:
            self.average.copy_to(self.parameters)

    def save_checkpoint(self) -> None:
        """Write everything needed to go on, whole or not at all, and drop the checkpoint before."""
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = {
            "step": self.step,
            "seconds": self.seconds,
            "weights": {name: value.detach() for name, value in self.weights.items()},
            "drift": None if self.learner is None else self.learner.drift.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "scaler": None if scaler is None else scaler.state_dict(),
            "losses": self.losses,
            "drifts": self.drifts,
            "validations": self.validations,
        }
        save_checkpoint(self.folder, self.step, state)

    def resume(self) -> None:
        """Load the newest checkpoint, if any.

        Raises:
            TrainingError: the file is damaged.
        """
        path = newest_checkpoint(self.folder)
        if path is None:
            return
        state = load_checkpoint(path, self.accelerator.device)
        with torch.no_grad():
            for name, value in self.weights.items():
                value.copy_(state["weights"][name])
        if self.learner is not None:
            self.learner.drift.load_state_dict(state["drift"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        if state["scaler"] is not None and self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        self.losses, self.drifts = state["losses"], state["drifts"]
        self.validations = [(int(s), float(v)) for s, v in state["validations"]]
        self.step, self.seconds = state["step"], state["seconds"]
