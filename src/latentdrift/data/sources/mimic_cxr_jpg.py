"""MIMIC-CXR-JPG: chest X-rays of Beth Israel Deaconess Medical Center (Johnson et al., 2019, arXiv 1901.07042)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from latentdrift.data.records import Value
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._files import Folder, find_near
from latentdrift.data.sources._findings import FINDINGS, FindingsConfig, LabelledFindings, check_views, view_is_wanted
from latentdrift.data.sources._tables import OLDEST, Cells, day, number, read_table, sex_of
from latentdrift.errors import DataError, UnknownNameError

LABELLERS = ("chexpert", "negbio")
VIEWS = ("AP", "PA", "LATERAL", "LL")
SPLITS = ("train", "validate", "test")
OVER_89 = 91
"""MIMIC-IV writes this anchor age for everybody older than 89."""

DEPTH = 4
"""`wget` makes physionet.org/files/mimic-cxr-jpg/2.1.0 below its folder."""

_DICOM = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")
_EIGHT = re.compile(r"\d{8}", re.ASCII)

Study = tuple[str, str]


@dataclass(frozen=True)
class MimicConfig(FindingsConfig):
    """Which images of MIMIC-CXR-JPG, and what their labels mean."""

    labels: str = "chexpert"
    """Labeller whose table is read: "chexpert" or "negbio"."""
    views: tuple[str, ...] = ("frontal",)
    """View positions to keep: frontal (AP and PA), lateral (LATERAL and LL), AP, PA, LATERAL, LL, or all."""
    patients: Path | None = None
    """MIMIC-IV's patients.csv.gz, for sex and age; looked for below the root where not given."""
    check_files: bool = True
    """Look whether each image is there; without, the tables alone are read."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_views(self.views, VIEWS)
        LabelledFindings(self)
        if self.labels not in LABELLERS:
            raise UnknownNameError("labeller", self.labels, LABELLERS)


@data_source("mimic_cxr_jpg")
class MimicCxrJpg(DataSource):
    """The tables mimic-cxr-2.0.0-*.csv.gz beside files/p10/p10000032/s50414267/….jpg.

    Attributes of the scans: findings, label (with `classes`), view, official_split, days (since the patient's first
    study; the dates are shifted), and with MIMIC-IV's patients sex and age (years; 90 stands for 90 and older where
    MIMIC-IV hides the age). The session is the study.
    """

    config_class = MimicConfig
    config: MimicConfig
    title = "MIMIC-CXR-JPG"
    needs = (
        "mimic-cxr-2.0.0-metadata.csv.gz, mimic-cxr-2.0.0-chexpert.csv.gz (or -negbio), mimic-cxr-2.0.0-split.csv.gz, "
        "files/p10/p10000032/s50414267/*.jpg, and for sex and age patients.csv.gz of MIMIC-IV"
    )
    label = "label"

    def list_scans(self, root: Path) -> Listing:
        """Return the wanted images in the order of the metadata.

        Raises:
            DataError: a table is missing or another one, or no image is left.
        """
        metadata = read_table(root / _table(root, "metadata"))
        home = metadata.path.parent.relative_to(root).as_posix().removeprefix(".")
        refused = list(metadata.refused)
        said = self._labels(root, refused)
        split = _official_split(root, refused)
        people = self._patients(root, refused)
        folder = Folder(root)
        dicom, subject, study = (metadata.index(n) for n in ("dicom_id", "subject_id", "study_id"))
        view, when = metadata.index("ViewPosition"), metadata.index("StudyDate")
        first: dict[str, date] = {}
        seen: set[str] = set()

        def scan(cells: Cells) -> tuple[Scan, date] | None:
            name, who, visit = cells[dicom], cells[subject], cells[study]
            if not (_DICOM.fullmatch(name) and _EIGHT.fullmatch(who) and _EIGHT.fullmatch(visit)):
                raise DataError(f"{name!r:.80}, {who!r:.20}, {visit!r:.20} are not identifiers of MIMIC-CXR")
            taken = day(cells[when].removesuffix(".0"), "the study's date")
            first[who] = min(first.get(who, taken), taken)
            if not view_is_wanted(cells[view], self.config.views):
                return None
            if name in seen:
                raise DataError(f"the image {name} is listed already")
            if (who, visit) not in said:
                raise DataError(f"the study s{visit} has no labels by {self.config.labels}")
            labels = said[who, visit]
            if labels is None:
                return None
            attributes: dict[str, Value] = {**labels, **_person(people.get(who), taken.year)}
            if cells[view]:
                attributes["view"] = cells[view]
            if name in split:
                attributes["official_split"] = split[name]
            key = f"files/p{who[:2]}/p{who}/s{visit}/{name}.jpg"
            key = f"{home}/{key}" if home else key
            file = folder.file(key) if self.config.check_files else root / key
            seen.add(name)
            return Scan(key, (file,), who, f"s{visit}", attributes), taken

        made = [one for _, one in metadata.each(scan, refused)]
        if not made:
            one = f" The first refused: {refused[0].name}: {refused[0].reason}." if refused else ""
            raise DataError(f"{metadata.path} lists no image that is wanted and there.{one} Loosen the selection.")
        # The first study is known once all rows are read, the unwanted views among them.
        scans = (
            replace(scan, attributes={**scan.attributes, "days": (taken - first[scan.subject or ""]).days})
            for scan, taken in made
        )
        return Listing(tuple(scans), tuple(refused))

    def _labels(self, root: Path, refused: list[Refusal]) -> dict[Study, Mapping[str, Value] | None]:
        table = read_table(root / _table(root, self.config.labels))
        refused += table.refused
        subject, study = table.index("subject_id"), table.index("study_id")
        columns = [table.index(finding) for finding in FINDINGS]
        rules = LabelledFindings(self.config)
        found: dict[Study, Mapping[str, Value] | None] = {}

        def study_labels(cells: Cells) -> None:
            key = cells[subject], cells[study]
            if key in found:
                raise DataError(f"the study s{key[1]:.20} is listed already")
            found[key] = rules.attributes(tuple([cells[column] for column in columns]))

        for _ in table.each(study_labels, refused):
            pass
        return found

    def _patients(self, root: Path, refused: list[Refusal]) -> dict[str, tuple[str | None, int, int]]:
        """Return sex, anchor age and anchor year of each patient; nothing where MIMIC-IV is not at hand."""
        path = self.config.patients
        if path is None:
            near = find_near(root, lambda name: name.removesuffix(".gz") == "patients.csv", DEPTH)
            if not near:
                return {}
            path = root / near[0]
        table = read_table(path)
        refused += table.refused
        columns = [table.index(name) for name in ("subject_id", "gender", "anchor_age", "anchor_year")]

        def person(cells: Cells) -> tuple[str, tuple[str | None, int, int]]:
            who, sex, age, year = (cells[column] for column in columns)
            return who, (sex_of(sex), int(number(age, "anchor_age")), int(number(year, "anchor_year")))

        return dict(one for _, one in table.each(person, refused))


def _person(known: tuple[str | None, int, int] | None, year: int) -> dict[str, Value]:
    """Return sex and age in the year of a study (shifted as the anchor year is)."""
    if known is None:
        return {}
    sex, anchor_age, anchor_year = known
    found: dict[str, Value] = {} if sex is None else {"sex": sex}
    age = anchor_age + year - anchor_year
    if anchor_age >= OVER_89:
        # Only that they were over 89 in the anchor year is known; of an earlier year nothing is.
        if year >= anchor_year:
            found["age"] = 90
    elif 0 <= age <= OLDEST:
        found["age"] = age
    else:
        raise DataError(f"anchor_age {anchor_age} in {anchor_year} makes the patient {age} years old in {year}")
    return found


def _official_split(root: Path, refused: list[Refusal]) -> dict[str, str]:
    table = read_table(root / _table(root, "split"))
    refused += table.refused
    dicom, split = table.index("dicom_id"), table.index("split")

    def part(cells: Cells) -> tuple[str, str]:
        if cells[split] not in SPLITS:
            raise DataError(f"the split is {cells[split]!r:.40}, not {', '.join(SPLITS)}")
        return cells[dicom], cells[split]

    return dict(one for _, one in table.each(part, refused))


def _table(root: Path, kind: str) -> str:
    pattern = re.compile(rf"mimic-cxr-\d+\.\d+\.\d+-{kind}\.csv(\.gz)?")
    found = find_near(root, pattern.fullmatch, DEPTH)
    if not found:
        raise DataError(f"{root} holds no mimic-cxr-2.0.0-{kind}.csv.gz. Give the folder of MIMIC-CXR-JPG's tables.")
    if len(found) > 1:
        raise DataError(f"{root} holds {len(found)} tables of {kind} ({', '.join(found)}). Keep one of them.")
    return found[0]
