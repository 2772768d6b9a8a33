"""Curves: latents along the denoising, and losses along the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import DataError
from latentdrift.report.canvas import save

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class LatentCurve:
    """Statistics of the latents at every denoising step, from noise to image; all (S,)."""

    steps: Values
    mean: Values
    """Over all images, channels and places."""
    std: Values
    """Over all images, channels and places."""
    spread: Values
    """Standard deviation over images of an image's own mean."""

    @classmethod
    def from_latents(cls, latents: Any, steps: Sequence[float] | None = None) -> LatentCurve:
        """Return the curve of latents (S, B, C, H, W), tensor or array; `steps` (S,) default to 0, 1, ….

        Raises:
            DataError: another shape, or steps of another number.
        """
        array = np.asarray(latents.detach().cpu() if hasattr(latents, "detach") else latents, dtype=np.float64)
        if array.ndim != 5 or not array.size:
            raise DataError(f"Latents have shape {array.shape}; give (steps, images, channels, height, width).")
        at = np.arange(len(array), dtype=np.float64) if steps is None else np.asarray(steps, dtype=np.float64)
        if len(at) != len(array):
            raise DataError(f"{len(at)} steps do not fit latents of {len(array)} steps.")
        flat = array.reshape(len(array), -1)
        own = array.mean(axis=(2, 3, 4))
        return cls(at, flat.mean(axis=1), flat.std(axis=1), own.std(axis=1))


def latent_curve_figure(path: str | Path, curves: Mapping[str, LatentCurve], *, title: str = "") -> Path:
    """Write mean (with the spread over images as a band), standard deviation and spread of latents along the steps.

    Args:
        path: PNG file to write.
        curves: by label, such as "no drift" and "drift".
        title: above everything.

    Raises:
        DataError: no curve, or a file that cannot be written.
    """
    from matplotlib.figure import Figure

    if not curves:
        raise DataError(f"There is no curve to draw in {path}.")
    figure = Figure(figsize=(9.6, 3.1), layout="constrained")
    panels = figure.subplots(1, 3)
    names = ("mean of the latents", "standard deviation", "spread of the images' means")
    for label, curve in curves.items():
        for axes, values in zip(panels, (curve.mean, curve.std, curve.spread), strict=True):
            axes.plot(curve.steps, values, label=label, linewidth=1.6)
        panels[0].fill_between(curve.steps, curve.mean - curve.spread, curve.mean + curve.spread, alpha=0.15)
    for axes, name in zip(panels, names, strict=True):
        _tidy(axes, name, "denoising step")
    panels[0].legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
    return save(figure, path)


def loss_curve(
    path: str | Path,
    losses: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str = "",
    smooth: int = 1,
    across: str = "training step",
) -> Path:
    """Write losses along the training.

    Args:
        path: PNG file to write.
        losses: (steps, values) by label, such as "training" and "validation".
        title: above everything.
        smooth: values averaged into a point of the line; the raw ones stay visible, pale. Curves shorter than four
            times that are not smoothed.
        across: what the steps are.

    Raises:
        DataError: no curve, steps and values of different number, or a file that cannot be written.
    """
    from matplotlib.figure import Figure

    if not losses:
        raise DataError(f"There is no curve to draw in {path}.")
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    _draw_losses(axes, losses, smooth, across)
    if title:
        figure.suptitle(title, fontsize=11)
    return save(figure, path)


def training_figure(
    path: str | Path,
    losses: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    rates: tuple[Sequence[float], Sequence[float]],
    learned: Mapping[str, Sequence[float]] | None = None,
    steps: Sequence[float] = (),
    *,
    smooth: int = 1,
) -> Path:
    """Write losses, learning rate and the numbers of a learned drift along the training, side by side.

    Args:
        path: PNG file to write.
        losses: see `loss_curve`.
        rates: steps and learning rates.
        learned: numbers of a learned drift, by name, after each of `steps`.
        steps: of `learned`.
        smooth: see `loss_curve`.

    Raises:
        DataError: see `loss_curve`.
    """
    from matplotlib.figure import Figure

    count = 3 if learned else 2
    figure = Figure(figsize=(4.2 * count + 1.2, 3.2), layout="constrained")
    panels = figure.subplots(1, count, width_ratios=[1.7, *([1] * (count - 1))])
    _draw_losses(panels[0], losses, smooth)
    panels[1].plot(*rates, color="C2", linewidth=1.6)
    panels[1].set_ylim(bottom=0)
    panels[1].ticklabel_format(axis="y", style="sci", scilimits=(0, 0))
    panels[1].yaxis.get_offset_text().set_fontsize(8)
    _tidy(panels[1], "learning rate", "training step")
    for name, values in (learned or {}).items():
        panels[2].plot(steps, values, label=name, linewidth=1.4)
    if learned:
        _tidy(panels[2], "learned drift", "training step")
        panels[2].legend(frameon=False, fontsize=8)
    return save(figure, path)


def _draw_losses(
    axes: Any,
    losses: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    smooth: int,
    across: str = "training step",
) -> None:
    for index, (label, (steps, values)) in enumerate(losses.items()):
        x, y = np.asarray(steps, dtype=np.float64), np.asarray(values, dtype=np.float64)
        if x.shape != y.shape or x.ndim != 1:
            raise DataError(f"The curve {label!r} has {x.size} steps and {y.size} values.")
        colour = f"C{index}"
        if smooth > 1 and len(y) >= 4 * smooth:
            axes.plot(x, y, color=colour, alpha=0.25, linewidth=0.8)
            kernel = np.full(smooth, 1.0 / smooth)
            x, y = np.convolve(x, kernel, mode="valid"), np.convolve(y, kernel, mode="valid")
        axes.plot(x, y, color=colour, label=label, linewidth=1.6, marker="o" if len(y) < 12 else "", markersize=3)
    _tidy(axes, "loss", across)
    axes.legend(frameon=False, fontsize=8)


def _tidy(axes: Any, name: str, below: str) -> None:
    axes.set_title(name, fontsize=9)
    axes.set_xlabel(below, fontsize=8)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
