"""Parts of a cohort that share no subject, or, where subjects are unknown, as few neighbouring slices as can be."""

from __future__ import annotations

import re
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


def assign(
    records: Sequence[Record], classes: Sequence[object], fractions: Mapping[str, float], seed: int, block: int
) -> tuple[dict[str, list[int]], str]:
    """Return the indices of each part, in order, and the strategy in words.

    With subjects, whole subjects are dealt out in random order. Without, the file numbers follow the slices' order, so
    a random split would put neighbours on both sides and one long block would be another distribution: short blocks of
    neighbours are dealt out along the order. Either way each goes to the part that lags most behind its share of the
    class and of the whole.

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
        groups = _subject_groups(records, classes)
        groups = [groups[i] for i in rng.permutation(len(groups))]
        people = len(groups)
        strategy = f"by subject: {people} subjects, none in two parts"
    else:
        groups = _block_groups(records, classes, min(fractions.values()), block)
        strategy = (
            f"by interleaved blocks of at most {block} neighbouring files within a class; there is no subject column, "
            "so slices of one subject may still be in two parts"
        )
    parts = _deal(groups, fractions, rng, 0.0 if by_subject else 0.5)
    empty = [name for name, found in parts.items() if not found]
    if empty:
        what = f"{len(groups)} subjects" if by_subject else f"{len(records)} images"
        raise DataError(
            f"{what} are too few: nothing is left for {', '.join(empty)}. "
            "Use fewer parts, larger fractions for the small ones, or a larger cohort."
        )
    return {name: sorted(found) for name, found in parts.items()}, strategy


def _subject_groups(records: Sequence[Record], classes: Sequence[object]) -> list[tuple[object, list[int]]]:
    members: dict[object, list[int]] = {}
    for index, record in enumerate(records):
        members.setdefault(record.subject if record.subject is not None else (record.key,), []).append(index)
    groups = []
    for indices in members.values():
        own = [classes[i] for i in indices]
        groups.append((max(own, key=own.count), indices))
    return groups


def _block_groups(
    records: Sequence[Record], classes: Sequence[object], smallest: float, block: int
) -> list[tuple[object, list[int]]]:
    members: dict[object, list[int]] = {}
    for index in sorted(range(len(records)), key=lambda i: natural_key(records[i].key)):
        members.setdefault(classes[index], []).append(index)
    groups = []
    for name, indices in members.items():
        # A rare class gets shorter blocks, so that the smallest part has some of it too.
        length = max(1, min(block, int(len(indices) * smallest)))
        groups += [(name, indices[start : start + length]) for start in range(0, len(indices), length)]
    return groups


def _deal(
    groups: Sequence[tuple[object, list[int]]], fractions: Mapping[str, float], rng: np.random.Generator, jitter: float
) -> dict[str, list[int]]:
    names, shares = list(fractions), np.array(list(fractions.values()))
    parts: dict[str, list[int]] = {name: [] for name in names}
    total = np.zeros(len(names))
    of_class: dict[object, np.ndarray] = {}
    for name, indices in groups:
        own = of_class.setdefault(name, np.zeros(len(names)))
        count = len(indices)
        lag = shares * (own.sum() + count) - own + shares * (total.sum() + count) - total
        chosen = int(np.argmax(lag + jitter * count * rng.random(len(names))))
        parts[names[chosen]] += indices
        own[chosen] += count
        total[chosen] += count
    return parts
