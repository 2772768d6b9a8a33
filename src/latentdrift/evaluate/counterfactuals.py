"""Figures of counterfactuals: pure functions on arrays, one value an image or a mean with its interval.

Validity, proximity, sparsity and diversity as the literature on counterfactual explanations has them (Mothilal et al.
2020, "Explaining Machine Learning Classifiers through Diverse Counterfactual Explanations"); identity and the error
against the truth are what medical images add.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate.interval import Interval, wilson_interval

Array = npt.NDArray[np.float64]


class Estimate(NamedTuple):
    """A figure, its confidence interval, and the number n of images or subjects that it was estimated from."""

    value: float
    interval: Interval
    n: int


class Proximity(NamedTuple):
    """Distances of pairs in levels of 0 to 255, each (N,): mean absolute, and root of the mean square."""

    l1: Array
    l2: Array


class Identity(NamedTuple):
    """Whose image an edit still is.

    Attributes:
        rate: share of edits whose nearest neighbour is of the same subject.
        ranks: of the nearest image of the same subject, (N,); 1 is the nearest of all.
        chance: the share that a random neighbour would give.
    """

    rate: Estimate
    ranks: npt.NDArray[np.int64]
    chance: float


@dataclass(frozen=True)
class TruthErrors:
    """Mean absolute errors against the true counterfactual in levels of 0 to 255, with bootstraps over subjects.

    Args:
        edited: of the edits.
        nothing: of the sources as they are.
        average: of the sources after the average change.
        against_nothing: edited minus nothing on the same images; below 0 the edit is better than doing nothing.
        against_average: edited minus average; below 0 the edit knows more than the average change.
        per_image: the three errors by name, each (N,).
    """

    edited: Estimate
    nothing: Estimate
    average: Estimate
    against_nothing: Estimate
    against_average: Estimate
    per_image: dict[str, Array]


def wilson(successes: int, count: int, confidence: float = 0.95) -> Estimate:
    """Return a share with its Wilson score interval (Wilson 1927), which is right near 0 and 1 too.

    It takes the `count` trials as independent. For several images a subject, `mean_interval` does not.

    Raises:
        EvaluationError: no trial, more successes than trials, or a confidence out of range.
    """
    _check_confidence(confidence)
    if not 0 <= successes <= count or count < 1:
        raise EvaluationError(f"{successes} of {count} is no share; at least one image is needed.")
    return Estimate(successes / count, wilson_interval(int(successes), int(count), confidence), int(count))


def mean_interval(
    values: npt.ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Return the mean over images with its bootstrap interval over subjects (percentiles).

    Images of one subject are no independent witnesses: whole subjects are drawn again, with all their images.

    Args:
        values: one an image, (N,).
        subjects: whose image it is, N; None for an image a subject.
        confidence: coverage, between 0 and 1.
        resamples: how often subjects are drawn.
        seed: of the draws. Same subjects and seed, same draws.

    Raises:
        EvaluationError: fewer than two subjects, values that are not finite, or settings out of range.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or not np.isfinite(data).all():
        raise EvaluationError(f"Values of shape {data.shape} or with NaN; one finite number an image is needed.")
    _check_confidence(confidence)
    if resamples < 10:
        raise EvaluationError(f"resamples={resamples}: an interval needs at least 10.")
    group = np.arange(len(data)) if subjects is None else _codes(subjects, len(data))
    sizes = np.bincount(group)
    if len(sizes) < 2:
        raise EvaluationError(f"There are images of {len(sizes)} subject(s); an interval over subjects needs two.")
    sums = np.bincount(group, weights=data)
    draws = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=resamples)
    tail = (1 - confidence) / 2
    low, high = np.quantile((draws @ sums) / (draws @ sizes), [tail, 1 - tail])
    return Estimate(float(data.mean()), Interval(float(low), float(high)), len(sizes))


def validity(
    probabilities: npt.ArrayLike,
    wanted: npt.ArrayLike,
    *,
    before: npt.ArrayLike | None = None,
    confidence: float = 0.95,
) -> Estimate:
    """Return the flip rate: the share of edits to which the judge gives the wanted class, with its Wilson interval.

    Args:
        probabilities: of the judge for the edits, (N, K).
        wanted: classes, (N,), whole numbers below K.
        before: of the judge for the sources, (N, K). Images that had the wanted class already are left out, as there is
            nothing to flip; `n` says how many are left.
        confidence: of the interval.

    Raises:
        EvaluationError: shapes that do not fit, NaN, an unknown class, or no image left.
    """
    after, classes = _judged(probabilities, wanted)
    kept = np.ones(len(after), dtype=bool)
    if before is not None:
        kept = _judged(before, wanted)[0].argmax(1) != classes
        if not kept.any():
            raise EvaluationError("The judge gives every source the wanted class already; there is nothing to flip.")
    flipped = (after.argmax(1) == classes)[kept]
    return wilson(int(flipped.sum()), int(kept.sum()), confidence)


def proximity(source: Any, edited: Any) -> Proximity:
    """Return how far edits are from their sources, in levels of 0 to 255.

    Args:
        source: images (N, C, H, W), uint8 or float in [-1, 1], tensor or array.
        edited: images of the same shape.

    Raises:
        EvaluationError: shapes that differ, NaN, another type, or values outside the range.
    """
    change = _change(source, edited)
    return Proximity(np.abs(change).mean((1, 2, 3)), np.sqrt(np.square(change).mean((1, 2, 3))))


def sparsity(source: Any, edited: Any, threshold: npt.ArrayLike = 8.0) -> Array:
    """Return the share of pixels (N,) that changed by more than a threshold in any channel; less is sparser.

    Args:
        source: images, as in `proximity`.
        edited: images of the same shape.
        threshold: in levels of 0 to 255: one number, one an image (N,), or a map (H, W) or (N, H, W), such as the error
            of the round trip.

    Raises:
        EvaluationError: as `proximity`, or a threshold of another shape or below 0.
    """
    change = np.abs(_change(source, edited)).max(1)
    limit = np.asarray(threshold, dtype=np.float64)
    if limit.ndim == 1:
        limit = limit[:, None, None]
    try:
        limit = np.broadcast_to(limit, change.shape)
    except ValueError as error:
        raise EvaluationError(
            f"The threshold has shape {np.shape(threshold)}; for these images give a number, {change.shape[:1]}, "
            f"{change.shape[1:]} or {change.shape}."
        ) from error
    if not (limit >= 0).all():
        raise EvaluationError("The threshold has values below 0, or NaN; give levels of 0 to 255.")
    return (change > limit).mean((1, 2))


def identity(
    edited: npt.ArrayLike,
    subjects: Sequence[Hashable],
    gallery: npt.ArrayLike,
    gallery_subjects: Sequence[Hashable],
    *,
    leave_out: Sequence[int] | None = None,
    metric: Literal["cosine", "euclidean"] = "cosine",
    confidence: float = 0.95,
) -> Identity:
    """Return how often the nearest neighbour of an edit, among real images, is of the same subject; its rank too.

    Of equally near images the stranger's counts as nearer, so that features that say nothing recognise nobody.

    Args:
        edited: features of the edits, (N, d).
        subjects: whose they are, N.
        gallery: features of real images, (M, d).
        gallery_subjects: whose they are, M.
        leave_out: for each edit the place in the gallery of its own source, or -1. An edit that hardly changed finds
            its source by its pixels; only another image of the subject shows that identity was kept.
        metric: of features.
        confidence: of the interval.

    Raises:
        EvaluationError: shapes that do not fit, NaN, an unknown metric, or a subject without image in the gallery.
    """
    from scipy.spatial.distance import cdist

    if metric not in ("cosine", "euclidean"):
        raise UnknownNameError("metric", metric, ("cosine", "euclidean"))
    first, second = _matrix(edited, "features of the edits"), _matrix(gallery, "features of the gallery")
    if first.shape[1] != second.shape[1]:
        raise EvaluationError(f"Edits have {first.shape[1]} features, the gallery {second.shape[1]}; use one network.")
    if metric == "cosine" and not (first.any(1).all() and second.any(1).all()):
        raise EvaluationError("Some features are all 0 and have no direction; take metric='euclidean'.")
    codes = _codes([*subjects, *gallery_subjects], len(first) + len(second))
    same = codes[: len(first), None] == codes[None, len(first) :]
    distances = cdist(first, second, metric)
    present = np.ones(same.shape, dtype=bool)
    if leave_out is not None:
        places = np.asarray(leave_out)
        if places.shape != (len(first),) or not ((places >= -1) & (places < len(second))).all():
            raise EvaluationError(f"leave_out must be {len(first)} places from 0 to {len(second) - 1}, or -1.")
        rows = np.flatnonzero(places >= 0)
        present[rows, places[rows]] = False
    alone = np.flatnonzero(~(same & present).any(1))
    if len(alone):
        raise EvaluationError(
            f"The gallery has no image of subject {subjects[alone[0]]!r}, and of {len(alone) - 1} others; leave these "
            "edits out, or add images."
        )
    own = np.where(same & present, distances, np.inf).min(1)
    ranks = 1 + ((distances <= own[:, None]) & present & ~same).sum(1)
    chance = float(((same & present).sum(1) / present.sum(1)).mean())
    return Identity(wilson(int((ranks == 1).sum()), len(ranks), confidence), ranks.astype(np.int64), chance)


def diversity(samples: Any, *, of: Literal["images", "features"] = "images") -> Array:
    """Return the mean distance (N,) between the edits of one source under different seeds, over all pairs of seeds.

    Args:
        samples: edits (S, N, C, H, W), uint8 or float in [-1, 1], or features (S, N, d); S seeds, at least two.
        of: "images" for the mean absolute difference in levels of 0 to 255, "features" for the Euclidean distance.

    Raises:
        EvaluationError: another shape, fewer than two seeds, NaN, or values outside the range.
    """
    dimensions = {"images": 5, "features": 3}
    if of not in dimensions:
        raise UnknownNameError("kind of samples", of, dimensions)
    data = _array(samples)
    if data.ndim != dimensions[of] or len(data) < 2 or not data.size:
        shape = "(S, N, C, H, W)" if of == "images" else "(S, N, d)"
        raise EvaluationError(f"Samples have shape {data.shape}; {shape} with at least two seeds S is needed.")
    if of == "images":
        data = np.stack([_levels(seed, "samples") for seed in data])
    elif not np.isfinite(data).all():
        raise EvaluationError("The features of the samples have NaN or infinite values.")
    total = np.zeros(data.shape[1])
    for i in range(len(data)):
        for j in range(i):
            gap = data[i] - data[j]
            total += np.abs(gap).mean((1, 2, 3)) if of == "images" else np.linalg.norm(gap, axis=1)
    return total / (len(data) * (len(data) - 1) / 2)


def errors_against_truth(
    source: Any,
    edited: Any,
    truth: Any,
    subjects: Sequence[Hashable] | None = None,
    *,
    average_change: npt.ArrayLike | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> TruthErrors:
    """Return the edits' error against the true counterfactual, beside those of doing nothing and the average change.

    Args:
        source: images (N, C, H, W), uint8 or float in [-1, 1].
        edited: their edits, of the same shape.
        truth: their true counterfactuals, of the same shape.
        subjects: whose images they are, N; None for an image a subject.
        average_change: in levels of 0 to 255, (C, H, W) or (N, C, H, W), such as the mean of truth minus source over
            the training cohort; None for the mean over the other subjects here, which no subject's own truth is in.
        confidence: of the intervals.
        resamples: of the bootstrap over subjects, the same draws for all five figures.
        seed: of the draws.

    Raises:
        EvaluationError: as `proximity` and `mean_interval`, or an average change of another shape.
    """
    before, after, wanted = (_levels(x, n) for x, n in ((source, "sources"), (edited, "edits"), (truth, "truths")))
    if not before.shape == after.shape == wanted.shape:
        raise EvaluationError(f"Sources {before.shape}, edits {after.shape} and truths {wanted.shape} differ in shape.")
    change = _average_change(wanted - before, subjects) if average_change is None else np.asarray(average_change)
    if change.shape not in (before.shape, before.shape[1:]) or not np.isfinite(change).all():
        raise EvaluationError(
            f"The average change has shape {change.shape}, or NaN; give {before.shape[1:]} in levels."
        )
    guesses = {"edited": after, "nothing": before, "average": (before + change).clip(0, 255)}
    errors = {name: np.abs(guess - wanted).mean((1, 2, 3)) for name, guess in guesses.items()}
    figures = errors | {f"against_{name}": errors["edited"] - errors[name] for name in ("nothing", "average")}
    estimates = {
        name: mean_interval(values, subjects, confidence=confidence, resamples=resamples, seed=seed)
        for name, values in figures.items()
    }
    return TruthErrors(**estimates, per_image=errors)


def _average_change(change: Array, subjects: Sequence[Hashable] | None) -> Array:
    """Return for every image the mean change over the images of all other subjects, (N, C, H, W)."""
    group = np.arange(len(change)) if subjects is None else _codes(subjects, len(change))
    sizes = np.bincount(group)
    if len(sizes) < 2:
        raise EvaluationError("All images are of one subject; give average_change, from other subjects.")
    sums = np.zeros((len(sizes), *change.shape[1:]))
    np.add.at(sums, group, change)
    means = (sums.sum(0) - sums) / (len(change) - sizes)[:, None, None, None]
    return means[group]


def _array(values: Any) -> npt.NDArray[Any]:
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _levels(images: Any, name: str) -> Array:
    """Return images (N, C, H, W) in levels of 0 to 255; floats are not rounded."""
    data = _array(images)
    if data.ndim != 4 or not data.size:
        raise EvaluationError(f"The {name} have shape {data.shape}; (N, C, H, W) is needed.")
    if data.dtype == np.uint8:
        return data.astype(np.float64)
    if data.dtype.kind != "f":
        raise EvaluationError(f"The {name} are of type {data.dtype}; give uint8 in 0..255 or float in [-1, 1].")
    if not np.abs(data).max() <= 1.001:
        raise EvaluationError(f"The {name} have NaN, or values outside [-1, 1]; give uint8 or float in [-1, 1].")
    return (data.astype(np.float64) + 1) * 127.5


def _change(source: Any, edited: Any) -> Array:
    before, after = _levels(source, "sources"), _levels(edited, "edits")
    if before.shape != after.shape:
        raise EvaluationError(f"Sources have shape {before.shape}, edits {after.shape}; pairs of one shape are needed.")
    return after - before


def _judged(probabilities: npt.ArrayLike, wanted: npt.ArrayLike) -> tuple[Array, npt.NDArray[np.int64]]:
    data, classes = _matrix(probabilities, "probabilities"), np.asarray(wanted)
    if data.shape[1] < 2 or data.min() < 0 or data.max() > 1 + 1e-6:
        raise EvaluationError(f"Probabilities of shape {data.shape} must have two classes or more, all in [0, 1].")
    if classes.shape != (len(data),) or classes.dtype.kind not in "iu":
        raise EvaluationError(f"Wanted classes of shape {classes.shape}; ({len(data)},) whole numbers are needed.")
    if classes.min() < 0 or classes.max() >= data.shape[1]:
        raise EvaluationError(f"Wanted classes go from {classes.min()} to {classes.max()}; there are {data.shape[1]}.")
    return data, classes.astype(np.int64)


def _matrix(values: npt.ArrayLike, name: str) -> Array:
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2 or not data.size:
        raise EvaluationError(f"The {name} have shape {data.shape}; two dimensions are needed, a row an image.")
    if not np.isfinite(data).all():
        raise EvaluationError(f"The {name} have NaN or infinite values.")
    return data


def _codes(subjects: Sequence[Hashable], count: int) -> npt.NDArray[np.int64]:
    """Return a whole number from 0 for each subject, (N,)."""
    if len(subjects) != count:
        raise EvaluationError(f"There are {len(subjects)} subjects for {count} images; give one an image.")
    known: dict[Hashable, int] = {}
    return np.array([known.setdefault(subject, len(known)) for subject in subjects], dtype=np.int64)


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise EvaluationError(f"confidence={confidence}: give a number between 0 and 1, such as 0.95.")
