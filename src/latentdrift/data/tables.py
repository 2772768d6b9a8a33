"""The imagefolder convention: metadata.csv, metadata.jsonl or class folders, as rows with typed values."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from latentdrift.data.records import Value
from latentdrift.errors import DataError, UnknownNameError

FILE_COLUMN = "file_name"
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"})
SPLIT_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})

_INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"[+-]?(\d{1,18}(\.\d*)?|\.\d+)([eE][+-]?\d{1,3})?")
_ZERO_PADDED = re.compile(r"[+-]?0\d")
_NOT_A_NUMBER = frozenset({"nan", "+nan", "-nan", "inf", "+inf", "-inf", "infinity", "+infinity", "-infinity"})


@dataclass(frozen=True)
class Row:
    """One image's line: where it stood (for messages), its normalised relative path, its cells; None is missing."""

    where: str
    file_name: str
    cells: dict[str, Value | None]


def read_rows(folder: Path, *, label: str | None, text_columns: frozenset[str]) -> tuple[list[Row], list[str]]:
    """Return the rows and the names of the columns.

    Args:
        folder: the cohort's folder.
        label: name of the attribute that class folders give ("label" where None); with a table, a column it must have.
        text_columns: columns whose values stay text even where they look like numbers (identifiers).

    Raises:
        DataError: no folder, two tables, or a table that is damaged, empty, or names files twice or outside.
        UnknownNameError: `label` is no column of the table.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder. Give the folder that holds metadata.csv or one folder a class.")
    tables = [path for path in (folder / "metadata.csv", folder / "metadata.jsonl") if path.is_file()]
    if len(tables) == 2:
        raise DataError(f"{folder} holds both metadata.csv and metadata.jsonl. Keep one of them.")
    if not tables:
        return class_folders(folder, label or "label")
    try:
        read = _read_csv if tables[0].suffix == ".csv" else read_jsonl
        lines, columns = read(tables[0])
    except UnicodeDecodeError as error:
        raise DataError(
            f"{tables[0]} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error
    except OSError as error:
        raise DataError(f"{tables[0]} cannot be read: {error.strerror}.") from error
    if FILE_COLUMN not in columns:
        have = ", ".join(columns) or "none"
        raise DataError(f"{tables[0]} has no column {FILE_COLUMN!r} (it has: {have}). Name the column of the paths so.")
    if label is not None and label not in columns:
        raise UnknownNameError(f"column in {tables[0]} called", label, set(columns) - {FILE_COLUMN})
    if tables[0].suffix == ".csv":
        type_columns(lines, [name for name in columns if name != FILE_COLUMN and name not in text_columns])
    rows, seen = [], dict[str, str]()
    for where, cells in lines:
        name = _inside(where, cells.pop(FILE_COLUMN))
        if name in seen:
            raise DataError(f"{where}: {name} is listed already, in {seen[name]}. Every file may be listed once.")
        seen[name] = where
        refuse_not_a_number(where, cells)
        rows.append(Row(where, name, cells))
    return rows, [name for name in columns if name != FILE_COLUMN]


def _read_csv(path: Path) -> tuple[list[tuple[str, dict[str, Value | None]]], list[str]]:
    lines: list[tuple[str, dict[str, Value | None]]] = []
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file, strict=True)
        try:
            columns = [name.strip() for name in next(reader, [])]
            twice = sorted({name for name in columns if columns.count(name) > 1})
            if twice:
                raise DataError(f"{path} has the column {twice[0]!r} twice. Rename or remove one.")
            for cells in reader:
                if not any(cells):
                    continue
                where = f"{path.name}, line {reader.line_num}"
                if len(cells) != len(columns):
                    raise DataError(
                        f"{path}, line {reader.line_num} has {len(cells)} cells and the first line {len(columns)}. "
                        "Put quotes around text that holds a comma."
                    )
                lines.append((where, {c: v.strip() or None for c, v in zip(columns, cells, strict=True)}))
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num} is not CSV: {error}.") from error
    return lines, columns


def read_jsonl(path: Path) -> tuple[list[tuple[str, dict[str, Value | None]]], list[str]]:
    """Return (where it stands, cells) of every line, and the columns in the order in which they first appear."""
    lines: list[tuple[str, dict[str, Value | None]]] = []
    columns: dict[str, None] = {}
    with path.open(encoding="utf-8-sig") as file:
        for number, text in enumerate(file, 1):
            if not text.strip():
                continue
            where = f"{path.name}, line {number}"
            try:
                found = json.loads(text)
                if "\\u" in text:
                    json.dumps(found, ensure_ascii=False).encode()  # half a character (a lone surrogate) is no text
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number} is not JSON: {error}.") from error
            if not isinstance(found, dict):
                raise DataError(f"{path}, line {number} is not a JSON object. Write one object a line.")
            cells: dict[str, Value | None] = {}
            for name, value in found.items():
                name = name.strip()
                if name in cells:
                    raise DataError(f"{path}, line {number} has {name!r} twice. Keep one of them.")
                if isinstance(value, bool):
                    value = str(value).lower()
                if not isinstance(value, str | int | float | None):
                    raise DataError(f"{path}, line {number}: {name!r} is {type(value).__name__}, not text or a number.")
                cells[name] = (value.strip() or None) if isinstance(value, str) else value
            columns.update(dict.fromkeys(cells))
            lines.append((where, cells))
    for _, cells in lines:
        for name in columns:
            cells.setdefault(name, None)
    return lines, list(columns)


def type_columns(lines: list[tuple[str, dict[str, Value | None]]], columns: list[str]) -> None:
    """Make a column numbers where every cell is one. Zero-padded digits are codes, and words such as None are words."""
    for name in columns:
        cells = [str(row[name]) for _, row in lines if row[name] is not None]
        numbers = [cell for cell in cells if cell.lower() not in _NOT_A_NUMBER]
        if not numbers or any(not _NUMBER.fullmatch(cell) or _ZERO_PADDED.match(cell) for cell in numbers):
            continue
        kind: type[int] | type[float] = int if all(_INTEGER.fullmatch(cell) for cell in cells) else float
        for _, row in lines:
            if row[name] is not None:
                row[name] = kind(str(row[name]))


def refuse_not_a_number(where: str, cells: dict[str, Value | None]) -> None:
    """Raise DataError for the first cell that is NaN or infinite."""
    for name, value in cells.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise DataError(f"{where}: {name!r} is {value}. Write a number, or leave the cell empty.")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise DataError(f"{where}: {name!r} is a number of more than 18 digits. Put quotes around an identifier.")


def _inside(where: str, name: Value | None) -> str:
    """Return the relative path in its normal form, refusing one that leaves the folder."""
    if not isinstance(name, str):
        raise DataError(f"{where} has no {FILE_COLUMN}. Give the path of the image, or remove the line.")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
        raise DataError(
            f"{where}: {name!r} leaves the cohort's folder. Paths are relative to the table and stay inside."
        )
    return str(path)


def class_folders(folder: Path, label: str) -> tuple[list[Row], list[str]]:
    """Return rows from folders: the class is the first folder below `folder` that is not a split's name."""
    rows = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if (
            path.suffix.lower() not in IMAGE_SUFFIXES
            or any(part.startswith(".") for part in parts)
            or not path.is_file()
        ):
            continue
        classes = [part for part in parts[:-1] if part.lower() not in SPLIT_FOLDERS]
        rows.append(Row(str(path), "/".join(parts), {label: classes[0] if classes else None}))
    if rows and all(row.cells[label] is None for row in rows):
        return [Row(row.where, row.file_name, {}) for row in rows], []
    return rows, [label]
