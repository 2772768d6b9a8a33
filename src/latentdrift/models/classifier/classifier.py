"""A trained and calibrated classifier: images in, logits out, weights frozen."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from latentdrift.data.records import Value
from latentdrift.errors import ConfigurationError
from latentdrift.models.classifier.classes import ClassScheme

CHANCE = 0.5
"""The AUC of guessing."""


class Classifier(nn.Module):
    """Tells the classes of one attribute apart. Its weights are frozen, and it is always in evaluation mode.

    Args:
        network: turns images (B, C, size, size) in [-1, 1], C = 1 if `gray` else 3, into logits (B, K).
        scheme: the attribute and its K classes.
        role: "guide" or "judge".
        size: side in pixels of what the network sees.
        gray: channels are averaged.
        temperature: logits are divided by it.
        trained_on: SHA-256 of the bytes of its training and validation images' files.
        path: its folder.
        facts: what `classifier.json` holds.
    """

    def __init__(
        self,
        network: nn.Module,
        scheme: ClassScheme,
        *,
        role: str,
        size: int,
        gray: bool,
        temperature: float = 1.0,
        trained_on: frozenset[str] = frozenset(),
        path: str | Path = "",
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network.requires_grad_(False)
        network.zero_grad(set_to_none=True)  # of the training's last step
        self.scheme, self.role, self.size, self.gray = scheme, role, size, gray
        self.temperature, self.trained_on, self.path = temperature, trained_on, Path(path)
        self.facts = dict(facts or {})
        self.eval()

    @property
    def attribute(self) -> str:
        """The attribute it tells the classes of."""
        return self.scheme.attribute

    @property
    def classes(self) -> tuple[Value, ...]:
        """The classes, in the order of the logits."""
        return self.scheme.classes

    @property
    def doubt(self) -> str | None:
        """Why its answers are worth little, by its own test; None where the test gives no reason."""
        return doubt_of(self.facts.get("test", {}))

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.network.parameters()).device

    def train(self, mode: bool = True) -> Classifier:
        """Stay in evaluation mode: calibrated probabilities are those of the weights and averages as they are."""
        return super().train(False)

    def index(self, value: Value) -> int:
        """Return the class of a value: its name, or with bins a number.

        Raises:
            UnknownNameError: it is of no class; the message lists them.
        """
        return self.scheme.index(value)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return calibrated logits (B, K), differentiable in the images.

        Args:
            images: (B, 3, H, W) or (B, 1, H, W) in [-1, 1], of any size.

        Raises:
            ConfigurationError: another shape.
        """
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ConfigurationError(f"A classifier takes images (B, 3, H, W), not {tuple(images.shape)}.")
        images = images.to(self.device, torch.float32)
        images = images.mean(1, keepdim=True) if self.gray else images.expand(-1, 3, -1, -1)
        logits: torch.Tensor = self.network(to_side(images, self.size))
        return logits / self.temperature

    @torch.no_grad()
    def probabilities(self, images: torch.Tensor, batch_size: int = 64) -> npt.NDArray[np.float64]:
        """Return calibrated probabilities (N, K) of images as `forward` takes them, without gradients."""
        parts = [self(batch).double().softmax(1).cpu() for batch in images.split(batch_size)]
        return torch.cat(parts).numpy() if parts else np.empty((0, len(self.classes)))


def doubt_of(figures: Mapping[str, Any]) -> str | None:
    """Return why a classifier of such figures is to be doubted, None where it is not: its AUC may be that of chance.

    Args:
        figures: "auc" with value and low, the lower end of its interval; "images", how many it was tested on.
    """
    auc = figures.get("auc")
    if auc is None or auc["low"] > CHANCE:
        return None
    return (
        f"the AUC of {auc['value']:.2f} [{auc['low']:.2f}, {auc['high']:.2f}] on {figures['images']} test images may "
        f"be that of chance, {CHANCE:g}"
    )


def to_side(images: torch.Tensor, size: int) -> torch.Tensor:
    """Return images (B, C, size, size) of images (B, C, H, W) in [-1, 1]: black to a square, bilinear, antialiased.

    As `ImageTransform` does it to files.
    """
    height, width = images.shape[2:]
    if height != width:
        right, below = max(0, height - width), max(0, width - height)
        images = F.pad(images, (right // 2, right - right // 2, below // 2, below - below // 2), value=-1.0)
    if images.shape[-1] == size:
        return images
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True, align_corners=False)


def check_apart(first: Classifier, second: Classifier) -> None:
    """Refuse a guide and a judge that were trained on the same images: the judge would repeat the guide's mistakes.

    Raises:
        ConfigurationError: with how many images both were trained on.
    """
    shared = len(first.trained_on & second.trained_on)
    if shared:
        raise ConfigurationError(
            f"{first.path or 'The first classifier'} ({first.role}) and {second.path or 'the second'} ({second.role}) "
            f"were both trained on {shared} images, so one is no independent judge of the other. Train one --role "
            "guide and one --role judge, with the same --data, --split and --seed."
        )
