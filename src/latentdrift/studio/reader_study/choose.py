"""Which images a study shows: as many real as synthetic ones, the classes in equal parts, each subject once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from latentdrift.data import Cohort
from latentdrift.data.records import Record
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

MOST_CLASSES = 9
"""One number key a class."""


@dataclass(frozen=True)
class Chosen:
    """An image of a study and the truth about it."""

    record: Record
    arm: str
    """Which set of synthetic images it is of; empty for a real one."""
    shown: str | None
    """The class it shows, or was to show; None where no diagnosis is asked for."""

    @property
    def synthetic(self) -> bool:
        """Tell whether it is."""
        return bool(self.arm)


def classes_of(cohorts: Sequence[Cohort], attribute: str, wanted: Sequence[str] = ()) -> list[str]:
    """Return the classes asked for: those wanted, or those that all cohorts have.

    Raises:
        UnknownNameError: a cohort without the attribute, or without a class that is wanted.
        ConfigurationError: fewer than two classes, or more than there are number keys.
    """
    known: list[list[str]] = []
    for cohort in cohorts:
        if attribute not in cohort.attribute_names:
            raise UnknownNameError(f"attribute of {cohort.root}", attribute, cohort.attribute_names)
        found = (record.attributes.get(attribute) for record in cohort)
        known.append(sorted({str(value) for value in found if value is not None}))
        for name in wanted:
            if name not in known[-1]:
                raise UnknownNameError(f"{attribute} in {cohort.root} called", name, known[-1])
    classes = list(wanted) or [name for name in known[0] if all(name in others for others in known[1:])]
    if not 2 <= len(classes) <= MOST_CLASSES:
        raise ConfigurationError(
            f"The folders share {len(classes)} values of {attribute}; a diagnosis is one of 2 to {MOST_CLASSES}. Name "
            "them with --classes."
        )
    return classes


def choose(
    real: Cohort,
    arms: Mapping[str, Cohort],
    count: int,
    generator: np.random.Generator,
    *,
    attribute: str | None = None,
    classes: Sequence[str] = (),
) -> list[Chosen]:
    """Return `count` images, half of them real, the synthetic half shared out over the arms; in no order.

    Every class has as many images of each kind, give or take one, so that what an image shows does not tell whether it
    is real. Images of different subjects are preferred.

    Raises:
        ConfigurationError: too few images for the arms and classes.
        DataError: a set has fewer images than are needed of it.
    """
    half = count // 2
    if half < max(1, len(classes)) or count - half < len(arms) * max(1, len(classes)):
        raise ConfigurationError(
            f"--count {count} is too small for {len(arms)} set(s) of synthetic images and {len(classes)} classes."
        )
    found = _of_set(real, "", half, generator, attribute, classes)
    for place, (name, cohort) in enumerate(arms.items()):
        share = _share(count - half, len(arms), place)
        found += _of_set(cohort, name, share, generator, attribute, classes)
    return found


def _of_set(
    cohort: Cohort,
    arm: str,
    count: int,
    generator: np.random.Generator,
    attribute: str | None,
    classes: Sequence[str],
) -> list[Chosen]:
    order = [cohort[int(index)] for index in generator.permutation(len(cohort))]
    if attribute is None:
        return [Chosen(record, arm, None) for record in _distinct(cohort, order, count, "")]
    found: list[Chosen] = []
    for place, name in enumerate(classes):
        of_class = [record for record in order if str(record.attributes.get(attribute)) == name]
        taken = _distinct(cohort, of_class, _share(count, len(classes), place), f" with {attribute}={name}")
        found += [Chosen(record, arm, name) for record in taken]
    return found


def _distinct(cohort: Cohort, order: Sequence[Record], count: int, which: str) -> list[Record]:
    """Return the first `count` records, of as many subjects as there are."""
    if len(order) < count:
        raise DataError(f"{cohort.root} has {len(order)} images{which}; {count} are needed. Choose a smaller --count.")
    first: list[Record] = []
    later: list[Record] = []
    seen: set[str] = set()
    for record in order:
        (later if record.subject in seen else first).append(record)
        if record.subject is not None:
            seen.add(record.subject)
    return [*first, *later][:count]


def _share(count: int, parts: int, place: int) -> int:
    return count // parts + (place < count % parts)
