"""`stage=MildDemented age=74` on the command line → attributes, captions of a model's template."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from latentdrift.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    from latentdrift.models import ModelCard

Attributes = dict[str, str | float]


def parse_attributes(words: Sequence[str], card: ModelCard | None, flag: str) -> Attributes:
    """Return the attributes that words such as "stage=MildDemented" name.

    Raises:
        ConfigurationError: a word is no NAME=VALUE.
        UnknownNameError: the model was not trained with that attribute or that value.
    """
    found: Attributes = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not equals or not name or not text:
            raise ConfigurationError(
                f"{flag} {word!r} is not understood; write NAME=VALUE, such as stage=MildDemented."
            )
        value: str | float = text
        if card is not None:
            if name not in card.attributes:
                raise UnknownNameError("attribute of this model", name, card.attributes)
            value = known_value(name, text, list(card.attributes[name]))
        found[name] = value
    return found


def known_value(name: str, text: str, values: list[str | float]) -> str | float:
    """Return the attribute's value that `text` names; any number where the model saw numbers, any text if free."""
    for value in values:
        if str(value) == text:
            return value
    if not values:
        return text
    if all(isinstance(value, int | float) for value in values):
        try:
            number = float(text)
        except ValueError:
            raise ConfigurationError(f"{name} is a number in this model; {text!r} is none.") from None
        if not math.isfinite(number):
            raise ConfigurationError(f"{name} is {text}; give a number.")
        return int(number) if number.is_integer() else number
    raise UnknownNameError(f"value of {name}", text, [str(value) for value in values])


def all_combinations(card: ModelCard, fixed: Attributes, required: Sequence[str] | None = None) -> list[Attributes]:
    """Return every combination of the attributes' values that agrees with `fixed`; numbers by their middle.

    Attributes that are not `required` (all where None) are left out unless `fixed` names them.

    Raises:
        ConfigurationError: an attribute was free text in training, and no value is given.
    """
    columns = []
    for name, values in card.attributes.items():
        if name in fixed:
            columns.append([(name, fixed[name])])
        elif required is not None and name not in required:
            continue
        elif not values:
            raise ConfigurationError(f"{name} was another text in every image: give {name}=TEXT, or --prompt.")
        elif all(isinstance(value, int | float) for value in values):
            columns.append([(name, sorted(values, key=float)[len(values) // 2])])
        else:
            columns.append([(name, value) for value in values])
    return [dict(combination) for combination in itertools.product(*columns)]


def require_card(card: ModelCard | None, model: str, instead: str) -> ModelCard:
    """Return the card, or raise ConfigurationError telling what to give instead."""
    if card is None:
        raise ConfigurationError(
            f"The model {model!r} does not say which attributes it was trained with (there is no latentdrift.json in "
            f"it): give {instead}."
        )
    return card
