"""Pictures of images: grids, signed differences, and counterfactuals beside their source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import DataError
from latentdrift.report.canvas import save

ADDED = (0.0, 0.70, 0.25)
"""Green: the counterfactual is brighter."""
REMOVED = (0.90, 0.15, 0.15)
"""Red: the counterfactual is darker."""

Pixels = npt.NDArray[np.float64]


def to_pixels(image: Any) -> Pixels:
    """Return an image as (H, W, 3) in [0, 1].

    Args:
        image: tensor or array, (3, H, W), (1, H, W), (H, W, 3) or (H, W); uint8 or float in [-1, 1] (clipped).

    Raises:
        DataError: another shape or type, or NaN.
    """
    array = np.asarray(image.detach().cpu() if hasattr(image, "detach") else image)
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or not (array.shape[0] in (1, 3) or array.shape[2] in (1, 3)):
        raise DataError(f"An image has shape {array.shape}; give (3, H, W), (1, H, W), (H, W, 3) or (H, W).")
    if array.shape[0] in (1, 3):
        array = np.moveaxis(array, 0, 2)
    if array.dtype == np.uint8:
        array = array / 255.0
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise DataError("An image has NaN or infinite pixels and cannot be shown. Generate it again in float32.")
        array = np.clip((array.astype(np.float64) + 1.0) / 2.0, 0.0, 1.0)
    else:
        raise DataError(f"An image is of type {array.dtype}; give uint8 in 0..255 or float in [-1, 1].")
    return np.asarray(np.broadcast_to(array, (*array.shape[:2], 3)), dtype=np.float64)


def gray_difference(source: Any, counterfactual: Any) -> Pixels:
    """Return counterfactual minus source, (H, W), mean over channels, as a fraction of the full range (-1 to 1).

    Raises:
        DataError: images of different size; see `to_pixels`.
    """
    before, after = to_pixels(source), to_pixels(counterfactual)
    if before.shape != after.shape:
        raise DataError(f"Images of {before.shape[:2]} and {after.shape[:2]} pixels have no difference. Resize one.")
    return np.asarray((after - before).mean(axis=2))


def signed_difference(
    source: Any,
    counterfactual: Any,
    *,
    threshold: float | npt.ArrayLike = 0.0,
    scale: float = 0.25,
) -> npt.NDArray[np.uint8]:
    """Return a colour map (H, W, 3) of what was added (green) and removed (red), over the source in gray.

    Args:
        source: image; see `to_pixels`.
        counterfactual: image of the same size.
        threshold: differences up to this are not shown, as a fraction of the full range: a number, or a map (H, W) such
            as the error of the round trip.
        scale: difference, as a fraction of the full range, at which a colour is full.

    Raises:
        DataError: see `gray_difference`; or a threshold or scale that cannot be.
    """
    difference = gray_difference(source, counterfactual)
    limit = np.asarray(threshold, dtype=np.float64)
    if not scale > 0 or not (limit >= 0).all():
        raise DataError(f"scale={scale} must be positive, and threshold not negative or NaN.")
    if limit.ndim and limit.shape != difference.shape:
        raise DataError(f"The threshold map has shape {limit.shape}; the images have {difference.shape} pixels.")
    shown = np.where(np.abs(difference) > limit, difference, 0.0)
    opacity = np.clip(np.abs(shown) / scale, 0.0, 1.0)[..., None]
    colour = np.where((shown > 0)[..., None], ADDED, REMOVED)
    # A darker source leaves room for the colours; white bone would drown them.
    gray = to_pixels(source).mean(axis=2, keepdims=True) * 0.75
    return np.asarray(np.round((gray * (1 - opacity) + colour * opacity) * 255), dtype=np.uint8)


def image_grid(
    path: str | Path,
    images: Sequence[Sequence[Any]],
    *,
    row_labels: Sequence[str] = (),
    column_labels: Sequence[str] = (),
    title: str = "",
    note: str = "",
    inches: float = 1.5,
    synthetic: Mapping[str, Any] | None = None,
) -> Path:
    """Write a grid of images as PNG and return its path.

    Args:
        path: file to write.
        images: rows of images, see `to_pixels`; None leaves a place empty.
        row_labels: one for each row, left of it.
        column_labels: one for each column, above it.
        title: above everything.
        note: below everything, in small print.
        inches: side of an image at 120 pixels an inch.
        synthetic: facts, maybe none, that go into the file with the marks of synthetic images; None for real images
            alone.

    Raises:
        DataError: no image, labels that do not fit, or a file that cannot be written.
    """
    from matplotlib.figure import Figure

    rows, columns = len(images), max((len(row) for row in images), default=0)
    if not rows or not columns:
        raise DataError(f"There is no image to draw in {path}.")
    for kind, labels, count in (("row", row_labels, rows), ("column", column_labels, columns)):
        if labels and len(labels) != count:
            raise DataError(f"{len(labels)} {kind} labels do not fit {count} {kind}s.")
    width = max((len(line) for label in row_labels for line in label.split("\n")), default=0)
    left = 0.085 * width + 0.15 if row_labels else 0.05
    top = 0.05 + (0.28 if column_labels else 0) + (0.36 if title else 0)
    bottom = 0.05 + (0.28 if note else 0)
    size = (left + columns * inches + 0.05, top + rows * inches + bottom)
    figure = Figure(figsize=size)
    grid = figure.add_gridspec(
        rows,
        columns,
        left=left / size[0],
        right=1 - 0.05 / size[0],
        bottom=bottom / size[1],
        top=1 - top / size[1],
        wspace=0.04,
        hspace=0.04,
    )
    for r, row in enumerate(images):
        for c in range(columns):
            axes = figure.add_subplot(grid[r, c])
            axes.set_xticks([])
            axes.set_yticks([])
            axes.spines[:].set_visible(False)
            if c < len(row) and row[c] is not None:
                axes.imshow(to_pixels(row[c]), interpolation="lanczos", vmin=0, vmax=1)
            if c == 0 and row_labels:
                axes.set_ylabel(row_labels[r], rotation=0, ha="right", va="center", fontsize=9, labelpad=6)
            if r == 0 and column_labels:
                axes.set_title(column_labels[c], fontsize=9, pad=4)
    if title:
        figure.suptitle(title, fontsize=11, x=0.5, y=1 - 0.1 / size[1], va="top")
    if note:
        figure.text(0.5, 0.06 / size[1], note, fontsize=7.5, ha="center", va="bottom", color="0.35")
    return save(figure, path, synthetic=synthetic)


def counterfactual_figure(
    path: str | Path,
    sources: Sequence[Any],
    counterfactuals: Sequence[Any],
    truths: Sequence[Any] | None = None,
    *,
    row_labels: Sequence[str] = (),
    title: str = "",
    threshold: float | Sequence[npt.ArrayLike] = 0.0,
    scale: float | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Path:
    """Write rows of source, counterfactual, signed difference, and with `truths` the truth and its difference.

    All maps share one colour scale, which the figure states.

    Args:
        path: PNG file to write.
        sources: images; see `to_pixels`.
        counterfactuals: one for each source.
        truths: the true counterfactuals, where a simulator knows them.
        row_labels: one for each row.
        title: above everything.
        threshold: differences not to be shown, as a fraction of the full range: one number, or a map (H, W) a row. It
            applies to the counterfactuals; the truth has no round trip.
        scale: difference at which a colour is full; None takes the 99.5th percentile of all differences, at least 0.1.
        facts: what made the counterfactuals, written into the file, which is marked as synthetic.

    Raises:
        DataError: numbers of images that differ; see `image_grid` and `signed_difference`.
    """
    counts = {len(sources), len(counterfactuals), len(sources if truths is None else truths)}
    limits = [threshold] * len(sources) if isinstance(threshold, int | float) else list(threshold)
    if counts != {len(sources)} or len(limits) != len(sources):
        raise DataError(
            f"{len(sources)} sources, {len(counterfactuals)} counterfactuals, "
            f"{'no' if truths is None else len(truths)} truths and {len(limits)} thresholds do not form rows."
        )
    if scale is None:
        pairs = [*zip(sources, counterfactuals, strict=True), *zip(sources, truths or (), strict=False)]
        found = [np.abs(gray_difference(a, b)).ravel() for a, b in pairs]
        scale = max(0.1, float(np.quantile(np.concatenate(found), 0.995))) if found else 0.25
    rows = []
    for i, (source, edited) in enumerate(zip(sources, counterfactuals, strict=True)):
        row = [source, edited, signed_difference(source, edited, threshold=limits[i], scale=scale)]
        if truths is not None:
            row += [truths[i], signed_difference(source, truths[i], scale=scale)]
        rows.append(row)
    columns = ["source", "counterfactual", "difference"] + ([] if truths is None else ["truth", "true difference"])
    note = f"green: added, red: removed; full colour at {scale:.0%} of the range of gray"
    marked = facts or {}
    return image_grid(
        path, rows, row_labels=row_labels, column_labels=columns, title=title, note=note, synthetic=marked
    )
