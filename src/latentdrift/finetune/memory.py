"""Running out of memory, said in a way that helps."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from latentdrift.errors import OutOfMemoryError
from latentdrift.finetune.config import TrainingConfig

_PHRASES = ("can't allocate memory", "out of memory", "not enough memory", "cannot allocate memory")


@contextmanager
def explained_memory(config: TrainingConfig) -> Iterator[None]:
    """Turn an error that means that memory ran out into `OutOfMemoryError`, with the settings that need less."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(out_of_memory_hint(config)) from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error of torch means that memory ran out; on the processor it is a plain RuntimeError."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(phrase in text for phrase in _PHRASES)


def out_of_memory_hint(config: TrainingConfig) -> str:
    """Return what to change, in the order of what it costs."""
    remedies = []
    smaller = max(1, config.batch_size // 4)
    if smaller < config.batch_size:
        times = -(-config.batch_size // smaller)
        remedies.append(
            f"--batch-size {smaller} --gradient-accumulation {config.gradient_accumulation * times} for the same result"
        )
    if not config.gradient_checkpointing:
        remedies.append("--gradient-checkpointing")
    if config.optimizer == "adamw":
        remedies.append("--optimizer adafactor")
    if config.mixed_precision == "no":
        remedies.append("--mixed-precision bf16")
    advice = f"Use {', then '.join(remedies)}." if remedies else "Use a smaller base model, or another device."
    return f"Memory ran out with --batch-size {config.batch_size}. {advice} Nothing saved so far is lost."
