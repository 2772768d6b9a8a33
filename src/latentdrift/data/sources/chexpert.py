"""CheXpert: chest X-rays of Stanford Hospital with labels from their reports (Irvin et al., AAAI 2019)."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from latentdrift.data.records import Value
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._files import Folder, find_near, relative_name
from latentdrift.data.sources._findings import FINDINGS, FindingsConfig, LabelledFindings, check_views, view_is_wanted
from latentdrift.data.sources._tables import Cells, Table, age_in_years, read_table, sex_of
from latentdrift.errors import DataError

TABLES = ("train.csv", "valid.csv")
VIEWS = ("AP", "PA", "Lateral")

_PATH = re.compile(r"(?:(.*)/)?(train|valid|test)/(patient\d+)/(study\d+)/(view\d+_(?:frontal|lateral)\.(?:jpe?g|png))")
_PATIENT = re.compile(r"patient\d+")
_PART = re.compile(r"(?:.*\()?(train|valid|test)\b")


@dataclass(frozen=True)
class CheXpertConfig(FindingsConfig):
    """Which images of CheXpert, and what their labels mean."""

    tables: tuple[str, ...] = TABLES
    """Names of the label tables at most two folders below the root; train_cheXbert.csv is one, too."""
    views: tuple[str, ...] = ("frontal",)
    """Views to keep: frontal, lateral, AP, PA, Lateral, or all."""
    check_files: bool = True
    """Look whether each image is there; without, the table alone is read and keys are its paths."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_views(self.views, VIEWS)
        LabelledFindings(self)


@data_source("chexpert")
class CheXpert(DataSource):
    """Tables of CheXpert-v1.0 or CheXpert-v1.0-small; images in train/ and valid/ or in the four batches.

    Attributes of the scans: findings, label (with `classes`), sex (F, M), age (years; 90 stands for 90 and older), view
    (AP, PA, Lateral), official_split (train, valid); the session is the study.
    """

    config_class = CheXpertConfig
    config: CheXpertConfig
    title = "CheXpert"
    needs = (
        "train.csv and valid.csv (one is enough) beside the folders train/ and valid/ with "
        "patient00001/study1/view1_frontal.jpg, as CheXpert-v1.0-small or the four batches of CheXpert-v1.0 unpack"
    )
    label = "label"

    def list_scans(self, root: Path) -> Listing:
        """Return the wanted images in the order of the tables.

        Raises:
            DataError: no table, a table without the columns of CheXpert, or no image left.
        """
        names = self._tables(root)
        images = _Images(root) if self.config.check_files else None
        labels = LabelledFindings(self.config)
        scans: list[Scan] = []
        refused: list[Refusal] = []
        seen: dict[str, str] = {}
        for name in names:
            table = read_table(root / name)
            refused += table.refused
            for line, made in table.each(self._reader(root, table, images, labels), refused):
                here = table.where(line)
                if made.key in seen:
                    refused.append(Refusal(here, f"{made.key} is listed already, in {seen[made.key]}"))
                    continue
                seen[made.key] = here
                scans.append(made)
        if not scans:
            raise DataError(_nothing(root, names, refused))
        return Listing(tuple(scans), tuple(refused))

    def _reader(
        self, root: Path, table: Table, images: _Images | None, labels: LabelledFindings
    ) -> Callable[[Cells], Scan | None]:
        path, sex, age = table.index("Path"), table.index("Sex"), table.index("Age")
        side, projection = table.index("Frontal/Lateral"), table.index("AP/PA")
        columns = [table.index(finding) for finding in FINDINGS]
        prefixes: set[str | None] = {None}

        def scan(cells: Cells) -> Scan | None:
            match = _PATH.fullmatch(cells[path]) or _PATH.fullmatch(relative_name(cells[path]))
            if match is None:
                raise DataError(f"the path {cells[path]!r:.200} is not …/train/patient00001/study1/view1_frontal.jpg")
            if match[1] not in prefixes:
                relative_name(match[1])
                prefixes.add(match[1])
            view = _view(cells[side], cells[projection])
            if not view_is_wanted(view, self.config.views):
                return None
            said = labels.attributes(tuple([cells[column] for column in columns]))
            if said is None:
                return None
            attributes: dict[str, Value] = dict(said)
            who = sex_of(cells[sex])
            if who is not None:
                attributes["sex"] = who
            years = age_in_years(cells[age])
            if not years:
                raise DataError(f"the age is {cells[age]!r}; CheXpert's patients are adults")
            attributes["age"] = years
            attributes["view"] = view
            attributes["official_split"] = match[2]
            key, file = (match[0], root / match[0]) if images is None else images.find(match)
            return Scan(key, (file,), match[3], match[4], attributes)

        return scan

    def _tables(self, root: Path) -> list[str]:
        wanted = self.config.tables
        found = find_near(root, lambda name: name.removesuffix(".gz") in {w.removesuffix(".gz") for w in wanted})
        chosen = []
        for name in wanted:
            copies = [one for one in found if Path(one).name.removesuffix(".gz") == name.removesuffix(".gz")]
            if len(copies) > 1:
                raise DataError(
                    f"{root} holds {name} {len(copies)} times ({', '.join(copies)}). Give one folder of them."
                )
            if not copies and wanted != TABLES:
                raise DataError(f"{root} and the folders below hold no {name}. It is a table that --tables asks for.")
            chosen += copies
        if not chosen:
            raise DataError(f"{root} holds neither train.csv nor valid.csv. Give the folder CheXpert-v1.0-small.")
        return chosen


class _Images:
    """Where the patients' folders are, whatever stands before train/ in the table."""

    def __init__(self, root: Path) -> None:
        self.folder = Folder(root)
        self.homes: dict[tuple[str, str], list[str]] = {}
        waiting = [("", 0, "")]
        while waiting:
            inner, depth, part = waiting.pop()
            for name in sorted(_folders(root / inner)):
                path = f"{inner}/{name}" if inner else name
                if _PATIENT.fullmatch(name):
                    self.homes.setdefault((part, name), []).append(inner)
                elif depth < 3:
                    found = _PART.match(name)
                    waiting.append((path, depth + 1, found[1] if found else part))

    def find(self, match: re.Match[str]) -> tuple[str, Path]:
        """Return the key and the file of a row."""
        prefix, part, patient, study, view = match.groups()
        homes = self.homes.get((part, patient), [])
        if len(homes) > 1:
            # The table says which of two copies it is about, if one lies where it says.
            own = f"{prefix}/{part}" if prefix else part
            homes = [home for home in homes if home == own] or homes
        if not homes:
            raise DataError(f"there is no file {match[0]}, nor a folder {patient} of {part} elsewhere")
        if len(homes) > 1:
            raise DataError(f"{patient} is in {' and '.join(homes)}; give one of them as the root")
        key = f"{homes[0]}/{patient}/{study}/{view}" if homes[0] else f"{patient}/{study}/{view}"
        return key, self.folder.file(key)


def _folders(folder: Path) -> Iterable[str]:
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error


def _view(side: str, projection: str) -> str:
    if side == "Lateral":
        return "Lateral"
    if side != "Frontal":
        raise DataError(f"Frontal/Lateral is {side!r:.40}")
    if projection not in ("AP", "PA"):
        raise DataError(f"it is called Frontal and {projection or 'of no projection'!r:.40}; one is wrong")
    return projection


def _nothing(root: Path, names: list[str], refused: list[Refusal]) -> str:
    first = f" The first of {len(refused)} refused: {refused[0].name}: {refused[0].reason}." if refused else ""
    return f"{', '.join(names)} in {root} list no image that is wanted and there.{first} Loosen the selection."
