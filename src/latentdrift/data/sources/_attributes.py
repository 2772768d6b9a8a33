"""Cells of tables that anybody wrote, as attributes: age in years, sex as a letter, numbers as numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping

from latentdrift.data.records import Value
from latentdrift.data.sources._tables import MISSING, age_in_years, sex_of, tidy
from latentdrift.errors import DataError

YEARS = {"year": 1.0, "y": 1.0, "yr": 1.0, "month": 12.0, "mo": 12.0, "week": 365.25 / 7, "day": 365.25}
"""Units of age, in the singular, and how many of them are a year."""

_INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})", re.ASCII)
_DECIMAL = re.compile(r"[+-]?((0|[1-9]\d{0,17})(\.\d{0,18})?|\.\d{1,18})([eE][+-]?\d{1,2})?", re.ASCII)


def is_code(cell: str) -> bool:
    """Tell whether a cell is a bare integer, which may stand for a word."""
    return _INTEGER.fullmatch(cell) is not None


def attribute(name: str, cell: str, units: str = "years") -> Value | None:
    """Return a cell as the attribute `name`, None where it says nothing.

    A column called age (in any capitals) is in `units` and becomes years; one called sex or gender becomes F or M where
    the word is unmistakable. Digits that begin with 0 are a code and stay text.

    Raises:
        DataError: an age that is no number of years from 0 to 120.
    """
    cell = cell.strip()
    if cell in MISSING:
        return None
    lower = name.lower()
    if lower == "age":
        unit = units.strip().lower().rstrip("s")
        factor = YEARS.get(unit, 1.0)
        if factor == 1.0:
            return age_in_years(cell)
        found = age_in_years(cell) if not _DECIMAL.fullmatch(cell) else tidy(float(cell) / factor)
        return None if found is None else age_in_years(str(found))
    if lower in ("sex", "gender"):
        try:
            return sex_of(cell)
        except DataError:
            return cell  # a word of its own, or a code without a key
    if is_code(cell):
        return int(cell)
    return float(cell) if _DECIMAL.fullmatch(cell) else cell


def attributes(cells: Mapping[str, str]) -> dict[str, Value]:
    """Return all cells that say something, as `attribute` does; age and sex under these names.

    Raises:
        DataError: as `attribute`.
    """
    found = {}
    for name, cell in cells.items():
        value = attribute(name, cell)
        if value is not None:
            found[name.lower() if name.lower() in ("age", "sex") else name] = value
    return found
