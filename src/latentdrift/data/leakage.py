"""Leakage between parts of a cohort: subjects in two parts, files that are the same, images that are nearly so."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.fingerprint import (
    HASH_BITS,
    Fingerprints,
    Progress,
    pairs_above,
    pairs_within,
    row_products,
    take_fingerprints,
    unit_rows,
)
from latentdrift.data.leakage_report import LeakageReport, NearPair, Overlap
from latentdrift.data.records import Record
from latentdrift.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from latentdrift.data.cohort import Cohort

RADIUS = 10
CORRELATION = 0.98
SIMILARITY = 0.98
LISTED = 10_000
MOST_PAIRS = 5_000_000
"""More near pairs than this say that the criterion is too loose, and would fill the memory."""

__all__ = ["Criterion", "LeakageReport", "NearPair", "Overlap", "find_leakage", "near_duplicate_groups"]

Embed = Callable[[Sequence[Record]], NDArray[np.floating]]
"""Records → feature vectors (N, d)."""


@dataclass(frozen=True)
class _Looks:
    """What images are compared by: fingerprints, and features where there are any."""

    prints: Fingerprints
    features: NDArray[np.float32] | None

    def part(self, indices: slice | NDArray[np.intp]) -> _Looks:
        p = self.prints
        chosen = range(len(p))[indices] if isinstance(indices, slice) else indices
        return _Looks(
            Fingerprints(
                tuple(p.digests[i] for i in chosen), p.hashes[indices], p.thumbnails[indices], p.blank[indices]
            ),
            None if self.features is None else self.features[indices],
        )


@dataclass(frozen=True)
class Criterion:
    """When two images count as nearly the same.

    Args:
        radius: most bits of 64 in which perceptual hashes differ, or None to compare the thumbnails of all pairs.
        correlation: least correlation of the 64 x 64 thumbnails; -1 does not ask for it. Adjacent slices of one brain,
            and repeated scans, correlate above 0.98; those of two people at the same height hardly above 0.95.
        similarity: least cosine of features, where features are given: they replace hash and thumbnails.
    """

    radius: int | None = RADIUS
    correlation: float = CORRELATION
    similarity: float = SIMILARITY

    def __post_init__(self) -> None:
        if self.radius is not None and not 0 <= self.radius <= HASH_BITS:
            raise ConfigurationError(f"The radius is {self.radius} bits; it lies between 0 and {HASH_BITS}.")
        for name in ("correlation", "similarity"):
            if not -1 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"The {name} is {getattr(self, name)}; it lies between -1 and 1.")
        if self.radius is None and self.correlation <= 0:
            raise ConfigurationError("Without a radius, the correlation must be above 0: every pair would be near.")

    def words(self, features: bool) -> str:
        """Return the criterion in words."""
        if features:
            return f"cosine of features, centred, of at least {self.similarity:g}"
        thumbnails = f"correlation of 64 x 64 thumbnails of at least {self.correlation:g}"
        if self.radius is None:
            return thumbnails
        return f"perceptual hashes of 64 bits that differ in at most {self.radius}" + (
            f", and {thumbnails}" if self.correlation > -1 else ""
        )


def find_leakage(
    parts: Mapping[str, Cohort],
    criterion: Criterion | None = None,
    *,
    embed: Embed | None = None,
    listed: int = LISTED,
    progress: Progress | None = None,
) -> LeakageReport:
    """Compare every two parts: subjects, files byte by byte, and looks.

    Args:
        parts: cohorts by name, two at least; the first of two is the one that later ones leak into.
        criterion: when two images are nearly the same.
        embed: features to compare instead of the looks, of all records in one call.
        listed: most pairs to list for two parts, the closest ones; all are counted.
        progress: called with images read, and images in all.

    Raises:
        ConfigurationError: fewer than two parts.
        DataError: an image cannot be read; features that cannot be.
    """
    if len(parts) < 2:
        raise ConfigurationError(f"Leakage is between two parts at least; given: {', '.join(parts) or 'none'}.")
    criterion = criterion or Criterion()
    records = [record for cohort in parts.values() for record in cohort]
    looks = _looks(records, embed, progress)
    ends = np.cumsum([0, *(len(cohort) for cohort in parts.values())])
    places = {name: slice(int(a), int(b)) for name, a, b in zip(parts, ends, ends[1:], strict=False)}
    own = {name: looks.part(place) for name, place in places.items()}
    blank = {name: tuple(parts[name][int(i)].key for i in np.flatnonzero(own[name].prints.blank)) for name in parts}
    overlaps = tuple(
        _overlap((a, b), (parts[a], parts[b]), (own[a], own[b]), criterion, listed)
        for a, b in itertools.combinations(parts, 2)
    )
    return LeakageReport(overlaps, blank, criterion.words(embed is not None))


def near_duplicate_groups(
    cohort: Cohort,
    criterion: Criterion | None = None,
    *,
    embed: Embed | None = None,
    progress: Progress | None = None,
) -> list[int]:
    """Return the number of each record's group: records that a chain of near-duplicates connects have the same.

    Where subjects are not known, such groups can stand for them: a split by group has no near-duplicates across. Slices
    of a volume connect to their neighbours, so that a group is a volume or a subject. Two subjects that look alike
    fall into one group, which costs nothing but freedom; a subject can be in two groups, so that it proves nothing.

    Args:
        cohort: images of one folder.
        criterion: when two images are nearly the same.
        embed: features to compare instead of the looks.
        progress: called with images read, and images in all.

    Raises:
        DataError: an image cannot be read; features that cannot be.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    looks = _looks(list(cohort), embed, progress)
    rows, columns, _ = _near(looks, looks, criterion or Criterion())
    links = coo_array((np.ones(len(rows), dtype=bool), (rows, columns)), shape=(len(cohort), len(cohort)))
    _, numbers = connected_components(links, directed=False)
    return [int(number) for number in numbers]


def _looks(records: Sequence[Record], embed: Embed | None, progress: Progress | None) -> _Looks:
    prints = take_fingerprints(records, progress=progress)
    features = None if embed is None else unit_rows(embed(records), [record.key for record in records])
    return _Looks(prints, features)


def _overlap(
    names: tuple[str, str],
    cohorts: tuple[Cohort, Cohort],
    looks: tuple[_Looks, _Looks],
    criterion: Criterion,
    listed: int,
) -> Overlap:
    people = [{record.subject for record in cohort if record.subject is not None} for cohort in cohorts]
    shared = people[0] & people[1]
    rows, columns, similarity = _near(*looks, criterion)
    first, second = looks[0].prints, looks[1].prints
    identical = np.array(
        [first.digests[i] == second.digests[j] for i, j in zip(rows, columns, strict=True)], dtype=bool
    )
    distance = np.rint((HASH_BITS - row_products(first.hashes, rows, second.hashes, columns)) / 2).astype(int)
    correlation = row_products(first.thumbnails, rows, second.thumbnails, columns)
    closeness = correlation if similarity is None else similarity
    order = np.lexsort((columns, rows, distance, -np.round(closeness, 6), ~identical))[:listed]
    pairs = tuple(
        NearPair(
            cohorts[0][int(rows[k])],
            cohorts[1][int(columns[k])],
            int(distance[k]),
            float(correlation[k]),
            bool(identical[k]),
            None if similarity is None else float(similarity[k]),
        )
        for k in order
    )
    return Overlap(
        *names,
        images=(len(cohorts[0]), len(cohorts[1])),
        subjects=tuple(sorted(shared)),
        subject_images=_counts(cohorts, lambda record: record.subject in shared),
        subjects_unknown=_counts(cohorts, lambda record: record.subject is None),
        identical=int(identical.sum()),
        near=len(rows),
        touched=(len(np.unique(rows)), len(np.unique(columns))),
        pairs=pairs,
    )


def _counts(cohorts: tuple[Cohort, Cohort], wanted: Callable[[Record], bool]) -> tuple[int, int]:
    first, second = (sum(wanted(record) for record in cohort) for cohort in cohorts)
    return first, second


def _near(
    first: _Looks, second: _Looks, criterion: Criterion
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32] | None]:
    """Return the rows of both of all near pairs, the identical files among them, each once, and their similarity."""
    a, b = first.prints, second.prints
    kept = [_same_files(a, b)]
    if first.features is not None and second.features is not None:
        blocks = pairs_above(first.features, second.features, criterion.similarity)
    elif criterion.radius is None:
        blocks = pairs_above(a.thumbnails, b.thumbnails, criterion.correlation)
    else:
        blocks = pairs_within(a.hashes, b.hashes, criterion.radius)
    for rows, columns in blocks:
        seen = ~(a.blank[rows] | b.blank[columns])
        rows, columns = rows[seen], columns[seen]
        if first.features is None and criterion.radius is not None and criterion.correlation > -1:
            close = row_products(a.thumbnails, rows, b.thumbnails, columns) >= criterion.correlation
            rows, columns = rows[close], columns[close]
        kept.append(np.stack([rows, columns], axis=1))
        _refuse_too_many(sum(map(len, kept)))
    pairs = np.unique(np.concatenate(kept), axis=0)
    rows, columns = pairs[:, 0], pairs[:, 1]
    if first.features is None or second.features is None:
        return rows, columns, None
    return rows, columns, row_products(first.features, rows, second.features, columns)


def _same_files(first: Fingerprints, second: Fingerprints) -> NDArray[np.intp]:
    """Return the pairs of identical files, (n, 2)."""
    holders: dict[str, list[int]] = {}
    for index, digest in enumerate(first.digests):
        holders.setdefault(digest, []).append(index)
    _refuse_too_many(sum(len(holders.get(digest, ())) for digest in second.digests))
    pairs = [(i, j) for j, digest in enumerate(second.digests) for i in holders.get(digest, ())]
    return np.array(pairs, dtype=np.intp).reshape(-1, 2)


def _refuse_too_many(count: int) -> None:
    if count > MOST_PAIRS:
        raise DataError(
            f"More than {MOST_PAIRS:,} pairs are nearly the same: the images are all alike by this criterion. Ask for "
            "a higher correlation or a smaller radius, or compare fewer images."
        )
