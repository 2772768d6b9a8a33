"""The numbers of a drift: one form in memory, one in JSON, one to add to latents."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from latentdrift.errors import DriftError

MapOrNumbers: TypeAlias = "float | tuple[float, ...] | torch.Tensor"


def canonical(value: Any, what: str) -> MapOrNumbers:
    """Return `value` as float, tuple of C floats, or float32 CPU tensor (C, h, w).

    A tensor that requires grad is kept as it is, so that a drift can be learned.

    Raises:
        DriftError: not numbers, NaN or infinite, empty, or of another number of dimensions.
    """
    if isinstance(value, torch.Tensor) and value.requires_grad:
        tensor = value
    else:
        try:
            tensor = torch.as_tensor(np.asarray(value.cpu() if isinstance(value, torch.Tensor) else value, dtype="f8"))
        except (TypeError, ValueError) as error:
            raise DriftError(f"The {what} value {value!r} is not a number, C numbers or a (C, h, w) map.") from error
    if tensor.ndim not in (0, 1, 3) or tensor.numel() == 0:
        raise DriftError(
            f"The {what} value has shape {tuple(tensor.shape)}; give one number, C numbers (one a latent channel) or a "
            "map (C, h, w)."
        )
    finite = torch.isfinite(tensor)
    if not bool(finite.all()):
        bad = tensor.detach().flatten()[~finite.flatten()][0].item()
        raise DriftError(f"The {what} value contains {bad} at {int((~finite).sum())} of {tensor.numel()} places.")
    if tensor.requires_grad:
        return tensor
    if tensor.ndim == 3:
        return tensor.to(torch.float32).contiguous().clone()
    return tuple(tensor.tolist()) if tensor.ndim else float(tensor)


def kind_of(numbers: MapOrNumbers) -> str:
    """Return "scalar", "vector" or "map"."""
    ndim = numbers.ndim if isinstance(numbers, torch.Tensor) else int(isinstance(numbers, tuple))
    return {0: "scalar", 1: "vector", 3: "map"}[ndim]


def shaped(numbers: MapOrNumbers, like: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """Return `gain * numbers` shaped to be added to latents `like` (B, C, h, w) or (B, C, frames, h, w).

    Raises:
        DriftError: another number of channels, or a map of another size, than the latents have.
    """
    if isinstance(numbers, torch.Tensor):
        tensor = numbers.to(like.device, torch.promote_types(numbers.dtype, like.dtype)) * gain
    else:
        tensor = torch.tensor(numbers, dtype=torch.float64) * gain
    if tensor.ndim == 0:
        return tensor.to(like.device, like.dtype)
    channels = like.shape[1] if like.ndim > 1 else 0
    if like.ndim < 4:
        raise DriftError(
            f"A drift {kind_of(numbers)} needs latents (B, C, h, w), but these have shape {tuple(like.shape)} (packed "
            "latents have no channels of their own): give one number."
        )
    if tensor.shape[0] != channels:
        raise DriftError(
            f"The drift has {tensor.shape[0]} channels, but the latents have {channels} (shape {tuple(like.shape)}): "
            f"{channels} were expected. Give {channels} numbers, or one."
        )
    if tensor.ndim == 3 and tensor.shape[1:] != like.shape[-2:]:
        raise DriftError(
            f"The drift is a map of {tuple(tensor.shape)}, but the latents are {tuple(like.shape[1:])}: sample at the "
            "size the map was made for, or give one number a channel."
        )
    space = tuple(tensor.shape[1:]) or (1, 1)
    return tensor.reshape(channels, *(1,) * (like.ndim - 4), *space).to(like.device, like.dtype)


def encode(numbers: MapOrNumbers) -> dict[str, Any]:
    """Return the numbers as JSON-able values; a map as base64 of little-endian float32, with its shape."""
    if isinstance(numbers, torch.Tensor) and numbers.ndim == 3:
        array = numbers.detach().cpu().numpy().astype("<f4")
        return {"kind": "map", "shape": list(array.shape), "data": base64.b64encode(array.tobytes()).decode("ascii")}
    if isinstance(numbers, torch.Tensor):
        return {"kind": kind_of(numbers), "value": numbers.detach().tolist()}
    return {"kind": kind_of(numbers), "value": list(numbers) if isinstance(numbers, tuple) else numbers}


def decode(data: Mapping[str, Any]) -> MapOrNumbers:
    """Return the numbers that `encode` wrote.

    Raises:
        DriftError: an unknown kind, or a map whose bytes do not fit its shape.
    """
    if data["kind"] in ("scalar", "vector"):
        return canonical(data["value"], "saved drift")
    if data["kind"] != "map":
        raise DriftError(f"A saved drift is a scalar, a vector, a map or moments, not {data['kind']!r}.")
    shape = tuple(data["shape"])
    try:
        raw = base64.b64decode(data["data"], validate=True)
    except ValueError as error:
        raise DriftError(f"The saved drift map {shape} is damaged: {error}.") from error
    if len(raw) != 4 * math.prod(shape):
        raise DriftError(
            f"The saved drift map {shape} is damaged: {len(raw)} bytes in place of {4 * math.prod(shape)}."
        )
    return canonical(np.frombuffer(raw, dtype="<f4").reshape(shape), "saved drift")
