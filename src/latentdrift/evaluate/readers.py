"""What readers of a study told real from synthetic, and what they thought of the images.

The receiver operating characteristic is that of the readers' ratings: synthetic is the positive class, so that
sensitivity is the share of synthetic images called synthetic, and specificity that of real images called real.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.agreement import cohen_kappa, fleiss_kappa, kappa_interval, votes_of
from latentdrift.evaluate.counterfactuals import Estimate, wilson
from latentdrift.evaluate.crossed import Draws, OfReaders, difference, draw, means

Array = npt.NDArray[np.float64]

LEVELS = 6
"""Ratings: 1 surely real, 2 probably real, 3 rather real, 4 rather synthetic, 5 probably, 6 surely synthetic. An even
number: every answer is a call, too."""
QUALITIES = 5
"""Quality: 1 unusable to 5 excellent."""


@dataclass(frozen=True)
class Repeats:
    """Images that a reader saw twice, M in all: who, and both answers, each (M,); NaN where there is none."""

    reader: npt.NDArray[np.int64]
    rating: tuple[Array, Array]
    quality: tuple[Array, Array]
    diagnosis: tuple[Array, Array]


@dataclass(frozen=True)
class ReaderAnswers:
    """The answers of R readers to N images, each at its first showing; NaN where there is none.

    Args:
        readers: their names, R.
        synthetic: which images are, (N,).
        rating: 1 to `LEVELS`, (R, N).
        quality: 1 to `QUALITIES`, (R, N).
        seconds: how long each answer took, (R, N).
        classes: the diagnoses asked for; empty where none was.
        diagnosis: indices into the classes, (R, N).
        shown: what each image shows, or was to show, as an index into the classes, (N,); NaN where it is not known.
        clusters: images of one cluster, such as a subject, are no independent witnesses, N; None for each by itself.
        arms: which set of synthetic images each is of, N; empty text for real ones.
        repeats: images shown twice.

    Raises:
        EvaluationError: arrays that do not fit, answers out of range, no image of a kind, or no answer.
    """

    readers: tuple[str, ...]
    synthetic: npt.NDArray[np.bool_]
    rating: Array
    quality: Array
    seconds: Array
    classes: tuple[str, ...] = ()
    diagnosis: Array = field(default_factory=lambda: np.empty((0, 0)))
    shown: Array = field(default_factory=lambda: np.empty(0))
    clusters: tuple[Hashable, ...] | None = None
    arms: tuple[str, ...] = ()
    repeats: Repeats | None = None

    def __post_init__(self) -> None:
        shape = (len(self.readers), len(self.synthetic))
        tables = {"rating": (self.rating, 1, LEVELS), "quality": (self.quality, 1, QUALITIES)}
        if self.classes:
            tables["diagnosis"] = (self.diagnosis, 0, len(self.classes) - 1)
        for name, (table, least, most) in tables.items():
            if table.shape != shape:
                raise EvaluationError(f"The answers on {name} have shape {table.shape}, not {shape} (readers, images).")
            given = table[np.isfinite(table)]
            if ((given < least) | (given > most) | (given != np.rint(given))).any():
                raise EvaluationError(f"Answers on {name} are whole numbers from {least} to {most}.")
        if self.seconds.shape != shape or (self.classes and self.shown.shape != shape[1:]):
            raise EvaluationError(f"Times or diagnoses do not fit {shape[0]} readers and {shape[1]} images.")
        if self.synthetic.all() or not self.synthetic.any():
            raise EvaluationError("A reader study needs real and synthetic images; one kind is missing.")
        if not np.isfinite(self.rating).any():
            raise EvaluationError("There is no answer yet.")

    def only(self, arm: str) -> ReaderAnswers:
        """Return the answers to the real images and to the synthetic ones of one arm."""
        kept = np.array([not made or of == arm for made, of in zip(self.synthetic, self.arms, strict=True)])
        return ReaderAnswers(
            self.readers,
            self.synthetic[kept],
            self.rating[:, kept],
            self.quality[:, kept],
            self.seconds[:, kept],
            self.classes,
            self.diagnosis[:, kept] if self.classes else self.diagnosis,
            self.shown[kept] if self.classes else self.shown,
            None
            if self.clusters is None
            else tuple(one for one, keep in zip(self.clusters, kept, strict=True) if keep),
            tuple(one for one, keep in zip(self.arms, kept, strict=True) if keep),
        )


@dataclass(frozen=True)
class RocCurve:
    """A curve from (0, 0) to (1, 1): 1 − specificity and sensitivity, each (T,)."""

    false_positive: Array
    true_positive: Array


@dataclass(frozen=True)
class ReaderFigures:
    """One reader's figures by name (see `one_reader`), and the curve; the n of an estimate is that of images."""

    reader: str
    answered: int
    figures: dict[str, Estimate]
    curve: RocCurve | None
    seconds: dict[str, float]


def readers_together(answers: ReaderAnswers, draws: Draws) -> dict[str, Estimate]:
    """Return the means over readers with their intervals, by name; figures that nobody has are left out.

    AUC, accuracy, sensitivity, specificity; quality and diagnosis of real and of synthetic images, and synthetic minus
    real.
    """
    made = answers.synthetic
    called = _calls(answers.rating)
    right = np.where(np.isfinite(called), called == made, np.nan)

    def among(table: Array, kept: npt.NDArray[np.bool_]) -> OfReaders:
        return means(np.where(kept, table, np.nan))

    wanted: dict[str, OfReaders] = {
        "AUC": lambda times: areas_of_readers(answers.rating, made, times),
        "accuracy": means(right),
        "sensitivity": among(right, made),
        "specificity": among(right, ~made),
        "quality, real": among(answers.quality, ~made),
        "quality, synthetic": among(answers.quality, made),
    }
    wanted["quality, synthetic − real"] = difference(wanted["quality, synthetic"], wanted["quality, real"])
    if answers.classes:
        agreed = _agreed(answers)
        wanted["diagnosis, real"] = among(agreed, ~made)
        wanted["diagnosis, synthetic"] = among(agreed, made)
        wanted["diagnosis, synthetic − real"] = difference(wanted["diagnosis, synthetic"], wanted["diagnosis, real"])
    found = {name: draws.estimate(figure) for name, figure in wanted.items()}
    sides = {"sensitivity": made, "diagnosis, synthetic": made, "specificity": ~made, "diagnosis, real": ~made}
    fewest = made if made.sum() < (~made).sum() else ~made
    sides |= {"accuracy": np.ones_like(made), "AUC": fewest}
    answered = np.isfinite(answers.rating).any(axis=0)
    kept = {name: estimate for name, estimate in found.items() if estimate is not None}
    for name, side in sides.items():
        if name in kept and kept[name].value in (0, 1):
            # Draws of answers that are all alike have no spread: Wilson's interval of as many images takes its place.
            count = int((side & answered).sum())
            share = wilson(int(kept[name].value) * count, count, draws.confidence)
            kept[name] = kept[name]._replace(interval=share.interval)
    return kept


def one_reader(answers: ReaderAnswers, reader: int, confidence: float = 0.95) -> ReaderFigures:
    """Return one reader's figures: shares with Wilson's intervals, the AUC with DeLong's."""
    from latentdrift.evaluate.delong import auc_interval

    made, rating = answers.synthetic, answers.rating[reader]
    called = _calls(rating)
    there = np.isfinite(rating)
    found: dict[str, Estimate] = {}
    parts = {"accuracy": there, "sensitivity": there & made, "specificity": there & ~made}
    for name, kept in parts.items():
        if kept.any():
            found[name] = wilson(int((called[kept] == made[kept]).sum()), int(kept.sum()), confidence)
    if answers.classes:
        agreed = _agreed(answers)[reader]
        for name, side in (("diagnosis, real", ~made), ("diagnosis, synthetic", made)):
            kept = np.isfinite(agreed) & side
            if kept.any():
                found[name] = wilson(int(agreed[kept].sum()), int(kept.sum()), confidence)
    curve = None
    if (there & made).any() and (there & ~made).any():
        curve = roc_curve(rating[there], made[there])
        groups = None if answers.clusters is None else [answers.clusters[i] for i in np.flatnonzero(there)]
        with suppress(EvaluationError):  # images of a single subject of a kind: there is a curve, and no interval
            found["AUC"] = auc_interval(rating[there], made[there].astype(np.int64), groups, confidence=confidence)
    times = {}
    for name, kept in (("real", ~made), ("synthetic", made)):
        given = answers.seconds[reader][kept & np.isfinite(answers.seconds[reader])]
        times[name] = float(np.median(given)) if len(given) else math.nan
    return ReaderFigures(answers.readers[reader], int(there.sum()), found, curve, times)


def roc_curve(rating: npt.ArrayLike, synthetic: npt.ArrayLike) -> RocCurve:
    """Return the curve of ratings (N,) from 1 to `LEVELS`, a point a level; `synthetic` tells which images are, (N,).

    Raises:
        EvaluationError: images of one kind only.
    """
    given, made = np.asarray(rating, dtype=np.float64), np.asarray(synthetic, dtype=bool)
    if made.all() or not made.any():
        raise EvaluationError("A curve needs answers to real and to synthetic images.")
    thresholds = np.arange(LEVELS + 1, 0, -1)
    return RocCurve(
        np.array([(given[~made] >= threshold).mean() for threshold in thresholds]),
        np.array([(given[made] >= threshold).mean() for threshold in thresholds]),
    )


def mean_curve(curves: Sequence[RocCurve], points: int = 201) -> RocCurve:
    """Return the mean of curves: of the sensitivities at each specificity. Its area is the mean of their areas."""
    along = np.linspace(0, 1, points)
    heights = [np.interp(along, *_without_steps(curve)) for curve in curves]
    return RocCurve(along, np.mean(heights, axis=0))


def areas_of_readers(rating: Array, synthetic: npt.NDArray[np.bool_], times: Array) -> Array:
    """Return each reader's area under the curve for how often each image counts, (B, N) to (B, R)."""
    found = np.full((len(times), len(rating)), np.nan)
    for reader, row in enumerate(rating):
        there = np.isfinite(row)
        levels = np.eye(LEVELS)[row[there].astype(np.int64) - 1]
        high, low = (times[:, there] @ (levels * kind[there, None]) for kind in (synthetic, ~synthetic))
        pairs = high.sum(1) * low.sum(1)
        # The share of pairs in order, ties counting half.
        ordered = (high * (np.cumsum(low, axis=1) - low / 2)).sum(1)
        found[pairs > 0, reader] = ordered[pairs > 0] / pairs[pairs > 0]
    return found


def agreement(
    answers: ReaderAnswers, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> list[dict[str, Any]]:
    """Return kappas as rows {question, readers, statistic, estimate}: of each pair, and Fleiss' of all.

    The call and the diagnosis are nominal; for quality disagreements count by the square of their distance. A kappa
    that is not defined, where all answers are the same, has the estimate None.
    """
    tables = {"real or synthetic": (_calls(answers.rating), 2, "none")}
    if answers.classes:
        tables["diagnosis"] = (answers.diagnosis, len(answers.classes), "none")
    tables["quality"] = (answers.quality - 1, QUALITIES, "quadratic")
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    found: list[dict[str, Any]] = []
    for question, (table, categories, weighting) in tables.items():
        statistic = "Cohen's kappa" if weighting == "none" else f"weighted kappa ({weighting})"
        for a, b in combinations(range(len(answers.readers)), 2):
            both = np.flatnonzero(np.isfinite(table[a]) & np.isfinite(table[b]))
            if not len(both):
                continue
            first, second = table[a][both].astype(np.int64), table[b][both].astype(np.int64)
            groups = None if answers.clusters is None else [answers.clusters[i] for i in both]

            def kappa(
                times: Array,
                pair: tuple[Any, Any] = (first, second),
                many: int = categories,
                how: str = weighting,
            ) -> Array:
                return cohen_kappa(*pair, many, weighting=how, counts=times)

            names = f"{answers.readers[a]}, {answers.readers[b]}"
            estimate = kappa_interval(kappa, len(both), groups, **settings)
            found.append({"question": question, "readers": names, "statistic": statistic, "estimate": estimate})
        votes = votes_of(table, categories)
        several = np.flatnonzero(votes.sum(1) >= 2)
        if len(answers.readers) > 1 and len(several):
            groups = None if answers.clusters is None else [answers.clusters[i] for i in several]

            def of_all(times: Array, votes: Array = votes[several]) -> Array:
                return fleiss_kappa(votes, times)

            estimate = kappa_interval(of_all, len(several), groups, **settings)
            found.append({"question": question, "readers": "all", "statistic": "Fleiss' kappa", "estimate": estimate})
    return found


def self_agreement(answers: ReaderAnswers, confidence: float = 0.95) -> list[dict[str, Any]]:
    """Return each reader's agreement with themselves on images shown twice, as rows {reader, question, same, kappa}.

    `same` is the share of equal answers with Wilson's interval; for quality the kappa is weighted by squares.
    """
    repeats = answers.repeats
    found: list[dict[str, Any]] = []
    if repeats is None:
        return found
    tables = {"real or synthetic": (tuple(_calls(one) for one in repeats.rating), 2, "none")}
    if answers.classes:
        tables["diagnosis"] = (repeats.diagnosis, len(answers.classes), "none")
    tables["quality"] = (tuple(one - 1 for one in repeats.quality), QUALITIES, "quadratic")
    for index, name in enumerate(answers.readers):
        for question, ((first, second), categories, weighting) in tables.items():
            kept = (repeats.reader == index) & np.isfinite(first) & np.isfinite(second)
            if not kept.any():
                continue
            kappa = float(cohen_kappa(first[kept], second[kept], categories, weighting=weighting))
            same = wilson(int((first[kept] == second[kept]).sum()), int(kept.sum()), confidence)
            found.append({"reader": name, "question": question, "same": same, "kappa": kappa})
    return found


def make_draws(answers: ReaderAnswers, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0) -> Draws:
    """Return draws of these images and readers; errors as in `draw`."""
    return draw(
        len(answers.synthetic),
        len(answers.readers),
        answers.clusters,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _calls(rating: Array) -> Array:
    """Return 1 where an image was called synthetic, 0 where real, NaN where there is no answer."""
    return np.where(np.isfinite(rating), (rating > LEVELS / 2).astype(np.float64), np.nan)


def _agreed(answers: ReaderAnswers) -> Array:
    """Return 1 where a reader's diagnosis is what the image shows or was to show, (R, N)."""
    known = np.isfinite(answers.diagnosis) & np.isfinite(answers.shown)
    return np.where(known, (answers.diagnosis == answers.shown).astype(np.float64), np.nan)


def _without_steps(curve: RocCurve) -> tuple[Array, Array]:
    """Return a curve whose places are distinct: vertical steps keep their upper end, except at the start."""
    places, heights = curve.false_positive, curve.true_positive
    last = np.append(np.diff(places) > 0, True)
    return places[last], heights[last]
