"""Networks by name: "small", or a family and its name for one, such as "timm:resnet18".

A family is one file in `networks`, a function under the decorator `classifier_network`. Packages outside register one
by an entry point in the group `latentdrift.classifier_network`.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from latentdrift.errors import ConfigurationError, ModelError
from latentdrift.registry import Registry


@dataclass(frozen=True)
class NetworkRequest:
    """What is asked of a family of networks.

    Args:
        variant: the family's own name for a network; "" where none was given.
        classes: how many logits it is to give, K.
        channels: of the images it is given: 1 (gray) or 3.
        size: their side in pixels.
        pretrained: begin with published weights; without, at random.
    """

    variant: str
    classes: int
    channels: int
    size: int
    pretrained: bool = False


Family = Callable[[NetworkRequest], nn.Module]
"""Returns a module that turns images (B, channels, size, size) in [-1, 1] into logits (B, K)."""

classifier_network: Registry[Family] = Registry("classifier_network", "latentdrift.models.classifier.networks")


class Adapted(nn.Module):
    """Another library's network, given pixels as it wants them.

    Args:
        network: gives logits, or a tuple or an object that holds them (auxiliary heads in training).
        mean: of pixels in [0, 1], subtracted; one number or one a channel.
        std: by which they are then divided.
        channels: of the network; one channel is repeated, three are averaged, to fit. None takes them as they are.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        channels: int | None = None,
    ) -> None:
        super().__init__()
        self.network, self.channels = network, channels
        self.register_buffer("mean", torch.tensor(list(mean))[None, :, None, None])
        self.register_buffer("std", torch.tensor(list(std))[None, :, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (B, K) of images (B, C, H, W) in [-1, 1]."""
        pixels = (images + 1) / 2
        if self.channels == 1:
            pixels = pixels.mean(1, keepdim=True)
        elif self.channels is not None:
            pixels = pixels.expand(-1, self.channels, -1, -1)
        found = self.network((pixels - self.mean) / self.std)
        if not isinstance(found, torch.Tensor):
            found = found.logits if hasattr(found, "logits") else found[0]
        return found


def build_network(
    name: str, classes: int, *, channels: int = 1, size: int = 128, pretrained: bool = False
) -> nn.Module:
    """Return a network that turns images (B, channels, size, size) in [-1, 1] into logits (B, classes).

    Raises:
        UnknownNameError: no such family, or no such network in it.
        ConfigurationError: a network that is none for classes, or takes no images of that size.
        ModelError: its package or its published weights are not to be had.
    """
    family, _, variant = name.partition(":")
    network = classifier_network.get(family)(NetworkRequest(variant, classes, channels, size, pretrained))
    try:
        with torch.no_grad():
            found = network.eval()(torch.zeros(1, channels, size, size))
    except Exception as error:  # each library refuses a size in its own way: asserts, RuntimeError, ValueError
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ConfigurationError(
            f"The network {name!r} does not take images of {size} pixels a side ({reason}). Give the size it was made "
            "for, such as --size 224."
        ) from error
    if tuple(found.shape) != (1, classes):
        raise ConfigurationError(
            f"The network {name!r} gives {tuple(found.shape)[1:]} an image in place of {classes} logits: it is no "
            "classifier. Choose another."
        )
    return network


def optional_package(package: str, network: str) -> Any:
    """Import a package that not everybody needs; ModelError with the remedy where it is missing."""
    try:
        # One of them turns all warnings of the program off as it is imported.
        with warnings.catch_warnings():
            return importlib.import_module(package)
    except ImportError as error:
        root = package.split(".")[0]
        raise ModelError(
            f"The network {network!r} needs the package {root}, which cannot be imported ({error}). Install it: "
            f"pip install {root}, or pip install 'latentdrift[classifiers]'."
        ) from error


def need_variant(request: NetworkRequest, family: str, example: str) -> str:
    """Return the family's own name, or raise ConfigurationError where none was given."""
    if not request.variant:
        raise ConfigurationError(f"{family} has many networks: name one, such as {family}:{example}.")
    return request.variant


def copy_matching(network: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy the weights whose name and shape the network has: all but the last layer, where classes differ."""
    own = network.state_dict()
    own.update({name: value for name, value in weights.items() if name in own and own[name].shape == value.shape})
    network.load_state_dict(own)


def no_weights(name: str, error: Exception) -> ModelError:
    """Return the error for published weights that cannot be had."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return ModelError(
        f"The published weights of {name!r} cannot be had ({reason}). Check the network, or leave --pretrained out."
    )
