"""The device and number format of a training, through accelerate."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState

from latentdrift.errors import ConfigurationError
from latentdrift.finetune.config import TrainingConfig


def make_accelerator(config: TrainingConfig, device: torch.device) -> Accelerator:
    """Return an accelerator for these settings.

    Raises:
        ConfigurationError: the device has no such precision.
    """
    # accelerate keeps one state a process, and refuses a second training with another precision or device.
    if not PartialState._shared_state or PartialState().num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    try:
        return Accelerator(
            mixed_precision=config.mixed_precision,
            gradient_accumulation_steps=config.gradient_accumulation,
            cpu=device.type == "cpu",
        )
    except (ValueError, ImportError) as error:
        raise ConfigurationError(
            f"--mixed-precision {config.mixed_precision} cannot be used on {device.type}: {error} Use no, or bf16."
        ) from error
