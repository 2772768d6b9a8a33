"""The settings that every fine-tuning method shares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

from latentdrift.errors import ConfigurationError, UnknownNameError


@dataclass(frozen=True)
class TrainingConfig:
    """How long, how fast and how to look on."""

    steps: int = 1000
    """Optimizer steps."""
    batch_size: int = 16
    """Images a step and process."""
    gradient_accumulation: int = 1
    """Batches added up before an optimizer step."""
    learning_rate: float | None = None
    """Highest learning rate. By default the method's own for `tiny`; Stable Diffusion wants about a twentieth of it
    (1e-5 with basic)."""
    drift_learning_rate: float = 1e-2
    """Highest learning rate of a learned drift."""
    optimizer: Literal["adamw", "adamw8bit", "paged-adamw8bit", "adafactor"] = "adamw"
    """adamw8bit and paged-adamw8bit (bitsandbytes) and adafactor need less memory."""
    lr_schedule: Literal["constant", "constant_with_warmup", "linear", "cosine"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup_steps: int = 20
    """Steps over which the learning rate rises from zero."""
    weight_decay: float = 1e-2
    """AdamW's decoupled weight decay."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm."""
    ema_decay: float = 0.99
    """Decay of the averaged weights that are saved; 0 saves the last weights."""
    drop_captions: float | None = None
    """Part of the captions left empty, which guidance needs (arXiv 2207.12598). By default the method's own, mostly
    0.1."""
    balance: str | None = None
    """Attribute whose values are drawn equally often, such as a diagnosis; none by default."""
    balance_strength: float = 1.0
    """1 draws every value of `balance` equally often, 0 as often as it occurs; between, a value with a few images is
    not repeated until it is learned by heart."""
    flip: bool = False
    """Mirror half of the images left to right. Wrong for chests and for lateralised disease."""
    augment: int = 0
    """Views of each image beside itself: turned by up to 4 degrees, moved and scaled by a few percent, with another
    gamma."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Number format of the forward pass; on most processors without a GPU "no" is fastest."""
    seed: int = 0
    """Everything random in training follows from it."""
    validate_every: int = 100
    """Steps between validation losses, on the same noise each time; 0 for only at the end."""
    validation_images: int = 64
    """Images in the validation loss."""
    sample_every: int = 0
    """Steps between sample sheets; 0 for only at the end."""
    sample_steps: int = 25
    """Denoising steps of a sample sheet."""
    sample_columns: int = 6
    """Images a caption in a sample sheet, or pairs in one of edits; 0 for no sheets."""
    checkpoint_every: int = 250
    """Steps between checkpoints; a run that was stopped goes on from the last one."""
    gradient_checkpointing: bool = False
    """Compute activations twice to save memory."""
    save: Literal["pipeline", "adapter"] = "pipeline"
    """pipeline: a whole model that plain diffusers loads, with the adapter's own files beside it. adapter: only those,
    small, to be put on the same base again; for methods that train something beside the base."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation", "sample_steps", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        for name in (
            "warmup_steps",
            "validate_every",
            "sample_every",
            "validation_images",
            "augment",
            "sample_columns",
        ):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        for name in ("ema_decay", "drop_captions"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        for name in ("learning_rate", "drift_learning_rate", "max_grad_norm"):
            if getattr(self, name) is not None and not 0 < getattr(self, name) < float("inf"):
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be above 0, and finite.")
        if not 0 <= self.balance_strength <= 1:
            raise ConfigurationError(f"balance_strength is {self.balance_strength}; it must be from 0 to 1.")
        if not 0 <= self.weight_decay < float("inf"):
            raise ConfigurationError(f"weight_decay is {self.weight_decay}; it must be 0 or more.")
        hints = get_type_hints(type(self))
        for name in ("lr_schedule", "mixed_precision", "optimizer", "save"):
            if getattr(self, name) not in get_args(hints[name]):
                raise UnknownNameError(name, str(getattr(self, name)), get_args(hints[name]))
