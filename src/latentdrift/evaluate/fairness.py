"""Any figure by sex, age or another group, and the differences between groups, with intervals over subjects.

Figures of few subjects say little, and a difference that is within its interval of 0 is none that these images show.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.data import Cohort
from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate.auc import FEWEST_RESAMPLES, checked, weighted_area
from latentdrift.evaluate.counterfactuals import Estimate
from latentdrift.evaluate.interval import Interval
from latentdrift.models.classifier.classes import as_number, bin_names

Array = npt.NDArray[np.float64]
SMALLEST = 10
"""Fewest subjects of a group whose figure is given."""
AGE_BINS = (40.0, 60.0, 80.0)
"""Years at which one age group ends and the next begins."""
SEX, AGE = ("sex", "gender"), ("age", "age_years", "patient_age")
"""Names of attributes, whatever their case."""


@dataclass(frozen=True)
class GroupFigures:
    """One figure by groups.

    Args:
        groups: by name, its value and interval; its n is that of subjects.
        differences: by names, first minus second.
        subjects: of every group, also of those too small.
        smallest: fewest subjects of a group whose figure is given.
        confidence: coverage of each interval.
        notes: which groups were left out, and why.
    """

    groups: dict[str, Estimate]
    differences: dict[tuple[str, str], Estimate]
    subjects: dict[str, int]
    smallest: int
    confidence: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""

        def plain(found: Estimate) -> dict[str, Any]:
            return {"value": found.value, "low": found.interval.low, "high": found.interval.high, "n": found.n}

        return {
            "groups": {name: plain(found) for name, found in self.groups.items()},
            "differences": [{"first": a, "second": b, **plain(found)} for (a, b), found in self.differences.items()],
            "subjects": self.subjects,
            "smallest_group": self.smallest,
            "confidence": self.confidence,
            "notes": list(self.notes),
        }

    def rows(self) -> list[dict[str, str]]:
        """Return a table: each group, then each difference."""

        def row(name: str, found: Estimate, form: str) -> dict[str, str]:
            ends = " to ".join(f"{end:{form}}" for end in found.interval)
            return {
                "group": name,
                "value": f"{found.value:{form}}",
                f"{self.confidence:.0%} interval": ends,
                "subjects": str(found.n),
            }

        rows = [row(name, found, ".4g") for name, found in self.groups.items()]
        return rows + [row(f"{a} minus {b}", found, "+.4g") for (a, b), found in self.differences.items()]


def mean_by_group(
    values: npt.ArrayLike, groups: Sequence[str | None], subjects: Sequence[Hashable] | None = None, **settings: Any
) -> GroupFigures:
    """Return the mean of a figure of each image, such as SSIM or an error, by groups.

    Args:
        values: one an image, (N,).
        groups: whose group it is of, N; None leaves the image out.
        subjects: whose image it is, N; None for an image a subject.
        **settings: smallest, confidence, resamples and seed of `figure_by_group`; its errors too.

    Raises:
        EvaluationError: values that are not finite, or of another shape.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.shape != (len(groups),) or not np.isfinite(data).all():
        raise EvaluationError(f"Values of shape {data.shape} for {len(groups)} groups, or with NaN; give one an image.")
    return figure_by_group(lambda weights: float(weights @ data / weights.sum()), groups, subjects, **settings)


def auc_by_group(
    probabilities: npt.ArrayLike,
    truth: npt.ArrayLike,
    groups: Sequence[str | None],
    subjects: Sequence[Hashable] | None = None,
    **settings: Any,
) -> GroupFigures:
    """Return the area under the ROC curve within each group, 0 to 1.

    Of more than two classes it is the mean of each against the rest. Groups without images of every class have no area;
    a note says so.

    Args:
        probabilities: (N, K), each row adding up to 1.
        truth: classes, (N,).
        groups: whose group it is of, N; None leaves the image out.
        subjects: whose image it is, N; None for an image a subject.
        **settings: as in `mean_by_group`; errors as in `class_auc`.
    """
    values, classes = checked(probabilities, truth)
    columns = range(values.shape[1]) if values.shape[1] > 2 else [1]
    order = [np.unique(values[:, k], return_inverse=True)[1] for k in columns]

    def area(weights: Array) -> float:
        parts = [weighted_area(place, classes == k, weights) for place, k in zip(order, columns, strict=True)]
        return float(np.mean(parts))

    return figure_by_group(area, groups, subjects, **settings)


def figure_by_group(
    figure: Callable[[Array], float],
    groups: Sequence[str | None],
    subjects: Sequence[Hashable] | None = None,
    *,
    smallest: int = SMALLEST,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> GroupFigures:
    """Return a figure of weighted images in each group, and all differences, with bootstraps over subjects.

    Intervals are percentiles. All groups see the same draws of subjects: one in two groups, such as an age group at
    each visit, is drawn in both. Each interval is for itself: of many differences some are beyond 0 by chance.

    Args:
        figure: turns weights (N,), how often each image counts, into a number; NaN where there is none.
        groups: whose group it is of, N; None leaves the image out.
        subjects: whose image it is, N; None for an image a subject.
        smallest: fewest subjects of a group whose figure is given, 2 or more.
        confidence: coverage of each interval, between 0 and 1.
        resamples: how often subjects are drawn.
        seed: of the draws.

    Raises:
        EvaluationError: lists of different lengths, settings out of range, or no group that is large enough.
    """
    if not 0.0 < confidence < 1.0 or resamples < FEWEST_RESAMPLES or smallest < 2:
        raise EvaluationError(
            f"confidence={confidence}, resamples={resamples}, smallest={smallest}: give a number between 0 and 1, at "
            f"least {FEWEST_RESAMPLES}, and at least 2."
        )
    people = list(range(len(groups))) if subjects is None else list(subjects)
    if len(people) != len(groups):
        raise EvaluationError(f"There are {len(people)} subjects for {len(groups)} images; give one an image.")
    names = sorted({name for name in groups if name is not None}, key=_in_order)
    inside = {name: np.array([group == name for group in groups]) for name in names}
    counts = {n: len({person for person, held in zip(people, inside[n], strict=True) if held}) for n in names}
    notes = [f"{n}: {counts[n]} subjects, fewer than {smallest}: no figure" for n in names if counts[n] < smallest]
    if None in groups:
        notes.append(f"{list(groups).count(None)} images are of no known group")
    large = [name for name in names if counts[name] >= smallest]
    values = {name: figure(inside[name].astype(np.float64)) for name in large}
    for name in [name for name in large if not np.isfinite(values[name])]:
        notes.append(f"{name}: the figure is not defined there, as where a class has no image")
        large.remove(name)
    if not large:
        raise EvaluationError(f"No group has {smallest} subjects and a figure: {counts}. Join groups, or add images.")
    codes = {person: code for code, person in enumerate(dict.fromkeys(people))}
    place = np.array([codes[person] for person in people])
    draws = np.random.default_rng(seed).multinomial(len(codes), np.full(len(codes), 1 / len(codes)), size=resamples)
    drawn = {name: np.full(resamples, np.nan) for name in large}
    for i, draw in enumerate(draws):
        for name in large:
            weights = draw[place] * inside[name].astype(np.float64)
            if weights.any():
                drawn[name][i] = figure(weights)
    tail = (1 - confidence) / 2

    def estimate(value: float, found: Array, count: int) -> Estimate | None:
        known = found[np.isfinite(found)]
        if len(known) < FEWEST_RESAMPLES:
            return None
        low, high = np.quantile(known, [tail, 1 - tail])
        return Estimate(float(value), Interval(float(low), float(high)), count)

    found = {name: estimate(values[name], drawn[name], counts[name]) for name in large}
    notes += [f"{name}: too few draws have a figure" for name in large if found[name] is None]
    differences = {
        (a, b): estimate(values[a] - values[b], drawn[a] - drawn[b], counts[a] + counts[b])
        for a, b in itertools.combinations(large, 2)
    }
    return GroupFigures(
        {name: one for name, one in found.items() if one is not None},
        {pair: one for pair, one in differences.items() if one is not None},
        counts,
        smallest,
        confidence,
        tuple(notes),
    )


def demographic_groups(cohort: Cohort, age_bins: Sequence[float] = AGE_BINS) -> dict[str, list[str | None]]:
    """Return the group of every image by sex and by age, for what of these the cohort has; it may be nothing.

    Args:
        cohort: N images; None stands for one without the attribute.
        age_bins: years at which one group ends and the next begins, ascending.
    """
    found: dict[str, list[str | None]] = {}
    for what, known in (("sex", SEX), ("age", AGE)):
        name = next((name for name in cohort.attribute_names if name.lower() in known), None)
        if name is not None:
            found[what] = groups_of(cohort, name, age_bins if what == "age" else ())
    return found


def groups_of(cohort: Cohort, attribute: str, bins: Sequence[float] = ()) -> list[str | None]:
    """Return the group of every image by one attribute: its value, or where bins are given its interval.

    Raises:
        UnknownNameError: no image has the attribute.
        EvaluationError: bins that do not ascend, or an attribute with bins that is words.
    """
    values = [record.attributes.get(attribute) for record in cohort]
    if all(value is None for value in values):
        raise UnknownNameError("attribute", attribute, cohort.attribute_names)
    if not bins:
        return [None if value is None else str(value) for value in values]
    limits = tuple(float(limit) for limit in bins)
    if any(b <= a for a, b in itertools.pairwise(limits)):
        raise EvaluationError(f"Bins are {limits}; they must ascend.")
    numbers = [None if value is None else as_number(value) for value in values]
    words = [value for value, number in zip(values, numbers, strict=True) if value is not None and number is None]
    if words:
        raise EvaluationError(f"Bins cut numbers, but {attribute!r} has the value {words[0]!r}.")
    names = [str(name) for name in bin_names(limits)]
    return [None if number is None else names[bisect_right(limits, number)] for number in numbers]


def equal_parts(
    groups: Sequence[str | None], *, smallest: int = SMALLEST, seed: int = 0
) -> dict[str, npt.NDArray[np.int64]]:
    """Return as many images of each group, drawn at random: as many as the smallest group has.

    For figures that depend on the number of images, such as FID, which differ between groups of different sizes even
    where the groups do not. Groups below `smallest` images are left out.

    Raises:
        EvaluationError: fewer than two groups are left.
    """
    counts: Mapping[str, int] = Counter(name for name in groups if name is not None)
    large = sorted((name for name, count in counts.items() if count >= smallest), key=_in_order)
    if len(large) < 2:
        raise EvaluationError(
            f"Groups are compared where two have {smallest} images; there are {dict(counts)}. Join groups, or add "
            "images."
        )
    size, draw = min(counts[name] for name in large), np.random.default_rng(seed)
    places = {name: np.array([i for i, group in enumerate(groups) if group == name], dtype=np.int64) for name in large}
    return {name: np.sort(draw.permutation(places[name])[:size]) for name in large}


def _in_order(name: str) -> tuple[bool, float, str]:
    """Sort "under 40", "40 to 60", "80 and over" by their numbers, other names by the alphabet."""
    number = next((value for word in name.split() if (value := as_number(word)) is not None), None)
    return number is None, (number or 0.0) - 0.5 * name.startswith("under "), name
