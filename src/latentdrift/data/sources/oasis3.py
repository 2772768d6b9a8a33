"""OASIS-3: MRI of ageing and Alzheimer's disease, years apart, with clinical ratings (LaMontagne et al., 2019)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from latentdrift.data.records import Value
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing, data_source
from latentdrift.data.sources._files import walk
from latentdrift.data.sources._oasis_clinic import DAYS_IN_A_YEAR, Clinic, Stages, read_clinic
from latentdrift.data.sources._tables import tidy
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

RUNS = ("first", "last", "all")

_NAME = re.compile(
    r"sub-(OAS\d{5})(?:_sess?-d(\d{1,5}))?((?:_[a-z]+-[A-Za-z0-9]+)*)_([A-Za-z0-9]+)\.nii(?:\.gz)?", re.ASCII
)
_SESSION = re.compile(r"(?:^|/)(OAS\d{5})_[A-Za-z0-9]+_d(\d{1,5})/|(?:^|/)sub-(OAS\d{5})/sess?-d(\d{1,5})/", re.ASCII)
_RUN = re.compile(r"_run-(\d+)")


@dataclass(frozen=True)
class Oasis3Config:
    """Which images of OASIS-3, and how a clinical rating becomes a stage."""

    stages: tuple[str, ...] = ("0=CN", "0.5=VeryMild", "1=Mild", "2=Moderate")
    """From which Clinical Dementia Rating on an image has which stage, in rising order from 0. For ADNI's groups:
    0=CN 0.5=MCI 1=AD."""
    max_days: int = 365
    """Largest distance of scan and clinical visit in days; the nearest visit decides, the earlier of two as near."""
    suffix: str = "T1w"
    """Kind of image, as file names end: T1w, T2w, FLAIR."""
    runs: str = "first"
    """Which of several images of one session: "first", "last" or "all"."""
    clinical: Path | None = None
    """OASIS3_UDSb4_cdr.csv, or the older ADRC Clinical Data as CSV; looked for below the root where not given."""
    demographics: Path | None = None
    """OASIS3_demographics.csv, or the older list of subjects, for sex and age; looked for where not given."""

    def __post_init__(self) -> None:
        Stages(self.stages)
        if self.runs not in RUNS:
            raise UnknownNameError("choice of runs", self.runs, RUNS)
        if self.max_days < 0:
            raise ConfigurationError(f"max_days is {self.max_days}; it must be 0 or more.")


class _Found(NamedTuple):
    subject: str
    day: int
    run: int
    name: str


@data_source("oasis3")
class Oasis3(DataSource):
    """Session folders OAS30001_MR_d0129/anat2/…_T1w.nii.gz, or BIDS' sub-OAS30001/ses-d0129/anat/, and the tables.

    Attributes of the scans: stage, cdr, sex (F, M; from the demographics), age at the scan (years, two digits), days
    (since entry into the study). The session is written d0129.
    """

    config_class = Oasis3Config
    config: Oasis3Config
    title = "OASIS-3"
    needs = (
        "session folders such as OAS30001_MR_d0129/anat2/sub-OAS30001_ses-d0129_run-01_T1w.nii.gz (or the BIDS "
        "download), OASIS3_UDSb4_cdr.csv (or ADRC Clinical Data), and for sex and age OASIS3_demographics.csv"
    )
    label = "stage"

    def list_scans(self, root: Path) -> Listing:
        """Return the wanted images by subject, then day.

        Raises:
            DataError: no image named as in OASIS-3, no clinical table, or no image left.
        """
        names, refused = walk(root)
        images = self._images(names, refused)
        if not images:
            raise DataError(
                f"{root} holds no file such as OAS30001_MR_d0129/anat2/sub-OAS30001_ses-d0129_T1w.nii.gz "
                f"(suffix {self.config.suffix}). Give the folder of the download, or another --suffix."
            )
        clinic = read_clinic(root, names, self.config.clinical, self.config.demographics, refused)
        stages = Stages(self.config.stages)
        scans = []
        for image in images:
            try:
                attributes = self._attributes(image, clinic, stages)
            except DataError as error:
                refused.append(Refusal(image.name, str(error)))
                continue
            scans.append(Scan(image.name, (root / image.name,), image.subject, f"d{image.day:04d}", attributes))
        if not scans:
            raise DataError(f"No image in {root} can be used. The first: {refused[-1].name}: {refused[-1].reason}.")
        return Listing(tuple(scans), tuple(refused))

    def _attributes(self, image: _Found, clinic: Clinic, stages: Stages) -> dict[str, Value]:
        rating = clinic.nearest(image.subject, image.day, self.config.max_days)
        found: dict[str, Value] = {"stage": stages.of(rating.cdr), "cdr": tidy(rating.cdr)}
        person = clinic.people.get(image.subject)
        if person is not None and person.sex is not None:
            found["sex"] = person.sex
        if person is not None and person.age_at_entry is not None:
            found["age"] = round(person.age_at_entry + image.day / DAYS_IN_A_YEAR, 2)
        elif rating.age is not None:
            found["age"] = round(rating.age + (image.day - rating.day) / DAYS_IN_A_YEAR, 2)
        found["days"] = image.day
        return found

    def _images(self, names: list[str], refused: list[Refusal]) -> list[_Found]:
        found: list[_Found] = []
        for name in names:
            match = _NAME.fullmatch(name.rpartition("/")[2])
            if match is None or match[4] != self.config.suffix:
                continue
            folder = _SESSION.search(name)
            inside = None if folder is None else (folder[1] or folder[3], int(folder[2] or folder[4]))
            subject, day = match[1], int(match[2]) if match[2] else None
            if inside is None and day is None:
                refused.append(Refusal(name, "neither the file nor its folder says the day of the session"))
            elif inside is not None and (inside[0] != subject or day not in (None, inside[1])):
                refused.append(Refusal(name, "the file and its folder are of different sessions"))
            else:
                run = _RUN.search(match[3])
                when = day if day is not None or inside is None else inside[1]
                found.append(_Found(subject, when or 0, int(run[1]) if run else 1, name))
        found.sort()
        if self.config.runs == "all":
            return found
        chosen: dict[tuple[str, int], _Found] = {}
        for one in found:
            if self.config.runs == "last" or (one.subject, one.day) not in chosen:
                chosen[one.subject, one.day] = one
        return list(chosen.values())
