from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from latentdrift.data.source import Listing, data_source
from latentdrift.data.sources.nifti import NiftiConfig, NiftiSource
from latentdrift.errors import ConfigurationError, DataError

FILES = [
    "AD/007/v1/t1.nii.gz",
    "AD/007/v1/t1_mask.nii.gz",
    "AD/007/v2/t1.nii.gz",
    "CN/12/v1/t1.img",
    "CN/13/v1/brain.mgz",
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    values = np.ones((3, 4, 5), np.int16)
    for name in FILES:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = (
            {"z": nibabel.Nifti1Image, "g": nibabel.Nifti1Pair}[name[-1]]
            if not name.endswith("mgz")
            else nibabel.MGHImage
        )
        nibabel.save(kind(values, np.eye(4)), path)
    (folder / "CN/13/notes.txt").write_text("x")
    (folder / ".hidden").mkdir()
    (folder / ".hidden/a.nii").write_bytes(b"x")
    return folder


def listed(root: Path, **settings: object) -> Listing:
    return NiftiSource(NiftiConfig(**settings)).list_scans(root)  # type: ignore[arg-type]


def test_a_bare_tree(root: Path) -> None:
    found = listed(root)
    assert [scan.key for scan in found.scans] == [FILES[0], *FILES[2:]]
    assert all(scan.subject is None and not scan.attributes for scan in found.scans)
    assert found.refused == ()
    assert found.scans[2].files == (root / FILES[3],)
    assert data_source.get("nifti") is NiftiSource
    assert len(listed(root, exclude=()).scans) == 5
    assert [scan.key for scan in listed(root, files="CN/*").scans] == FILES[3:]


def test_paths_taken_apart_by_a_pattern(root: Path) -> None:
    pattern = r"^(?P<diagnosis>AD|CN)/(?P<subject>\d+)/v(?P<session>\d)/t1"
    found = listed(root, pattern=pattern)
    assert [(s.subject, s.session, dict(s.attributes)) for s in found.scans] == [
        ("007", "1", {"diagnosis": "AD"}),
        ("007", "2", {"diagnosis": "AD"}),
        ("12", "1", {"diagnosis": "CN"}),
    ]
    assert [refusal.name for refusal in found.refused] == [FILES[4]]
    with pytest.raises(ConfigurationError, match="no regular expression"):
        listed(root, pattern="(?P<subject>")


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.tsv", "tables/scans.csv"])
@pytest.mark.parametrize("column", ["file_name", "path"])
def test_a_table_describes_the_files(root: Path, name: str, column: str) -> None:
    lines = [
        [column, "patient_id", "visit", "Age", "Sex", "stage"],
        [FILES[0], "007", "1", "61.5", "female", "AD"],
        [FILES[3].replace(".img", ".hdr"), "12", "", "70", "M", "CN"],
    ]
    folder = root
    if "/" in name:  # paths are relative to the table: move the scans below it
        (root / "tables").mkdir()
        for part in ("AD", "CN"):
            (root / part).rename(root / "tables" / part)
    delimiter = "\t" if name.endswith("tsv") else ","
    (folder / name).write_text("\n".join(delimiter.join(line) for line in lines) + "\n")
    found = listed(root, table=name if "/" in name else "")
    above = "tables/" if "/" in name else ""
    assert [(s.key, s.subject, s.session, dict(s.attributes)) for s in found.scans] == [
        (above + FILES[0], "007", "1", {"age": 61.5, "sex": "F", "stage": "AD"}),
        (above + FILES[3], "12", None, {"age": 70, "sex": "M", "stage": "CN"}),
    ]
    assert {refusal.name for refusal in found.refused} == {above + FILES[2], above + FILES[4]}
    assert all("does not list it" in refusal.reason for refusal in found.refused)


def test_lines_that_cannot_be_are_refused_with_their_number(root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.nii").write_bytes(b"x")
    (root / "link.nii").symlink_to(tmp_path / "secret.nii")
    (root / "CN/12/v1/t1.hdr").unlink()
    (root / "empty.nii").write_bytes(b"")
    lines = [
        "file_name,age",
        f"{FILES[0]},61",
        f"./{FILES[0]},62",
        "../secret.nii,3",
        "/etc/passwd,3",
        "nowhere.nii,3",
        ",3",
        "CN/13/notes.txt,3",
        f"{FILES[2]},old",
        f"{FILES[3]},5",
        "link.nii,5",
        "empty.nii,5",
        f"{FILES[4]},5,6",
    ]
    (root / "metadata.csv").write_text("\n".join(lines))
    found = listed(root)
    assert [scan.key for scan in found.scans] == [FILES[0]]
    reasons = {refusal.name: refusal.reason for refusal in found.refused}
    for line, reason in {
        3: "listed already",
        4: "leaves the folder",
        5: "leaves the folder",
        6: "no file",
        7: "no path",
        8: "no .nii",
        9: "'old'",
        10: "no t1.hdr",
        11: "out of the folder",
        12: "empty",
        13: "3 cells",
    }.items():
        assert reason in reasons[f"metadata.csv, line {line}"], line


def test_layouts_that_cannot_be(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such table"):
        listed(root, table="scans.csv")
    for wrong in ("../x.csv", "/x.csv"):
        with pytest.raises(ConfigurationError, match="below the root"):
            listed(root, table=wrong)
    (root / "metadata.csv").write_text("image,age\n")
    with pytest.raises(DataError, match=r"metadata\.csv has no column 'file_name'"):
        listed(root)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no .nii"):
        listed(tmp_path / "empty")
    with pytest.raises(DataError, match="not a folder"):
        listed(tmp_path / "nowhere")
