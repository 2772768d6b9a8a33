"""The figures of two sets by sex, age group or another attribute that both sets have.

A group's synthetic images are compared with the same group's real ones. The kernel distance and the Gaussian MMD do not
depend on how many images there are: each group has all of its own, and the differences between groups have intervals
over subjects. The Fréchet distance and the figures of neighbours do depend on it: they are of equally many images of
each group, drawn at random.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.data import Cohort
from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import Array, Grams, frechet_of_checked, grams
from latentdrift.evaluate.fairness import (
    AGE,
    AGE_BINS,
    SMALLEST,
    GroupFigures,
    demographic_groups,
    equal_parts,
    figure_by_group,
    groups_of,
)
from latentdrift.evaluate.interval import MOST_IMAGES, Interval, ManifoldIntervals, frechet_interval, manifold_intervals
from latentdrift.evaluate.lines import Line, ends
from latentdrift.evaluate.manifold import ManifoldFigures, manifold_figures
from latentdrift.evaluate.mmd import choose_bandwidth, gaussian_grams
from latentdrift.evaluate.set_figures import manifold_lines, most_resamples

LISTED = 5
"""Groups that a note names."""


@dataclass(frozen=True)
class GroupLabels:
    """The group of every image of both sets by one attribute; None where it is not known."""

    attribute: str
    real: Sequence[str | None]
    synthetic: Sequence[str | None]
    subjects: Sequence[Hashable]
    """Whose image each real one is."""


@dataclass(frozen=True)
class PartFigures:
    """Figures of one group on as many images as every other group has."""

    fid: float
    fid_interval: Interval | None
    manifold: ManifoldFigures | None
    manifold_intervals: ManifoldIntervals | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        found: dict[str, Any] = {"fid": {"value": self.fid, **ends(self.fid_interval)}}
        if self.manifold is not None:
            for name in ManifoldFigures._fields:
                interval = None if self.manifold_intervals is None else getattr(self.manifold_intervals, name)
                found[name] = {"value": getattr(self.manifold, name), **ends(interval)}
        return found


@dataclass(frozen=True)
class GroupedFigures:
    """The figures by one attribute.

    Args:
        attribute: its name.
        counts: real and synthetic images of every group, also of those left out.
        kernel: kernel distance of all images of a group, and the differences.
        mmd: the same of the Gaussian MMD, with the bandwidth of all real images; None where it has none.
        parts: figures of equally many images.
        part_sizes: real and synthetic images of these; none where no group was large enough.
        notes: which groups were left out, and why.
    """

    attribute: str
    counts: dict[str, tuple[int, int]]
    kernel: GroupFigures | None
    mmd: GroupFigures | None
    parts: dict[str, PartFigures]
    part_sizes: tuple[int, int]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return {
            "images": {name: {"real": a, "synthetic": b} for name, (a, b) in self.counts.items()},
            "kernel": None if self.kernel is None else self.kernel.to_dict(),
            "mmd": None if self.mmd is None else self.mmd.to_dict(),
            "equal_parts": {
                "real": self.part_sizes[0],
                "synthetic": self.part_sizes[1],
                "groups": {name: part.to_dict() for name, part in self.parts.items()},
            },
            "notes": list(self.notes),
        }

    def lines(self, frechet: str, kernel: str) -> list[Line]:
        """Return the figures of every group, then the differences; the arguments are the distances' names."""
        found: list[Line] = []
        for group in self.parts:
            a, b = self.counts[group]
            whole = {"group": f"{self.attribute}: {group}", "images": f"{a} real, {b} synthetic"}
            few = {**whole, "images": f"{self.part_sizes[0]} real, {self.part_sizes[1]} synthetic"}
            for name, figures in ((kernel, self.kernel), ("Gaussian MMD x 1000", self.mmd)):
                if figures is not None and group in figures.groups:
                    one = figures.groups[group]
                    found.append(Line(name, one.value, one.interval, scale=1000.0, **whole))  # type: ignore[arg-type]
            part = self.parts[group]
            found.append(Line(frechet, part.fid, part.fid_interval, **few))  # type: ignore[arg-type]
            found += manifold_lines(part.manifold, part.manifold_intervals, **few)
        for name, figures in ((kernel, self.kernel), ("Gaussian MMD x 1000", self.mmd)):
            for (first, second), one in ({} if figures is None else figures.differences).items():
                group = f"{self.attribute}: {first} minus {second}"
                found.append(Line(name, one.value, one.interval, scale=1000.0, group=group))
        return found


def shared_groups(
    real: Cohort, synthetic: Cohort, wanted: Sequence[str] = ("auto",), age_bins: Sequence[float] = AGE_BINS
) -> tuple[list[GroupLabels], list[str]]:
    """Return the groups of both sets, and what to tell the user of attributes that only one set has.

    Args:
        real: the real images.
        synthetic: the synthetic ones.
        wanted: names of attributes; auto for sex and age, where there are any; none.
        age_bins: years at which one age group ends and the next begins, ascending.

    Raises:
        EvaluationError: auto or none beside names; see `groups_of`.
        UnknownNameError: a named attribute that one of the sets does not have.
    """
    if len(wanted) != 1 and {"auto", "none"} & set(wanted):
        raise EvaluationError(f"Groups are {' '.join(wanted)}: give names of attributes, or auto, or none alone.")
    found: dict[str, tuple[list[str | None], list[str | None]]] = {}
    notes: list[str] = []
    if tuple(wanted) == ("auto",):
        first, second = _demographics(real, age_bins, notes), _demographics(synthetic, age_bins, notes)
        found = {name: (first[name], second[name]) for name in first if name in second}
        for name in sorted(set(first) ^ set(second)):
            have, lack = ("real", "synthetic") if name in first else ("synthetic", "real")
            notes.append(f"The {have} images have {name}, the {lack} ones do not: there are no figures by {name}.")
    elif tuple(wanted) != ("none",):
        for name in wanted:
            bins = age_bins if name.lower() in AGE else ()
            found[name] = groups_of(real, name, bins), groups_of(synthetic, name, bins)
    people: list[Hashable] = [record.subject or ("unknown", record.key) for record in real]
    return [GroupLabels(name, a, b, people) for name, (a, b) in found.items()], notes


def _demographics(cohort: Cohort, age_bins: Sequence[float], notes: list[str]) -> dict[str, list[str | None]]:
    """Return the groups by sex and age; a column that is unfit, which nobody asked for, is noted."""
    if any(b <= a for a, b in itertools.pairwise(age_bins)):
        raise EvaluationError(f"Age bins are {tuple(age_bins)}; they must ascend.")
    try:
        return demographic_groups(cohort, age_bins)
    except EvaluationError as error:
        notes.append(f"There are no figures by sex and age. {error}")
        return {}


def figures_by_group(
    real: Array,
    synthetic: Array,
    labels: GroupLabels,
    *,
    smallest: int = SMALLEST,
    confidence: float = 0.95,
    resamples: int = 100,
    seed: int = 0,
) -> GroupedFigures:
    """Return the figures of features (n, d) that `check_features` returned, by one attribute.

    Args:
        real: features (n_real, d).
        synthetic: features (n_synthetic, d).
        labels: n_real and n_synthetic.
        smallest: fewest real subjects, and synthetic images, of a group whose figures are given.
        confidence: coverage of each interval; of many differences some are beyond 0 by chance.
        resamples: of the intervals over subjects, 100 for 0; fewer of the others in large groups, and none for 0.
        seed: of all draws.

    Raises:
        EvaluationError: labels that do not fit the features.
    """
    if (len(labels.real), len(labels.synthetic)) != (len(real), len(synthetic)):
        raise EvaluationError(
            f"{len(labels.real)} and {len(labels.synthetic)} groups for {len(real)} and {len(synthetic)} images by "
            f"{labels.attribute}; give one an image."
        )
    names = list(dict.fromkeys(name for name in [*labels.real, *labels.synthetic] if name is not None))
    counts = {name: (list(labels.real).count(name), list(labels.synthetic).count(name)) for name in names}
    notes, large, small = [], [], []
    for name in names:
        held = len({p for p, group in zip(labels.subjects, labels.real, strict=True) if group == name})
        if min(held, counts[name][1]) >= smallest:
            large.append(name)
        else:
            small.append(f"{name} ({held} and {counts[name][1]})")
    if small:
        more = f" and {len(small) - LISTED} more" if len(small) > LISTED else ""
        notes.append(
            f"{labels.attribute}: no figures of groups with fewer than {smallest} real subjects or synthetic images: "
            f"{', '.join(small[:LISTED])}{more}"
        )
    unknown = list(labels.real).count(None), list(labels.synthetic).count(None)
    if any(unknown):
        notes.append(f"{labels.attribute}: {unknown[0]} real and {unknown[1]} synthetic images are of no known group")
    if not large:
        return GroupedFigures(labels.attribute, counts, None, None, {}, (0, 0), tuple(notes))
    draw = np.random.default_rng(seed)
    kept = []
    for groups in (labels.real, labels.synthetic):
        by_name = {name: np.array([i for i, group in enumerate(groups) if group == name]) for name in large}
        if sum(map(len, by_name.values())) > MOST_IMAGES:
            # Group by group: drawn from all, few would be left of a small one.
            most = MOST_IMAGES // len(large)
            by_name = {name: draw.permutation(places)[:most] for name, places in by_name.items()}
            notes.append(f"{labels.attribute}: distances by group are of at most {most} images each, drawn at random")
        kept.append(np.sort(np.concatenate(list(by_name.values()))))
    a, b = real[kept[0]], synthetic[kept[1]]
    groups_a, groups_b = [labels.real[i] for i in kept[0]], [labels.synthetic[i] for i in kept[1]]
    people: list[Hashable] = [("real", labels.subjects[i]) for i in kept[0]]
    people += [("synthetic", int(i)) for i in kept[1]]
    settings: dict[str, Any] = {"confidence": confidence, "seed": seed}
    known = {person: code for code, person in enumerate(dict.fromkeys(people[: len(a)]))}
    codes = np.array([known[person] for person in people[: len(a)]])

    def over_subjects(products: Grams) -> GroupFigures:
        # Images of one person are alike. Their pairs would make the real set look closer than it is, and more so in a
        # draw that has the person twice: they are left out, as an image's pair with itself always is.
        products[0][codes[:, None] == codes] = 0.0

        def distance(weights: Array) -> float:
            return _distance(products, codes, weights[: len(a)], weights[len(a) :])

        found = figure_by_group(
            distance, [*groups_a, *groups_b], people, smallest=smallest, resamples=resamples or 100, **settings
        )
        return _of_real_subjects(found, {name: len(set(codes[np.array(groups_a) == name])) for name in large})

    mmd = None
    try:
        mmd = over_subjects(gaussian_grams(a, b, choose_bandwidth(real, None)))
    except EvaluationError as error:
        notes.append(f"{labels.attribute}: no Gaussian MMD. {error}")
    parts, sizes = _equal_figures(a, b, groups_a, groups_b, large, resamples, settings)
    return GroupedFigures(labels.attribute, counts, over_subjects(grams(a, b)), mmd, parts, sizes, tuple(notes))


def _distance(products: Grams, codes: npt.NDArray[np.intp], weights_a: Array, weights_b: Array) -> float:
    """Return the unbiased squared MMD of weighted images; NaN where fewer than two people or images of a set are left.

    Args:
        products: of real images, with 0 for pairs of one person; of synthetic ones; and across.
        codes: whose image each real one is, from 0.
        weights_a: of real images.
        weights_b: of synthetic ones.
    """
    i, j = np.flatnonzero(weights_a), np.flatnonzero(weights_b)
    if len(np.unique(codes[i])) < 2 or len(j) < 2:
        return float("nan")
    within_a, within_b, across = products
    a, b = weights_a[i], weights_b[j]
    others = a.sum() ** 2 - (np.bincount(codes[i], a) ** 2).sum()
    within = a @ within_a[np.ix_(i, i)] @ a / others
    small = within_b[np.ix_(j, j)]
    within += (b @ small @ b - b**2 @ np.diag(small)) / (b.sum() ** 2 - (b**2).sum())
    return float(within - 2.0 * (a @ across[np.ix_(i, j)] @ b) / (a.sum() * b.sum()))


def _of_real_subjects(found: GroupFigures, subjects: Mapping[str, int]) -> GroupFigures:
    """Return the figures with the real subjects as their n, not these and the synthetic images."""
    return dataclasses.replace(
        found,
        groups={name: one._replace(n=subjects[name]) for name, one in found.groups.items()},
        differences={(a, b): one._replace(n=subjects[a] + subjects[b]) for (a, b), one in found.differences.items()},
        subjects={name: subjects.get(name, count) for name, count in found.subjects.items()},
    )


def _equal_figures(
    a: Array,
    b: Array,
    groups_a: Sequence[str | None],
    groups_b: Sequence[str | None],
    large: Sequence[str],
    resamples: int,
    settings: dict[str, Any],
) -> tuple[dict[str, PartFigures], tuple[int, int]]:
    """Return the figures of equally many images of every group, and how many these are."""
    chosen = []
    for features, groups in ((a, groups_a), (b, groups_b)):
        if len(large) > 1:
            chosen.append(equal_parts(groups, smallest=2, seed=settings["seed"]))
        else:
            chosen.append({large[0]: np.arange(len(features))})
    found = {}
    for name in [name for name in chosen[0] if name in chosen[1]]:
        first, second = a[chosen[0][name]], b[chosen[1][name]]
        few = most_resamples(resamples, min(len(first), len(second)))
        interval = frechet_interval(first, second, resamples=few, **settings) if few else None
        manifold = spans = None
        try:
            manifold = manifold_figures(first, second)
            spans = manifold_intervals(first, second, resamples=few, **settings) if few else None
        except EvaluationError:
            pass  # too few for halves: the figures stand without intervals
        found[name] = PartFigures(frechet_of_checked(first, second), interval, manifold, spans)
    sizes = tuple(len(next(iter(part.values()))) for part in chosen)
    return found, (sizes[0], sizes[1])
