"""Edits back into DICOM: pixels, identity, colour and provenance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    SecondaryCaptureImageStorage,
)

from latentdrift.data.export.dicom import write_dicom_edit
from latentdrift.data.formats.dicom import read_dicom
from latentdrift.data.scan import Plane
from latentdrift.errors import DataError
from tests.data.formats.dicom_files import (
    IDENTIFIERS,
    a_change,
    ct_attributes,
    header,
    mr_attributes,
    save,
    source_of,
    with_pixels,
)

KEPT = {"StudyDate", "StudyTime", "StudyID", "AccessionNumber", "PatientName", "PatientID", "PatientBirthDate"}


def pixels(path: Path) -> np.ndarray:
    found = read_dicom([path])
    assert isinstance(found, Plane)
    return found.pixels


@pytest.mark.parametrize("kind", ["CT", "MR", "CR", "DX"])
@pytest.mark.parametrize("capture", [False, True])
def test_only_what_changes_changes_and_by_what_it_should(tmp_path: Path, kind: str, capture: bool) -> None:
    source = source_of(kind, tmp_path / "in")
    change = a_change((72, 80))
    out = write_dicom_edit([source], tmp_path / "a" / "out.dcm", change, as_secondary_capture=capture)
    before, after = dcmread(source), dcmread(out)
    assert after.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    for name in ("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PhotometricInterpretation"):
        assert after[name].value == before[name].value
    same = change == 0
    np.testing.assert_array_equal(after.pixel_array[same], before.pixel_array[same])
    limits = (-(2**15), 2**15 - 1) if kind == "CT" else (0, 2**before.BitsStored - 1)
    slope, intercept = float(before.get("RescaleSlope", 1)), float(before.get("RescaleIntercept", 0))
    real = before.pixel_array * slope + intercept
    wanted = np.clip(real + change, *(limit * slope + intercept for limit in limits))
    np.testing.assert_allclose(pixels(out), wanted, atol=0.5 * slope + 1e-3)
    assert sorted(tmp_path.rglob("*")) == [out.parent, out, source]  # no partial file


@pytest.mark.parametrize("slope", [0.25, -2.5])
def test_the_change_goes_back_through_the_slope(tmp_path: Path, slope: float) -> None:
    made = header("MR", **mr_attributes(), RescaleSlope=slope, RescaleIntercept=10, RescaleType="US")
    path = save(with_pixels(made, np.full((72, 80), 1000, "<u2"), bits=12), tmp_path / "in")
    change = a_change((72, 80))
    out = write_dicom_edit([path], tmp_path / "out", change)
    assert np.abs(pixels(out) - (1000 * slope + 10) - change).max() <= abs(slope) / 2 + 1e-3


def test_the_change_goes_back_through_a_table(tmp_path: Path) -> None:
    item = Dataset()
    entries = np.round(np.sqrt(np.arange(1024)) * 500).astype(int)
    item.add_new("LUTDescriptor", "US", [1024, 0, 16])
    item.add_new("LUTData", "US", entries.tolist())
    item.ModalityLUTType = "OD"
    made = header("CR", "1.2.840.10008.5.1.4.1.1.1", ModalityLUTSequence=[item])
    stored = np.random.default_rng(0).integers(100, 900, (72, 80)).astype("<u2")
    path = save(with_pixels(made, stored, bits=10), tmp_path / "in", ExplicitVRBigEndian)
    change = a_change((72, 80), 900)
    out = write_dicom_edit([path], tmp_path / "out", change)
    wanted = entries[stored] + change
    nearest = np.abs(entries[None, None, :] - wanted[..., None]).min(-1)
    np.testing.assert_allclose(np.abs(pixels(out) - wanted)[change != 0], nearest[change != 0], atol=1e-3)
    np.testing.assert_array_equal(dcmread(out).pixel_array[change == 0], stored[change == 0])


def test_values_are_clipped_to_what_can_be_stored(tmp_path: Path) -> None:
    source = source_of("DX", tmp_path / "in")
    out = write_dicom_edit([source], tmp_path / "out", np.full((72, 80), 1e9, np.float32))
    assert set(np.unique(dcmread(out).pixel_array)) == {4095}
    out = write_dicom_edit([source], tmp_path / "out", np.full((72, 80), -1e9, np.float32))
    assert set(np.unique(dcmread(out).pixel_array)) == {0}


def test_padding_stays_and_nothing_becomes_padding(tmp_path: Path) -> None:
    stored = np.full((72, 80), 5, "<i2")
    stored[:10] = -2000
    made = header("CT", **ct_attributes(), PixelSpacing=[1, 1], ImagePositionPatient=[0, 0, 0], PixelPaddingValue=-2000)
    made.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    source = save(with_pixels(made, stored), tmp_path / "in")
    out = dcmread(write_dicom_edit([source], tmp_path / "out", np.full((72, 80), -2005, np.float32)))
    assert (out.pixel_array[:10] == -2000).all()
    assert (out.pixel_array[10:] == -1999).all()
    assert out.PixelPaddingValue == -2000


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless])
def test_sources_of_other_syntaxes(tmp_path: Path, syntax: str) -> None:
    source = source_of("MR", tmp_path / "in", ExplicitVRLittleEndian if syntax == RLELossless else syntax)
    if syntax == RLELossless:
        packed = dcmread(source)
        packed.compress(RLELossless)
        packed.save_as(source)
    expected = pixels(source)
    out = write_dicom_edit([source], tmp_path / "out", np.zeros((72, 80), np.float32))
    np.testing.assert_array_equal(dcmread(out).pixel_array, expected)


def test_it_says_that_it_is_synthetic_and_where_it_comes_from(tmp_path: Path) -> None:
    source = source_of("CT", tmp_path / "in")
    told = {"model": "tiny-brain", "drift": "0.12", "seed": 7, "prompt": "an axial slice\nof a brain"}
    out = dcmread(write_dicom_edit([source], tmp_path / "out", a_change((72, 80)), description=told))
    before = dcmread(source)
    assert out.SyntheticData == "YES"
    assert list(out.ImageType) == ["DERIVED", "SECONDARY", "AXIAL"]
    assert out.SOPClassUID == out.file_meta.MediaStorageSOPClassUID == CTImageStorage
    assert out.SOPInstanceUID == out.file_meta.MediaStorageSOPInstanceUID
    for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID"):
        assert out[name].value != before[name].value
    (reference,) = out.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == CTImageStorage
    assert reference.PurposeOfReferenceCodeSequence[0].CodeValue == "121322"
    assert reference.SpatialLocationsPreserved == "YES"
    assert out.DerivationCodeSequence[0].CodeValue == "113042"
    for part in ("tiny-brain", "0.12", "seed: 7", "an axial slice of a brain"):
        assert part in out.DerivationDescription
    roles = {item.PurposeOfReferenceCodeSequence[0].CodeValue: item for item in out.ContributingEquipmentSequence}
    assert roles["109101"].Manufacturer == "Cervantes"
    assert roles["109102"].SoftwareVersions.startswith("latentdrift ")
    assert out.ContentDate
    assert "BurnedInAnnotation" not in out


def test_geometry_meaning_and_window_are_the_sources(tmp_path: Path) -> None:
    for kind in ("CT", "MR", "DX"):
        source = source_of(kind, tmp_path / "in")
        out = dcmread(write_dicom_edit([source], tmp_path / "out", a_change((72, 80))))
        before = dcmread(source)
        for name in (
            "PixelSpacing", "ImagerPixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness",
            "RescaleSlope", "RescaleIntercept", "WindowCenter", "WindowWidth", "BodyPartExamined", "ViewPosition",
            "PatientOrientation", "Modality", "PatientSex", "RepetitionTime", "KVP",
        ):  # fmt: skip
            assert out.get(name) == before.get(name), name


@pytest.mark.parametrize("kind", ["CT", "MR", "CR", "DX"])
@pytest.mark.parametrize("capture", [False, True])
def test_the_sources_identifiers_are_nowhere_in_the_file(tmp_path: Path, kind: str, capture: bool) -> None:
    source = source_of(kind, tmp_path / "in")
    made = dcmread(source)
    block = made.private_block(0x0029, "SECRETIVE", create=True)
    block.add_new(1, "LO", "Quixote again")
    made.PatientAge = "097Y"
    made.save_as(source)
    out = write_dicom_edit([source], tmp_path / "out", a_change((72, 80)), as_secondary_capture=capture)
    data, after = out.read_bytes(), dcmread(out)
    words = {part for value in IDENTIFIERS.values() for part in [value, *value.split("^")]}
    uids = [made.StudyInstanceUID, made.SeriesInstanceUID, made.get("FrameOfReferenceUID") or "none"]
    assert not [word for word in [*words, *uids, "SECRETIVE", "097Y"] if word.encode() in data]
    assert str(after.PatientName) == after.PatientID
    assert after.PatientID.startswith("SYNTHETIC-")
    assert after.PatientBirthDate == after.AccessionNumber == after.StudyDate == ""
    assert (after.PatientIdentityRemoved, after.PatientAge) == ("YES", "090Y")
    assert after.DeidentificationMethod
    assert data.count(made.SOPInstanceUID.encode()) == 1  # the reference, alone


@pytest.mark.parametrize(("kernel", "kept"), [("B30f", True), (["Hr40f", "3"], True), ("for Dr. Doe", False)])
def test_short_text_is_taken_over_where_it_is_a_code(tmp_path: Path, kernel: str | list[str], kept: bool) -> None:
    source = source_of("CT", tmp_path / "in")
    made = dcmread(source)
    made.ConvolutionKernel, made.WindowCenterWidthExplanation = kernel, "as Doe likes it"
    made.RescaleType = "HU" if kept else "HU of Doe"
    made.save_as(source)
    out = write_dicom_edit([source], tmp_path / "out", a_change((72, 80)))
    after = dcmread(out)
    assert b"Doe" not in out.read_bytes()
    assert after.get("ConvolutionKernel") == (made.ConvolutionKernel if kept else None)
    assert after.RescaleType == ("HU" if kept else "US")
    assert "WindowCenterWidthExplanation" not in after


def test_identifiers_are_kept_when_asked_for(tmp_path: Path) -> None:
    source = source_of("CT", tmp_path / "in")
    out = dcmread(write_dicom_edit([source], tmp_path / "out", a_change((72, 80)), keep_identifiers=True))
    before = dcmread(source)
    for name in (*KEPT, "StudyInstanceUID", "FrameOfReferenceUID"):
        assert out[name].value == before[name].value
    assert out.SeriesInstanceUID != before.SeriesInstanceUID
    assert "PatientIdentityRemoved" not in out
    assert out.SyntheticData == "YES"
    for name in ("PatientAddress", "OperatorsName", "DeviceSerialNumber"):
        assert name not in out


def test_a_given_pseudonym_keeps_visits_together(tmp_path: Path) -> None:
    source = source_of("CT", tmp_path / "in")
    out = dcmread(write_dicom_edit([source], tmp_path / "out", a_change((72, 80)), pseudonym="ab12"))
    assert out.PatientID == str(out.PatientName) == "SYNTHETIC-ab12"
    others = {dcmread(write_dicom_edit([source], tmp_path / "o", a_change((72, 80)))).PatientID for _ in range(2)}
    assert len(others) == 2


@pytest.mark.parametrize(("kind", "bright"), [("MR", "max"), ("CR", "min")])
def test_the_mark_is_burned_in_where_it_should_and_said(tmp_path: Path, kind: str, bright: str) -> None:
    source = source_of(kind, tmp_path / "in")
    out = dcmread(write_dicom_edit([source], tmp_path / "out", np.zeros((72, 80), np.float32), mark=True))
    before = dcmread(source).pixel_array
    changed = out.pixel_array != before
    rows, columns = np.nonzero(changed)
    assert 100 < changed.sum() < 0.35 * changed.size
    assert rows.max() < 24
    values, counts = np.unique(out.pixel_array[: rows.max() + 1, : columns.max() + 1], return_counts=True)
    assert values[np.argmax(counts)] == (before.min() if bright == "max" else before.max())  # the bar is dark
    assert (out.pixel_array[:24] == getattr(before, bright)()).sum() > 50  # the letters are bright
    assert out.BurnedInAnnotation == "YES"
    tiny = save(with_pixels(header(), np.zeros((8, 8), "<u2")), tmp_path / "tiny")
    with pytest.raises(DataError, match="no room"):
        write_dicom_edit([tiny], tmp_path / "out", np.zeros((8, 8), np.float32), mark=True)


@pytest.mark.parametrize("name", ["examples_rgb_color.dcm", "examples_ybr_color.dcm", "examples_palette.dcm"])
def test_colour_becomes_a_capture_with_the_change_in_its_luminance(tmp_path: Path, name: str) -> None:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str)
    frame = 3 if "ybr" in name else 0
    source = read_dicom([Path(found)], frame=frame)
    assert isinstance(source, Plane)
    change = np.zeros(source.pixels.shape, np.float32)
    change[100:120, 100:130] = 20
    out = write_dicom_edit([Path(found)], tmp_path / "out", change, frame=frame)
    made = dcmread(out)
    assert made.SOPClassUID == SecondaryCaptureImageStorage
    assert made.PhotometricInterpretation == "RGB"
    room = source.pixels < 150
    assert np.abs(pixels(out) - source.pixels - change)[room & (change != 0)].max() < 20
    np.testing.assert_allclose(pixels(out)[change == 0], source.pixels[change == 0], atol=1e-4)
    if frame:
        assert made.SourceImageSequence[0].ReferencedFrameNumber == 4
        assert made.LossyImageCompression == "01"


def test_a_source_that_lacks_what_its_class_demands_becomes_a_capture(tmp_path: Path) -> None:
    source = source_of("MR", tmp_path / "in")
    made = dcmread(source)
    del made.ScanningSequence
    made.save_as(source)
    out = dcmread(write_dicom_edit([source], tmp_path / "out", a_change((72, 80))))
    assert out.SOPClassUID == SecondaryCaptureImageStorage
    assert out.Modality == "MR"
    assert out.PixelSpacing == [0.9, 1.1]


def test_changes_that_do_not_fit_are_refused_and_leave_no_file(tmp_path: Path) -> None:
    source = source_of("CT", tmp_path / "in")
    out = tmp_path / "out"
    with pytest.raises(DataError, match="shape"):
        write_dicom_edit([source], out, np.zeros((80, 72), np.float32))
    with pytest.raises(DataError, match="NaN"):
        write_dicom_edit([source], out, np.full((72, 80), np.nan, np.float32))
    with pytest.raises(DataError, match="no image 1"):
        write_dicom_edit([source], out, a_change((72, 80)), frame=1)
    with pytest.raises(DataError, match="no source"):
        write_dicom_edit([], out, a_change((72, 80)))
    dose = get_testdata_file("rtdose_1frame.dcm", download=False)
    with pytest.raises(DataError, match="8 or 16 bits"):
        write_dicom_edit([Path(str(dose))], out, np.zeros((10, 10), np.float32))
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="cannot be written"):
        write_dicom_edit([source], tmp_path / "file" / "out", a_change((72, 80)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "in"]
