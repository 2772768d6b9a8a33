"""Edits by models of gray cohorts, without the tint that a decoder of three channels leaves."""

from __future__ import annotations

import dataclasses

import torch

from latentdrift.edit.result import EditResult


def as_gray(images: torch.Tensor) -> torch.Tensor:
    """Return images (..., 3, H, W) with the mean of the channels in each; images that are gray stay bit by bit."""
    first = images[..., :1, :, :]
    mean = first + (images - first).mean(-3, keepdim=True)
    return mean.expand(images.shape).contiguous()


def gray_edit(result: EditResult) -> EditResult:
    """Return an edit without the tint that the decoder leaves and guidance can push further.

    What is measured is then what the files of a gray cohort's model show.
    """
    kept = None if result.reconstruction is None else as_gray(result.reconstruction)
    return dataclasses.replace(result, image=as_gray(result.image), reconstruction=kept)
