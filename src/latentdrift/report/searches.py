"""What a search found: the whole curve with the control, and the front of its two aims."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import DataError
from latentdrift.report.canvas import save

if TYPE_CHECKING:
    from latentdrift.counterfactual import SearchResult, Trial

BEST, CONTROL, CURVE, CHEAP = "#c1272d", "#444444", "#1f6fb4", "#b9c7d6"


def search_figure(
    path: str | Path,
    result: SearchResult,
    *,
    title: str = "",
    objective: str = "objective",
    labels: dict[str, str] | None = None,
) -> Path:
    """Write the objective against each searched parameter, and the trials in the plane of the front's two parts.

    The control without drift is a hollow circle with a dashed line at its objective, the best a star; trials without a
    finite objective are crosses at the lower edge. With several parameters a curve's points differ in the others too.

    Args:
        path: PNG file to write.
        result: of `search`.
        title: above everything.
        objective: name of the objective's axis.
        labels: names of parameters and parts for the axes, with units, by their names in the search.

    Raises:
        DataError: no trial, or a file that cannot be written.
    """
    from matplotlib.figure import Figure

    labels = labels or {}
    if not result.trials:
        raise DataError(f"There is no trial to draw in {path}.")
    names = list(result.best.parameters)
    parts = result.front_parts
    planar = [trial for trial in result.trials if trial.valid and set(parts) <= set(trial.scores)]
    count = len(names) + bool(planar)
    figure = Figure(figsize=(1.2 + 3.7 * count, 3.6), layout="constrained")
    panels = figure.subplots(1, count, squeeze=False)[0]
    for index, name in enumerate(names):
        draw_curve(panels[index], result, name, line=len(names) == 1)
        tidy(panels[index], labels.get(name, name), objective)
    panels[0].legend(frameon=False, fontsize=8)
    if planar:
        draw_front(panels[-1], result, planar)
        tidy(panels[-1], *(labels.get(part, part) for part in parts))
        panels[-1].legend(frameon=False, fontsize=8)
    if title:
        figure.suptitle(title, fontsize=11)
    return save(figure, path)


def draw_curve(axes: Any, result: SearchResult, name: str, *, line: bool) -> None:
    """Draw the objective of all trials against one parameter."""
    from matplotlib.transforms import blended_transform_factory

    valid = [trial for trial in result.trials if trial.valid]
    cheap = [trial for trial in result.screened if trial.valid]
    if cheap:
        axes.plot(*pairs(cheap, name), "o", color=CHEAP, markersize=4, label="screening, fewer steps")
    style = "o-" if line else "o"
    axes.plot(*pairs(valid, name), style, color=CURVE, markersize=4, linewidth=1.2, label="trials")
    control, best = result.control, result.best
    if control.valid:
        axes.axhline(control.objective, color=CONTROL, linestyle="--", linewidth=1)
        axes.plot(*pairs([control], name), "o", **hollow(), label=f"no drift: {control.objective:.4g}")
    at = f"{name} {best.parameters[name]:.4g}"
    axes.plot(*pairs([best], name), "*", color=BEST, markersize=13, label=f"best, {at}: {best.objective:.4g}")
    lost = [trial.parameters[name] for trial in result.trials if not trial.valid]
    if lost:
        low = blended_transform_factory(axes.transData, axes.transAxes)
        axes.plot(lost, [0.02] * len(lost), "x", color=BEST, transform=low, clip_on=False, label="no finite value")


def draw_front(axes: Any, result: SearchResult, planar: Sequence[Trial]) -> None:
    """Draw all trials in the plane of the two parts, and the front as steps."""
    first, second = result.front_parts

    def points(trials: Sequence[Trial]) -> tuple[list[float], list[float]]:
        return [trial.scores[first] for trial in trials], [trial.scores[second] for trial in trials]

    axes.plot(*points(planar), "o", color=CHEAP, markersize=4, label="trials")
    x, y = points(result.front)
    axes.step(x, y, where="post", color=CURVE, linewidth=1.2)
    axes.plot(x, y, "o", color=CURVE, markersize=5, label="Pareto front")
    if {first, second} <= set(result.control.scores) and result.control.valid:
        axes.plot(*points([result.control]), "o", **hollow(), label="no drift")
    axes.plot(*points([result.best]), "*", color=BEST, markersize=13, label="best")


def pairs(trials: Sequence[Trial], name: str) -> tuple[list[float], list[float]]:
    """Return a parameter and the objective of trials, by the parameter."""
    rows = sorted((trial.parameters[name], trial.objective) for trial in trials)
    return [x for x, _ in rows], [y for _, y in rows]


def hollow() -> dict[str, Any]:
    """Return how the control is drawn."""
    return {"color": CONTROL, "markerfacecolor": "none", "markersize": 9, "markeredgewidth": 1.6}


def tidy(axes: Any, across: str, up: str) -> None:
    """Name the axes and take away what is not needed."""
    axes.set_xlabel(across, fontsize=9)
    axes.set_ylabel(up, fontsize=9)
    axes.tick_params(labelsize=8)
    axes.margins(0.06)
    axes.grid(alpha=0.25, linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
