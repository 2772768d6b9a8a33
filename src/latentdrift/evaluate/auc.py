"""How well a classifier tells classes apart, and whether it is as sure as it is right, with intervals over subjects."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.counterfactuals import Estimate, mean_interval
from latentdrift.evaluate.interval import Interval

Array = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

CALIBRATION_BINS = 15
"""As in Guo et al. 2017."""

FEWEST_RESAMPLES = 10


@dataclass(frozen=True)
class ClassifierFigures:
    """What a classifier does on images of known classes; the n of an estimate is that of subjects.

    Args:
        auc: area under the ROC curve; for more than two classes the mean of each against the rest.
        accuracy: share of images whose most probable class is theirs.
        ece: expected calibration error.
        ece_uncalibrated: the same before calibration; None where that is not known.
        images: of each class.
    """

    auc: Estimate
    accuracy: Estimate
    ece: Estimate
    ece_uncalibrated: Estimate | None
    images: tuple[int, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return {value, low, high, n} by figure, with the numbers of images and subjects, for JSON."""
        found: dict[str, Any] = {}
        for name in ("auc", "accuracy", "ece", "ece_uncalibrated"):
            estimate = getattr(self, name)
            if estimate is not None:
                low, high = estimate.interval
                found[name] = {"value": estimate.value, "low": low, "high": high, "n": estimate.n}
        return {**found, "images": sum(self.images), "images_by_class": list(self.images), "subjects": self.auc.n}


def classifier_figures(
    probabilities: npt.ArrayLike,
    truth: npt.ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    *,
    uncalibrated: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> ClassifierFigures:
    """Return all figures; arguments and errors as in `class_auc`, `uncalibrated` like `probabilities`."""
    values, classes = checked(probabilities, truth)
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    return ClassifierFigures(
        class_auc(values, classes, subjects, **settings),
        mean_interval((values.argmax(1) == classes).astype(np.float64), subjects, **settings),
        calibration_error(values, classes, subjects, **settings),
        None if uncalibrated is None else calibration_error(uncalibrated, classes, subjects, **settings),
        tuple(int(n) for n in np.bincount(classes, minlength=values.shape[1])),
    )


def class_auc(
    probabilities: npt.ArrayLike,
    truth: npt.ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the area under the ROC curve with its bootstrap interval over subjects (percentiles).

    Of more than two classes it is the mean of the areas of each class against the rest. Whole subjects are drawn again,
    with all their images; draws in which a class is missing have no area and are left out.

    Args:
        probabilities: (N, K), at least 0, each row adding up to 1.
        truth: classes, (N,), every one of the K among them.
        subjects: whose image it is, N; None for an image a subject.
        confidence: coverage, between 0 and 1.
        resamples: how often subjects are drawn.
        seed: of the draws. Same subjects and seed, same draws.

    Raises:
        EvaluationError: arrays that do not fit, a class without images, fewer than two subjects, or settings out of
            range.
    """
    values, classes = checked(probabilities, truth)
    missing = sorted(set(range(values.shape[1])) - set(classes.tolist()))
    if missing:
        raise EvaluationError(f"There is no image of class {missing[0]}: an AUC needs images of every class.")

    several = values.shape[1] > 2
    columns = range(values.shape[1]) if several else [1]
    order = [np.unique(values[:, k], return_inverse=True)[1] for k in columns]

    def area(weights: Array) -> float:
        return float(
            np.mean([weighted_area(place, classes == k, weights) for place, k in zip(order, columns, strict=True)])
        )

    return over_subjects(area, len(values), subjects, confidence, resamples, seed)


def weighted_area(order: npt.NDArray[np.intp], positive: npt.NDArray[np.bool_], weights: Array) -> float:
    """Return the area under the ROC curve of weighted images, or NaN where one side has no weight.

    The share of pairs in order, ties counting half. `roc_auc_score` gives the same in milliseconds, of which a
    bootstrap needs thousands.

    Args:
        order: rank of each image's score among the different scores, from 0, (N,).
        positive: which images should score high, (N,).
        weights: how often each image counts, (N,).
    """
    length = int(order.max()) + 1
    high = np.bincount(order, weights * positive, minlength=length)
    low = np.bincount(order, weights * ~positive, minlength=length)
    pairs = high.sum() * low.sum()
    return float(high @ (np.cumsum(low) - low / 2) / pairs) if pairs else math.nan


def calibration_error(
    probabilities: npt.ArrayLike,
    truth: npt.ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    *,
    bins: int = CALIBRATION_BINS,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Estimate:
    """Return the expected calibration error (Guo et al. 2017, equation 5), 0 to 1, with its interval over subjects.

    Images are sorted into `bins` equal intervals of the most probable class's probability; the error is the mean over
    images of the distance, in their bin, between that probability's mean and the share that is right. A draw's error is
    larger on average than the images' own, so the interval is the draws' spread around the value. Other arguments and
    errors as in `class_auc`; classes may be missing.
    """
    values, classes = checked(probabilities, truth)
    sure, right = values.max(1), values.argmax(1) == classes
    # Each bin includes its upper end.
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    gap = sure - right

    def error(weights: Array) -> float:
        return float(np.abs(np.bincount(place, weights * gap, minlength=bins)).sum() / weights.sum())

    return over_subjects(error, len(values), subjects, confidence, resamples, seed, centred=True)


def over_subjects(
    figure: Callable[[Array], float],
    count: int,
    subjects: Sequence[Hashable] | None,
    confidence: float,
    resamples: int,
    seed: int,
    *,
    centred: bool = False,
) -> Estimate:
    """Return a figure in [0, 1] of weighted images, (N,) to a number or NaN, with its bootstrap over subjects."""
    if not 0.0 < confidence < 1.0:
        raise EvaluationError(f"confidence={confidence}: give a number between 0 and 1, such as 0.95.")
    if resamples < FEWEST_RESAMPLES:
        raise EvaluationError(f"resamples={resamples}: an interval needs at least {FEWEST_RESAMPLES}.")
    names = list(range(count)) if subjects is None else list(subjects)
    if len(names) != count:
        raise EvaluationError(f"{len(names)} subjects for {count} images; give one an image.")
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    if len(codes) < 2:
        raise EvaluationError(f"There are images of {len(codes)} subject(s); an interval over subjects needs two.")
    group = np.array([codes[name] for name in names])
    draws = np.random.default_rng(seed).multinomial(len(codes), np.full(len(codes), 1 / len(codes)), size=resamples)
    found = np.array([figure(drawn[group].astype(np.float64)) for drawn in draws])
    found = found[np.isfinite(found)]
    if len(found) < FEWEST_RESAMPLES:
        raise EvaluationError(
            f"Only {len(found)} of {resamples} draws of subjects hold every class: there are too few subjects of one."
        )
    value, tail = figure(np.ones(count)), (1 - confidence) / 2
    low, high = np.quantile(found, [tail, 1 - tail]) + (value - np.median(found) if centred else 0.0)
    return Estimate(value, Interval(float(np.clip(low, 0, 1)), float(np.clip(high, 0, 1))), len(codes))


def checked(probabilities: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Array, Classes]:
    """Return both as arrays, (N, K) and (N,), or raise EvaluationError."""
    values, classes = np.asarray(probabilities, dtype=np.float64), np.asarray(truth)
    if values.ndim != 2 or values.shape[1] < 2 or classes.shape != values.shape[:1] or not len(values):
        raise EvaluationError(
            f"Probabilities of shape {values.shape} and classes of shape {classes.shape}; give (N, K), K at least 2, "
            "and (N,)."
        )
    if not np.isfinite(values).all() or values.min() < 0 or not np.allclose(values.sum(1), 1, atol=1e-3):
        raise EvaluationError("Probabilities must be finite, at least 0, and add up to 1 for each image.")
    if not np.issubdtype(classes.dtype, np.integer) or classes.min() < 0 or classes.max() >= values.shape[1]:
        raise EvaluationError(f"Classes must be whole numbers from 0 to {values.shape[1] - 1}.")
    return values, classes.astype(np.int64)
