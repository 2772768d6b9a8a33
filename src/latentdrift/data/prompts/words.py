"""Values of attributes as words: codes written out, synonyms of classes, several findings at once."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from latentdrift.data.records import CLASS_NAMES, Value

ABBREVIATIONS = {
    "AD": "Alzheimer's disease",
    "CN": "cognitively normal",
    "EMCI": "early mild cognitive impairment",
    "LMCI": "late mild cognitive impairment",
    "MCI": "mild cognitive impairment",
    "SMC": "significant memory concern",
}
SEXES = {"F": "female", "M": "male", "female": "female", "male": "male"}
PERSONS = {"female": "woman", "male": "man"}
SEX_NAMES = ("sex", "gender")
VERBATIM = ("caption", "text", "prompt")
"""Attributes that are prompts already; their words are left alone."""

BARE = (*CLASS_NAMES, "findings", "sex", "gender", "view")
"""Attributes whose value speaks for itself in a default prompt."""


@dataclass(frozen=True)
class Term:
    """How a class is named.

    Attributes:
        words: synonyms that can stand before a noun ("cognitively normal"); the first is the plain one.
        noun: as a thing one has or adds ("a pleural effusion"); the first of the words where None.
        nothing: the class is the absence of any finding.
    """

    words: tuple[str, ...]
    noun: str | None = None
    nothing: bool = False

    @property
    def thing(self) -> str:
        """The noun."""
        return self.noun or self.words[0]


@dataclass(frozen=True)
class Vocabulary:
    """The terms of one attribute's values; found whatever the spelling (NonDemented, "non demented", non_demented)."""

    terms: Mapping[str, Term] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_found", {spelled(code): term for code, term in self.terms.items()})

    def find(self, value: Value) -> Term | None:
        """Return the term of a value, or None."""
        found: dict[str, Term] = self.__dict__["_found"]
        return found.get(spelled(value))

    def words(self, value: Value, wording: int, abbreviations: Mapping[str, str], *, noun: bool = False) -> str:
        """Return a value, or several with "|" between them, as words.

        Args:
            value: as the table says it.
            wording: number of the wording, which decides the synonym: a wording says the same class in the same words.
            abbreviations: codes to write out where the vocabulary does not know the value.
            noun: as a thing, not as what stands before a noun.
        """
        parts = split_value(value)
        found = []
        for part in parts:
            term = self.find(part)
            if term is None:
                found.append(part_words(part, abbreviations))
            else:
                found.append(term.thing if noun else term.words[wording % len(term.words)])
        return joined(found)


def value_words(value: Value, abbreviations: Mapping[str, str] = ABBREVIATIONS) -> str:
    """Return a value as words of a prompt.

    >>> value_words("VeryMildDemented"), value_words("CN"), value_words(74.0), value_words("Effusion|No_Mass")
    ('very mild demented', 'cognitively normal', '74', 'effusion and no mass')
    """
    return joined([part_words(part, abbreviations) for part in split_value(value)])


def split_value(value: Value) -> list[Value]:
    """Return the values in a cell: several findings are written with "|" between them."""
    if not isinstance(value, str):
        return [value]
    return [part.strip() for part in value.split("|") if part.strip()]


def joined(words: Sequence[str]) -> str:
    """Return an enumeration.

    >>> joined(["a"]), joined(["a", "b"]), joined(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def part_words(value: Value, abbreviations: Mapping[str, str]) -> str:
    """Return one value as words: abbreviations written out, names such as MildDemented taken apart."""
    if not isinstance(value, str):
        return f"{value:.6g}" if isinstance(value, float) else str(value)
    if value in abbreviations:
        return abbreviations[value]
    words = re.split(r"[_\s]+|(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", value)
    return " ".join(word if len(word) > 1 and word.isupper() else word.lower() for word in words if word)


def sex_words(value: Value) -> str | None:
    """Return "female" or "male", whatever the spelling, or None for anything else."""
    text = str(value).strip()
    return SEXES.get(text) or SEXES.get(text.lower()) or SEXES.get(text.upper())


def spelled(value: Value) -> str:
    """Return what two spellings of a value have in common: small letters, digits and points."""
    if not isinstance(value, str):
        return f"{value:.6g}"
    return re.sub(r"[^a-z0-9.]+", "", value.lower()) or value
