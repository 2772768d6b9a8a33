"""Areas under the ROC curve of several classifiers on the same images: their covariance, intervals and paired tests.

DeLong et al. 1988, "Comparing the Areas under Two or More Correlated Receiver Operating Characteristic Curves", by the
ranks of Sun & Xu 2014, "Fast Implementation of DeLong's Algorithm", in O(n log n). Where subjects have several images,
the sums over subjects of Obuchowski 1997, "Nonparametric Analysis of Clustered ROC Curve Data", take the place of
images; with an image a subject both are the same.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.stats import norm, rankdata
from scipy.stats import t as student

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.auc import checked
from latentdrift.evaluate.counterfactuals import Estimate
from latentdrift.evaluate.interval import Interval

Array = npt.NDArray[np.float64]
NOTHING = 1e-14
"""Variances below are rounding."""


@dataclass(frozen=True)
class Areas:
    """Areas under the ROC curve of K classifiers on the same images.

    Args:
        values: (K,), 0 to 1; for more than two classes the means of each class against the rest.
        covariance: of the values over other samples of as many test subjects, (K, K).
        subjects: how many there were.
        smallest: images of the rarest class.
        images: of all classes.
    """

    values: Array
    covariance: Array
    subjects: int
    smallest: int
    images: int


class PairedTest(NamedTuple):
    """A difference of areas on the same images.

    Args:
        difference: first minus second, with its interval; its n is that of subjects.
        p: two-sided probability of as large a difference where there is none.
    """

    difference: Estimate
    p: float


def areas(probabilities: npt.ArrayLike, truth: npt.ArrayLike, subjects: Sequence[Hashable] | None = None) -> Areas:
    """Return the areas of K classifiers and their covariance.

    Args:
        probabilities: (K, N, C) of C classes, or scores (K, N) of two, higher for class 1.
        truth: classes, (N,), each among them.
        subjects: whose image it is, N; None for an image a subject.

    Raises:
        EvaluationError: arrays that do not fit, NaN, or fewer than two subjects with images of a class.
    """
    scores, classes = _scores(probabilities, truth)
    names = list(range(len(classes))) if subjects is None else list(subjects)
    if len(names) != len(classes):
        raise EvaluationError(f"There are {len(names)} subjects for {len(classes)} images; give one an image.")
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    group = np.array([codes[name] for name in names])
    for k in range(int(classes.max()) + 1):
        people = len(set(group[classes == k].tolist()))
        if people < 2:
            raise EvaluationError(
                f"There are images of {people} subject(s) of class {k}; its area needs two of each class."
            )
    columns = range(scores.shape[2]) if scores.shape[2] > 2 else [1]
    values = np.zeros(len(scores))
    high, low = np.zeros((2, len(scores), len(codes)))
    for k in columns:
        found, above, below = _influence(scores[:, :, k], classes == k)
        values += found / len(columns)
        for total, part in ((high, above), (low, below)):
            for row, image in zip(total, part, strict=True):
                row += np.bincount(group, image, minlength=len(codes)) / len(columns)
    if len(columns) == 1:
        # Each sum has the factor of an unbiased variance over the subjects that are in it.
        many = [len(set(group[classes == k].tolist())) for k in (1, 0)]
        cross = high @ low.T
        covariance = high @ high.T * _unbiased(many[0]) + low @ low.T * _unbiased(many[1])
        covariance += (cross + cross.T) * _unbiased(len(codes))
    else:
        covariance = (high + low) @ (high + low).T * _unbiased(len(codes))
    return Areas(values, covariance, len(codes), int(np.bincount(classes).min()), len(classes))


def auc_interval(
    probabilities: npt.ArrayLike,
    truth: npt.ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
) -> Estimate:
    """Return one classifier's area with its interval; its n is that of subjects.

    Args:
        probabilities: (N, C), or scores (N,) of two classes, higher for class 1.
        truth: classes, (N,), each among them.
        subjects: whose image it is, N; None for an image a subject.
        confidence: coverage, between 0 and 1.

    Raises:
        EvaluationError: as `areas`, or a confidence out of range.
    """
    found = areas(np.asarray(probabilities, dtype=np.float64)[None], truth, subjects)
    return Estimate(
        float(found.values[0]),
        area_interval(float(found.values[0]), float(found.covariance[0, 0]), found, confidence=confidence),
        found.subjects,
    )


def paired_test(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    truth: npt.ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
) -> PairedTest:
    """Return whether two classifiers' areas differ on the same images; arguments and errors as in `auc_interval`."""
    found = areas(_stacked(first, second), truth, subjects)
    weights = np.array([1.0, -1.0])
    variance = _known_variance(float(weights @ found.covariance @ weights), found.values, found)
    return difference_test(float(weights @ found.values), variance, found.subjects, confidence)


def area_interval(
    value: float, variance: float, of: Areas, *, freedom: float = math.inf, confidence: float = 0.95
) -> Interval:
    """Return the interval of an area, or of a mean of areas, symmetric in its log odds, so that it ends within [0, 1].

    Where all images are told right the variance is 0 although there is doubt: the interval is then the score interval
    of Newcombe 2006 (his method 5) for as many images, or as many subjects where these are fewer.

    Args:
        value: the area, 0 to 1.
        variance: of it.
        of: where it comes from.
        freedom: degrees of freedom of the variance.
        confidence: coverage, between 0 and 1.
    """
    _check_confidence(confidence)
    tail = (1 - confidence) / 2
    if variance < NOTHING or not 0 < value < 1:
        share = of.subjects / of.images
        low_n, high_n = max(1.0, of.smallest * share), max(1.0, (of.images - of.smallest) * share)
        return _score_interval(value, low_n, high_n, float(norm.ppf(1 - tail)))
    middle, reach = math.log(value / (1 - value)), student.ppf(1 - tail, freedom) * math.sqrt(variance)
    low, high = (1 / (1 + math.exp(-(middle + side * reach / (value * (1 - value))))) for side in (-1, 1))
    return Interval(low, high)


def difference_test(
    value: float, variance: float, subjects: int, confidence: float = 0.95, freedom: float = math.inf
) -> PairedTest:
    """Return the interval and test of a difference of areas with its variance; equal classifiers have p = 1.

    Two classifiers that tell all test images right have a difference of 0 without an interval: these images cannot show
    more.
    """
    _check_confidence(confidence)
    error = math.sqrt(variance) if variance > NOTHING else 0.0
    reach = float(student.ppf(1 - (1 - confidence) / 2, freedom)) * error
    p = float(2 * student.sf(abs(value) / error, freedom)) if error else float(abs(value) < 1e-12)
    interval = Interval(max(-1.0, value - reach), min(1.0, value + reach))
    return PairedTest(Estimate(value, interval, subjects), p)


def over_seeds(found: Areas, weights: npt.ArrayLike, seeds: int) -> tuple[float, float, float]:
    """Return a weighted sum of G classifiers' areas, each trained with S seeds, its variance, and degrees of freedom.

    Two variances are added: DeLong's of the mean over seeds, for other test subjects, and that over seeds, divided by
    their number, for other trainings; the degrees of freedom are Satterthwaite's. The seeds' spread holds some of the
    first too, so the sum is rather too large. With one seed the second is missing.

    Args:
        found: areas of G x S classifiers, the seeds of one after another.
        weights: (G,): 1 for one classifier, 1 and -1 for a difference, which is taken seed by seed.
        seeds: S.
    """
    factors = np.asarray(weights, dtype=np.float64)
    values = factors @ found.values.reshape(len(factors), seeds)
    full = np.repeat(factors, seeds) / seeds
    tested = max(float(full @ found.covariance @ full), 0.0)
    trained = float(values.var(ddof=1)) / seeds if seeds > 1 else 0.0
    freedom = (tested + trained) ** 2 * (seeds - 1) / trained**2 if trained > NOTHING else math.inf
    return float(values.mean()), tested + trained, freedom


def seed_means(found: Areas, seeds: int, confidence: float = 0.95) -> list[Estimate]:
    """Return the mean area of each of G classifiers over its S seeds; arguments and interval as in `over_seeds`."""
    estimates = []
    for weights in np.eye(len(found.values) // seeds):
        mean, variance, freedom = over_seeds(found, weights, seeds)
        interval = area_interval(mean, variance, found, freedom=freedom, confidence=confidence)
        estimates.append(Estimate(mean, interval, found.subjects))
    return estimates


def seed_differences(
    found: Areas, pairs: Sequence[tuple[int, int]], seeds: int, confidence: float = 0.95
) -> list[tuple[PairedTest, float]]:
    """Return each difference of two classifiers' mean areas, and its p corrected for the number of pairs.

    Args:
        found: areas of G x S classifiers, the seeds of one after another.
        pairs: places from 0 to G - 1; the first minus the second.
        seeds: S.
        confidence: coverage of each interval, between 0 and 1.
    """
    unit, tests = np.eye(len(found.values) // seeds), []
    for first, second in pairs:
        mean, variance, freedom = over_seeds(found, unit[first] - unit[second], seeds)
        means = found.values.reshape(-1, seeds).mean(axis=1)[[first, second]]
        tests.append(
            difference_test(mean, _known_variance(variance, means, found), found.subjects, confidence, freedom)
        )
    return list(zip(tests, holm([test.p for test in tests]), strict=True))


def _known_variance(variance: float, values: Array, of: Areas) -> float:
    """Return the variance of a difference of two areas, one from their own intervals where the images show none.

    A perfect and a constant classifier differ without a variance on any images, on four as on a thousand. The areas'
    score intervals know how many there are; they are joined as squares (MOVER, Zou and Donner 2008).
    """
    first, second = (float(value) for value in values)
    if variance > NOTHING or abs(first - second) < 1e-12:
        return variance
    a, b = (area_interval(value, 0.0, of) for value in (first, second))
    reach = max(math.hypot(first - a.low, b.high - second), math.hypot(a.high - first, second - b.low))
    return (reach / float(norm.ppf(0.975))) ** 2


def holm(probabilities: Sequence[float]) -> list[float]:
    """Return the probabilities of several tests, corrected for their number (Holm 1979), in the order given."""
    order = np.argsort(probabilities, kind="stable")
    found, largest = [0.0] * len(probabilities), 0.0
    for place, index in enumerate(order):
        largest = max(largest, min(1.0, (len(probabilities) - place) * probabilities[index]))
        found[index] = largest
    return found


def _scores(probabilities: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return scores (K, N, C) and classes (N,), checked."""
    data, classes = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    if data.ndim == 2:
        if not np.isfinite(data).all() or not data.size:
            raise EvaluationError(f"Scores of shape {data.shape} or with NaN; finite numbers (K, N) are needed.")
        two = np.tile([0.5, 0.5], (data.shape[1], 1))
        return np.stack([-data, data], 2), checked(two, classes)[1]
    if data.ndim != 3 or not len(data):
        raise EvaluationError(f"Probabilities have shape {data.shape}; (K, N, C) of K classifiers are needed.")
    stacked = [checked(one, classes) for one in data]
    found = stacked[0][1]
    missing = sorted(set(range(data.shape[2])) - set(found.tolist()))
    if missing:
        raise EvaluationError(f"There is no image of class {missing[0]}: an AUC needs images of every class.")
    return np.stack([values for values, _ in stacked]), found


def _influence(scores: Array, positive: npt.NDArray[np.bool_]) -> tuple[Array, Array, Array]:
    """Return the areas (K,), and what each image adds to its error: the positive ones and the others, both (K, N).

    An image's component is the share of the other side that it is in order with, ties counting half; minus the area,
    over the number of its side.
    """
    ranks = rankdata(scores, axis=1)
    components = np.empty_like(ranks)
    m, n = int(positive.sum()), int((~positive).sum())
    components[:, positive] = (ranks[:, positive] - rankdata(scores[:, positive], axis=1)) / n
    components[:, ~positive] = 1 - (ranks[:, ~positive] - rankdata(scores[:, ~positive], axis=1)) / m
    values = components[:, positive].mean(1)
    errors = components - values[:, None]
    return values, np.where(positive, errors / m, 0.0), np.where(positive, 0.0, errors / n)


def _score_interval(value: float, m: float, n: float, z: float) -> Interval:
    """Return the areas that a value of m positive and n other images is less than z standard errors from."""
    extra = (m + n) / 2 - 1

    def excess(area: float) -> float:
        spread = area * (1 - area) / (m * n) * (1 + extra * (1 - area) / (2 - area) + extra * area / (1 + area))
        return (value - area) ** 2 - z * z * max(spread, 0.0)

    # At the value itself the excess is below 0, or 0 at an end of the range; just inside there it is below.
    inside = min(max(value, 1e-9), 1 - 1e-9)
    low = 0.0 if excess(0.0) <= 0 else float(brentq(excess, 0.0, inside))
    high = 1.0 if excess(1.0) <= 0 else float(brentq(excess, inside, 1.0))
    return Interval(low, high)


def _stacked(first: npt.ArrayLike, second: npt.ArrayLike) -> Array:
    both = [np.asarray(one, dtype=np.float64) for one in (first, second)]
    if both[0].shape != both[1].shape:
        raise EvaluationError(f"The classifiers' outputs have shapes {both[0].shape} and {both[1].shape}; give one.")
    return np.stack(both)


def _unbiased(count: int) -> float:
    return count / (count - 1)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise EvaluationError(f"confidence={confidence}: give a number between 0 and 1, such as 0.95.")
