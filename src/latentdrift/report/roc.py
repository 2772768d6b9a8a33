"""ROC curves of readers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.errors import DataError
from latentdrift.report.canvas import save

if TYPE_CHECKING:
    from latentdrift.evaluate.readers import RocCurve

FEW = 8
"""With more readers the lines of single ones have no names."""


def roc_figure(path: str | Path, curves: Mapping[str, RocCurve], mean: RocCurve | None = None) -> Path:
    """Write the readers' curves, and their mean as a thick line, above the diagonal of guessing.

    Args:
        path: PNG file to write.
        curves: by reader.
        mean: of them.

    Raises:
        DataError: no curve, or a file that cannot be written.
    """
    from matplotlib.figure import Figure

    if not curves:
        raise DataError(f"There is no curve to draw in {path}.")
    figure = Figure(figsize=(5.2, 4.8), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="guessing")
    for index, (name, curve) in enumerate(curves.items()):
        label = name if len(curves) <= FEW else None
        axes.plot(
            curve.false_positive,
            curve.true_positive,
            color=f"C{index % 10}" if label else "0.75",
            linewidth=1.2,
            marker="o",
            markersize=3,
            label=label,
        )
    if mean is not None and len(curves) > 1:
        axes.plot([0, *mean.false_positive], [0, *mean.true_positive], color="black", linewidth=2.4, label="mean")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    axes.set_aspect("equal")
    axes.set_xlabel("share of real images called synthetic (1 − specificity)", fontsize=9)
    axes.set_ylabel("share of synthetic images called synthetic (sensitivity)", fontsize=9)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower right")
    return save(figure, path)
