"""How many images and subjects a run had of what: for its page and its model's card, without anybody's name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from latentdrift.data import Cohort
from latentdrift.data.records import Value
from latentdrift.data.tables import read_rows
from latentdrift.errors import DataError

SEX, AGE = frozenset({"sex", "gender"}), frozenset({"age", "age_years"})
GROUPS = SEX | AGE
MOST_VALUES, LEAST_IMAGES = 12, 5
"""An attribute is counted where it has at most so many values, each of so many images on average: what has more may be
free text, and name somebody."""


def count_parts(cohort: Cohort, parts: Mapping[str, Cohort]) -> dict[str, dict[str, Any]]:
    """Return for each part the number of images, of subjects (None where they are not known), and images by attribute.

    Counted are the class and other attributes of few values, and sex and age (in decades) also where the captions do
    not use them and `cohort` was opened without.
    """
    told = values_by_image(cohort)
    counted = {}
    for name, part in parts.items():
        subjects = {record.subject for record in part}
        counted[name] = {
            "images": len(part),
            "subjects": None if None in subjects else len(subjects),
            "by": {
                attribute: in_order(Counter(values[record.key] for record in part if record.key in values))
                for attribute, values in told.items()
            },
        }
    return counted


def values_by_image(cohort: Cohort) -> dict[str, dict[str, str]]:
    """Return what is counted: by attribute, the value of each image as text."""
    found: dict[str, dict[str, str]] = {}
    for name in cohort.attribute_names:
        values = {record.key: record.attributes[name] for record in cohort if name in record.attributes}
        few = len(set(values.values())) <= min(MOST_VALUES, len(values) / LEAST_IMAGES)
        if name.lower() in GROUPS or name == cohort.class_attribute() or few:
            found[name] = grouped(name, values)
    for name, values in groups_of_table(cohort).items():
        found.setdefault(name, grouped(name, values))
    return {name: values for name, values in found.items() if values}


def groups_of_table(cohort: Cohort) -> dict[str, dict[str, Value]]:
    """Return sex and age as the cohort's table has them, whether they were asked for or not."""
    try:
        rows, names = read_rows(cohort.root, label=None, text_columns=frozenset())
    except DataError:  # the cohort was made in memory, or its table is gone
        return {}
    wanted = [name for name in names if name.lower() in GROUPS]
    known = {record.key for record in cohort}
    return {
        name: {
            row.file_name: value
            for row in rows
            if row.file_name in known and (value := row.cells.get(name)) is not None
        }
        for name in wanted
    }


def grouped(name: str, values: Mapping[str, Value]) -> dict[str, str]:
    """Return values as text, ages in decades."""
    if name.lower() not in AGE:
        return {key: str(value) for key, value in values.items()}
    return {key: decade(value) for key, value in values.items() if isinstance(value, int | float)}


def decade(age: float) -> str:
    """Return an age as a decade, such as 70 to 79."""
    start = int(age // 10) * 10
    return f"{start} to {start + 9}"


def in_order(counted: Mapping[str, int]) -> dict[str, int]:
    """Return counts in the order of the values, numbers by size."""

    def place(value: str) -> tuple[bool, float, str]:
        start = value.split(" ")[0]
        number = start.lstrip("-").replace(".", "", 1).isdecimal()
        return (not number, float(start) if number else 0.0, value)

    return {value: counted[value] for value in sorted(counted, key=place)}
