"""A cohort: checked images with subjects, sessions and attributes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import overload

import numpy as np

from latentdrift.data.images import check_image, is_gray
from latentdrift.data.records import CLASS_NAMES, Record, Value, content_hash
from latentdrift.data.splits import DEFAULT_FRACTIONS, Split, assign, strata
from latentdrift.data.tables import Row, read_rows
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

SUBJECT_COLUMNS = ("subject", "subject_id", "patient", "patient_id", "participant_id")
SESSION_COLUMNS = ("session", "session_id", "visit", "follow_up")
MISSING = ("refuse", "drop", "keep")
LISTED = 5
MOST_CLASSES = 20

Wanted = Value | Sequence[Value] | Callable[[Value], bool]


class Cohort(Sequence[Record]):
    """Records in a fixed order. Selecting and splitting give new cohorts; nothing changes in place.

    Args:
        records: at least one, with unique keys.
        root: the folder they come from.
        name: what to call the cohort in reports.
        label: the attribute that splits are stratified by; without it, the first with few distinct words.

    Raises:
        DataError: no record, or a key twice.
    """

    def __init__(self, records: Sequence[Record], root: Path, name: str, label: str | None = None) -> None:
        if not records:
            raise DataError(f"The cohort {name!r} holds no image. Check the folder, the table, or the selection.")
        self._records = tuple(records)
        self.root, self.name, self.label = Path(root), name, label
        key, times = Counter(record.key for record in self._records).most_common(1)[0]
        if times > 1:
            raise DataError(f"The cohort {name!r} holds {key} {times} times. Give every record its own key.")
        self.attribute_names = tuple(dict.fromkeys(a for record in self._records for a in record.attributes))

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        label: str | None = None,
        columns: Sequence[str] | None = None,
        missing: str = "refuse",
    ) -> Cohort:
        """Read the imagefolder convention: metadata.csv or metadata.jsonl with `file_name`, or one folder a class.

        Every file is checked to be there and to have an image's header; pixels are decoded when read. A column called
        subject, subject_id, patient, patient_id or participant_id names the subject; session, session_id, visit or
        follow_up the session. A column is numbers where all its cells are; other text stays as written.

        Args:
            folder: the cohort's folder.
            label: the class attribute: its name for class folders ("label" where None), or a column of the table.
            columns: the attributes to keep, all where None.
            missing: what to do with a record that lacks an attribute: "refuse", "drop" it, or "keep" it without.

        Raises:
            DataError: the folder, the table or an image cannot be used; the message names it.
            UnknownNameError: `label`, `columns` or `missing` is not among the known; the message has close matches.
        """
        root = Path(folder)
        if missing not in MISSING:
            raise UnknownNameError("way to treat missing values", missing, MISSING)
        rows, names = read_rows(root, label=label, text_columns=frozenset(SUBJECT_COLUMNS + SESSION_COLUMNS))
        if not rows:
            raise DataError(f"{root} holds no image: no table names one and no folder below it does.")
        subject = next((name for name in SUBJECT_COLUMNS if name in names), None)
        session = next((name for name in SESSION_COLUMNS if name in names), None)
        attributes = [name for name in names if name not in (subject, session)]
        if columns is not None:
            for name in columns:
                if name not in names:
                    raise UnknownNameError(f"column in {root} called", name, names)
            attributes = [name for name in attributes if name in columns]
        rows = _treat_missing(root, rows, [name for name in (subject, session) if name] + attributes, missing)
        _check_files(root, rows)
        records = []
        for row in rows:
            cells = {name: row.cells[name] for name in attributes}
            records.append(
                Record(
                    image=root / row.file_name,
                    subject=_identifier(row, subject),
                    session=_identifier(row, session),
                    attributes={name: value for name, value in cells.items() if value is not None},
                    key=row.file_name,
                )
            )
        folder_label = (
            names[0] if not any((root / f"metadata{s}").is_file() for s in (".csv", ".jsonl")) and names else None
        )
        return cls(records, root, root.resolve().name, label or folder_label)

    def __len__(self) -> int:
        return len(self._records)

    def __iter__(self) -> Iterator[Record]:
        return iter(self._records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Cohort: ...
    def __getitem__(self, index: int | slice) -> Record | Cohort:
        return self._part(self._records[index]) if isinstance(index, slice) else self._records[index]

    def __repr__(self) -> str:
        return f"Cohort({self.name!r}, {len(self)} images, attributes: {', '.join(self.attribute_names) or 'none'})"

    def values(self, name: str) -> list[Value]:
        """Return one attribute, or "subject" or "session", of every record in order.

        Raises:
            UnknownNameError: no record has it.
            DataError: some records lack it.
        """
        found = [self._value(record, name) for record in self._records]
        kept = [value for value in found if value is not None]
        if not kept:
            raise UnknownNameError("attribute", name, self.attribute_names)
        if len(kept) < len(found):
            first = self._records[found.index(None)].key
            raise DataError(
                f"{len(found) - len(kept)} of {len(found)} images have no {name!r}, first {first}. Fill them in."
            )
        return kept

    def counts(self, name: str) -> dict[Value, int]:
        """Return how many records have each value, in the order of the values."""
        counted = Counter(self.values(name))
        return {value: counted[value] for value in sorted(counted, key=lambda v: (isinstance(v, str), v))}

    def where(self, **wanted: Wanted) -> Cohort:
        """Return the records that match all: a value, one of several, or a function that says yes.

        Raises:
            UnknownNameError: no such attribute, or none of the values occurs.
            DataError: each condition is met by some record, but all by none.
        """
        records = list(self._records)
        for name, want in wanted.items():
            known = {value for value in (self._value(record, name) for record in self._records) if value is not None}
            if not known:
                raise UnknownNameError("attribute", name, self.attribute_names)
            if callable(want):
                accepted = {value for value in known if want(value)}
            else:
                options = [want] if isinstance(want, str | int | float) else list(want)
                for option in options:
                    if option not in known:
                        raise UnknownNameError(f"value of {name!r}", str(option), map(str, known))
                accepted = set(options)
            records = [record for record in records if self._value(record, name) in accepted]
        if not records:
            raise DataError(f"No image of {self.name!r} matches {', '.join(wanted)} together. Loosen the selection.")
        return self._part(records)

    def take(self, count: int, seed: int = 0) -> Cohort:
        """Return `count` records drawn at random, in the cohort's order.

        Raises:
            ConfigurationError: fewer than 1, or more than there are.
        """
        if not 1 <= count <= len(self):
            raise ConfigurationError(f"{count} images were asked of {self.name!r}, which has {len(self)}.")
        chosen = np.random.default_rng(seed).choice(len(self), count, replace=False)
        return self._part([self._records[i] for i in sorted(chosen)])

    def split(
        self,
        fractions: Mapping[str, float] = DEFAULT_FRACTIONS,
        seed: int = 0,
        block: int = 12,
        *,
        stratify: str | Sequence[str] | None = None,
    ) -> Split:
        """Return disjoint parts, by subject where subjects are known, else by interleaved blocks of neighbouring files.

        Args:
            fractions: name and share of each part; the shares add up to 1.
            seed: same seed, same parts.
            block: files in a block, where there are no subjects.
            stratify: the attribute, or attributes, whose values should be in every part in proportion.

        Raises:
            ConfigurationError, UnknownNameError: fractions, block or attribute that cannot be.
            DataError: too few images or subjects.
        """
        wanted = [stratify] if isinstance(stratify, str) else list(stratify or ())
        for name in wanted:
            if name not in self.attribute_names:
                raise UnknownNameError("attribute", name, self.attribute_names)
        by = ", ".join(wanted) or self.class_attribute()
        classes: Sequence[object] = [record.attributes.get(by) if by else None for record in self._records]
        if not isinstance(stratify, str) and wanted:
            classes = strata(self._records, wanted)
        parts, strategy = assign(self._records, classes, fractions, seed, block)
        if by:
            strategy += f"; stratified by {by}"
        return Split({n: self._part([self._records[i] for i in found]) for n, found in parts.items()}, strategy)

    def class_attribute(self) -> str | None:
        """Return the attribute that is the class: `label`, or the first with 2 to 20 distinct words, or None.

        Names such as diagnosis or stage come before others.
        """
        if self.label is not None and self.label in self.attribute_names:
            return self.label
        for name in sorted(self.attribute_names, key=lambda name: name.lower() not in CLASS_NAMES):
            found = {record.attributes.get(name) for record in self._records}
            if 2 <= len(found) <= MOST_CLASSES and all(isinstance(value, str) for value in found):
                return name
        return None

    def is_gray(self, count: int = 32) -> bool:
        """Tell whether `count` images spread over the cohort are all without colour."""
        steps = np.linspace(0, len(self) - 1, min(count, len(self))).astype(int)
        return all(is_gray(self._records[i].image) for i in steps)

    def content_hash(self) -> str:
        """Return the SHA-256 over every file and everything known about it, whatever the order."""
        return content_hash(self._records)

    def _part(self, records: Sequence[Record]) -> Cohort:
        return Cohort(records, self.root, self.name, self.label)

    @staticmethod
    def _value(record: Record, name: str) -> Value | None:
        if name in ("subject", "session") and name not in record.attributes:
            found: str | None = getattr(record, name)
            return found
        return record.attributes.get(name)


def _identifier(row: Row, column: str | None) -> str | None:
    value = row.cells[column] if column else None
    return None if value is None else str(value)


def _treat_missing(root: Path, rows: list[Row], columns: Sequence[str], missing: str) -> list[Row]:
    if missing == "keep":
        return rows
    lacking = [(row, name) for row in rows for name in columns if row.cells[name] is None]
    if not lacking:
        return rows
    if missing == "refuse":
        shown = "; ".join(f"{row.where}: {name!r}" for row, name in lacking[:LISTED])
        more = f" and {len(lacking) - LISTED} more" if len(lacking) > LISTED else ""
        raise DataError(
            f"{root}: {len(lacking)} missing values ({shown}{more}). Fill them in, choose the columns to use, or open "
            'with missing="drop" or missing="keep".'
        )
    incomplete = {row.file_name for row, _ in lacking}
    complete = [row for row in rows if row.file_name not in incomplete]
    if not complete:
        raise DataError(f"{root}: every image lacks one of {', '.join(columns)}; dropping them leaves none.")
    return complete


def _check_files(root: Path, rows: Sequence[Row]) -> None:
    with ThreadPoolExecutor(8) as pool:
        reasons = list(pool.map(lambda row: check_image(root / row.file_name), rows))
    bad = [f"{root / row.file_name}: {why}" for row, why in zip(rows, reasons, strict=True) if why is not None]
    if bad:
        more = f"\n  and {len(bad) - LISTED} more" if len(bad) > LISTED else ""
        raise DataError(
            f"{len(bad)} of {len(rows)} images cannot be used. Replace them, or remove them from the cohort:\n  "
            + "\n  ".join(bad[:LISTED])
            + more
        )
