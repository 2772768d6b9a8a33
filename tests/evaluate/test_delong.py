"""DeLong's variance against sklearn, pairs counted one by one, a bootstrap and simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.auc import class_auc
from latentdrift.evaluate.delong import (
    PairedTest,
    area_interval,
    areas,
    auc_interval,
    difference_test,
    holm,
    paired_test,
)


def two_classifiers(count: int = 90, seed: int = 0, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Return scores (2, N) that depend on each other, and classes."""
    rng = np.random.default_rng(seed)
    truth = (rng.random(count) < 0.4).astype(int)
    shared = rng.standard_normal(count) + truth
    scores = np.stack([shared + 0.6 * rng.standard_normal(count) for _ in range(2)])
    return (scores.round(1) if ties else scores), truth


def by_pairs(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """DeLong 1988, equations 3 to 6, with every pair compared: areas and covariance."""
    above, below = scores[:, truth == 1], scores[:, truth == 0]
    m, n = above.shape[1], below.shape[1]
    order = (above[:, :, None] > below[:, None, :]) + 0.5 * (above[:, :, None] == below[:, None, :])
    return order.mean((1, 2)), np.cov(order.mean(2)) / m + np.cov(order.mean(1)) / n


@pytest.mark.parametrize("ties", [True, False])
def test_areas_and_covariance_are_those_of_all_pairs(ties: bool) -> None:
    scores, truth = two_classifiers(ties=ties)
    values, covariance = by_pairs(scores, truth)
    found = areas(scores, truth)
    np.testing.assert_allclose(found.values, values, rtol=1e-12)
    np.testing.assert_allclose(found.values, [roc_auc_score(truth, one) for one in scores], rtol=1e-12)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-10)
    assert (found.subjects, found.images, found.smallest) == (90, 90, min(truth.sum(), 90 - truth.sum()))


def test_probabilities_of_two_classes_are_scores() -> None:
    scores, truth = two_classifiers()
    p = 1 / (1 + np.exp(-scores))
    found = areas(np.stack([1 - p, p], 2), truth)
    np.testing.assert_allclose(found.covariance, areas(scores, truth).covariance, rtol=1e-10)


def test_paired_test_by_hand() -> None:
    scores, truth = two_classifiers()
    values, covariance = by_pairs(scores, truth)
    z = (values[0] - values[1]) / math.sqrt(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    test = paired_test(*scores, truth)
    assert test.p == pytest.approx(2 * norm.sf(abs(z)))
    assert test.difference.value == pytest.approx(values[0] - values[1])
    low, high = test.difference.interval
    assert (high - low) / 2 == pytest.approx(norm.ppf(0.975) * (values[0] - values[1]) / z)
    assert paired_test(*scores[::-1], truth).p == pytest.approx(test.p)


def test_equal_classifiers_do_not_differ() -> None:
    scores, truth = two_classifiers()
    test = paired_test(scores[0], 3 * scores[0] + 1, truth)
    assert test.p == 1.0
    assert test.difference.value == test.difference.interval.low == test.difference.interval.high == 0.0


def test_as_many_false_alarms_as_it_says() -> None:
    p = np.array([paired_test(*two_classifiers(120, seed, ties=False)[0], two_classifiers(120, seed)[1]).p
                  for seed in range(300)])  # fmt: skip
    assert 4 <= (p < 0.05).sum() <= 27  # 15 expected, 3 standard deviations of 3.8
    assert 0.4 < p.mean() < 0.6


def test_interval_covers_the_true_area() -> None:
    truth = np.arange(80) % 2
    for shift in (1.0, 2.0):
        area = norm.cdf(shift / math.sqrt(2))
        hits = 0
        for seed in range(200):
            low, high = auc_interval(np.random.default_rng(seed).standard_normal(80) + shift * truth, truth).interval
            hits += low <= area <= high
        assert 180 <= hits <= 199


def test_images_of_one_subject_are_no_new_witnesses() -> None:
    scores, truth = two_classifiers()
    alone = areas(scores, truth)
    repeated = areas(np.repeat(scores, 4, 1), np.repeat(truth, 4), np.repeat(np.arange(90), 4).tolist())
    np.testing.assert_allclose(repeated.values, alone.values)
    np.testing.assert_allclose(repeated.covariance, alone.covariance, rtol=1e-10)
    assert (repeated.subjects, repeated.images) == (90, 360)
    assert areas(np.repeat(scores, 4, 1), np.repeat(truth, 4)).covariance[0, 0] < 0.3 * alone.covariance[0, 0]


def test_subjects_who_are_in_both_classes_agree_with_the_bootstrap() -> None:
    rng = np.random.default_rng(2)
    subjects = np.repeat(np.arange(150), 4)
    truth = np.tile([0, 1, 1, 0], 150)
    scores = 0.8 * truth + rng.standard_normal(150)[subjects] + rng.standard_normal(600)
    p = 1 / (1 + np.exp(-scores))
    found = auc_interval(scores, truth, subjects.tolist())
    drawn = class_auc(np.stack([1 - p, p], 1), truth, subjects.tolist(), resamples=800)
    assert found.value == pytest.approx(drawn.value)
    np.testing.assert_allclose(found.interval, drawn.interval, atol=0.006)
    # A subject's own level moves both classes alike and cancels in part: images alone would be too wide here.
    naive = auc_interval(scores, truth).interval
    assert naive.high - naive.low > 1.1 * (found.interval.high - found.interval.low)


def test_several_classes_agree_with_the_bootstrap() -> None:
    rng = np.random.default_rng(4)
    truth = np.arange(300) % 4
    logits = rng.standard_normal((300, 4)) + 1.2 * np.eye(4)[truth]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found, drawn = auc_interval(p, truth), class_auc(p, truth, resamples=600)
    assert found.value == pytest.approx(roc_auc_score(truth, p, multi_class="ovr", average="macro"))
    np.testing.assert_allclose(found.interval, drawn.interval, atol=0.008)


def test_all_right_is_not_without_doubt() -> None:
    truth = np.r_[np.zeros(12, int), np.ones(10, int)]
    low, high = auc_interval(truth.astype(float), truth).interval
    assert high == 1.0
    # Where 1 is 1.96 standard errors from the area, by Hanley and McNeil's variance with Newcombe's exponents.
    spread = low * (1 - low) / 120 * (1 + 10 * (1 - low) / (2 - low) + 10 * low / (1 + low))
    assert 1 - low == pytest.approx(norm.ppf(0.975) * math.sqrt(spread), rel=1e-6)
    assert 0.75 < low < 0.9
    mirrored = auc_interval(-truth.astype(float), truth).interval
    assert mirrored == pytest.approx((1 - high, 1 - low), abs=1e-6)
    constant = auc_interval(np.ones(22), truth)
    assert constant.value == 0.5
    assert constant.interval.low < 0.4 < 0.6 < constant.interval.high
    # Ten images each of a subject are no more than one.
    many = auc_interval(np.repeat(truth, 10).astype(float), np.repeat(truth, 10), np.repeat(np.arange(22), 10).tolist())
    assert many.interval == pytest.approx((low, high))


def test_few_degrees_of_freedom_widen() -> None:
    scores, truth = two_classifiers()
    found = areas(scores, truth)
    value, variance = float(found.values[0]), float(found.covariance[0, 0])
    sure, unsure = (area_interval(value, variance, found, freedom=f) for f in (math.inf, 3.0))
    assert unsure.low < sure.low < value < sure.high < unsure.high
    assert (
        difference_test(0.1, 0.0025, 90, freedom=3).p
        > difference_test(0.1, 0.0025, 90).p
        == pytest.approx(2 * norm.sf(2))
    )


def test_many_tests_are_corrected() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("scores", "truth", "subjects", "says"),
    [
        (np.zeros(4), [0, 0, 0, 1], None, r"1 subject\(s\) of class 1"),
        (np.zeros(4), [1, 1, 1, 1], None, r"0 subject\(s\) of class 0"),
        (np.zeros(4), [0, 0, 1, 1], ["a", "b", "c", "c"], r"1 subject\(s\) of class 1"),
        (np.zeros(4), [0, 0, 1, 2], None, "from 0 to 1"),
        (np.array([0, 1, np.nan, 1]), [0, 0, 1, 1], None, "NaN"),
        (np.full((4, 3), 1 / 3), [0, 0, 1, 1], None, "no image of class 2"),
        (np.zeros(4), [0, 0, 1, 1], ["a"], "1 subjects for 4 images"),
    ],
)
def test_what_cannot_be_is_refused(scores: np.ndarray, truth: list[int], subjects: list[str] | None, says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        auc_interval(scores, truth, subjects)
    if says == "NaN":
        with pytest.raises(EvaluationError, match="confidence=2"):
            auc_interval(np.arange(4.0), truth, confidence=2)
        with pytest.raises(EvaluationError, match="shapes"):
            paired_test(np.zeros(4), np.zeros(5), truth)


def test_a_difference_without_a_variance_has_that_of_as_many_images() -> None:
    def differ(count: int) -> PairedTest:
        truth = np.arange(count) % 2
        return paired_test(truth + np.linspace(0.0, 0.1, count), np.full(count, 0.5), truth)

    few, many = differ(4), differ(100)
    assert few.difference.value == many.difference.value == 0.5
    assert few.p > 0.05
    assert few.difference.interval.low < 0
    assert many.p < 1e-6
    assert many.difference.interval.low > 0.3
