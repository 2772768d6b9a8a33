"""Common ground of the conformance checks: the data they assume, the latents they run, the error they raise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

Factory = Callable[[], Any]
MEAN = torch.tensor([0.03, 0.68, -0.9, 0.32], dtype=torch.float64).reshape(4, 1, 1)
STD = 0.6
DELTA = (0.11, -0.07, 0.2, 0.05)


class ConformanceError(AssertionError):
    """A scheduler that does not keep a promise of the drift."""


def expect(holds: bool, message: str) -> None:
    """Raise `ConformanceError` unless `holds`."""
    if not holds:
        raise ConformanceError(message)


def noise() -> torch.Tensor:
    """Return latents (2, 4, 4, 4) that are noise and its negative: their mean over the batch is exactly 0."""
    half = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.cat([half, -half])


def channels(values: Sequence[float]) -> torch.Tensor:
    """Return C numbers as (C, 1, 1)."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1)


def check_close(got: torch.Tensor, wanted: torch.Tensor, what: str, tolerance: float = 2e-5) -> None:
    """Expect two tensors to agree to `tolerance`; many schedulers count in float32, at sigmas of 15."""
    worst = (got - wanted).abs().max().item()
    expect(worst <= tolerance, f"{what}: off by {worst:.3g}, more than {tolerance:.3g}")
