"""Ages as number, words, decade or bin, and the phrases around them.

A specification is `[FORM-]STYLE`, such as `{age:words}` or `{age:years-bin5}`:

| form | number | words | decade | bin |
|---|---|---|---|---|
| (none) | 74 | seventy-four | seventies | 70 to 79 |
| years | 74 years old | seventy-four years old | in the seventies | 70 to 79 years old |
| year-old | 74-year-old | seventy-four-year-old | seventy-something | 70-to-79-year-old |
| at | at age 74 | at age seventy-four | in the seventies | at age 70 to 79 |

A form alone is in numbers. Ages are whole years completed, as people say them: at 79.6 one is 79, and in the seventies.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from latentdrift.data.records import Value
from latentdrift.errors import ConfigurationError, DataError

STYLES = ("number", "words", "decade", "bin")
FORMS = ("years", "year-old", "at")
BIN_YEARS = 10
OLDEST = 150

_SPEC = re.compile(r"(?:(years|year-old|at)(?:-(number|words|decade|bin(\d*)))?|(number|words|decade|bin(\d*)))")
_SMALL = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("zero", "ten", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_DECADES = ("first decade", "teens", *(f"{ten[:-1]}ies" for ten in _TENS[2:]), "hundreds")


@dataclass(frozen=True)
class AgeSpec:
    """How an age is written: `form` is "" or one of `FORMS`, `style` one of `STYLES`, `width` a bin's years."""

    form: str
    style: str
    width: int = BIN_YEARS

    @classmethod
    def parse(cls, spec: str) -> AgeSpec | None:
        """Return the specification that a text spells, or None where it spells another.

        Raises:
            ConfigurationError: a bin of no years.
        """
        found = _SPEC.fullmatch(spec)
        if found is None:
            return None
        style = found[2] or found[4] or "number"
        width = int(found[3] or found[5] or BIN_YEARS)
        if width < 1:
            raise ConfigurationError(f"The style {spec!r} has bins of {width} years; write at least bin1.")
        return cls(found[1] or "", "bin" if style.startswith("bin") else style, width)

    def write(self, age: Value) -> str:
        """Return the age in words of this form and style.

        Raises:
            DataError: no number from 0 to 150.
        """
        years = whole_years(age)
        if self.style == "decade":
            return self._decade(years)
        text = self._text(years)
        if self.form == "years":
            return f"{text} year{'' if text in ('1', 'one') else 's'} old"
        if self.form == "year-old":
            return f"{text.replace(' ', '-')}-year-old"
        return f"at age {text}" if self.form == "at" else text

    def _text(self, years: int) -> str:
        if self.style == "words":
            return number_words(years)
        if self.style == "bin" and self.width > 1:
            low = years // self.width * self.width
            return f"{low} to {low + self.width - 1}"
        return str(years)

    def _decade(self, years: int) -> str:
        decade = min(years // 10, 10)
        if self.form == "year-old":
            return (
                "under-ten" if not decade else "teenage" if decade == 1 else f"{(*_TENS, 'hundred')[decade]}-something"
            )
        return f"in the {_DECADES[decade]}" if self.form else _DECADES[decade]


def check_style(style: str) -> str:
    """Return a style's name, one of `STYLES` or bin with its years such as "bin5".

    Raises:
        ConfigurationError: another name.
    """
    found = AgeSpec.parse(style)
    if found is None or found.form:
        raise ConfigurationError(f"There is no age style {style!r}. Known: {', '.join(STYLES)}, and bin5, bin20, ...")
    return style


def with_style(spec: str, style: str) -> str:
    """Return a specification that names a form alone (`years`) with a style; any other as it is."""
    return f"{spec}-{style}" if spec in FORMS else spec


def whole_years(age: Value) -> int:
    """Return the completed years of an age.

    Raises:
        DataError: no number from 0 to 150.
    """
    try:
        years = float(age)
    except ValueError:
        years = math.nan
    if not 0 <= years <= OLDEST:
        raise DataError(f"The age {age!r} cannot be written: it is no number of years from 0 to {OLDEST}.")
    return int(years)


def number_words(number: int) -> str:
    """Return a whole number from 0 to 999 in words.

    >>> number_words(74), number_words(102)
    ('seventy-four', 'one hundred and two')
    """
    if not 0 <= number < 1000:
        raise DataError(f"Only numbers from 0 to 999 are written in words, not {number}.")
    if number < 20:
        return _SMALL[number]
    if number < 100:
        return _TENS[number // 10] + (f"-{_SMALL[number % 10]}" if number % 10 else "")
    rest = f" and {number_words(number % 100)}" if number % 100 else ""
    return f"{_SMALL[number // 100]} hundred{rest}"
