"""CSV tables as distributors write them: read at once, a damaged row refused with its line, the others kept."""

from __future__ import annotations

import csv
import difflib
import gc
import gzip
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import IO, TypeVar

from latentdrift.data.scan import Refusal
from latentdrift.errors import DataError

LONGEST_LINE = 1 << 20
"""Characters; the longest line of a real table has some thousand."""

LARGEST_TABLE = 1 << 28
"""Characters after decompression; MIMIC-CXR's metadata, the longest, has 377,110 lines of some hundred each."""

MOST_COLUMNS, MOST_ROWS, MOST_CELLS = 2_000, 2_000_000, 20_000_000
"""Several times what the real tables have: some hundred columns, 377,110 rows, 5,000,000 cells."""

OLDEST = 120
"""Years; a larger age is a typing error."""

MISSING = frozenset({"", ".", "NA", "N/A", "n/a", "#N/A", "nan", "NaN", "None", "NULL", "null"})
"""Cells that say nothing. `None` is no finding's name in any of the tables read here."""

_NUMBER = re.compile(r"[+-]?(\d{1,12}(\.\d{0,18})?|\.\d{1,18})", re.ASCII)
_ISO_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})(?:[ T].*)?", re.ASCII)
_US_DATE = re.compile(r"(\d{1,2})/(\d{1,2})/(\d{4})", re.ASCII)
_PLAIN_DATE = re.compile(r"(\d{4})(\d{2})(\d{2})", re.ASCII)

Made = TypeVar("Made")
Cells = tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table's rows with their line numbers.

    Attributes:
        path: the file.
        columns: the names in the first line, without surrounding space.
        rows: (line, cells), every row with as many cells as there are columns, cells without surrounding space.
        refused: rows with another number of cells.
    """

    path: Path
    columns: tuple[str, ...]
    rows: list[tuple[int, Cells]] = field(repr=False)
    refused: tuple[Refusal, ...] = ()

    def where(self, line: int) -> str:
        """Return the name of a line, for messages."""
        return f"{self.path.name}, line {line}"

    def find(self, *names: str) -> int | None:
        """Return the position of the first of `names` that is a column, whatever its capitals, or None."""
        folded = [column.casefold() for column in self.columns]
        for name in names:
            if name in self.columns:
                return self.columns.index(name)
            if name.casefold() in folded:
                return folded.index(name.casefold())
        return None

    def index(self, *names: str) -> int:
        """Return the position of the first of `names` that is a column.

        Raises:
            DataError: none is; the message has the columns that are called nearly so.
        """
        found = self.find(*names)
        if found is None:
            close = [c for name in names for c in difflib.get_close_matches(name, self.columns, n=2, cutoff=0.5)]
            hint = f"Is it {' or '.join(map(repr, dict.fromkeys(close)))}?" if close else "Is it another table?"
            have = ", ".join(filter(None, self.columns)) or "none"
            raise DataError(f"{self.path} has no column {' or '.join(map(repr, names))}. {hint} It has: {have:.500}.")
        return found

    def each(self, make: Callable[[Cells], Made | None], refused: list[Refusal]) -> Iterator[tuple[int, Made]]:
        """Yield (line, what `make` returns) for every row; None is left out, a `DataError` refuses the row."""
        # None of the hundred thousands of objects made here is garbage; looking through them takes half of the time.
        collected = gc.isenabled()
        gc.disable()
        try:
            for line, cells in self.rows:
                try:
                    made = make(cells)
                except DataError as error:
                    refused.append(Refusal(self.where(line), str(error)))
                    continue
                if made is not None:
                    yield line, made
        finally:
            if collected:
                gc.enable()


def read_table(path: Path) -> Table:
    """Read a table: comma-separated (tabs where the name ends in .tsv), gzip where it ends in .gz, UTF-8.

    A byte order mark, Windows line ends, a nameless last column and empty lines are nothing special.

    Raises:
        DataError: no such file, not text, not CSV, a column twice, or too long to be such a table.
    """
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    rows: list[tuple[int, Cells]] = []
    refused: list[Refusal] = []
    line = 0
    try:
        with _open(path) as file:
            reader = csv.reader(_lines(path, file), delimiter=delimiter, strict=True)
            columns = [name.strip() for name in next(reader, [])]
            if len(columns) > MOST_COLUMNS:
                raise DataError(f"{path} has {len(columns)} columns in its first line. Is it a table?")
            twice = [name for name, times in Counter(columns).items() if name and times > 1]
            if twice:
                raise DataError(f"{path} has the column {twice[0]!r:.80} twice. Rename or remove one.")
            if not any(columns):
                raise DataError(f"{path} has no names of columns in its first line. Is it empty?")
            width = len(columns)
            for cells in reader:
                line = reader.line_num
                count = len(rows) + len(refused)
                if count > MOST_ROWS or count * width > MOST_CELLS:
                    raise DataError(f"{path} is longer than any table of the data set. Is it a table?")
                if len(cells) != width:
                    if not any(cells):
                        continue
                    if len(cells) < width or any(cells[width:]):
                        reason = (
                            f"it has {len(cells)} cells, the first line {width}; put quotes around text with commas"
                        )
                        refused.append(Refusal(f"{path.name}, line {line}", reason))
                        continue
                    del cells[width:]
                # Tuples of text drop out of the garbage collection, which else takes half of the time.
                rows.append((line, tuple(map(str.strip, cells))))
    except csv.Error as error:
        raise DataError(f"{path}, line {line + 1} or below, is not CSV: {error}. Get the file again.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is a damaged gzip file: {error}. Get the file again.") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error
    return Table(path, tuple(columns), rows, tuple(refused))


def read_header(path: Path) -> tuple[str, ...]:
    """Return the names of the columns of a table, () where the file is no such table."""
    try:
        with _open(path) as file:
            reader = csv.reader(_lines(path, file), delimiter="\t" if ".tsv" in path.suffixes else ",")
            return tuple(name.strip() for name in next(reader, []))
    except (csv.Error, UnicodeDecodeError, EOFError, zlib.error, OSError, DataError):
        return ()


def read_list(path: Path) -> list[str]:
    """Return the lines of a text file that hold something.

    Raises:
        DataError: it cannot be read, or is no text.
    """
    try:
        with _open(path) as file:
            return [text for line in _lines(path, file) if (text := line.strip())]
    except (UnicodeDecodeError, OSError) as error:
        raise DataError(f"{path} cannot be read as text: {error}. Get the file again.") from error


def number(cell: str, what: str) -> float:
    """Return a cell as a finite number; an integer keeps its type's look by `tidy`.

    Raises:
        DataError: it is none.
    """
    if not _NUMBER.fullmatch(cell):
        raise DataError(f"{what} is {cell!r:.80}, not a number")
    return float(cell)


def tidy(value: float) -> int | float:
    """Return a whole number as int, another rounded to two digits (days, in years)."""
    return int(value) if value == int(value) else round(value, 2)


def age_in_years(cell: str, what: str = "the age") -> int | float | None:
    """Return an age in years, None where the cell says nothing.

    Raises:
        DataError: not a number, or not from 0 to 120.
    """
    if cell in MISSING:
        return None
    years = number(cell, what)
    if not 0 <= years <= OLDEST:
        raise DataError(f"{what} is {cell}, not from 0 to {OLDEST} years")
    return tidy(years)


def day(cell: str, what: str) -> date:
    """Return a date written 2011-03-20 (also with a time), 3/20/2011 (month first) or 20110320.

    Raises:
        DataError: it is none of them.
    """
    try:
        if found := _ISO_DATE.fullmatch(cell) or _PLAIN_DATE.fullmatch(cell):
            return date(*map(int, found.groups()))
        if found := _US_DATE.fullmatch(cell):
            month, number_of_day, year = map(int, found.groups())
            return date(year, month, number_of_day)
    except ValueError as error:
        raise DataError(f"{what} is {cell!r:.80}: {error}") from error
    raise DataError(f"{what} is {cell!r:.80}, not a date such as 2011-03-20 or 3/20/2011")


def sex_of(cell: str, codes: Sequence[str] = ()) -> str | None:
    """Return "F" or "M", None where the cell says nothing.

    Args:
        cell: F, M, Female or Male in any capitals, "Unknown", or one of `codes`.
        codes: what stands for male and for female, in this order.

    Raises:
        DataError: anything else.
    """
    if cell in codes:
        return "MF"[codes.index(cell)]
    word = cell.casefold()
    if word in ("f", "female", "m", "male"):
        return word[0].upper()
    if cell in MISSING or word in ("unknown", "x", "u"):
        return None
    raise DataError(f"the sex is {cell!r:.80}, not F or M")


def _open(path: Path) -> IO[str]:
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def _lines(path: Path, file: IO[str]) -> Iterator[str]:
    """Yield the lines, none longer and not more of them than memory bears."""
    total = 0
    while line := file.readline(LONGEST_LINE):
        total += len(line)
        if len(line) >= LONGEST_LINE or total > LARGEST_TABLE:
            raise DataError(f"{path} is longer than any table of the data set. Is it a table?")
        yield line
