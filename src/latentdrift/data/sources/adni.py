"""ADNI: MRI of ageing, mild cognitive impairment and Alzheimer's disease, as the LONI archive packs it."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from latentdrift.data.records import Value
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._adni_diagnosis import Diagnoses, find_diagnoses
from latentdrift.data.sources._files import find_near, walk
from latentdrift.data.sources._tables import Cells, age_in_years, day, read_header, read_table, sex_of
from latentdrift.data.splits import natural_key
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

GROUPS = ("CN", "MCI", "AD")
MERGED = {"SMC": "CN", "EMCI": "MCI", "LMCI": "MCI"}
OTHER_GROUPS = ("merge", "keep", "drop")
DIAGNOSED = ("baseline", "visit")
DUPLICATES = ("most-processed", "original", "first", "last", "all")

_SUBJECT = re.compile(r"\d{3}_S_(\d{4,5})", re.ASCII)
_SUBJECT_IN_PATH = re.compile(r"(?<!\d)\d{3}_S_\d{4,5}(?!\d)", re.ASCII)
_IMAGE = re.compile(r"I?(\d{1,9})", re.ASCII)
_FILE_ID = re.compile(r"(?:^|_)I(\d{1,9})\.(?:nii|nii\.gz|dcm)$", re.ASCII)
_FOLDER_ID = re.compile(r"I(\d{1,9})", re.ASCII)
_SUFFIXES = (".nii", ".nii.gz", ".dcm")


@dataclass(frozen=True)
class AdniConfig:
    """Which images of an ADNI collection, and what their groups mean."""

    diagnosis: str = "baseline"
    """Diagnosis to give: "baseline", the research group in the collection's table, which is that of the enrolment;
    "visit", the clinicians' diagnosis nearest in time to the scan, from DXSUM or ADNIMERGE."""
    diagnoses: Path | None = None
    """DXSUM or ADNIMERGE as CSV, for "visit"; looked for below the root where not given, DXSUM first."""
    max_days: int = 180
    """Largest distance of scan and clinical visit in days, for "visit"."""
    other_groups: str = "merge"
    """What becomes of the research groups SMC, EMCI, LMCI and Patient: "merge" makes SMC CN, EMCI and LMCI MCI, and
    refuses Patient, which says no diagnosis; "keep" leaves all as written; "drop" leaves their images out."""
    description: tuple[str, ...] = ()
    """Patterns such as "MPR*N3*Scaled*" or "*MPRAGE*", in any capitals; an image has to match one. All where empty."""
    modality: str = "MRI"
    """Modality in the collection's table, or "all"."""
    duplicates: str = "most-processed"
    """Which of several images of one visit: "most-processed", the one with the most corrections in its description;
    "original", one of the type Original; "first" or "last" by Image ID; "all". Repeats (MPR-R) come after the first."""

    def __post_init__(self) -> None:
        for kind, value, known in (
            ("diagnosis", self.diagnosis, DIAGNOSED),
            ("treatment of other groups", self.other_groups, OTHER_GROUPS),
            ("choice of duplicates", self.duplicates, DUPLICATES),
        ):
            if value not in known:
                raise UnknownNameError(kind, value, known)
        if self.max_days < 0:
            raise ConfigurationError(f"max_days is {self.max_days}; it must be 0 or more.")


@dataclass(frozen=True)
class _Image:
    """A row of the collection that is wanted and there."""

    scan: Scan
    number: int
    taken: date
    description: str
    kind: str

    @property
    def rank(self) -> tuple[bool, int, int]:
        """Sorts the most corrected first, repeats after the first try, then by Image ID."""
        return self.description.startswith("MPR-R"), -self.description.count(";"), self.number


@data_source("adni")
class Adni(DataSource):
    """A collection's CSV and the tree ADNI/SUBJECT/DESCRIPTION/DATE_TIME/IMAGE/ with NIfTI or DICOM files.

    Attributes of the scans: diagnosis, sex (F, M), age (years), days (since the subject's first listed scan). The
    session is the visit code. An image there as NIfTI and as DICOM is read from the NIfTI file.
    """

    config_class = AdniConfig
    config: AdniConfig
    title = "ADNI"
    needs = (
        "the CSV of the image collection (Image Data ID, Subject, Group, …) beside the unpacked folder "
        "ADNI/002_S_0413/MPRAGE/2006-05-02_12_31_52.0/I13893/, and for the diagnosis at the visit DXSUM or ADNIMERGE"
    )
    label = "diagnosis"

    def list_scans(self, root: Path) -> Listing:
        """Return the wanted images by subject, then date.

        Raises:
            DataError: no collection's table, one without its columns, no table of diagnoses, or no image left.
        """
        names, refused = walk(root)
        files = _by_image(names)
        diagnoses = find_diagnoses(root, self.config.diagnoses, refused) if self.config.diagnosis == "visit" else None
        images: list[_Image] = []
        seen: dict[int, str] = {}
        for table_name in _collections(root):
            table = read_table(root / table_name)
            refused += table.refused
            at = {name: table.index(*columns) for name, columns in _COLUMNS.items()}
            for line, image in table.each(self._reader(root, at, files, diagnoses), refused):
                here = table.where(line)
                if image.number in seen:
                    refused.append(Refusal(here, f"the image I{image.number} is listed already: {seen[image.number]}"))
                    continue
                seen[image.number] = here
                images.append(image)
        if not images:
            first = f" The first of {len(refused)}: {refused[0].name}: {refused[0].reason}." if refused else ""
            raise DataError(f"The collection in {root} lists no image that is wanted and there.{first}")
        return Listing(tuple(_with_days(self._chosen(images))), tuple(refused))

    def _reader(
        self,
        root: Path,
        at: Mapping[str, int],
        files: Mapping[int, tuple[str, list[str]]],
        diagnoses: Diagnoses | None,
    ) -> Callable[[Cells], _Image | None]:
        patterns = [pattern.casefold() for pattern in self.config.description]

        def image(cells: Cells) -> _Image | None:
            found = {name: cells[column] for name, column in at.items()}
            number, subject = _IMAGE.fullmatch(found["image"]), _SUBJECT.fullmatch(found["subject"])
            if number is None or subject is None:
                raise DataError(
                    f"{found['image']!r:.40}, {found['subject']!r:.40} are no Image Data ID and Subject of ADNI"
                )
            described = found["description"].casefold()
            if self.config.modality not in ("all", found["modality"]):
                return None
            if patterns and not any(fnmatch.fnmatchcase(described, pattern) for pattern in patterns):
                return None
            taken = day(found["date"], "the acquisition date")
            if diagnoses is not None:
                diagnosis: str | None = diagnoses.at(int(subject[1]), taken, self.config.max_days)
            else:
                diagnosis = self._group(found["group"])
            if diagnosis is None:
                return None
            attributes: dict[str, Value] = {"diagnosis": diagnosis}
            sex, age = sex_of(found["sex"]), age_in_years(found["age"])
            attributes |= {name: value for name, value in (("sex", sex), ("age", age)) if value is not None}
            identifier = int(number[1])
            if identifier not in files:
                raise DataError(f"no NIfTI or DICOM file of the image I{identifier} is below {root}")
            key, own = files[identifier]
            if len(own) > 1 and not own[0].endswith(".dcm"):
                raise DataError(f"I{identifier} is there as {' and '.join(own)}. Keep one of them")
            if len({name.rpartition("/")[0] for name in own}) > 1:
                raise DataError(f"the files of I{identifier} lie in several folders, such as {own[0]} and {own[-1]}")
            if any(lies != found["subject"] for lies in _SUBJECT_IN_PATH.findall(key)):
                raise DataError(f"I{identifier} is said to be of {found['subject']}, but lies in {key}")
            paths = tuple(root / name for name in own)
            scan = Scan(key, paths, found["subject"], found["visit"] or None, attributes)
            return _Image(scan, identifier, taken, found["description"], found["type"])

        return image

    def _group(self, written: str) -> str | None:
        """Return the diagnosis of a research group; None leaves the image out."""
        if not written:
            raise DataError("the research group is empty")
        if written in GROUPS or self.config.other_groups == "keep":
            return written
        if self.config.other_groups == "drop":
            return None
        if written not in MERGED:
            raise DataError(f"the research group {written!r:.40} says no diagnosis; take it from the visit, or keep it")
        return MERGED[written]

    def _chosen(self, images: list[_Image]) -> list[_Image]:
        images = sorted(images, key=lambda one: (natural_key(one.scan.subject or ""), one.taken, one.number))
        if self.config.duplicates == "all":
            return images
        visits: dict[tuple[str | None, str | date], list[_Image]] = {}
        for one in images:
            visits.setdefault((one.scan.subject, one.scan.session or one.taken), []).append(one)
        chosen = []
        for same in visits.values():
            if self.config.duplicates == "most-processed":
                chosen.append(min(same, key=lambda one: one.rank))
            elif self.config.duplicates == "original":
                chosen.append(min(same, key=lambda one: (one.kind.casefold() != "original", one.number)))
            else:
                pick = min if self.config.duplicates == "first" else max
                chosen.append(pick(same, key=lambda one: one.number))
        return sorted(chosen, key=lambda one: (natural_key(one.scan.subject or ""), one.taken, one.number))


_COLUMNS = {
    "image": ("Image Data ID", "Image ID"),
    "subject": ("Subject", "Subject ID"),
    "group": ("Group", "Research Group"),
    "sex": ("Sex",),
    "age": ("Age",),
    "visit": ("Visit",),
    "modality": ("Modality",),
    "description": ("Description",),
    "type": ("Type",),
    "date": ("Acq Date", "Study Date"),
}


def _collections(root: Path) -> list[str]:
    """Return the names of the CSVs of image collections, known by their columns."""
    tables = find_near(root, lambda name: name.endswith((".csv", ".csv.gz")), 1)
    found = [name for name in tables if {"Image Data ID", "Image ID"} & set(read_header(root / name))]
    if not found:
        have = f" ({', '.join(tables)} have no column 'Image Data ID')" if tables else ""
        raise DataError(f"{root} holds no CSV of an image collection{have}. Download it beside the images.")
    return found


def _by_image(names: list[str]) -> dict[int, tuple[str, list[str]]]:
    """Return the key and the files of every Image ID that a file's or its folder's name says."""
    found: dict[int, list[str]] = {}
    inhabitants: dict[str, set[int]] = {}
    for name in names:
        if not name.endswith(_SUFFIXES):
            continue
        folder, _, last = name.rpartition("/")
        match = _FILE_ID.search(last) or _FOLDER_ID.fullmatch(folder.rpartition("/")[2])
        if match:
            found.setdefault(int(match[1]), []).append(name)
            inhabitants.setdefault(folder, set()).add(int(match[1]))
    images = {}
    for number, own in found.items():
        volumes = [name for name in own if not name.endswith(".dcm")]
        if volumes:
            images[number] = (volumes[0], volumes)
            continue
        own = sorted(own, key=natural_key)
        folder = own[0].rpartition("/")[0]
        alone = folder and inhabitants[folder] == {number}
        images[number] = (folder if alone else own[0], own)
    return images


def _with_days(images: list[_Image]) -> list[Scan]:
    first: dict[str | None, date] = {}
    for one in images:
        first[one.scan.subject] = min(first.get(one.scan.subject, one.taken), one.taken)
    return [
        Scan(s.key, s.files, s.subject, s.session, {**s.attributes, "days": (one.taken - first[s.subject]).days})
        for one in images
        for s in (one.scan,)
    ]
