from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from latentdrift.data.scan import Refusal
from latentdrift.data.source import data_source
from latentdrift.data.sources.adni import Adni, AdniConfig
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

HEADER = (
    '"Image Data ID","Subject","Group","Sex","Age","Visit","Modality","Description","Type","Acq Date","Format",'
    '"Downloaded"'
)
FULL = "MPR; GradWarp; B1 Correction; N3; Scaled"


def row(
    image: str, subject: str, group: str, visit: str, date: str, *, description: str = FULL, kind: str = "Processed",
    age: str = "75", sex: str = "M", modality: str = "MRI",
) -> str:  # fmt: skip
    cells = [image, subject, group, sex, age, visit, modality, description, kind, date, "NiFTI", "5/01/2024"]
    return ",".join(f'"{cell}"' for cell in cells)


def write_nifti(root: Path, subject: str, folder: str, when: str, image: str) -> Path:
    """The tree and the file names of LONI's archive."""
    number = image.removeprefix("I")
    name = f"ADNI_{subject}_MR_{folder}_Br_20081015122825656_S{int(number) + 7}_I{number}.nii"
    path = root / "ADNI" / subject / folder / when / f"I{number}" / name
    path.parent.mkdir(parents=True)
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)), path)
    return path


def write_dicom(root: Path, subject: str, folder: str, when: str, image: str, series: str = "") -> Path:
    """Three slices as DICOM, numbered so that the tenth comes after the second; the older tree names the series."""
    number = image.removeprefix("I")
    path = root / "ADNI" / subject / folder / when / (series or f"I{number}")
    path.mkdir(parents=True, exist_ok=True)
    for slice_number in (1, 2, 10):
        name = f"ADNI_{subject}_MR_{folder}_br_raw_2006050212315281_{slice_number}_S13893_I{number}.dcm"
        (path / name).write_bytes(b"\0" * 128 + b"DICM")
    return path


ROWS = [
    row("I45108", "002_S_0413", "CN", "sc", "5/02/2006", age="76", sex="F"),
    row("I40657", "002_S_0413", "CN", "m12", "5/15/2007", age="77", sex="F", description="MPR; GradWarp; N3; Scaled"),
    row("I60008", "002_S_0413", "CN", "m12", "5/15/2007", age="77", sex="F"),
    row("I60009", "002_S_0413", "CN", "m12", "5/15/2007", age="77", sex="F", description="MPR-R;" + FULL[4:]),
    row("I13893", "011_S_0003", "AD", "sc", "9/01/2005", description="MPRAGE", kind="Original", age="81.3"),
    row("I99001", "016_S_4952", "EMCI", "v02", "10/11/2012", description="MPRAGE GRAPPA2", kind="Original"),
    row("I99002", "016_S_4953", "LMCI", "v02", "10/12/2012"),
    row("I99003", "016_S_4954", "SMC", "v02", "10/13/2012"),
    row("I99004", "016_S_6119", "Patient", "1", "1/29/2018"),
]
FOLDER = FULL.replace("; ", "__").replace(" ", "_")


def write(root: Path, rows: Sequence[str] = ROWS) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    content = "\r\n".join([HEADER, *rows, ""]).encode("utf-8-sig")
    (root / "ADNI1_Complete_3Yr_1.5T_5_01_2024.csv").write_bytes(content)
    write_nifti(root, "002_S_0413", FOLDER, "2006-05-02_12_31_52.0", "I45108")
    write_nifti(root, "002_S_0413", "MPR__GradWarp__N3__Scaled", "2007-05-15_10_00_00.0", "I40657")
    write_nifti(root, "002_S_0413", FOLDER, "2007-05-15_10_00_00.0", "I60008")
    write_nifti(root, "002_S_0413", FOLDER.replace("MPR", "MPR-R"), "2007-05-15_10_05_00.0", "I60009")
    write_dicom(root, "011_S_0003", "MPRAGE", "2005-09-01_09_00_00.0", "I13893")
    write_dicom(root, "016_S_4952", "MPRAGE_GRAPPA2", "2012-10-11_09_00_00.0", "I99001", series="S170001")
    for subject, image, when in [
        ("016_S_4953", "I99002", "2012-10-12"),
        ("016_S_4954", "I99003", "2012-10-13"),
        ("016_S_6119", "I99004", "2018-01-29"),
    ]:
        write_nifti(root, subject, FOLDER, f"{when}_09_00_00.0", image)
    return root


def diagnoses(root: Path, **settings: object) -> dict[str, object]:
    listing = Adni(AdniConfig(**settings)).list_scans(root)  # type: ignore[arg-type]
    return {f"{scan.subject}/{scan.session}": scan.attributes["diagnosis"] for scan in listing.scans}


def test_tree_and_attributes(tmp_path: Path) -> None:
    root = write(tmp_path)
    listing = Adni().list_scans(root)
    assert [(one.name, "'Patient' says no diagnosis" in one.reason) for one in listing.refused] == [
        ("ADNI1_Complete_3Yr_1.5T_5_01_2024.csv, line 10", True)
    ]
    first, second, third, fourth = listing.scans[:4]
    assert first.files[0].name.endswith("_I45108.nii")
    assert first.key == first.files[0].relative_to(root).as_posix()
    assert (first.subject, first.session) == ("002_S_0413", "sc")
    assert dict(first.attributes) == {"diagnosis": "CN", "sex": "F", "age": 76, "days": 0}
    # One image a visit: the most corrected one, not the repeat.
    assert second.files[0].name.endswith("_I60008.nii")
    assert second.attributes["days"] == 378  # 2 May 2006 to 15 May 2007
    assert third.key == "ADNI/011_S_0003/MPRAGE/2005-09-01_09_00_00.0/I13893"
    assert [path.name.split("_")[-3] for path in third.files] == ["1", "2", "10"]
    assert third.attributes["age"] == 81.3
    assert fourth.key == "ADNI/016_S_4952/MPRAGE_GRAPPA2/2012-10-11_09_00_00.0/S170001"


def test_other_groups(tmp_path: Path) -> None:
    root = write(tmp_path)
    merged = {"016_S_4952/v02": "MCI", "016_S_4953/v02": "MCI", "016_S_4954/v02": "CN"}
    own = {"002_S_0413/sc": "CN", "002_S_0413/m12": "CN", "011_S_0003/sc": "AD"}
    assert diagnoses(root) == own | merged
    kept = {"016_S_4952/v02": "EMCI", "016_S_4953/v02": "LMCI", "016_S_4954/v02": "SMC", "016_S_6119/1": "Patient"}
    assert diagnoses(root, other_groups="keep") == own | kept
    assert diagnoses(root, other_groups="drop") == own


@pytest.mark.parametrize(
    ("rule", "images"),
    [
        ("most-processed", ["I60008"]),
        ("first", ["I40657"]),
        ("last", ["I60009"]),
        ("original", ["I40657"]),
        ("all", ["I40657", "I60008", "I60009"]),
    ],
)
def test_duplicates_of_a_visit(tmp_path: Path, rule: str, images: list[str]) -> None:
    scans = Adni(AdniConfig(duplicates=rule)).list_scans(write(tmp_path)).scans
    found = [scan.files[0].stem.rpartition("_")[2] for scan in scans if scan.session == "m12"]
    assert found == images


def test_description_and_modality(tmp_path: Path) -> None:
    rows = [*ROWS, row("I77", "002_S_0413", "CN", "sc", "5/02/2006", modality="fMRI", description="MoCoSeries")]
    root = write(tmp_path, rows)
    write_nifti(root, "002_S_0413", "MoCoSeries", "2006-05-02_12_50_00.0", "I77")
    assert len(Adni(AdniConfig(description=("mprage*",))).list_scans(root).scans) == 2
    assert len(Adni(AdniConfig(description=("mpr; *scaled", "*grappa*"))).list_scans(root).scans) == 5
    kept = Adni(AdniConfig(modality="all", duplicates="all")).list_scans(root).scans
    assert len(kept) == len(Adni(AdniConfig(duplicates="all")).list_scans(root).scans) + 1
    with pytest.raises(DataError, match="no image that is wanted"):
        Adni(AdniConfig(description=("FLAIR",))).list_scans(root)


DXSUM = [
    "PHASE,PTID,RID,VISCODE,VISCODE2,EXAMDATE,DIAGNOSIS,DXCHANGE,DXCURREN",
    "ADNI1,002_S_0413,413,bl,bl,2006-05-19,,,1",
    "ADNI1,002_S_0413,413,m12,m12,2007-05-22,,5.0,-4",
    "ADNI1,011_S_0003,3,bl,bl,2005-09-12,Dementia,,",
    "ADNI2,016_S_4952,4952,v03,bl,2012-11-01,,2,",
    "ADNI2,016_S_4953,4953,v03,bl,2014-11-01,2,,",
    "ADNI2,016_S_4954,4954,v03,bl,,1,,",
    "ADNI3,016_S_6119,6119,v01,sc,1/20/2018,3,,",
]
MERGE = [
    "RID,COLPROT,ORIGPROT,PTID,SITE,VISCODE,EXAMDATE,DX_bl,AGE,PTGENDER,DX",
    "413,ADNI1,ADNI1,002_S_0413,2,bl,2006-05-19,CN,76.3,Female,CN",
    "413,ADNI1,ADNI1,002_S_0413,2,m12,2007-05-22,CN,76.3,Female,MCI",
    "6119,ADNI3,ADNI3,016_S_6119,16,bl,2018-01-20,AD,67,Male,Dementia",
]


def test_diagnosis_at_the_visit(tmp_path: Path) -> None:
    root = write(tmp_path)
    with pytest.raises(DataError, match="neither DXSUM nor ADNIMERGE"):
        diagnoses(root, diagnosis="visit")
    (root / "Study").mkdir()
    (root / "Study/ADNIMERGE_16Aug2023.csv").write_text("\n".join(MERGE))
    expected = {"002_S_0413/sc": "CN", "002_S_0413/m12": "MCI", "016_S_6119/1": "AD"}
    assert diagnoses(root, diagnosis="visit") == expected
    # DXSUM wins where both are there; a conversion to dementia (5) at the second visit.
    (root / "DXSUM_PDXCONV_ADNIALL.csv").write_text("\n".join(DXSUM))
    listing = Adni(AdniConfig(diagnosis="visit")).list_scans(root)
    found = {f"{scan.subject}/{scan.session}": scan.attributes["diagnosis"] for scan in listing.scans}
    assert found == {
        "002_S_0413/sc": "CN", "002_S_0413/m12": "AD", "011_S_0003/sc": "AD", "016_S_4952/v02": "MCI",
        "016_S_6119/1": "AD",
    }  # fmt: skip
    reasons = {one.name.rpartition(", ")[2]: one.reason for one in listing.refused}
    assert "750 days from the scan, over 180" in reasons["line 8"]
    assert "no dated diagnosis" in reasons["line 9"]
    assert diagnoses(root, diagnosis="visit", max_days=800)["016_S_4953/v02"] == "MCI"
    assert diagnoses(root, diagnosis="visit", diagnoses=root / "Study/ADNIMERGE_16Aug2023.csv") == expected


def test_the_diagnosis_codes_of_all_phases(tmp_path: Path) -> None:
    from latentdrift.data.sources._adni_diagnosis import read_diagnoses
    from latentdrift.data.sources._tables import read_table

    changes = {1: "CN", 2: "MCI", 3: "AD", 4: "MCI", 5: "AD", 6: "AD", 7: "CN", 8: "MCI", 9: "CN"}
    lines = ["RID,EXAMDATE,DXCHANGE", *(f"{code},2012-01-0{code},{code}" for code in changes)]
    (tmp_path / "t.csv").write_text("\n".join([*lines, "x,2012-01-01,1", "3,2012-01-01,12", "3,soon,1"]))
    refused: list[Refusal] = []
    found = read_diagnoses(read_table(tmp_path / "t.csv"), refused)
    assert {roster: visits[0][1] for roster, visits in found.visits.items()} == changes
    assert [one.name for one in refused] == ["t.csv, line 11", "t.csv, line 12", "t.csv, line 13"]


NEW = "027_S_0074"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row("I45108", "002_S_0413", "CN", "sc", "5/02/2006"), "listed already"),
        (row("I1", NEW, "CN", "sc", "5/02/2006"), "no NIfTI or DICOM file of the image I1"),
        (row("I55", "027_S_0075", "CN", "sc", "5/02/2006"), "is said to be of 027_S_0075, but lies in"),
        (row("../x", NEW, "CN", "sc", "5/02/2006"), "no Image Data ID and Subject"),
        (row("I55", "../../etc", "CN", "sc", "5/02/2006"), "no Image Data ID and Subject"),
        (row("I55", NEW, "CN", "sc", "2006/05/02"), "not a date"),
        (row("I55", NEW, "CN", "sc", "13/32/2006"), "the acquisition date is '13/32/2006'"),
        (row("I55", NEW, "CN", "sc", "5/02/2006", age="750"), "not from 0 to 120"),
        (row("I55", NEW, "CN", "sc", "5/02/2006", age="about 75"), "not a number"),
        (row("I55", NEW, "CN", "sc", "5/02/2006", sex="Z"), "the sex is 'Z'"),
        (row("I55", NEW, "", "sc", "5/02/2006"), "the research group is empty"),
        (row("I55", NEW, "LMIC", "sc", "5/02/2006"), "'LMIC' says no diagnosis"),
        (row("I56", NEW, "CN", "sc", "5/02/2006"), "is there as"),
        (row("I57", NEW, "CN", "sc", "5/02/2006"), "lie in several folders"),
        (row("I58", NEW, "CN", "sc", "5/02/2006"), "no NIfTI or DICOM file of the image I58"),
        ('"I55","027_S_0074"', "it has 2 cells"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    root = write(tmp_path / "set", [ROWS[0], line, ROWS[4]])
    write_nifti(root, NEW, FOLDER, "2006-05-02", "I55")
    write_nifti(root, NEW, FOLDER, "2006-05-03", "I56")
    write_nifti(root, NEW, "copy", "2006-05-03", "I56")
    write_dicom(root, NEW, "MPRAGE", "2006-05-04", "I57")
    write_dicom(root, NEW, "copy", "2006-05-04", "I57")
    outside = write_nifti(tmp_path / "outside", NEW, FOLDER, "2006-05-05", "I58")
    (root / "ADNI" / NEW / "linked").symlink_to(outside.parents[2])
    listing = Adni().list_scans(root)
    refused = {one.name: one.reason for one in listing.refused}
    assert set(refused) == {"ADNI/027_S_0074/linked", "ADNI1_Complete_3Yr_1.5T_5_01_2024.csv, line 3"}
    assert reason in refused["ADNI1_Complete_3Yr_1.5T_5_01_2024.csv, line 3"]
    assert [scan.subject for scan in listing.scans] == ["002_S_0413", "011_S_0003"]


def test_flat_files_and_the_columns_of_the_search_page(tmp_path: Path) -> None:
    header = (
        '"Subject ID","Sex","Weight","Research Group","Visit","Study Date","Age","Modality","Description","Image ID",'
        '"Type"'
    )
    line = '"002_S_0413","F","63.0","CN","ADNI Screening","5/02/2006","76.4","MRI","MPRAGE","13893","Original"'
    (tmp_path / "idaSearch_5_01_2024.csv").write_text(f"{header}\n{line}\n")
    nib.save(nib.Nifti1Image(np.ones((2, 2, 2), np.float32), np.eye(4)), tmp_path / "I13893.nii.gz")
    (scan,) = Adni().list_scans(tmp_path).scans
    assert (scan.key, scan.session, scan.attributes["age"]) == ("I13893.nii.gz", "ADNI Screening", 76.4)


def test_unusable_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no CSV of an image collection"):
        Adni().list_scans(tmp_path)
    root = write(tmp_path)
    table = root / "ADNI1_Complete_3Yr_1.5T_5_01_2024.csv"
    table.write_text(table.read_text(encoding="utf-8-sig").replace('"Acq Date"', '"Acq. Date"'))
    with pytest.raises(DataError, match="no column 'Acq Date' or 'Study Date'. Is it 'Acq. Date'"):
        Adni().list_scans(root)
    (root / "DXSUM.csv").write_text("PTID,EXAMDATE,SCORE\n")
    table.write_text(table.read_text().replace('"Acq. Date"', '"Acq Date"'))
    with pytest.raises(DataError, match="no column 'DIAGNOSIS'"):
        diagnoses(root, diagnosis="visit")


def test_settings_are_checked() -> None:
    assert data_source.get("adni") is Adni
    for settings, message in [
        ({"diagnosis": "visits"}, "'visit'"),
        ({"other_groups": "merged"}, "'merge'"),
        ({"duplicates": "latest"}, "'last'"),
    ]:
        with pytest.raises(UnknownNameError, match=message):
            AdniConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="-1"):
        AdniConfig(max_days=-1)
