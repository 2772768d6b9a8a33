"""A tree of DICOM files, as a scanner, a PACS or a disc gives it: any names, any depth, with or without DICOMDIR."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from latentdrift.data.formats.dicom.facts import FACT_KEYWORDS, PUBLIC_KEY, facts_of, pseudonym
from latentdrift.data.formats.dicom.opening import has_preamble, open_dicom
from latentdrift.data.formats.dicom.reading import is_localizer
from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.data.records import Value
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._files import walk
from latentdrift.data.sources._tables import MISSING, Table, number, read_table, tidy
from latentdrift.errors import ConfigurationError, DataError

PER_SERIES = frozenset({"CT", "MR", "PT"})
"""Modalities whose series is one scan; of every other, each image is one."""

NO_PICTURES = frozenset(
    {
        "ANN", "AU", "DOC", "ECG", "EPS", "FID", "HD", "KO", "M3D", "PLAN", "PR", "REG", "RTDOSE", "RTPLAN", "RTRECORD",
        "RTSTRUCT", "RWV", "SEG", "SMR", "SR",
    }
)  # fmt: skip
"""Modalities whose objects are made from images and show no patient by themselves."""

OTHER_SUFFIXES = frozenset(
    {
        ".bmp", ".bval", ".bvec", ".csv", ".db", ".dll", ".doc", ".docx", ".exe", ".gif", ".gz", ".htm", ".html",
        ".inf", ".ini", ".jar", ".jpeg", ".jpg", ".js", ".json", ".log", ".md", ".nii", ".npy", ".npz", ".pdf", ".png",
        ".py", ".rtf", ".tar", ".tif", ".tiff", ".tsv", ".txt", ".webp", ".xls", ".xlsx", ".xml", ".yaml", ".yml",
        ".zip",
    }
)  # fmt: skip
"""Files with these suffixes and without DICOM's mark lie beside images and are no concern of this source."""

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"
IDENTIFIERS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "PatientID")
"""What a table of labels may name its rows by; the first that it has is taken."""

HEADER_KEYWORDS = (*IDENTIFIERS, "ImageType", "Rows", "NumberOfFrames", *FACT_KEYWORDS)


@dataclass(frozen=True)
class DicomConfig:
    """Which images of a DICOM tree, and what is kept of their identifiers."""

    modalities: tuple[str, ...] = ()
    """Modalities to keep, such as CT, MR, CR, DX; all that are pictures by default."""
    series: str = ""
    """Regular expression that must occur in the description of a series, whatever its capitals."""
    localizers: bool = False
    """Keep localizers (scouts), each as one image."""
    pseudonymise: bool = True
    """Put a keyed hash (HMAC-SHA-256, 12 hexadecimal digits) in the place of PatientID and of all UIDs, also in the
    names of written images. Dates stay as they are, as the years between visits follow from them."""
    key_file: str = ""
    """File whose bytes are the key of these hashes. Without, the key is a public one: identifiers are out of sight, but
    whoever has a list of them can find each. Keep the file apart from the data."""
    labels: str = ""
    """CSV table with a column SOPInstanceUID, SeriesInstanceUID, StudyInstanceUID or PatientID, whose other columns
    become attributes, `label` the class; a path, or a name below the root."""

    def __post_init__(self) -> None:
        try:
            re.compile(self.series)
        except re.error as error:
            raise ConfigurationError(f"series is {self.series!r}, no regular expression: {error}.") from error


@dataclass(frozen=True)
class _Image:
    """What is needed of one file."""

    name: str
    ids: dict[str, str]
    modality: str
    single: bool
    facts: dict[str, Value]


@data_source("dicom")
class DicomTree(DataSource):
    """A folder of DICOM files. CT, MR and PT series are one scan each, X-rays and others one scan an image.

    Attributes of the scans: those of `dicom_facts` (modality, age, sex, view, body_part, series_description, …) and of
    the table of labels. The session is the study's date, or its UID where it has none.
    """

    config_class = DicomConfig
    config: DicomConfig
    title = "DICOM files"
    needs = "DICOM files of any name in any folders; a DICOMDIR may be there. Optional: a CSV table of labels"
    label = "label"

    def list_scans(self, root: Path) -> Listing:
        """Return the scans in the order of their files' names.

        Raises:
            DataError: no folder, no DICOM image that is wanted, a key or a table of labels that cannot be used.
        """
        key = self._key()
        names, refused = walk(root)
        labels = self._labels(root)
        with warnings.catch_warnings(), ThreadPoolExecutor(min(16, (os.cpu_count() or 1) + 4)) as pool:
            warnings.simplefilter("ignore")  # pydicom's, of odd headers; around the threads, since filters are global
            read = list(pool.map(lambda name: self._read(root, name), names))
        refused += [found for found in read if isinstance(found, Refusal)]
        images = self._once((found for found in read if isinstance(found, _Image)), refused)
        groups: dict[str, list[_Image]] = {}
        for image in images:
            together = None if image.single else image.ids.get("SeriesInstanceUID")
            groups.setdefault(together or image.name, []).append(image)
        if not groups:
            first = f" The first refused: {refused[0].name}: {refused[0].reason}" if refused else ""
            raise DataError(f"{root} holds no DICOM image that is wanted.{first}")
        scans, matched = [], False
        for members in groups.values():
            said = labels.of(members[0]) if labels else None
            matched = matched or said is not None
            scans.append(self._scan(root, members, said or {}, key))
        if labels and not matched:
            raise DataError(
                f"{labels.path}: no {labels.by} in it is one of the images'. Is it another data set's table?"
            )
        return Listing(tuple(scans), tuple(refused))

    def _key(self) -> bytes:
        if not self.config.key_file:
            return PUBLIC_KEY
        try:
            key = Path(self.config.key_file).read_bytes().strip()
        except OSError as error:
            raise ConfigurationError(f"key_file {self.config.key_file} cannot be read: {error.strerror}.") from error
        if len(key) < 16:
            raise ConfigurationError(f"key_file {self.config.key_file} has {len(key)} bytes; a key has 16 or more.")
        return key

    def _read(self, root: Path, name: str) -> _Image | Refusal | None:
        """Return what is needed of a file, why it cannot be used, or None where it is not asked for."""
        path = root / name
        try:
            if PurePosixPath(name).suffix.lower() in OTHER_SUFFIXES and not has_preamble(path):
                return None
            tags = Tags(open_dicom(path, pixels=False, keywords=HEADER_KEYWORDS), path)
            return self._wanted(name, tags)
        except DataError as error:
            return Refusal(name, str(error))
        except OSError as error:
            return Refusal(name, f"it cannot be read: {error.strerror}")

    def _wanted(self, name: str, tags: Tags) -> _Image | Refusal | None:
        if tags.dataset.file_meta.get("MediaStorageSOPClassUID") == DICOMDIR_CLASS:
            return None
        modality = (tags.text("Modality") or "OT").upper()
        if self.config.modalities and modality not in {one.upper() for one in self.config.modalities}:
            return None
        if modality in NO_PICTURES or tags.raw("Rows") is None:
            what = f"{modality} data" if modality in NO_PICTURES else "a header without Rows"
            return Refusal(name, f"it holds no picture of a patient, but {what}")
        if not re.search(self.config.series, tags.text("SeriesDescription") or "", re.IGNORECASE):
            return None
        scout = is_localizer(tags)
        if scout and not self.config.localizers:
            return None
        ids = {keyword: text for keyword in IDENTIFIERS if (text := tags.text(keyword))}
        single = scout or modality not in PER_SERIES or tags.whole("NumberOfFrames", 1) > 1
        return _Image(name, ids, modality, single, facts_of(tags))

    def _once(self, images: Iterable[_Image], refused: list[Refusal]) -> list[_Image]:
        """Return the images without copies of one that came before."""
        seen: dict[str, str] = {}
        kept = []
        for image in images:
            uid = image.ids.get("SOPInstanceUID", image.name)
            if uid in seen:
                refused.append(Refusal(image.name, f"it is a copy of {seen[uid]} (the same SOPInstanceUID)"))
                continue
            seen[uid] = image.name
            kept.append(image)
        return kept

    def _scan(self, root: Path, members: list[_Image], said: dict[str, Value], key: bytes) -> Scan:
        first = members[0]
        files = tuple(root / image.name for image in members)
        subject, study = first.ids.get("PatientID"), first.ids.get("StudyInstanceUID")
        uid = first.ids.get("SOPInstanceUID" if first.single else "SeriesInstanceUID") or first.name
        name = first.name if len(members) == 1 else PurePosixPath(first.name).parent.as_posix()
        if self.config.pseudonymise:
            subject, study = (pseudonym(one, key) if one else None for one in (subject, study))
        session = str(first.facts.get("study_date") or study or "") or None
        if self.config.pseudonymise:
            # Folders and files are often named after patients, and the key names the written image.
            name = f"{subject or 'unknown'}/{session or 'unknown'}/{first.modality}-{pseudonym(uid, key)}"
        elif len(members) > 1:
            name = f"{name}/{uid}"  # several series may lie in one folder
        return Scan(name, files, subject, session, {**first.facts, **said})

    def _labels(self, root: Path) -> _Labels | None:
        if not self.config.labels:
            return None
        path = Path(self.config.labels)
        return _Labels(read_table(path if path.is_absolute() or path.is_file() else root / path))


class _Labels:
    """The table of labels: rows by an identifier.

    Raises:
        DataError: none of its columns is an identifier, or one value of that stands in two rows.
    """

    def __init__(self, table: Table) -> None:
        self.path = table.path
        place = table.index(*IDENTIFIERS)
        self.by = next(name for name in IDENTIFIERS if name.casefold() == table.columns[place].casefold())
        others = [(i, name) for i, name in enumerate(table.columns) if name and name not in IDENTIFIERS]
        self._rows: dict[str, dict[str, Value]] = {}
        for line, cells in table.rows:
            if cells[place] in self._rows:
                raise DataError(f"{table.where(line)}: {self.by} {cells[place]!r} is listed already. Keep one row.")
            self._rows[cells[place]] = {name: cells[i] for i, name in others if cells[i] not in MISSING}
        for _, name in others:
            self._make_numbers(name)

    def of(self, image: _Image) -> dict[str, Value] | None:
        """Return the attributes of an image, None where the table does not have it."""
        return self._rows.get(image.ids.get(self.by, ""))

    def _make_numbers(self, name: str) -> None:
        """Make a column numbers where every cell is one."""
        try:
            found = {who: tidy(number(str(row[name]), name)) for who, row in self._rows.items() if name in row}
        except DataError:  # it is text
            return
        for who, value in found.items():
            self._rows[who][name] = value
