"""Attributes of a header, for tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from latentdrift.data.formats.dicom import dicom_facts
from latentdrift.data.formats.dicom.facts import pseudonym
from latentdrift.errors import DataError
from tests.data.formats.dicom_files import header, save, with_pixels


def facts(tmp_path: Path, **more: Any) -> dict[str, Any]:
    made = with_pixels(header("MR", **more), np.zeros((2, 2), "<u2"))
    return dicom_facts(save(made, tmp_path / "x"))


@pytest.mark.parametrize(
    ("age", "years"),
    [("074Y", 74), ("018M", 1.5), ("003W", 0.057), ("010D", 0.027), ("000Y", 0), ("", 73.94), ("old", 73.94)],
)
def test_ages_are_in_years(tmp_path: Path, age: str, years: float) -> None:
    found = facts(tmp_path, PatientAge=age)  # born 1937-04-12, seen 2011-03-20
    assert found["age"] == pytest.approx(years, abs=0.005)


def test_what_is_not_said_or_makes_no_sense_is_left_out(tmp_path: Path) -> None:
    found = facts(tmp_path, PatientAge="", PatientBirthDate="20300101", PatientSex="O", MagneticFieldStrength=None)
    assert not {"age", "sex", "field_strength", "view"} & found.keys()
    assert "age" not in facts(tmp_path, PatientAge="", PatientBirthDate="19990231")


def test_all_attributes(tmp_path: Path) -> None:
    found = facts(
        tmp_path, ViewPosition="PA", Laterality="L", BodyPartExamined="CHEST", MagneticFieldStrength="1.5",
        SeriesDescription="T1 ax", SliceThickness="1.2",
    )  # fmt: skip
    assert found == {
        "modality": "MR", "age": 73, "sex": "M", "view": "PA", "laterality": "L", "body_part": "CHEST",
        "series_description": "T1 ax", "manufacturer": "Cervantes", "model": "Imager 1605", "study_date": "20110320",
        "field_strength": 1.5, "slice_thickness": 1.2,
    }  # fmt: skip


def test_pixels_are_not_read(tmp_path: Path) -> None:
    path = save(with_pixels(header("CT"), np.zeros((64, 64), "<u2")), tmp_path / "x")
    path.write_bytes(path.read_bytes()[:-8000])
    assert dicom_facts(path)["modality"] == "CT"


def test_other_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no image")
    with pytest.raises(DataError, match="no DICOM file"):
        dicom_facts(tmp_path / "x")


def test_pseudonyms_are_hmac_sha256() -> None:
    # RFC 4231, test case 2
    assert pseudonym("what do ya want for nothing?", b"Jefe", 64).startswith("5bdcc146bf60754e6a042426089575c7")
    assert pseudonym(" A1 ") == pseudonym("A1") != pseudonym("A1", b"other") != pseudonym("A2", b"other")
