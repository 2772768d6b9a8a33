from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from latentdrift.data.source import data_source
from latentdrift.data.sources._oasis_clinic import Stages
from latentdrift.data.sources.oasis3 import Oasis3, Oasis3Config
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

B4 = "OASISID,OASIS_session_label,days_to_visit,age at visit,MMSE,memory,orient,judgment,CDRSUM,CDRTOT,dx1"
DEMOGRAPHICS = "OASISID,Subject_accession,AgeatEntry,AgeatDeath,GENDER,EDUC,SES,racecode,race,HAND,APOE"
ADRC = '"ADRC_ADRCCLINICALDATA ID","Subject","Date","Age","mmse","ageAtEntry","cdr","commun","dx1"'
VISITS = [
    "OAS30001,OAS30001_UDSb4_d0000,0000,65.19,29,0,0,0,0,0,Cognitively normal",
    "OAS30001,OAS30001_UDSb4_d0339,339,66.12,29,0,0,0,0.5,0.5,uncertain dementia",
    "OAS30001,OAS30001_UDSb4_d0722,722,67.17,28,0,0,0,0,1,AD Dementia",
    "OAS30002,OAS30002_UDSb4_d0100,100,70.27,20,2,2,2,14,3,AD Dementia",
    "OAS30002,OAS30002_UDSb4_d0120,120,70.33,20,2,2,2,14,,AD Dementia",
    "OAS30003,OAS30003_UDSb4_d2000,2000,80,20,0,0,0,1,0,Cognitively normal",
]
PEOPLE = ["OAS30001,,65.1937,,2,12,2,5,White,R,23", "OAS30002,,70,80.1,1,16,1,5,White,R,34"]
SESSIONS = [("OAS30001", "d0129", 2), ("OAS30001", "d0757", 2), ("OAS30002", "d0110", 1), ("OAS30003", "d0010", 1)]


def save(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4)), path)
    path.with_name(path.name.split(".")[0] + ".json").write_text("{}")
    return path


def write(
    root: Path, visits: Sequence[str] = VISITS, people: Sequence[str] | None = PEOPLE, layout: str = "sessions"
) -> Path:
    """What the three ways of downloading give: session folders, BIDS, and the archive of XNAT."""
    for subject, day, runs in SESSIONS:
        for run in range(1, runs + 1):
            name = f"sub-{subject}_ses-{day}" + (f"_run-{run:02d}" if runs > 1 else "") + "_T1w.nii.gz"
            save(root / {
                "sessions": f"{subject}_MR_{day}/anat{run + 1}/{name}",
                "bids": f"sub-{subject}/ses-{day}/anat/{name}",
                "xnat": f"{subject}_MR_{day}/anat{run + 1}/NIFTI/{name.replace('_ses-', '_sess-')}",
            }[layout])  # fmt: skip
        save(root / f"{subject}_MR_{day}/anat9/sub-{subject}_ses-{day}_T2w.nii.gz")
    data = root / "0AS_data_files"
    (data / "UDSb4").mkdir(parents=True)
    (data / "UDSb4/OASIS3_UDSb4_cdr.csv").write_text("\n".join([B4, *visits]) + "\n")
    if people is not None:
        (data / "OASIS3_demographics.csv").write_text("\n".join([DEMOGRAPHICS, *people]) + "\n")
    return root


@pytest.mark.parametrize("layout", ["sessions", "bids", "xnat"])
def test_layouts_and_attributes(tmp_path: Path, layout: str) -> None:
    root = write(tmp_path, layout=layout)
    listing = Oasis3().list_scans(root)
    assert [(scan.subject, scan.session) for scan in listing.scans] == [
        ("OAS30001", "d0129"), ("OAS30001", "d0757"), ("OAS30002", "d0110")
    ]  # fmt: skip
    first, second, third = listing.scans
    assert "_run-01_T1w" in first.key
    assert first.files == (root / first.key,)
    # Day 129 is 129 from the visit of day 0 and 210 from that of day 339; the age is 65.1937 + 129 / 365.25.
    assert dict(first.attributes) == {"stage": "CN", "cdr": 0, "sex": "F", "age": 65.55, "days": 129}
    assert (second.attributes["stage"], second.attributes["age"]) == ("Mild", 67.27)
    # The nearer visit has no rating and says nothing; 2 and 3 are one stage.
    assert (third.attributes["stage"], third.attributes["cdr"], third.attributes["sex"]) == ("Moderate", 3, "M")
    assert len(listing.refused) == 1
    assert "OAS30003" in listing.refused[0].name
    assert "1990 days away, over 365" in listing.refused[0].reason


def test_stages_runs_suffix_and_gap(tmp_path: Path) -> None:
    root = write(tmp_path)

    def stages(**settings: object) -> list[object]:
        return [scan.attributes["stage"] for scan in Oasis3(Oasis3Config(**settings)).list_scans(root).scans]  # type: ignore[arg-type]

    assert stages(stages=("0=CN", "0.5=MCI", "1=AD")) == ["CN", "AD", "AD"]
    assert stages(max_days=2000) == ["CN", "Mild", "Moderate", "CN"]
    assert stages(max_days=30) == ["Moderate"]
    assert len(stages(runs="all")) == 5
    assert "_run-02_" in Oasis3(Oasis3Config(runs="last")).list_scans(root).scans[0].key
    assert "T2w" in Oasis3(Oasis3Config(suffix="T2w")).list_scans(root).scans[0].key
    with pytest.raises(DataError, match="suffix FLAIR"):
        stages(suffix="FLAIR")


def test_of_two_visits_as_near_the_earlier_decides(tmp_path: Path) -> None:
    visits = ["OAS30001,x_d0100,100,65,,,,,,0,", "OAS30001,x_d0158,158,65,,,,,,2,", *VISITS[3:]]
    assert Oasis3().list_scans(write(tmp_path, visits)).scans[0].attributes["stage"] == "CN"


def test_age_without_demographics_is_from_the_visit(tmp_path: Path) -> None:
    first = Oasis3().list_scans(write(tmp_path, people=None)).scans[0]
    assert first.attributes["age"] == round(65.19 + 129 / 365.25, 2)
    assert "sex" not in first.attributes


def test_the_older_tables(tmp_path: Path) -> None:
    root = write(tmp_path)
    (root / "0AS_data_files/UDSb4/OASIS3_UDSb4_cdr.csv").unlink()
    (root / "0AS_data_files/OASIS3_demographics.csv").unlink()
    lines = [
        ADRC,
        '"OAS30001_ClinicalData_d0000","OAS30001","","","29.0","65.149895","0.0","0.0","Cognitively normal"',
        '"OAS30001_ClinicalData_d0722","OAS30001","","","29.0","65.149895","0.5","0.0","."',
        '"OAS30002_ClinicalData_d0100","OAS30002","","","29.0","70.0","1.0","0.0","AD Dementia"',
        '"OAS30002_ClinicalData_d0105","OAS30002","","","29.0","70.0",".","0.0","AD Dementia"',
    ]
    (root / "ADRC Clinical Data.csv").write_text("\n".join(lines))
    (root / "subjects.csv").write_text('"Subject","M/F","Hand","Education","YOB"\n"OAS30001","F","R","12",""\n')
    scans = Oasis3().list_scans(root).scans
    assert [scan.attributes["stage"] for scan in scans] == ["CN", "VeryMild", "Mild"]
    assert scans[0].attributes["age"] == 65.5  # 65.149895 + 129 / 365.25
    assert [scan.attributes.get("sex") for scan in scans] == ["F", "F", None]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("OAS30001,x,339,66,29,0,0,0,0,0.7,x", "the rating is 0.7"),
        ("OAS30001,x,339,66,29,0,0,0,0,much,x", "the rating is 'much', not a number"),
        ("OAS30001,x,soon,66,29,0,0,0,0,1,x", "the day of the visit is 'soon'"),
        ("OAS30001,x,,66,29,0,0,0,0,1,x", "the day of the visit is ''"),
        ("OAS30001,x,33.5,66,29,0,0,0,0,1,x", "not a whole number"),
        ("OAS30001,x,339,660,29,0,0,0,0,1,x", "the age is 660"),
        ("../OAS30001,x,339,66,29,0,0,0,0,1,x", "not such as OAS30001"),
        ("OAS30001,x,339", "it has 3 cells"),
    ],
)
def test_a_bad_visit_is_refused_with_its_line(tmp_path: Path, line: str, reason: str) -> None:
    listing = Oasis3().list_scans(write(tmp_path, [*VISITS, line]))
    assert (listing.refused[0].name, reason in listing.refused[0].reason) == ("OASIS3_UDSb4_cdr.csv, line 8", True)
    assert len(listing.scans) == 3


def test_misplaced_and_nameless_images_are_refused(tmp_path: Path) -> None:
    root = write(tmp_path / "set")
    save(root / "OAS30001_MR_d0757/anat5/sub-OAS30001_ses-d0129_run-07_T1w.nii.gz")
    save(root / "elsewhere/sub-OAS30001_T1w.nii.gz")
    save(root / "OAS30002_MR_d0300/anat1/sub-OAS30002_T1w.nii.gz")
    outside = save(tmp_path / "outside/sub-OAS30002_ses-d0400_T1w.nii.gz")
    (root / "OAS30002_MR_d0300/anat1/sub-OAS30002_ses-d0400_T1w.nii.gz").symlink_to(outside)
    listing = Oasis3().list_scans(root)
    reasons = {one.name: one.reason for one in listing.refused}
    assert "different sessions" in reasons["OAS30001_MR_d0757/anat5/sub-OAS30001_ses-d0129_run-07_T1w.nii.gz"]
    assert "neither the file nor its folder" in reasons["elsewhere/sub-OAS30001_T1w.nii.gz"]
    assert "symbolic link" in reasons["OAS30002_MR_d0300/anat1/sub-OAS30002_ses-d0400_T1w.nii.gz"]
    assert ("OAS30002", "d0300") in [(scan.subject, scan.session) for scan in listing.scans]


def test_missing_and_double_tables(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no file such as"):
        Oasis3().list_scans(tmp_path)
    root = write(tmp_path)
    table = root / "0AS_data_files/UDSb4/OASIS3_UDSb4_cdr.csv"
    content = table.read_text()
    (root / "cohort_files.csv").write_text(content)  # has the same columns, but not the distributor's name
    assert len(Oasis3().list_scans(root).scans) == 3
    (root / "OASIS3_UDSb4_cdr.csv").write_text(content)
    with pytest.raises(DataError, match="holds 2 tables such as OASIS3_UDSb4_cdr.csv"):
        Oasis3().list_scans(root)
    assert len(Oasis3(Oasis3Config(clinical=table)).list_scans(root).scans) == 3
    for path in (table, root / "OASIS3_UDSb4_cdr.csv", root / "cohort_files.csv"):
        path.unlink()
    with pytest.raises(DataError, match="neither OASIS3_UDSb4_cdr.csv nor ADRC"):
        Oasis3().list_scans(root)
    table.write_text(content.replace("OASISID", "OASIS_ID"))
    with pytest.raises(DataError, match="no column 'OASISID' or 'Subject'. Is it 'OASIS_ID'"):
        Oasis3().list_scans(root)


def test_stages_are_checked() -> None:
    assert data_source.get("oasis3") is Oasis3
    stages = Stages(("0=CN", "0.5=MCI", "1=AD"))
    assert [stages.of(rating) for rating in (0, 0.5, 1, 2, 3)] == ["CN", "MCI", "AD", "AD", "AD"]
    for wrong in (
        (),
        ("0.5=MCI",),
        ("0=CN", "0=AD"),
        ("1=AD", "0=CN"),
        ("0=CN", "0.7=AD"),
        ("0=CN", "1"),
        ("0=CN", "=x"),
    ):
        with pytest.raises(ConfigurationError, match="stage"):
            Oasis3Config(stages=wrong)
    with pytest.raises(UnknownNameError, match="'first'"):
        Oasis3Config(runs="frist")
