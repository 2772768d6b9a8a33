"""A tree of DICOM files as a cohort's source."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from latentdrift.data.formats.dicom import read_dicom
from latentdrift.data.formats.dicom.facts import pseudonym
from latentdrift.data.scan import Volume
from latentdrift.data.source import Listing, data_source
from latentdrift.data.sources.dicom import DicomConfig, DicomTree
from latentdrift.errors import ConfigurationError, DataError
from tests.data.formats.dicom_files import ct_series, header, save, with_pixels

LPS = np.diag([0.5, 0.5, 2.5, 1.0])


def listing(root: Path, **how: Any) -> Listing:
    return DicomTree(DicomConfig(**how)).list_scans(root)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A CT series with a localizer among it, two X-rays of a series, a cine MR, and what lies about."""
    stored = np.arange(4 * 4 * 3, dtype="<i2").reshape(4, 4, 3)
    files = ct_series(tmp_path / "ct", stored, LPS, order=(2, 0, 1), SeriesDescription="Head 2.5mm", PatientID="C1")
    flat = np.zeros((4, 4), "<i2")
    of_series = {"SeriesInstanceUID": "1.2.840.99.1", "PatientID": "X1", "PatientSex": "F", "PatientAge": "060Y"}
    scout = with_pixels(header("CT", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], PatientID="C1"), flat)
    save(scout, tmp_path / "ct" / "scout")
    for number in range(2):
        xray = header("DX", SOPInstanceUID=f"1.2.840.77.{number}", StudyInstanceUID="1.2.840.5", **of_series)
        save(with_pixels(xray, flat.astype("<u2")), tmp_path / "xray" / f"{number}")
    del xray
    save(with_pixels(header("MR", PatientID="M1"), np.zeros((3, 4, 4), "<u2")), tmp_path / "deep" / "er" / "cine")
    (tmp_path / "report.txt").write_text("about these images")
    (tmp_path / "notes").write_text("no suffix, no DICOM")
    (tmp_path / ".DS_Store").write_bytes(b"\0" * 300)
    save(header("SR"), tmp_path / "report.dcm")
    shutil.copy(files[0], tmp_path / "copy.dcm")
    source = get_testdata_file("DICOMDIR", download=False)
    assert isinstance(source, str)
    shutil.copy(source, tmp_path / "DICOMDIR")
    return tmp_path


def test_it_is_registered() -> None:
    assert data_source.get("dicom") is DicomTree


def test_series_are_grouped_and_x_rays_are_not(tree: Path) -> None:
    found = listing(tree, pseudonymise=False)
    assert [(scan.attributes["modality"], len(scan.files), scan.subject) for scan in found.scans] == [
        ("CT", 3, "C1"), ("MR", 1, "M1"), ("DX", 1, "X1"), ("DX", 1, "X1"),
    ]  # fmt: skip
    ct, mr, first, _ = found.scans
    assert ct.session == "20110320"
    assert (first.key, mr.key) == ("xray/0", "deep/er/cine")
    assert (first.attributes["sex"], first.attributes["age"]) == ("F", 60)
    read = read_dicom(ct.files)
    assert isinstance(read, Volume)
    np.testing.assert_array_equal(read.voxels, np.arange(48).reshape(4, 4, 3) - 1024)


def test_what_cannot_be_used_is_refused_with_the_reason_and_the_rest_goes_on(tree: Path) -> None:
    refused = {refusal.name: refusal.reason for refusal in listing(tree).refused}
    assert refused.keys() == {"ct/IM0000", "notes", "report.dcm"}
    assert "a copy of copy.dcm" in refused["ct/IM0000"]
    assert "no DICOM file" in refused["notes"]
    assert "SR data" in refused["report.dcm"]


def test_pseudonyms_take_the_place_of_identifiers_everywhere(tree: Path) -> None:
    found = listing(tree)
    again = listing(tree)
    assert found == again
    assert len({scan.key for scan in found.scans}) == 4
    subjects = [scan.subject for scan in found.scans]
    assert subjects == [pseudonym(name) for name in ("C1", "M1", "X1", "X1")]
    for scan in found.scans:
        assert scan.key.startswith(f"{scan.subject}/20110320/{scan.attributes['modality']}-")
        for known in ("C1", "M1", "X1", "HOSP", "1.2.840", "Quixote", "xray"):
            assert known not in scan.key.split("/")
            assert known not in str(scan.subject)


def test_a_key_of_ones_own_gives_other_pseudonyms(tree: Path) -> None:
    key = tree.parent / "key"
    key.write_bytes(b"0123456789abcdef\n")
    scans = listing(tree, key_file=str(key)).scans
    assert scans[0].subject == pseudonym("C1", b"0123456789abcdef") != pseudonym("C1")
    key.write_bytes(b"short")
    with pytest.raises(ConfigurationError, match="5 bytes"):
        listing(tree, key_file=str(key))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        listing(tree, key_file=str(tree / "nokey"))


def test_modalities_descriptions_and_localizers_are_selected(tree: Path) -> None:
    assert {s.attributes["modality"] for s in listing(tree, modalities=("dx", "MR")).scans} == {"DX", "MR"}
    (only,) = listing(tree, series="HEAD .*mm").scans
    assert only.attributes["series_description"] == "Head 2.5mm"
    scouts = listing(tree, modalities=("CT",), localizers=True, pseudonymise=False).scans
    assert sorted(len(scan.files) for scan in scouts) == [1, 3]
    with pytest.raises(ConfigurationError, match="regular expression"):
        DicomConfig(series="(")
    with pytest.raises(DataError, match="no DICOM image that is wanted"):
        listing(tree, modalities=("PT",))


def test_a_table_of_labels_is_merged(tree: Path) -> None:
    (tree / "labels.csv").write_text("PatientID,label,score,code\nC1,healthy,3,7\nX1,ill,4.5,x1\nZZ,ill,,\n")
    scans = listing(tree, labels="labels.csv").scans
    assert [scan.attributes.get("label") for scan in scans] == ["healthy", None, "ill", "ill"]
    assert scans[0].attributes["score"] == 3
    assert (scans[2].attributes["score"], scans[0].attributes["code"]) == (4.5, "7")
    assert DicomTree().label_of(scans) == "label"
    assert DicomTree().label_of(listing(tree).scans) is None
    (tree / "labels.csv").write_text("SOPInstanceUID,PatientID,label\n1.2.840.77.1,other,left\n")
    scans = listing(tree, labels=str(tree / "labels.csv"), pseudonymise=False).scans
    assert [scan.attributes.get("label") for scan in scans] == [None, None, None, "left"]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("who,label\nC1,x\n", "no column 'SOPInstanceUID'"),
        ("PatientID,label\nC1,x\nC1,y\n", "line 3.*listed already"),
        ("PatientID,label\nnobody,x\n", "no PatientID in it"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(tree: Path, table: str, reason: str) -> None:
    (tree / "labels.csv").write_text(table)
    with pytest.raises(DataError, match=reason):
        listing(tree, labels="labels.csv")


def test_no_folder_and_no_image_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not a folder"):
        listing(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no DICOM image"):
        listing(tmp_path)


def test_hundreds_of_headers_take_seconds(tmp_path: Path) -> None:
    import time

    path = save(with_pixels(header("DX"), np.zeros((512, 512), "<u2")), tmp_path / "0")
    data = path.read_bytes()
    uid = next(iter(listing(tmp_path, pseudonymise=False).scans)).key
    assert uid == "0"
    from pydicom import dcmread

    own = dcmread(path, stop_before_pixels=True).SOPInstanceUID.encode()
    for number in range(1, 300):
        (tmp_path / str(number)).write_bytes(data.replace(own, own[:-4] + f"{number:04d}".encode()))
    start = time.perf_counter()
    assert len(listing(tmp_path).scans) == 300
    assert time.perf_counter() - start < 5
