"""What the header of a DICOM file says about person and examination, as attributes for tables."""

from __future__ import annotations

import hashlib
import hmac
import re
import warnings
from datetime import date
from pathlib import Path
from typing import Any

from latentdrift.data.formats.dicom.opening import open_dicom
from latentdrift.data.formats.dicom.tags import Tags
from latentdrift.data.records import Value
from latentdrift.errors import DataError

DAYS_OF_YEAR = 365.25
AGE_UNITS = {"Y": 1.0, "M": 1 / 12, "W": 7 / DAYS_OF_YEAR, "D": 1 / DAYS_OF_YEAR}

TEXTS = {
    "modality": "Modality",
    "view": "ViewPosition",
    "laterality": "ImageLaterality",
    "body_part": "BodyPartExamined",
    "series_description": "SeriesDescription",
    "manufacturer": "Manufacturer",
    "model": "ManufacturerModelName",
    "study_date": "StudyDate",
}
NUMBERS = {"field_strength": "MagneticFieldStrength", "slice_thickness": "SliceThickness"}

FACT_KEYWORDS = (
    *TEXTS.values(), *NUMBERS.values(), "Laterality", "PatientAge", "PatientSex", "PatientBirthDate", "AcquisitionDate",
    "SeriesDate",
)  # fmt: skip
"""The attributes that `facts_of` reads."""

PUBLIC_KEY = b"latentdrift"
"""Key of pseudonyms where nobody gives a secret one."""


def dicom_facts(path: Path) -> dict[str, Value]:
    """Return what is told of an image, without reading its pixels.

    `modality`, `age` in years, `sex` ("F" or "M"), `view`, `laterality`, `body_part`, `series_description`,
    `manufacturer`, `model`, `field_strength` (tesla), `slice_thickness` (mm) and `study_date` as written. What the file
    does not say, or says in no usable way, is not in the result. Nothing names the patient; the description of a
    series is free text all the same.

    Raises:
        DataError: the file is no DICOM file, or damaged.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as in `read_dicom`
        return facts_of(Tags(open_dicom(path, pixels=False, keywords=FACT_KEYWORDS), path))


def facts_of(tags: Tags) -> dict[str, Value]:
    """Return `dicom_facts` of a header that is open already."""
    found: dict[str, Value] = {}
    for name, keyword in TEXTS.items():
        value = _known(tags, keyword)
        if value is not None:
            found[name] = value
    if "laterality" not in found and (side := _known(tags, "Laterality")):
        found["laterality"] = side
    for name, keyword in NUMBERS.items():
        number = _known_number(tags, keyword)
        if number is not None:
            found[name] = number
    age = age_in_years(tags)
    if age is not None:
        found["age"] = age
    sex = (_known(tags, "PatientSex") or "").upper()
    if sex in ("F", "M"):
        found["sex"] = sex
    return found


def age_in_years(tags: Tags) -> float | int | None:
    """Return the age at the examination: from PatientAge ("074Y", "018M"), else from the dates of birth and study."""
    written = re.fullmatch(r"(\d{1,3})([DWMY])", (_known(tags, "PatientAge") or "").upper())
    if written:
        count, unit = int(written[1]), written[2]
        return count if unit == "Y" else round(count * AGE_UNITS[unit], 3)
    born = _date(_known(tags, "PatientBirthDate"))
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate"):
        seen = _date(_known(tags, keyword))
        if born and seen and seen >= born:
            return round((seen - born).days / DAYS_OF_YEAR, 2)
    return None


def pseudonym(identifier: str, key: bytes = PUBLIC_KEY, length: int = 12) -> str:
    """Return hexadecimal digits that stand for an identifier: HMAC-SHA-256 under a key, cut to `length`.

    The same identifier and key always give the same digits, so that visits of one person stay together. Under the
    public key the digits keep identifiers out of sight but not secret: whoever can list all identifiers of a hospital
    can try each. Use a key of your own, kept apart from the data, where that matters.
    """
    return hmac.new(key, identifier.strip().encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:length]


def _known(tags: Tags, keyword: str) -> str | None:
    """Return a text, or None also where it cannot be read: a table has an empty cell then."""
    try:
        return tags.text(keyword)
    except DataError:
        return None


def _known_number(tags: Tags, keyword: str) -> float | None:
    try:
        return tags.number(keyword)
    except DataError:
        return None


def _date(written: str | None) -> date | None:
    digits: Any = re.fullmatch(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})", written or "")
    try:
        return date(*map(int, digits.groups())) if digits else None
    except ValueError:  # the 31st of February
        return None
