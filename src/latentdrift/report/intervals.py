"""Figures with their intervals, one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from latentdrift.errors import DataError
from latentdrift.report.canvas import save


def interval_figure(
    path: str | Path,
    rows: Sequence[tuple[str, float, float, float]],
    across: str,
    *,
    mark: float | None = None,
) -> Path:
    """Write a point with its interval a row, and return the file.

    Args:
        path: PNG file to write.
        rows: label, value, low and high; the first stands above.
        across: name of the axis, with its unit.
        mark: where a line stands, such as what chance or no difference would give.

    Raises:
        DataError: no row, or a file that cannot be written.
    """
    from matplotlib.figure import Figure

    if not rows:
        raise DataError(f"There is no figure to draw in {path}.")
    lines = sum(max(1, label.count("\n") + 1) for label, *_ in rows)
    figure = Figure(figsize=(7.2, 0.9 + 0.27 * lines), layout="constrained")
    axes = figure.subplots()
    places = [-index for index in range(len(rows))]
    for place, (_, value, low, high) in zip(places, rows, strict=True):
        axes.plot([low, high], [place, place], color="C0", linewidth=1.8)
        axes.plot([value], [place], "o", color="C0", markersize=5)
    if mark is not None:
        axes.axvline(mark, color="0.5", linewidth=1, linestyle="--")
    axes.set_yticks(places, [label for label, *_ in rows], fontsize=8)
    axes.set_ylim(places[-1] - 0.6, 0.6)
    axes.set_xlabel(across, fontsize=9)
    axes.tick_params(axis="x", labelsize=8)
    axes.grid(axis="x", alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    return save(figure, path)
