"""Parts of a cohort that share no subject, or, where subjects are unknown, as few neighbouring slices as can be."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from latentdrift.data.records import Record
from latentdrift.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    from latentdrift.data.cohort import Cohort

DEFAULT_FRACTIONS: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}


class Split(dict[str, "Cohort"]):
    """Parts by name. `strategy` says in words how they were separated, for reports."""

    def __init__(self, parts: Mapping[str, Cohort], strategy: str) -> None:
        super().__init__(parts)
        self.strategy = strategy


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Return a sort key under which "slice10" follows "slice9"."""
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def strata(records: Sequence[Record], names: Sequence[str], bins: int = 4) -> list[tuple[object, ...]]:
    """Return what several attributes are stratified by, a tuple a record: words as they are, numbers by quantile.

    `assign` balances each attribute by itself: their combinations would be too rare to be in every part.

    Args:
        records: the cohort.
        names: attributes; a record that lacks one counts as a class of its own there.
        bins: intervals of about equal numbers of records, for an attribute with more numbers than that.
    """
    columns: list[list[object]] = []
    for name in names:
        values = [record.attributes.get(name) for record in records]
        numbers = {value for value in values if isinstance(value, int | float)}
        if len(numbers) <= bins or any(isinstance(value, str) for value in values):
            columns.append(list(values))
            continue
        known = [value for value in values if isinstance(value, int | float)]
        edges = np.quantile(known, np.arange(1, bins) / bins)
        columns.append(
            [int(np.searchsorted(edges, v, side="right")) if isinstance(v, int | float) else None for v in values]
        )
    return list(zip(*columns, strict=True))


def assign(
    records: Sequence[Record], classes: Sequence[object], fractions: Mapping[str, float], seed: int, block: int
) -> tuple[dict[str, list[int]], str]:
    """Return the indices of each part, in order, and the strategy in words.

    With subjects, whole subjects are dealt out in random order. Without, the file numbers follow the slices' order, so
    a random split would put neighbours on both sides and one long block would be another distribution: short blocks of
    neighbours are dealt out along the order. Either way each goes to the part that lags most behind its share of the
    class and of the whole; a subject whose images are of several classes counts for each of them.

    Args:
        records: the cohort.
        classes: one a record; a tuple is several, of several attributes, each to be in every part in proportion.
        fractions: share of each part.
        seed: decides the order of subjects, and between parts that lag alike.
        block: most neighbouring files in a block.

    Raises:
        ConfigurationError: fractions that do not add up to 1, or a block below 1.
        DataError: too few images or subjects to give every part one.
    """
    if (
        not fractions
        or any(not 0 < share <= 1 for share in fractions.values())
        or abs(sum(fractions.values()) - 1) > 1e-6
    ):
        raise ConfigurationError(f"Fractions are above 0 and add up to 1; these do not: {dict(fractions)}.")
    if block < 1:
        raise ConfigurationError(f"A block holds at least 1 file, not {block}.")
    rng = np.random.default_rng(seed)
    by_subject = any(record.subject is not None for record in records)
    if by_subject:
        groups = _subject_groups(records)
        groups = [groups[i] for i in rng.permutation(len(groups))]
        people = len(groups)
        strategy = f"by subject: {people} subjects, none in two parts"
    else:
        groups = _block_groups(records, classes, min(fractions.values()), block)
        strategy = (
            f"by interleaved blocks of at most {block} neighbouring files within a class; there is no subject column, "
            "so slices of one subject may still be in two parts"
        )
    parts = _deal(groups, _labels(classes), fractions, rng, 0.0 if by_subject else 0.5)
    empty = [name for name, found in parts.items() if not found]
    if empty:
        what = f"{len(groups)} subjects" if by_subject else f"{len(records)} images"
        raise DataError(
            f"{what} are too few: nothing is left for {', '.join(empty)}. "
            "Use fewer parts, larger fractions for the small ones, or a larger cohort."
        )
    return {name: sorted(found) for name, found in parts.items()}, strategy


def _subject_groups(records: Sequence[Record]) -> list[list[int]]:
    members: dict[object, list[int]] = {}
    for index, record in enumerate(records):
        members.setdefault(record.subject if record.subject is not None else (record.key,), []).append(index)
    return list(members.values())


def _block_groups(records: Sequence[Record], classes: Sequence[object], smallest: float, block: int) -> list[list[int]]:
    members: dict[object, list[int]] = {}
    for index in sorted(range(len(records)), key=lambda i: natural_key(records[i].key)):
        members.setdefault(classes[index], []).append(index)
    groups = []
    for indices in members.values():
        # A rare class gets shorter blocks, so that the smallest part has some of it too.
        length = max(1, min(block, int(len(indices) * smallest)))
        groups += [indices[start : start + length] for start in range(0, len(indices), length)]
    return groups


def _labels(classes: Sequence[object]) -> list[list[object]]:
    """Return the labels of each record: its class, or one for each attribute, told apart by position."""
    return [list(enumerate(found)) if isinstance(found, tuple) else [found] for found in classes]


def _deal(
    groups: Sequence[list[int]],
    labels: Sequence[list[object]],
    fractions: Mapping[str, float],
    rng: np.random.Generator,
    jitter: float,
) -> dict[str, list[int]]:
    """Deal groups out, each to the part that lags most behind: iterative stratification (Sechidis et al., 2011)."""
    names, shares = list(fractions), np.array(list(fractions.values()))
    parts: dict[str, list[int]] = {name: [] for name in names}
    total = np.zeros(len(names))
    of_class: dict[object, np.ndarray] = {}
    for indices in groups:
        counts = Counter(label for index in indices for label in labels[index])
        owned = {label: of_class.setdefault(label, np.zeros(len(names))) for label in counts}
        lag = np.zeros(len(names))
        for label, count in counts.items():
            lag += shares * (owned[label].sum() + count) - owned[label]
        size = len(indices)
        # The whole weighs as much as one attribute, however many there are.
        lag = lag + shares * (total.sum() + size) - total
        chosen = int(np.argmax(lag + jitter * size * rng.random(len(names))))
        parts[names[chosen]] += indices
        for label, count in counts.items():
            owned[label][chosen] += count
        total[chosen] += size
    return parts
