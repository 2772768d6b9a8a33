"""NIH ChestX-ray14: chest X-rays of the NIH Clinical Center with mined labels (Wang et al., CVPR 2017)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from latentdrift.data.records import Value
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._files import find_near, walk
from latentdrift.data.sources._findings import NONE_STATED, Classes, ClassesConfig, check_views, view_is_wanted
from latentdrift.data.sources._tables import OLDEST, Cells, age_in_years, number, read_list, read_table, sex_of, tidy
from latentdrift.errors import DataError, UnknownNameError

TABLES = ("Data_Entry_2017_v2020.csv", "Data_Entry_2017.csv")
SPLITS = {"train_val": "train_val_list.txt", "test": "test_list.txt"}
FINDINGS = (
    "No Finding", "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
    "Hernia", "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
)  # fmt: skip
BAD_AGES = ("refuse", "omit")

_IMAGE = re.compile(r"\d{8}_\d{3}\.png")
_AGE = re.compile(r"(\d{1,4})([YMD])", re.ASCII)
_A_YEAR = {"Y": 1.0, "M": 12.0, "D": 365.25}


@dataclass(frozen=True)
class NihConfig(ClassesConfig):
    """Which images of ChestX-ray14."""

    table: str = ""
    """Name of the table at most two folders below the root; Data_Entry_2017_v2020.csv, else Data_Entry_2017.csv."""
    views: tuple[str, ...] = ("frontal",)
    """Views to keep: PA, AP, or frontal for both."""
    bad_age: str = "refuse"
    """What an impossible age (the first tables have 411 years) does: "refuse" the image, or "omit" the age."""
    check_files: bool = True
    """Look whether each image is there; without, the table alone is read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_views(self.views, ("AP", "PA"))
        Classes(self, FINDINGS)
        if self.bad_age not in BAD_AGES:
            raise UnknownNameError("treatment of a bad age", self.bad_age, BAD_AGES)


@data_source("nih_chestxray14")
class NihChestXray14(DataSource):
    """Data_Entry_2017(_v2020).csv with images in images_001/images/ to images_012/images/ or in one folder.

    Attributes of the scans: findings, label (with `classes`), sex, age (years), view (AP, PA), official_split
    (train_val, test; where the lists are there). The session is the follow-up number.
    """

    config_class = NihConfig
    config: NihConfig
    title = "NIH ChestX-ray14"
    needs = (
        "Data_Entry_2017_v2020.csv (or Data_Entry_2017.csv), the images in images_001/images/ to images_012/images/ "
        "or all in one folder, and for the official split train_val_list.txt and test_list.txt"
    )
    label = "label"

    def list_scans(self, root: Path) -> Listing:
        """Return the wanted images in the order of the table.

        Raises:
            DataError: no table, a table without its columns, a split list that is no text, or no image left.
        """
        table = read_table(root / self._table(root))
        image, findings = table.index("Image Index"), table.index("Finding Labels")
        visit, patient = table.index("Follow-up #"), table.index("Patient ID")
        age, sex = table.index("Patient Age"), table.index("Patient Gender", "Patient Sex")
        view = table.index("View Position")
        classes = Classes(self.config, FINDINGS)
        refused = list(table.refused)
        split = _official_split(root)
        files: dict[str, list[str]] = {}
        if self.config.check_files:
            names, unreachable = walk(root)
            refused += unreachable
            for name in names:
                files.setdefault(PurePosixPath(name).name if "/" in name else name, []).append(name)

        def scan(cells: Cells) -> Scan | None:
            name = cells[image]
            if not _IMAGE.fullmatch(name):
                raise DataError(f"the image {name!r:.80} is not named such as 00000001_000.png")
            if cells[view] not in ("AP", "PA"):
                raise DataError(f"the view position is {cells[view]!r:.40}, not AP or PA")
            if not view_is_wanted(cells[view], self.config.views):
                return None
            said = _findings(cells[findings])
            attributes: dict[str, Value] = {"findings": "|".join(said) or NONE_STATED}
            if classes.labels:
                label = classes.label(frozenset(said))
                if label is None:
                    return None
                attributes["label"] = label
            who, years = sex_of(cells[sex]), _age(cells[age], omit=self.config.bad_age == "omit")
            attributes |= {n: v for n, v in (("sex", who), ("age", years)) if v is not None}
            attributes["view"] = cells[view]
            if name in split:
                attributes["official_split"] = split[name]
            subject = f"{number(cells[patient], 'the patient ID'):.0f}"
            session = f"{number(cells[visit], 'the follow-up number'):.0f}"
            key = name
            if self.config.check_files:
                found = files.get(name, [])
                if len(found) != 1:
                    raise DataError(
                        f"there is {'no file' if not found else 'more than one: ' + ', '.join(found)} {name}"
                    )
                key = found[0]
            return Scan(key, (root / key,), subject, session, attributes)

        scans, seen = [], dict[str, int]()
        for line, made in table.each(scan, refused):
            if made.key in seen:
                reason = f"{made.key} is listed already, in line {seen[made.key]}"
                refused.append(Refusal(table.where(line), reason))
                continue
            seen[made.key] = line
            scans.append(made)
        if not scans:
            first = f" The first refused: {refused[0].name}: {refused[0].reason}." if refused else ""
            raise DataError(f"{table.path} lists no image that is wanted and there.{first} Loosen the selection.")
        return Listing(tuple(scans), tuple(refused))

    def _table(self, root: Path) -> str:
        for wanted in (self.config.table,) if self.config.table else TABLES:
            plain = wanted.removesuffix(".gz")
            found = find_near(root, {plain, f"{plain}.gz"}.__contains__)
            if len(found) > 1:
                raise DataError(f"{root} holds {plain} {len(found)} times ({', '.join(found)}). Keep one of them.")
            if found:
                return found[0]
        raise DataError(f"{root} holds no {self.config.table or ' or '.join(TABLES)}. It comes with the images.")


def _official_split(root: Path) -> dict[str, str]:
    """Return the part of every listed image.

    Raises:
        DataError: an image is in both lists.
    """
    split: dict[str, str] = {}
    for part, list_name in SPLITS.items():
        for path in find_near(root, {list_name}.__contains__):
            for name in read_list(root / path):
                if split.setdefault(name, part) != part:
                    raise DataError(f"{name} is in both lists of the official split. Get {path} again.")
    return split


def _findings(cell: str) -> list[str]:
    found = [name.strip() for name in cell.split("|") if name.strip()]
    for name in found:
        if name not in FINDINGS:
            raise DataError(str(UnknownNameError("finding of ChestX-ray14", name, FINDINGS)))
    return found


def _age(cell: str, *, omit: bool) -> int | float | None:
    """Return years from 58, 058Y, 013M or 011D; an age above 120 is refused or omitted."""
    match = _AGE.fullmatch(cell)
    if match is None and omit and cell and number(cell, "the age") > OLDEST:
        return None
    if match is None:
        return age_in_years(cell)
    years = int(match[1]) / _A_YEAR[match[2]]
    if years <= OLDEST:
        return tidy(years)
    if omit:
        return None
    raise DataError(f"the age is {cell}, more than {OLDEST} years")
