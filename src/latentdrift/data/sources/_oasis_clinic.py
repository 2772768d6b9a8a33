"""OASIS-3's clinical tables: ratings in days from entry, and who the subjects are."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdrift.data.scan import Refusal
from latentdrift.data.sources._files import Folder
from latentdrift.data.sources._tables import (
    MISSING,
    Cells,
    Table,
    age_in_years,
    number,
    read_header,
    read_table,
    sex_of,
)
from latentdrift.errors import ConfigurationError, DataError

DAYS_IN_A_YEAR = 365.25
RATINGS = (0.0, 0.5, 1.0, 2.0, 3.0)
"""Values of the Clinical Dementia Rating (Morris, Neurology 1993)."""

_SUBJECT = re.compile(r"OAS\d{5}", re.ASCII)
_DAY = re.compile(r"_d(\d{1,5})$", re.ASCII)
_NEW, _OLD = "CDRTOT", "ADRC_ADRCCLINICALDATA ID"


class Stages:
    """Names for ranges of the rating.

    Raises:
        ConfigurationError: not written NUMBER=NAME, not rising, or not from 0.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.steps: list[tuple[float, str]] = []
        for text in texts:
            from_text, _, name = text.partition("=")
            try:
                start = float(from_text)
            except ValueError:
                start = -1.0
            if not name or start not in RATINGS:
                raise ConfigurationError(f"{text!r} is no stage; write one such as 0.5=VeryMild.")
            self.steps.append((start, name))
        starts = [start for start, _ in self.steps]
        if starts != sorted(set(starts)) or starts[:1] != [0.0]:
            raise ConfigurationError(f"The stages {', '.join(texts) or 'none'} must rise, and the first must be of 0.")

    def of(self, rating: float) -> str:
        """Return the stage of a rating."""
        return [name for start, name in self.steps if start <= rating][-1]


@dataclass(frozen=True, order=True)
class Rating:
    """A clinical visit: days since entry, Clinical Dementia Rating, and the age then in years where it is said."""

    day: int
    cdr: float
    age: float | None = None


@dataclass(frozen=True)
class Person:
    """Sex (F, M) and age in years at entry, where they are said."""

    sex: str | None
    age_at_entry: float | None


@dataclass(frozen=True)
class Clinic:
    """Visits in the order of their days, and people, by subject."""

    name: str
    visits: dict[str, list[Rating]]
    people: dict[str, Person]

    def nearest(self, subject: str, day: int, max_days: int) -> Rating:
        """Return the rated visit nearest to a day, the earlier of two as near.

        Raises:
            DataError: the subject has no rated visit within `max_days`.
        """
        visits = self.visits.get(subject)
        if not visits:
            raise DataError(f"{self.name} has no rating of {subject}")
        found = min(visits, key=lambda visit: (abs(visit.day - day), visit.day))
        if abs(found.day - day) > max_days:
            raise DataError(f"the nearest rating of {subject} is {abs(found.day - day)} days away, over {max_days}")
        return found


def read_clinic(
    root: Path, names: Sequence[str], clinical: Path | None, demographics: Path | None, refused: list[Refusal]
) -> Clinic:
    """Read the tables that are given, or those found below the root by their columns.

    OASIS3_UDSb4_cdr.csv is preferred to the older ADRC Clinical Data. The age at entry is taken from the demographics,
    else from ADRC's ageAtEntry, else an image's age from the age at the clinical visit.

    Raises:
        DataError: no clinical table, or several alike.
    """
    tables = {name: set(read_header(root / name)) for name in names if re.search(r"\.csv(\.gz)?$", name)}
    folder = Folder(root)
    if clinical is None:
        found = _only(root, [n for n, have in tables.items() if _NEW in have], "OASIS3_UDSb4_cdr.csv")
        found = found or _only(root, [n for n, have in tables.items() if _OLD in have and "cdr" in have], "ADRC data")
        if found is None:
            raise DataError(f"{root} holds neither OASIS3_UDSb4_cdr.csv nor ADRC Clinical Data. Give it as --clinical.")
        clinical = folder.file(found)
    if demographics is None:
        who = [n for n, have in tables.items() if {"AgeatEntry", "GENDER"} <= have]
        found = _only(
            root, who or [n for n, have in tables.items() if {"Subject", "M/F", "YOB"} <= have], "demographics"
        )
        demographics = None if found is None else folder.file(found)
    table = read_table(clinical)
    visits, entered = _ratings(table, refused)
    people = {subject: Person(None, age) for subject, age in entered.items()}
    if demographics is not None:
        for subject, person in _people(read_table(demographics), refused).items():
            age = person.age_at_entry if person.age_at_entry is not None else entered.get(subject)
            people[subject] = Person(person.sex, age)
    return Clinic(table.path.name, {s: sorted(v, key=lambda one: one.day) for s, v in visits.items()}, people)


def _only(root: Path, names: list[str], what: str) -> str | None:
    """Return the one table; where several have its columns, the one named as the distributor names it."""
    named = [name for name in names if name.rpartition("/")[2].removesuffix(".gz") == what]
    names = named or names
    if len(names) > 1:
        raise DataError(f"{root} holds {len(names)} tables such as {what} ({', '.join(names)}). Keep one, or name it.")
    return names[0] if names else None


def _ratings(table: Table, refused: list[Refusal]) -> tuple[dict[str, list[Rating]], dict[str, float]]:
    """Return the visits and, of the older table, the ages at entry."""
    refused += table.refused
    subject, rating = table.index("OASISID", "Subject"), table.index("CDRTOT", "cdr")
    days, session = table.find("days_to_visit"), table.find("OASIS_session_label", _OLD)
    if days is None and session is None:
        table.index("days_to_visit", _OLD)
    age, entry = table.find("age at visit"), table.find("ageAtEntry")
    entered: dict[str, float] = {}

    def visit(cells: Cells) -> tuple[str, Rating] | None:
        who = cells[subject]
        if not _SUBJECT.fullmatch(who):
            raise DataError(f"the subject is {who!r:.40}, not such as OAS30001")
        if entry is not None and (years := age_in_years(cells[entry], "ageAtEntry")) is not None:
            entered[who] = float(number(cells[entry], "ageAtEntry"))
        if cells[rating] in MISSING:
            return None
        cdr = number(cells[rating], "the rating")
        if cdr not in RATINGS:
            raise DataError(f"the rating is {cells[rating]}, not 0, 0.5, 1, 2 or 3")
        written = cells[days] if days is not None else ""
        if not written and session is not None and (match := _DAY.search(cells[session])):
            written = match[1]
        when = number(written, "the day of the visit")
        if when != int(when):
            raise DataError(f"the day of the visit is {written}, not a whole number")
        years = None
        if age is not None and (years := age_in_years(cells[age])) is not None:
            years = number(cells[age], "the age")
        return who, Rating(int(when), cdr, years)

    visits: dict[str, list[Rating]] = {}
    for _, (who, found) in table.each(visit, refused):
        visits.setdefault(who, []).append(found)
    return visits, entered


def _people(table: Table, refused: list[Refusal]) -> dict[str, Person]:
    """Return sex and age at entry; GENDER is 1 for men and 2 for women."""
    refused += table.refused
    subject, sex, entry = table.index("OASISID", "Subject"), table.index("GENDER", "M/F"), table.find("AgeatEntry")

    def person(cells: Cells) -> tuple[str, Person]:
        if not _SUBJECT.fullmatch(cells[subject]):
            raise DataError(f"the subject is {cells[subject]!r:.40}, not such as OAS30001")
        years = None
        if entry is not None and age_in_years(cells[entry], "AgeatEntry") is not None:
            years = number(cells[entry], "AgeatEntry")
        return cells[subject], Person(sex_of(cells[sex], ("1", "2")), years)

    return dict(found for _, found in table.each(person, refused))
