"""What can be wrong with images to edit and with what is asked of them, before any network runs."""

from __future__ import annotations

import math

import torch

from latentdrift.errors import ConfigurationError


def check_counts(**numbers: int) -> None:
    """Raise ConfigurationError unless there are as many of one thing as of the others; the names say what they are."""
    if len(set(numbers.values())) > 1:
        *first, last = (f"{number} {name.replace('_', ' ')}" for name, number in numbers.items())
        raise ConfigurationError(f"{', '.join(first)} and {last}: give one of each an image.")


def check_images(images: torch.Tensor, factor: int) -> None:
    """Raise ConfigurationError for what is no batch (N, 3, H, W) in [-1, 1] with sides that are multiples of `factor`.

    Args:
        images: to be edited.
        factor: by which the autoencoder shrinks the sides.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ConfigurationError(f"The images have shape {tuple(images.shape)}; (N, 3, H, W) is needed.")
    if not len(images):
        raise ConfigurationError("There is nothing to edit: the batch of images is empty.")
    if not torch.isfinite(images).all():
        raise ConfigurationError("The images hold NaN or infinite values; read them again with ImageTransform.read.")
    if images.shape[-1] % factor or images.shape[-2] % factor:
        raise ConfigurationError(
            f"Images of {images.shape[-2]} x {images.shape[-1]} pixels do not fit: the sides must be multiples of "
            f"{factor}."
        )
    largest = images.abs().max().item()
    if largest > 1.001:
        raise ConfigurationError(f"The images hold values up to {largest:g}; scale them to [-1, 1].")


def check_batch_size(batch_size: int) -> None:
    """Raise ConfigurationError for batches of no image."""
    if batch_size < 1:
        raise ConfigurationError(f"batch_size is {batch_size}; at least 1 is needed.")


def check_number(name: str, value: float) -> None:
    """Raise ConfigurationError for a setting that is NaN or infinite."""
    if not math.isfinite(value):
        raise ConfigurationError(f"{name} is {value}; give a finite number.")
