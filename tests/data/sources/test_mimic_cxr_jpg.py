from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import pytest

from latentdrift.data.source import data_source
from latentdrift.data.sources._findings import FINDINGS
from latentdrift.data.sources.mimic_cxr_jpg import MimicConfig, MimicCxrJpg
from latentdrift.errors import DataError, UnknownNameError

WriteImage = Callable[..., Path]

METADATA = (
    "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,ViewPosition,Rows,Columns,StudyDate,StudyTime,"
    "ProcedureCodeSequence_CodeMeaning,ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning"
)
# The tables of both labellers name the findings in the order of the alphabet.
LABELS = "subject_id,study_id," + ",".join(sorted(FINDINGS))


def dicom(number: int) -> str:
    return "-".join([f"{number:08x}", "bde0afdd", "112c0b34", "7bc16630", "4e384014"])


def image(number: int, subject: int, study: int, view: str, date: str) -> str:
    return f'{dicom(number)},{subject},{study},"CHEST (PA, LAT)",{view},3056,2544,{date},213014.531,CHEST,x,Erect'


def labels(subject: int, study: int, **said: str) -> str:
    cells = [next((v for n, v in said.items() if f.startswith(n)), "") for f in sorted(FINDINGS)]
    return ",".join([str(subject), str(study), *cells])


IMAGES = [
    image(1, 10000032, 50414267, "PA", "21800506"),
    image(2, 10000032, 50414267, "LATERAL", "21800506"),
    image(3, 10000032, 53189527, "AP", "21810506"),
    image(4, 10000764, 57375967, "AP", "21321015"),
    image(5, 10000898, 50771383, "", "21880321"),
    image(6, 10000935, 50578979, "LATERAL", "21870101"),
    image(7, 10000935, 51178377, "PA", "21870131"),
]
STUDIES = [
    labels(10000032, 50414267, **{"No": "1.0"}),
    labels(10000032, 53189527, Cardiomegaly="1.0", Pneumonia="-1.0"),
    labels(10000764, 57375967, **{"Pleural Effusion": "1.0", "Edema": "0.0"}),
    labels(10000898, 50771383, Pneumonia="1.0"),
    labels(10000935, 50578979, Fracture="1.0"),
    labels(10000935, 51178377, Fracture="1.0"),
]
PATIENTS = [
    "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
    "10000032,F,52,2180,2014 - 2016,2180-09-09",
    "10000764,M,91,2132,2014 - 2016,",
    "10000935,F,91,2190,2008 - 2010,",
]


def pack(path: Path, *lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        file.write("\n".join(lines) + "\n")


def write(root: Path, write_image: WriteImage, *more: str, home: str = "", patients: bool = True) -> Path:
    base = root / home
    for number, line in enumerate([*IMAGES, *more]):
        name, subject, study = line.split(",")[:3]
        if len(subject) == 8 and "/" not in name:
            write_image(base / f"files/p{subject[:2]}/p{subject}/s{study}/{name}.jpg", number)
    pack(base / "mimic-cxr-2.0.0-metadata.csv.gz", METADATA, *IMAGES, *more)
    pack(base / "mimic-cxr-2.0.0-chexpert.csv.gz", LABELS, *STUDIES)
    parts = [f"{dicom(n)},{10414267},{50414267},{'test' if n == 4 else 'train'}" for n in range(1, 8)]
    pack(base / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,split", *parts)
    if patients:
        pack(root / "hosp/patients.csv.gz", *PATIENTS)
    return root


@pytest.mark.parametrize("home", ["", "physionet.org/files/mimic-cxr-jpg/2.1.0"])
def test_layout_and_attributes(tmp_path: Path, write_image: WriteImage, home: str) -> None:
    root = write(tmp_path, write_image, home=home)
    listing = MimicCxrJpg().list_scans(root)
    assert not listing.refused
    assert [scan.session for scan in listing.scans] == ["s50414267", "s53189527", "s57375967", "s51178377"]
    first, second, third, fourth = listing.scans
    assert first.key == (home and f"{home}/") + f"files/p10/p10000032/s50414267/{dicom(1)}.jpg"
    assert first.files[0].is_file()
    assert dict(first.attributes) == {
        "findings": "No Finding", "sex": "F", "age": 52, "view": "PA", "official_split": "train", "days": 0
    }  # fmt: skip
    assert (second.attributes["age"], second.attributes["days"]) == (53, 365)
    # MIMIC-IV writes 91 for all over 89: in the anchor year that is 90 or older, three years earlier it says nothing.
    assert (third.attributes["age"], third.attributes["official_split"]) == (90, "test")
    assert "age" not in fourth.attributes
    # Thirty days since the lateral image of another study, which is not wanted itself.
    assert fourth.attributes["days"] == 30


def test_views(tmp_path: Path, write_image: WriteImage) -> None:
    root = write(tmp_path, write_image)
    assert len(MimicCxrJpg(MimicConfig(views=("all",))).list_scans(root).scans) == 7
    assert len(MimicCxrJpg(MimicConfig(views=("lateral",))).list_scans(root).scans) == 2
    blank = MimicCxrJpg(MimicConfig(views=("all",))).list_scans(root).scans[4]
    assert "view" not in blank.attributes
    assert "sex" not in blank.attributes  # who is not in MIMIC-IV's table


def test_uncertain_labels_and_classes_as_in_chexpert(tmp_path: Path, write_image: WriteImage) -> None:
    root = write(tmp_path, write_image, patients=False)
    for rule, expected in [
        ("u-ignore", ["Healthy", "Pleural Effusion"]),
        ("u-zeros", ["Healthy", "Cardiomegaly", "Pleural Effusion"]),
        ("u-ones", ["Healthy", "Pleural Effusion"]),
        ("u-drop", ["Healthy", "Pleural Effusion"]),
    ]:
        scans = MimicCxrJpg(MimicConfig(classes=("paper",), uncertain=rule)).list_scans(root).scans
        assert [scan.attributes["label"] for scan in scans] == expected
        assert "age" not in scans[0].attributes


def test_negbio_and_patients_elsewhere(tmp_path: Path, write_image: WriteImage) -> None:
    root = write(tmp_path / "cxr", write_image, patients=False)
    pack(root / "mimic-cxr-2.0.0-negbio.csv.gz", LABELS, *[s.replace("1.0", "0.0") for s in STUDIES])
    (tmp_path / "patients.csv").write_text("\n".join(PATIENTS), encoding="utf-8")
    config = MimicConfig(labels="negbio", patients=tmp_path / "patients.csv")
    scans = MimicCxrJpg(config).list_scans(root).scans
    assert scans[0].attributes["findings"] == "None Stated"
    assert scans[0].attributes["age"] == 52


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (image(1, 10000032, 50414267, "PA", "21800506"), "is listed already"),
        (image(9, 10000032, 59999999, "PA", "21800506"), "has no labels by chexpert"),
        (image(9, 10000032, 50414267, "PA", "21801306"), "the study's date is '21801306'"),
        (image(9, 10000032, 50414267, "PA", ""), "not a date"),
        (image(9, 1, 50414267, "PA", "21800506"), "not identifiers"),
        (image(9, 10000032, 50414267, "PA", "21800506").replace(dicom(9), "../../../etc/passwd"), "not identifiers"),
        (image(9, 10000032, 50414267, "PA", "23800506"), "makes the patient 252 years old"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, write_image: WriteImage, line: str, reason: str) -> None:
    root = write(tmp_path, write_image, line)
    listing = MimicCxrJpg().list_scans(root)
    where = [(one.name, reason in one.reason) for one in listing.refused]
    assert where == [("mimic-cxr-2.0.0-metadata.csv.gz, line 9", True)], listing.refused
    assert len(listing.scans) == 4


def test_bad_rows_of_the_other_tables_are_named(tmp_path: Path, write_image: WriteImage) -> None:
    root = write(tmp_path, write_image)
    pack(root / "mimic-cxr-2.0.0-chexpert.csv.gz", LABELS, *STUDIES[:-1], STUDIES[0], STUDIES[5].replace("1.0", "7"))
    pack(root / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,split", f"{dicom(1)},1,1,learn")
    pack(root / "hosp/patients.csv.gz", *PATIENTS, "10000898,F,old,2180,,")
    refused = {one.name: one.reason for one in MimicCxrJpg().list_scans(root).refused}
    assert "listed already" in refused["mimic-cxr-2.0.0-chexpert.csv.gz, line 7"]
    assert "Fracture is '7'" in refused["mimic-cxr-2.0.0-chexpert.csv.gz, line 8"]
    assert "has no labels" in refused["mimic-cxr-2.0.0-metadata.csv.gz, line 8"]
    assert "'learn'" in refused["mimic-cxr-2.0.0-split.csv.gz, line 2"]
    assert "anchor_age is 'old'" in refused["patients.csv.gz, line 5"]


def test_missing_images_and_tables(tmp_path: Path, write_image: WriteImage) -> None:
    root = write(tmp_path, write_image)
    (root / f"files/p10/p10000764/s57375967/{dicom(4)}.jpg").unlink()
    listing = MimicCxrJpg().list_scans(root)
    assert [one.name for one in listing.refused] == ["mimic-cxr-2.0.0-metadata.csv.gz, line 5"]
    assert "there is no file" in listing.refused[0].reason
    assert len(MimicCxrJpg(MimicConfig(check_files=False)).list_scans(root).scans) == 4
    for kind in ("metadata", "chexpert", "split"):
        path = root / f"mimic-cxr-2.0.0-{kind}.csv.gz"
        content = path.read_bytes()
        path.unlink()
        with pytest.raises(DataError, match=rf"no mimic-cxr-2\.0\.0-{kind}\.csv\.gz"):
            MimicCxrJpg().list_scans(root)
        path.write_bytes(content[:30])
        with pytest.raises(DataError, match="damaged gzip"):
            MimicCxrJpg().list_scans(root)
        path.write_bytes(content)
    with pytest.raises(DataError, match="no mimic-cxr-2.0.0-negbio"):
        MimicCxrJpg(MimicConfig(labels="negbio")).list_scans(root)


def test_settings_are_checked() -> None:
    assert data_source.get("mimic_cxr_jpg") is MimicCxrJpg
    with pytest.raises(UnknownNameError, match="'chexpert'"):
        MimicConfig(labels="chexbert")
    with pytest.raises(UnknownNameError, match="'lateral'"):
        MimicConfig(views=("laterel",))
