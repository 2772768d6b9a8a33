"""What a fine-tuning method is: which weights move, and how they are saved.

Adding one is one file in `methods`: a frozen config dataclass and a class under `@finetune_method("name")`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentdrift.registry import Registry

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.models import Conditioning


@dataclass(frozen=True)
class Batch:
    """One training batch, on the training device.

    Args:
        latents: scaled clean latents, (B, C, h, w), drawn from the posterior.
        conditioning: text conditioning, one row an image.
        noise: standard normal, the latents' shape.
        timesteps: integers in [0, T), (B,).
    """

    latents: torch.Tensor
    conditioning: Conditioning
    noise: torch.Tensor
    timesteps: torch.Tensor


class FinetuneMethod(ABC):
    """Base of all methods. It never mentions the drift: the scheduler it is given is drifted, or not."""

    config_class: type[Any]

    def __init__(self, config: Any) -> None:
        self.config = config

    @abstractmethod
    def prepare(self, pipeline: DiffusionPipeline) -> torch.nn.Module:
        """Freeze what stays, and return the module that is trained; its trainable parameters require gradients."""

    @abstractmethod
    def loss(self, module: torch.nn.Module, scheduler: Any, batch: Batch) -> torch.Tensor:
        """Return the mean loss of a batch, a scalar."""

    @abstractmethod
    def finish(self, pipeline: DiffusionPipeline, module: torch.nn.Module) -> None:
        """Put the trained module into the pipeline that is saved."""


finetune_method: Registry[type[FinetuneMethod]] = Registry("method", "latentdrift.finetune.methods")
"""Decorator and table of the fine-tuning methods."""
