"""A tree of NIfTI files, described by a table or by their paths."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from latentdrift.data.cohort import SESSION_COLUMNS, SUBJECT_COLUMNS
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._attributes import attributes
from latentdrift.data.sources._files import Folder, relative_name, walk
from latentdrift.data.sources._tables import MISSING, Table, read_table
from latentdrift.errors import ConfigurationError, DataError

SUFFIXES = (".nii", ".nii.gz", ".img", ".img.gz", ".mgz", ".mgh")
TABLES = ("metadata.csv", "metadata.tsv")
FILE_COLUMNS = ("file_name", "path", "file", "filename")


@dataclass(frozen=True)
class NiftiConfig:
    """Which files, and where it stands what they show."""

    table: str = ""
    """A .csv or .tsv below the root with the column file_name or path; by default metadata.csv or metadata.tsv if there
    is one."""
    pattern: str = ""
    """Without a table: a regular expression searched in each path (with "/"), whose named groups give the subject, the
    session and any attribute, as in (?P<diagnosis>AD|CN)/(?P<subject>[^/]+)/(?P<session>[^/]+)/."""
    files: str = "*"
    """Only paths that match, such as *_T1.nii.gz; * stands for any text, "/" included."""
    exclude: tuple[str, ...] = ("*_mask.*", "*_label.*", "*_seg.*", "*_dseg.*", "*aseg*", "*aparc*")
    """No paths whose file name matches one of these."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise ConfigurationError(f"pattern {self.pattern!r} is no regular expression: {error}.") from error
        if PurePosixPath(self.table).is_absolute() or ".." in PurePosixPath(self.table).parts:
            raise ConfigurationError(f"table is {self.table!r}; give a path below the root.")


@data_source("nifti")
class NiftiSource(DataSource):
    """NIfTI, Analyze and MGH files anywhere below the root."""

    config_class = NiftiConfig
    title = "NIfTI tree"
    needs = (
        "*.nii, *.nii.gz, *.hdr with *.img, *.mgz or *.mgh anywhere; and metadata.csv or metadata.tsv (file_name or "
        "path, subject, session, age, sex, …), or paths that a pattern takes apart"
    )

    def list_scans(self, root: Path) -> Listing:
        """Return the scans; see `DataSource.list_scans`."""
        config: NiftiConfig = self.config
        folder = Folder(root)
        table = next((root / name for name in (config.table, *TABLES) if name and (root / name).is_file()), None)
        if config.table and table != root / config.table:
            raise DataError(f"{root / config.table}: there is no such table. Give its path below the root.")
        names, refused = walk(root)
        names = [name for name in names if self._wanted(name)]
        scans = self._of_table(folder, table, names, refused) if table else self._of_paths(folder, names, refused)
        if not scans and not refused:
            raise DataError(f"{root} holds no {', '.join(SUFFIXES)} file that was asked for.")
        return Listing(tuple(scans), tuple(refused))

    def _of_paths(self, folder: Folder, names: list[str], refused: list[Refusal]) -> list[Scan]:
        pattern = re.compile(self.config.pattern)
        scans = []
        for key in names:
            match = pattern.search(key)
            if match is None:
                refused.append(Refusal(key, f"its path does not match the pattern {self.config.pattern!r}."))
                continue
            cells = {name: text for name, text in match.groupdict().items() if text}
            try:
                subject, session = cells.pop("subject", None), cells.pop("session", None)
                scans.append(Scan(key, (_file(folder, key),), subject, session, attributes(cells)))
            except DataError as error:
                refused.append(Refusal(key, str(error)))
        return scans

    def _of_table(self, folder: Folder, path: Path, names: list[str], refused: list[Refusal]) -> list[Scan]:
        table = read_table(path)
        refused += table.refused
        column = table.index(*FILE_COLUMNS)
        who, when = table.find(*SUBJECT_COLUMNS), table.find(*SESSION_COLUMNS)
        scans: list[Scan] = []
        seen: dict[str, str] = {}
        for line, cells in table.rows:
            where = table.where(line)
            try:
                key = _key(folder, table, cells[column])
                if key in seen:
                    raise DataError(f"{key} is listed already, in {seen[key]}. Keep one line.")
                seen[key] = where
                if not self._wanted(key):
                    continue
                rest = {
                    name: cell
                    for index, (name, cell) in enumerate(zip(table.columns, cells, strict=True))
                    if name and index not in (column, who, when)
                }
                subject, session = (
                    None if index is None or cells[index] in MISSING else cells[index] for index in (who, when)
                )
                scans.append(Scan(key, (_file(folder, key),), subject, session, attributes(rest)))
            except DataError as error:
                refused.append(Refusal(where, str(error)))
        refused += [Refusal(key, f"{path.name} does not list it.") for key in names if key not in seen]
        return scans

    def _wanted(self, key: str) -> bool:
        name = key.rsplit("/", 1)[-1]
        return (
            name.lower().endswith(SUFFIXES)
            and fnmatchcase(key, self.config.files)
            and not any(fnmatchcase(name.lower(), pattern.lower()) for pattern in self.config.exclude)
        )


def _key(folder: Folder, table: Table, name: str) -> str:
    """Return a file's path below the root; in the table it is relative to the table's folder.

    Raises:
        DataError: it leaves the root, or is no NIfTI file's.
    """
    if name in MISSING:
        raise DataError("it has no path. Give that of the scan, or remove the line.")
    inner = table.path.parent.relative_to(folder.root).as_posix()
    key = relative_name(name) if inner == "." else f"{inner}/{relative_name(name)}"
    if not key.lower().endswith((*SUFFIXES, ".hdr", ".hdr.gz")):
        raise DataError(f"{name:.200} is no {', '.join(SUFFIXES)} file.")
    return re.sub(r"\.hdr(\.gz)?$", r".img\1", key)


def _file(folder: Folder, key: str) -> Path:
    """Return the file of a key.

    Raises:
        DataError: there is none, it is empty, or the header of a pair is missing.
    """
    path = folder.file(key)
    stem = re.sub(r"\.img(\.gz)?$", "", path.name, flags=re.IGNORECASE)
    partners = (path.with_name(stem + ending) for ending in (".hdr", ".hdr.gz", ".HDR"))
    if stem != path.name and not any(partner.is_file() for partner in partners):
        raise DataError(f"{path.name} has no {stem}.hdr beside it.")
    return path
