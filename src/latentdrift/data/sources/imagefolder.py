"""Any folder of images with metadata.csv, metadata.jsonl, or one folder a class."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentdrift.data.cohort import SESSION_COLUMNS, SUBJECT_COLUMNS
from latentdrift.data.records import Value
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._files import Folder, relative_name
from latentdrift.data.sources._tables import read_table
from latentdrift.data.tables import FILE_COLUMN, class_folders, read_jsonl, refuse_not_a_number, type_columns
from latentdrift.errors import DataError, UnknownNameError

Line = tuple[str, dict[str, Value | None]]


@dataclass(frozen=True)
class ImageFolderConfig:
    """Which columns of the table become attributes."""

    class_column: str = "label"
    """Attribute that folders name, where there is one folder a class and no table."""
    columns: tuple[str, ...] = ()
    """Columns to keep as attributes; all where empty."""


@data_source("imagefolder")
class ImageFolder(DataSource):
    """The convention of `Cohort.open`, with a bad row refused instead of the table.

    Attributes of the scans: the columns of the table, numbers where all cells are; a column called subject, subject_id,
    patient, patient_id or participant_id names the subject, session, session_id, visit or follow_up the session.
    """

    config_class = ImageFolderConfig
    config: ImageFolderConfig
    title = "A folder of images"
    needs = "metadata.csv or metadata.jsonl with file_name and any other columns, or one folder of images a class"
    label = None

    def list_scans(self, root: Path) -> Listing:
        """Return the images in the order of the table, or of the folders' names.

        Raises:
            DataError: no folder, two tables, a table without `file_name`, damaged JSON, or no image left.
            UnknownNameError: a column to keep that the table does not have.
        """
        folder = Folder(root)
        refused: list[Refusal] = []
        lines, names = _lines(root, self.config.class_column, refused)
        subject = next((name for name in SUBJECT_COLUMNS if name in names), None)
        session = next((name for name in SESSION_COLUMNS if name in names), None)
        for name in self.config.columns:
            if name not in names:
                raise UnknownNameError(f"column in {root} called", name, names)
        kept = [n for n in names if n not in (subject, session) and n in (self.config.columns or names)]
        scans: list[Scan] = []
        seen: dict[str, str] = {}
        for where, cells in lines:
            try:
                written = cells.get(FILE_COLUMN)
                if not isinstance(written, str):
                    raise DataError(f"it has no {FILE_COLUMN}")
                key = relative_name(written)
                if key in seen:
                    raise DataError(f"{key} is listed already, in {seen[key]}")
                refuse_not_a_number(where, cells)
                file = folder.file(key)
            except DataError as error:
                refused.append(Refusal(where, str(error)))
                continue
            seen[key] = where
            attributes = {name: value for name in kept if (value := cells.get(name)) is not None}
            scans.append(Scan(key, (file,), _text(cells, subject), _text(cells, session), attributes))
        if not scans:
            first = f" The first of {len(refused)}: {refused[0].name}: {refused[0].reason}." if refused else ""
            raise DataError(f"{root} holds no image that can be used: none in a table or folder.{first}")
        return Listing(tuple(scans), tuple(refused))


def _lines(root: Path, label: str, refused: list[Refusal]) -> tuple[list[Line], list[str]]:
    """Return (where, cells) of every row and the names of the columns besides `file_name`."""
    paths = [path for path in (root / "metadata.csv", root / "metadata.jsonl") if path.is_file()]
    if len(paths) == 2:
        raise DataError(f"{root} holds both metadata.csv and metadata.jsonl. Keep one of them.")
    if not paths:
        rows, names = class_folders(root, label)
        return [(row.file_name, {FILE_COLUMN: row.file_name, **row.cells}) for row in rows], names
    lines: list[Line]
    if paths[0].suffix == ".csv":
        table = read_table(paths[0])
        table.index(FILE_COLUMN)
        refused += table.refused
        columns = [name for name in table.columns if name]
        lines = [
            (table.where(line), {c: v or None for c, v in zip(table.columns, cells, strict=True) if c})
            for line, cells in table.rows
        ]
        type_columns(lines, [n for n in columns if n not in (FILE_COLUMN, *SUBJECT_COLUMNS, *SESSION_COLUMNS)])
    else:
        try:
            lines, columns = read_jsonl(paths[0])
        except UnicodeDecodeError as error:
            raise DataError(f"{paths[0]} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
        if FILE_COLUMN not in columns:
            raise DataError(f"{paths[0]} has no {FILE_COLUMN!r} (it has: {', '.join(columns) or 'nothing'}).")
    return lines, [name for name in columns if name != FILE_COLUMN]


def _text(cells: dict[str, Value | None], column: str | None) -> str | None:
    value = cells.get(column) if column else None
    return None if value is None else str(value)
