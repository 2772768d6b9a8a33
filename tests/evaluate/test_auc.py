"""Figures of classifiers against sklearn, counts by hand and simulation."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.auc import calibration_error, class_auc, classifier_figures, weighted_area


def made(count: int = 240, classes: int = 2, strength: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.arange(count) % classes
    logits = rng.standard_normal((count, classes)) + strength * np.eye(classes)[truth]
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True), truth


def test_two_classes_by_counting_pairs() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    estimate = class_auc(probabilities, [0, 0, 1, 1], resamples=50)
    assert estimate.value == 0.75  # three of the four pairs are in order
    assert estimate.n == 4
    assert estimate.interval.low <= 0.75 <= estimate.interval.high


def test_several_classes_are_each_against_the_rest() -> None:
    probabilities, truth = made(classes=4)
    estimate = class_auc(probabilities, truth, resamples=50)
    assert estimate.value == pytest.approx(roc_auc_score(truth, probabilities, multi_class="ovr", average="macro"))


def test_areas_of_draws_are_those_of_sklearn() -> None:
    rng = np.random.default_rng(0)
    scores, positive = rng.integers(0, 12, 80) / 12, rng.random(80) < 0.4
    weights = rng.integers(0, 4, 80).astype(float)
    order = np.unique(scores, return_inverse=True)[1]
    assert weighted_area(order, positive, weights) == pytest.approx(
        roc_auc_score(positive, scores, sample_weight=weights)
    )
    assert weighted_area(order, positive, np.ones(80)) == pytest.approx(roc_auc_score(positive, scores))
    assert np.isnan(weighted_area(order, positive, weights * positive))


def test_interval_covers_the_true_area_as_often_as_it_says() -> None:
    # Two normals a distance d apart in log odds of softmax: the area is Phi(d / sqrt(2)), here in one column's logit.
    from scipy.stats import norm

    hits = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        truth = np.arange(120) % 2
        p = 1 / (1 + np.exp(-(rng.standard_normal(120) + truth)))
        low, high = class_auc(np.stack([1 - p, p], 1), truth, resamples=150, seed=seed).interval
        hits += low <= norm.cdf(1 / np.sqrt(2)) <= high
    assert 34 <= hits <= 40


def test_images_of_one_subject_are_no_new_witnesses() -> None:
    probabilities, truth = made(60)
    subjects = list(range(60))
    alone = class_auc(probabilities, truth, subjects, resamples=200)
    repeated = class_auc(np.repeat(probabilities, 4, 0), np.repeat(truth, 4), np.repeat(subjects, 4), resamples=200)
    assert repeated.value == pytest.approx(alone.value)
    assert repeated.interval == pytest.approx(alone.interval)
    assert repeated.n == alone.n == 60
    naive = class_auc(np.repeat(probabilities, 4, 0), np.repeat(truth, 4), resamples=200)
    assert naive.interval.high - naive.interval.low < 0.7 * (alone.interval.high - alone.interval.low)


def test_labels_without_meaning_are_a_half() -> None:
    probabilities, truth = made(strength=0.0)
    low, high = class_auc(probabilities, truth, resamples=200).interval
    assert low < 0.5 < high


def test_calibration_error_by_hand() -> None:
    # Ten images said with 0.8, of which six are right; ten with 0.6, of which six are.
    sure = np.r_[np.full(10, 0.8), np.full(10, 0.6)]
    truth = np.r_[np.zeros(6), np.ones(4), np.zeros(6), np.ones(4)].astype(int)
    estimate = calibration_error(np.stack([sure, 1 - sure], 1), truth, resamples=100)
    assert estimate.value == pytest.approx(0.1)
    assert 0 <= estimate.interval.low <= 0.1 <= estimate.interval.high <= 1


def test_calibration_error_of_true_probabilities_is_small_and_of_boasts_is_not() -> None:
    rng = np.random.default_rng(3)
    p = rng.uniform(0, 1, 20_000)
    truth = (rng.uniform(size=len(p)) < p).astype(int)
    boast = np.where(p > 0.5, 0.99, 0.01)
    error = [
        calibration_error(np.stack([1 - q, q], 1), truth, np.arange(len(p)) % 50, resamples=20).value
        for q in (p, boast)
    ]
    assert error[0] < 0.02
    assert error[1] == pytest.approx(0.99 - 0.75, abs=0.01)


def test_all_figures_go_to_json() -> None:
    probabilities, truth = made(80, strength=2.0)
    figures = classifier_figures(probabilities, truth, np.arange(80) // 2, uncalibrated=probabilities, resamples=50)
    found = json.loads(json.dumps(figures.to_dict()))
    assert set(found) == {
        *("auc", "accuracy", "ece", "ece_uncalibrated", "images", "images_by_class", "subjects"),
    }
    assert found["accuracy"]["value"] == pytest.approx(float(np.mean(probabilities.argmax(1) == truth)))
    assert found["ece"] == found["ece_uncalibrated"]
    assert (found["images"], found["images_by_class"], found["subjects"]) == (80, [40, 40], 40)
    assert all(found[n]["low"] <= found[n]["value"] <= found[n]["high"] for n in ("auc", "accuracy", "ece"))
    assert figures == classifier_figures(
        probabilities, truth, np.arange(80) // 2, uncalibrated=probabilities, resamples=50
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"truth": [0, 0, 0, 0]}, "no image of class 1"),
        ({"truth": [0, 1]}, r"classes of shape \(2,\)"),
        ({"truth": [0, 1, 0, 2]}, "from 0 to 1"),
        ({"truth": [0.0, 1.0, 0.0, 1.0]}, "whole numbers"),
        ({"probabilities": np.full((4, 2), 0.9)}, "add up to 1"),
        ({"probabilities": np.array([[np.nan, 1]] * 4)}, "finite"),
        ({"subjects": ["a"] * 4}, "1 subject"),
        ({"subjects": ["a", "b"]}, "2 subjects for 4 images"),
        ({"confidence": 1.0}, "confidence=1.0"),
        ({"resamples": 2}, "resamples=2"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], says: str) -> None:
    given = {"probabilities": np.array([[0.7, 0.3]] * 4), "truth": [0, 1, 0, 1], "resamples": 20, **change}
    with pytest.raises(EvaluationError, match=says):
        class_auc(**given)  # type: ignore[arg-type]


def test_rounded_probabilities_of_three_classes_are_taken() -> None:
    values = np.array([[0.333, 0.333, 0.333], [0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7]] * 4)
    assert class_auc(values, [0, 0, 1, 2] * 4, resamples=50).value == pytest.approx(1.0)
