"""Our own convolutional network: 0.8 million parameters, trained in minutes on a CPU."""

from __future__ import annotations

import torch
from torch import nn

from latentdrift.errors import ConfigurationError
from latentdrift.models.classifier.network import NetworkRequest, classifier_network

WIDTHS = (16, 32, 64, 128, 192)
"""Channels after each halving of the side."""

RESIDUAL = (False, False, False, True, True)
"""Which of them get a residual convolution more: the coarse ones, where it costs least."""

GROUPS = 8
DROPOUT = 0.2


class Residual(nn.Module):
    """x plus a convolution of it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(*convolution(width, width, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H, W) of as much."""
        return x + self.inner(x)


def convolution(inside: int, outside: int, stride: int) -> list[nn.Module]:
    """Return a 3 x 3 convolution, norm and activation.

    Groups and not batches are normalised: an image's logits depend on no other image, nor on the training's averages.
    The activation is smooth, as the gradient to the image is used to guide.
    """
    return [
        nn.Conv2d(inside, outside, 3, stride, 1, bias=False),
        nn.GroupNorm(GROUPS, outside),
        nn.SiLU(),
    ]


@classifier_network("small")
def small(request: NetworkRequest) -> nn.Module:
    """Return the network; any size, gray or colour.

    Raises:
        ConfigurationError: a variant, or published weights, of which there are none.
    """
    if request.variant:
        raise ConfigurationError(f"There is one small network: write small, not small:{request.variant}.")
    if request.pretrained:
        raise ConfigurationError("The small network has no published weights: leave --pretrained out.")
    layers: list[nn.Module] = []
    before = request.channels
    for width, residual in zip(WIDTHS, RESIDUAL, strict=True):
        layers += convolution(before, width, 2)
        layers += [Residual(width)] if residual else []
        before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(DROPOUT), nn.Linear(before, request.classes)]
    return nn.Sequential(*layers, *head)
