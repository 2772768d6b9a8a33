"""The picture of a search: the curve, the control, the best and the front are where the trials are."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from latentdrift.counterfactual.search import Screening, SearchConfig, search
from latentdrift.counterfactual.trials import SearchResult
from latentdrift.errors import DataError
from latentdrift.report.searches import draw_curve, draw_front, search_figure


def found(**settings: Any) -> SearchResult:
    def score(parameters: dict[str, float]) -> dict[str, float]:
        delta, guidance = parameters["delta"], parameters.get("guidance", 2.0)
        if delta > 0.17:
            return {"objective": math.nan}
        label, similarity = (delta - 0.1) ** 2 * 40 + 0.1 * (guidance - 2) ** 2, 0.3 + delta**2 * 5
        return {"objective": label + similarity, "label": label, "similarity": similarity}

    space = {"delta": (-0.2, 0.2)} | settings.pop("more", {})
    return search(lambda parameters: parameters, score, space, SearchConfig("grid", points=9), **settings)


def lines(draw: Any, *arguments: Any, **named: Any) -> dict[str, tuple[list[float], list[float]]]:
    axes = Figure().subplots()
    draw(axes, *arguments, **named)
    drawn = {}
    for line in axes.get_lines():
        drawn[str(line.get_label())] = (list(line.get_xdata()), list(line.get_ydata()))
    return drawn


def test_the_curve_holds_every_trial() -> None:
    result = found(screening=Screening(lambda parameters: parameters, "few", 5))
    drawn = lines(draw_curve, result, "delta", line=True)
    valid = [trial for trial in result.trials if trial.valid]
    assert drawn["trials"] == ([t.parameters["delta"] for t in valid], [t.objective for t in valid])
    assert drawn["screening, fewer steps"][0] == pytest.approx([-0.2, -0.1, 0.0, 0.1])
    best, control = result.best, result.control
    assert drawn[f"best, delta {best.parameters['delta']:.4g}: {best.objective:.4g}"][0] == [best.parameters["delta"]]
    assert drawn[f"no drift: {control.objective:.4g}"] == ([0.0], [control.objective])


def test_trials_without_a_value_are_crosses() -> None:
    assert lines(draw_curve, found(), "delta", line=True)["no finite value"][0] == [0.2]


def test_the_front_is_the_results() -> None:
    result = found()
    drawn = lines(draw_front, result, [trial for trial in result.trials if trial.valid])
    x, y = drawn["Pareto front"]
    assert list(zip(x, y, strict=True)) == [(t.scores["label"], t.scores["similarity"]) for t in result.front]
    assert len(x) >= 3
    assert len(drawn["trials"][0]) == 8
    assert drawn["best"] == ([result.best.scores["label"]], [result.best.scores["similarity"]])


def test_pictures_have_a_panel_a_parameter_and_one_for_the_front(tmp_path: Path) -> None:
    widths = []
    for result in (found(), found(more={"guidance": (1.0, 3.0)})):
        path = search_figure(tmp_path / f"{len(widths)}.png", result, title="a search", labels={"delta": "drift δ"})
        with Image.open(path) as image:
            widths.append(image.width)
            assert np.asarray(image.convert("L")).std() > 5
    assert widths[1] > 1.3 * widths[0]


def test_nothing_to_draw(tmp_path: Path) -> None:
    result = found()
    empty = SearchResult(result.best, result.control, (), (), result.front_parts, (), 0, 0, 0)
    with pytest.raises(DataError, match="no trial to draw"):
        search_figure(tmp_path / "x.png", empty)
    assert not list(tmp_path.iterdir())
