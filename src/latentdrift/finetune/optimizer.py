"""The optimizer of a training: AdamW, or one whose state is small enough for a small GPU.

Bytes of state a weight: AdamW 8, its 8-bit forms 2. Adafactor keeps means over the last two axes: next to nothing for a
matrix, 8/3 bytes for a convolution of 3 × 3. For Stable Diffusion 1's U-Net that is 6.9 GB, 1.7 GB and 1.8 GB.
"""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from latentdrift.errors import ConfigurationError, UnknownNameError

OPTIMIZERS = ("adamw", "adamw8bit", "paged-adamw8bit", "adafactor")
EIGHT_BIT = {"adamw8bit": "AdamW8bit", "paged-adamw8bit": "PagedAdamW8bit"}
"""Classes of bitsandbytes, by our names."""


def make_optimizer(name: str, groups: Sequence[Mapping[str, Any]], *, weight_decay: float) -> torch.optim.Optimizer:
    """Return an optimizer; in all of them a learning rate means what it means in AdamW, and a schedule counts.

    Args:
        name: "adamw"; "adamw8bit" (arXiv 2110.02861), and "paged-adamw8bit", whose state moves to the computer's memory
            while the GPU's is full, both of bitsandbytes; or "adafactor" (arXiv 1804.04235).
        groups: parameter groups, each with "params", its own "lr", and optionally its own "weight_decay".
        weight_decay: decoupled weight decay of the groups that have none of their own.

    Raises:
        UnknownNameError: no such optimizer.
        ConfigurationError: bitsandbytes is missing or does not work on the parameters' device, or a group without a
            learning rate.
    """
    own = [dict(group) for group in groups]  # optimizers write their defaults into what they are given
    if any("lr" not in group for group in own):
        # Every optimizer would fall back on a default of its own, a hundred times too high for a large model.
        raise ConfigurationError("A parameter group has no learning rate; give each one its 'lr'.")
    if name == "adamw":
        return torch.optim.AdamW(own, weight_decay=weight_decay, fused=True)
    if name == "adafactor":
        return make_adafactor(own, weight_decay)
    if name in EIGHT_BIT:
        return make_eight_bit(name, own, weight_decay)
    raise UnknownNameError("optimizer", name, OPTIMIZERS)


def make_adafactor(groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """Return Adafactor with the steps of AdamW: at most the learning rate, whatever the size of the weights.

    It is that of transformers: torch's multiplies the rate by the size of the weights and caps it by the number of the
    step, neither of which can be turned off.
    """
    from transformers.optimization import Adafactor

    optimizer: torch.optim.Optimizer = Adafactor(
        groups, weight_decay=weight_decay, scale_parameter=False, relative_step=False, warmup_init=False
    )
    return optimizer


def make_eight_bit(name: str, groups: list[dict[str, Any]], weight_decay: float) -> torch.optim.Optimizer:
    """Return an AdamW of bitsandbytes; tensors of fewer than 4096 numbers keep their state in 32 bits.

    Raises:
        ConfigurationError: bitsandbytes is missing, or does not work on the parameters' device.
    """
    device = torch.device(groups[0]["params"][0].device)
    try:
        kind = getattr(importlib.import_module("bitsandbytes").optim, EIGHT_BIT[name])
        rehearse(kind, device)
    except ImportError as error:
        raise ConfigurationError(
            f"--optimizer {name} needs bitsandbytes, which cannot be imported ({error}). Run `pip install "
            "bitsandbytes`, or use --optimizer adafactor, which needs as little memory."
        ) from error
    except Exception as error:
        # Without its native library for this device it raises all sorts of errors, and only at the first step.
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(
            f"--optimizer {name}: the installed bitsandbytes does not work on {device.type} ({reason[:200]}). Run `pip "
            "install --upgrade bitsandbytes`, or use --optimizer adafactor, which needs as little memory."
        ) from error
    optimizer: torch.optim.Optimizer = kind(groups, weight_decay=weight_decay)
    return optimizer


def rehearse(kind: Any, device: torch.device) -> None:
    """Make one step on a tensor large enough to be kept in 8 bits and to be paged; raise what it raises."""
    weight = torch.nn.Parameter(torch.zeros(2**17, device=device))
    weight.grad = torch.ones_like(weight)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on a processor nothing is paged, and the training's own optimizer says so
        kind([weight], lr=1e-3).step()
    if not bool((weight < 0).all()):
        raise RuntimeError("its step does not move the weights")


__all__ = ["OPTIMIZERS", "make_optimizer"]
