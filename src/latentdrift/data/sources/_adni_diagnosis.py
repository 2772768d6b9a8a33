"""ADNI's clinical diagnoses by visit, from DXSUM or ADNIMERGE."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from latentdrift.data.scan import Refusal
from latentdrift.data.sources._files import find_near
from latentdrift.data.sources._tables import MISSING, Cells, Table, day, read_table
from latentdrift.errors import DataError

_ROSTER = re.compile(r"(?:\d{3}_S_)?0*(\d{1,5})", re.ASCII)

WORDS = {
    "CN": "CN", "NL": "CN", "Normal": "CN", "MCI": "MCI", "AD": "AD", "Dementia": "AD",
    "NL to MCI": "MCI", "MCI to Dementia": "AD", "NL to Dementia": "AD", "MCI to NL": "CN", "Dementia to MCI": "MCI",
}  # fmt: skip
"""How the diagnosis or the last change of it is written."""

STATES = {"1": "CN", "2": "MCI", "3": "AD"}
"""Codes of DIAGNOSIS (ADNI3) and DXCURREN (ADNI1)."""

CHANGES = {"1": "CN", "7": "CN", "9": "CN", "2": "MCI", "4": "MCI", "8": "MCI", "3": "AD", "5": "AD", "6": "AD"}
"""Codes of DXCHANGE (ADNI GO and 2): 1 to 3 stable, 4 to 6 conversions, 7 to 9 reversions; the state after it."""

_COLUMNS: tuple[tuple[str, dict[str, str]], ...] = (
    ("DIAGNOSIS", STATES),
    ("DXCHANGE", CHANGES),
    ("DXCURREN", STATES),
    ("DX", {}),
)


@dataclass(frozen=True)
class Diagnoses:
    """Dated diagnoses by roster number (the last part of a subject's name), and the table they are from."""

    name: str
    visits: dict[int, list[tuple[date, str]]]

    def at(self, roster: int, when: date, max_days: int) -> str:
        """Return the diagnosis nearest in time, the earlier of two as near.

        Raises:
            DataError: none within `max_days`.
        """
        visits = self.visits.get(roster)
        if not visits:
            raise DataError(f"{self.name} has no dated diagnosis of the subject")
        nearest, diagnosis = min(visits, key=lambda visit: (abs((visit[0] - when).days), visit[0]))
        distance = abs((nearest - when).days)
        if distance > max_days:
            raise DataError(f"the nearest diagnosis in {self.name} is {distance} days from the scan, over {max_days}")
        return diagnosis


def find_diagnoses(root: Path, given: Path | None, refused: list[Refusal]) -> Diagnoses:
    """Read DXSUM, or where that is not there ADNIMERGE, which is made from it and no longer kept up.

    Raises:
        DataError: neither is there, or the table has no diagnoses.
    """
    if given is not None:
        return read_diagnoses(read_table(given), refused)
    for part in ("DXSUM", "ADNIMERGE"):
        found = find_near(root, re.compile(rf".*{part}.*\.csv(\.gz)?", re.IGNORECASE).fullmatch)
        if len(found) > 1:
            raise DataError(f"{root} holds {len(found)} tables of {part} ({', '.join(found)}). Keep one, or name it.")
        if found:
            return read_diagnoses(read_table(root / found[0]), refused)
    raise DataError(f"{root} holds neither DXSUM nor ADNIMERGE as CSV. Give one as --diagnoses, or use the baseline's.")


def read_diagnoses(table: Table, refused: list[Refusal]) -> Diagnoses:
    """Return the dated diagnoses of a table; rows without date or diagnosis say nothing and are passed over.

    Raises:
        DataError: the table has no column of subjects, dates or diagnoses.
    """
    refused += table.refused
    subject = table.index("PTID", "RID")
    dates = [column for name in ("EXAMDATE", "USERDATE") if (column := table.find(name)) is not None]
    if not dates:
        table.index("EXAMDATE")
    columns = [(column, codes) for name, codes in _COLUMNS if (column := table.find(name)) is not None]
    if not columns:
        table.index(*(name for name, _ in _COLUMNS))

    def visit(cells: Cells) -> tuple[int, date, str] | None:
        when = next((cells[column] for column in dates if cells[column] not in MISSING), None)
        written = next(((cells[c], codes) for c, codes in columns if cells[c] not in (*MISSING, "-4", "-1")), None)
        if when is None or written is None:
            return None
        roster = _ROSTER.fullmatch(cells[subject])
        word, codes = written
        diagnosis = codes.get(word.removesuffix(".0"), WORDS.get(word))
        if roster is None or diagnosis is None:
            raise DataError(f"subject {cells[subject]!r:.40} with the diagnosis {word!r:.40} is not ADNI's")
        return int(roster[1]), day(when, "the date of the examination"), diagnosis

    visits: dict[int, list[tuple[date, str]]] = {}
    for _, (roster, when, diagnosis) in table.each(visit, refused):
        visits.setdefault(roster, []).append((when, diagnosis))
    return Diagnoses(table.path.name, visits)
