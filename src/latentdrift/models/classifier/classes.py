"""Which class a value of an attribute belongs to."""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

from latentdrift.data import Cohort
from latentdrift.data.records import Value
from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.models.classifier.config import ClassifierConfig

MOST_CLASSES = 20
"""Different values above which somebody has to say which are meant."""


@dataclass(frozen=True)
class ClassScheme:
    """An attribute's classes in order: its values, intervals of its numbers, or words that its values hold.

    Args:
        attribute: the attribute.
        classes: K names.
        bins: K - 1 limits of a numeric attribute, ascending; a number equal to a limit is above it.
        separator: what stands between the words of a value; "" where values are compared whole.
    """

    attribute: str
    classes: tuple[Value, ...]
    bins: tuple[float, ...] = ()
    separator: str = ""

    def find(self, value: Value | None) -> int | None:
        """Return the class of a value, or None where it is of none."""
        if value is None:
            return None
        number = as_number(value)
        if self.bins and number is not None:
            return bisect_right(self.bins, number)
        if self.separator and isinstance(value, str):
            held = [i for i, name in enumerate(self.classes) if name in words_of(value, self.separator)]
            return held[0] if len(held) == 1 else None
        return next((i for i, known in enumerate(self.classes) if same_value(known, value)), None)

    def index(self, value: Value) -> int:
        """Return the class of a value.

        Raises:
            UnknownNameError: it is of no class; the message lists them.
        """
        found = self.find(value)
        if found is None:
            raise UnknownNameError(f"class of {self.attribute} in this classifier", str(value), map(str, self.classes))
        return found


def make_scheme(cohort: Cohort, config: ClassifierConfig) -> ClassScheme:
    """Return the classes that the settings ask of a cohort.

    Raises:
        UnknownNameError: no image has the attribute, or one of the classes.
        ConfigurationError: fewer than two classes, too many without being named, or bins that cannot be.
    """
    name = config.attribute
    known = {record.attributes[name] for record in cohort if name in record.attributes}
    if not known:
        raise UnknownNameError("attribute", name, cohort.attribute_names)
    if config.bins:
        check_bins(config, known)
        return ClassScheme(name, bin_names(config.bins), tuple(float(limit) for limit in config.bins))
    if config.contains:
        known = {word for value in known for word in words_of(str(value), config.separator)}
        if not config.classes:
            raise ConfigurationError(f"Say which words in {name!r} are told apart, such as --classes A B.")
    chosen = tuple(known_value(name, text, known) for text in config.classes) or ordered(known)
    if len(set(chosen)) < len(chosen):
        raise ConfigurationError(f"A class of {name!r} is named twice: {', '.join(map(str, chosen))}.")
    if len(chosen) < 2:
        only = ", ".join(map(str, chosen))
        raise ConfigurationError(f"A classifier tells at least two classes apart; of {name!r} there is {only} alone.")
    if len(chosen) > MOST_CLASSES and not config.classes:
        numbers = all(isinstance(value, int | float) for value in known)
        remedy = "cut it with --bins, such as --bins 65 75" if numbers else "name the ones to tell apart with --classes"
        raise ConfigurationError(f"{name!r} has {len(chosen)} different values: {remedy}.")
    return ClassScheme(name, chosen, separator=config.separator if config.contains else "")


def check_bins(config: ClassifierConfig, known: Iterable[Value]) -> None:
    """Raise ConfigurationError unless the bins ascend, stand alone, and the attribute is numbers."""
    words = [value for value in known if not isinstance(value, int | float)]
    if words:
        raise ConfigurationError(f"--bins cut numbers, but {config.attribute!r} has the value {words[0]!r}.")
    limits = config.bins
    if not all(map(math.isfinite, limits)) or any(b <= a for a, b in itertools.pairwise(limits)):
        raise ConfigurationError(f"--bins are {' '.join(f'{x:g}' for x in limits)}; they must ascend.")
    if config.classes or config.contains:
        raise ConfigurationError("--bins make the classes themselves: leave --classes and --contains out.")


def bin_names(limits: tuple[float, ...]) -> tuple[Value, ...]:
    """Return words such as "under 65", "65 to 75", "75 and over"."""
    middle = [f"{a:g} to {b:g}" for a, b in itertools.pairwise(limits)]
    return (f"under {limits[0]:g}", *middle, f"{limits[-1]:g} and over")


def known_value(name: str, text: str, known: Iterable[Value]) -> Value:
    """Return the value that `text` names; UnknownNameError where there is none."""
    values = list(known)
    for value in values:
        if same_value(value, text):
            return value
    raise UnknownNameError(f"value of {name!r}", text, map(str, values))


def same_value(first: Value, second: Value) -> bool:
    """Tell whether two values are the same, read as text or as numbers."""
    if str(first) == str(second):
        return True
    number = as_number(first)
    return number is not None and number == as_number(second)


def as_number(value: Value) -> float | None:
    """Return a finite number, or None."""
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def words_of(value: str, separator: str) -> set[str]:
    """Return the words of a value, without the spaces around them."""
    return {word.strip() for word in value.split(separator)} - {""}


def ordered(values: Iterable[Value]) -> tuple[Value, ...]:
    """Return numbers before words, each in their order."""
    return tuple(sorted(values, key=lambda value: (isinstance(value, str), value)))
