"""Real files go in, a counterfactual comes back out in their own format, and other programs read it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from latentdrift.cli.__main__ import main
from tests.data.export.dicom_checker import check_with_dciodvfy

CH2 = Path("/usr") / "share" / "mricron" / "templates" / "ch2bet.nii.gz"
"""A real T1-weighted volume (Debian: mricron-data)."""


def counterfactual(run: Path, image: Path, out: Path, *more: str) -> dict[str, str]:
    words = ["counterfactual", "--model", str(run), "--image", str(image), "--out", str(out), "--quiet"]
    words += ["--source", "stage=NonDemented", "--target", "stage=MildDemented", "--steps", "4", *more]
    assert main(words) == 0
    (row,) = json.loads((out / "result.json").read_text())["images"]
    return row


@pytest.mark.parametrize("name", ["MR_small.dcm", "CT_small.dcm", "693_J2KI.dcm"])
def test_dicom_comes_back_as_dicom(toy_run: Path, tmp_path: Path, name: str) -> None:
    from pydicom import dcmread
    from pydicom.data import get_testdata_file

    source = Path(str(get_testdata_file(name, download=False)))
    out = tmp_path / "out"
    row = counterfactual(toy_run, source, out, "--export", "dicom", "tiff")
    stem = source.name.removesuffix(".dcm")
    assert row["exported"] == f"{stem}-edited.dcm {stem}-edited.tiff"
    before, after = dcmread(source), dcmread(out / f"{stem}-edited.dcm")
    assert after.SyntheticData == "YES"
    assert list(after.ImageType)[:2] == ["DERIVED", "SECONDARY"]
    assert after.SOPInstanceUID != before.SOPInstanceUID
    assert after.SourceImageSequence[0].ReferencedSOPInstanceUID == before.SOPInstanceUID
    assert after.PatientID.startswith("SYNTHETIC-")
    assert str(before.PatientName) not in (out / f"{stem}-edited.dcm").read_bytes().decode("latin-1")
    old, new = before.pixel_array, after.pixel_array
    assert old.shape == new.shape
    assert 0 < np.mean(old == new) < 1
    if shutil.which("dcmdump") is not None:
        read = subprocess.run(["dcmdump", out / f"{stem}-edited.dcm"], capture_output=True, text=True, check=True)
        assert "(0008,001c) CS [YES]" in read.stdout
    check_with_dciodvfy(out / f"{stem}-edited.dcm", tmp_path)


@pytest.mark.skipif(not CH2.is_file(), reason="needs a real T1 volume (Debian: mricron-data)")
def test_a_real_volume_comes_back_as_nifti(toy_run: Path, tmp_path: Path) -> None:
    import nibabel

    out = tmp_path / "out"
    row = counterfactual(toy_run, CH2, out, "--position", "10", "--export", "nifti", "png16")
    assert row["exported"] == "ch2bet-edited.nii.gz ch2bet-edited.png"
    before, after = nibabel.load(CH2), nibabel.load(out / "ch2bet-edited.nii.gz")
    assert np.array_equal(before.affine, after.affine)
    assert before.get_data_dtype() == after.get_data_dtype()
    old, new = (np.asarray(image.dataobj.get_unscaled()) for image in (before, after))
    changed = np.argwhere(old != new)
    assert len(set(changed[:, 2])) == 1
    assert 0 < len(changed) < old.shape[0] * old.shape[1]
