"""Kappas against scikit-learn, a published table, and their own definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate.agreement import cohen_kappa, fleiss_kappa, kappa_interval, votes_of

PSYCHIATRY = [
    [0, 0, 0, 0, 14],
    [0, 2, 6, 4, 2],
    [0, 0, 3, 5, 6],
    [0, 3, 9, 2, 0],
    [2, 2, 8, 1, 1],
    [7, 7, 0, 0, 0],
    [3, 2, 6, 3, 0],
    [2, 5, 3, 2, 2],
    [6, 5, 2, 1, 0],
    [0, 2, 2, 3, 7],
]
"""14 raters, 10 subjects, 5 categories: the worked example of the article on Fleiss' kappa in Wikipedia, which
statsmodels tests against, too."""


@pytest.mark.parametrize(("weighting", "theirs"), [("none", None), ("linear", "linear"), ("quadratic", "quadratic")])
@pytest.mark.parametrize("seed", range(3))
def test_cohen_is_that_of_scikit_learn(weighting: str, theirs: str | None, seed: int) -> None:
    draw = np.random.default_rng(seed)
    first = draw.integers(0, 5, 60)
    second = np.where(draw.random(60) < 0.5, first, draw.integers(0, 5, 60))
    times = draw.integers(0, 4, 60).astype(float)
    found = cohen_kappa(first, second, 5, weighting=weighting, counts=times)
    expected = cohen_kappa_score(first, second, weights=theirs, labels=range(5), sample_weight=times)
    assert found == pytest.approx(expected, abs=1e-12)
    both = cohen_kappa(first, second, 5, weighting=weighting, counts=np.stack([times, np.ones(60)]))
    assert both.tolist() == pytest.approx([found, cohen_kappa_score(first, second, weights=theirs)])


def test_cohen_at_its_ends() -> None:
    assert cohen_kappa([0, 1, 0, 1], [0, 1, 0, 1], 2) == 1
    assert cohen_kappa([0, 1, 0, 1], [1, 0, 1, 0], 2) == -1
    assert cohen_kappa([0, 0, 1, 1], [0, 1, 0, 1], 2) == 0
    assert math.isnan(cohen_kappa([1, 1], [1, 1], 2))
    assert math.isnan(cohen_kappa([0, 1], [0, 1], 2, counts=[0, 0]))


@pytest.mark.parametrize(("first", "second"), [([0, 2], [0, 1]), ([-1, 0], [0, 0]), ([0.5, 0], [0, 0]), ([], [])])
def test_cohen_refuses(first: list[float], second: list[float]) -> None:
    with pytest.raises(EvaluationError, match="whole numbers from 0 to 1"):
        cohen_kappa(first, second, 2)


def test_cohen_refuses_other_readers() -> None:
    with pytest.raises(EvaluationError, match="2 answers and the other 1"):
        cohen_kappa([0, 1], [0], 2)
    with pytest.raises(UnknownNameError, match="quadratic"):
        cohen_kappa([0, 1], [0, 1], 2, weighting="quadratics")


def test_fleiss_is_that_of_the_published_table() -> None:
    assert fleiss_kappa(PSYCHIATRY) == pytest.approx(0.20993070442195522, abs=1e-12)


def test_fleiss_counts_images_as_often_as_told() -> None:
    times = [2, 0, 1, 3, 1, 1, 0, 2, 1, 1]
    assert fleiss_kappa(PSYCHIATRY, times) == pytest.approx(fleiss_kappa(np.repeat(PSYCHIATRY, times, axis=0)))
    both = fleiss_kappa(PSYCHIATRY, [times, [1] * 10])
    assert both.tolist() == pytest.approx([fleiss_kappa(PSYCHIATRY, times), fleiss_kappa(PSYCHIATRY)])


def test_fleiss_leaves_out_images_of_one_reader() -> None:
    assert fleiss_kappa([*PSYCHIATRY, [1, 0, 0, 0, 0]]) == pytest.approx(fleiss_kappa(PSYCHIATRY))
    with pytest.raises(EvaluationError, match="two readers"):
        fleiss_kappa([[1, 0], [0, 1]])


def test_fleiss_at_its_ends() -> None:
    assert fleiss_kappa([[3, 0], [0, 3]]) == 1
    assert math.isnan(fleiss_kappa([[3, 0], [3, 0]]))
    with pytest.raises(EvaluationError, match="Votes of shape"):
        fleiss_kappa([[1, -1]])


def test_votes() -> None:
    answers = np.array([[0, 1, np.nan], [0, 0, np.nan], [2, 1, 1]])
    assert votes_of(answers, 3).tolist() == [[2, 0, 1], [1, 2, 0], [0, 1, 0]]
    assert votes_of(answers, 3).sum() == np.isfinite(answers).sum()


def test_interval_of_images() -> None:
    draw = np.random.default_rng(0)
    first = draw.integers(0, 2, 100)
    second = np.where(draw.random(100) < 0.8, first, 1 - first)
    found = kappa_interval(lambda times: cohen_kappa(first, second, 2, counts=times), 100)
    assert found is not None
    assert found.interval.low < found.value < found.interval.high
    # The large-sample error of kappa for even margins, sqrt(p (1 - p) / n) / 0.5 (Cohen 1960).
    agreed = (first == second).mean()
    width = 2 * 1.96 * math.sqrt(agreed * (1 - agreed) / 100) / 0.5
    assert found.interval.high - found.interval.low == pytest.approx(width, rel=0.15)
    grouped = kappa_interval(
        lambda times: cohen_kappa(first, second, 2, counts=times), 100, [i // 10 for i in range(100)]
    )
    assert grouped is not None
    assert grouped.value == found.value
    assert grouped.interval != found.interval
    assert kappa_interval(lambda times: np.full(len(times), np.nan), 100) is None
