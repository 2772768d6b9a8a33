from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from latentdrift.data.source import data_source
from latentdrift.data.sources.nih_chestxray14 import FINDINGS, NihChestXray14, NihConfig
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

# As distributed: two names of columns hold a comma without quotes, and the first release ends lines with one.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
)
TAIL = ",2682,2749,0.143,0.143,"
LINES = [
    "00000001_000.png,Cardiomegaly,0,1,057Y,M,PA" + TAIL,
    "00000001_001.png,Cardiomegaly|Emphysema,1,1,58,M,PA" + TAIL,
    "00000002_000.png,No Finding,0,2,013M,F,AP" + TAIL,
    "00000003_000.png,Effusion,0,3,36,F,PA" + TAIL,
    "00000003_001.png,Hernia|Infiltration,1,3,37.5,F,PA" + TAIL,
]

WriteImage = Callable[..., Path]


def write(root: Path, lines: Sequence[str], write_image: WriteImage, folders: bool = True) -> Path:
    """The layout of the NIH's download: twelve folders of images, or all in one."""
    root.mkdir(parents=True, exist_ok=True)
    (root / "Data_Entry_2017.csv").write_bytes("\r\n".join([HEADER, *lines, ""]).encode("utf-8-sig"))
    for number, line in enumerate(lines):
        name = line.split(",")[0]
        folder = f"images_{number % 12 + 1:03d}/images" if folders else "images"
        if name.endswith(".png") and "/" not in name:
            write_image(root / folder / name, number)
    return root


@pytest.mark.slow
def test_the_real_table() -> None:
    spec = importlib.util.find_spec("torchxrayvision")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "data"
    table = pd.read_csv(folder / "Data_Entry_2017_v2020.csv.gz")
    listing = NihChestXray14(NihConfig(check_files=False)).list_scans(folder)
    assert len(table) == len(listing.scans) == 112_120
    assert not listing.refused
    assert len({scan.subject for scan in listing.scans}) == table["Patient ID"].nunique() == 30_805
    assert [scan.attributes["findings"] for scan in listing.scans] == table["Finding Labels"].tolist()
    assert [scan.attributes["age"] for scan in listing.scans] == table["Patient Age"].tolist()
    assert [scan.session for scan in listing.scans] == table["Follow-up #"].astype(str).tolist()
    assert sum(scan.attributes["sex"] == "M" for scan in listing.scans) == 63_340
    assert sum(scan.attributes["view"] == "PA" for scan in listing.scans) == 67_310
    said = [str(scan.attributes["findings"]).split("|") for scan in listing.scans]
    counts = table["Finding Labels"].str.split("|").explode().value_counts()
    assert {name: sum(name in one for one in said) for name in FINDINGS} == counts.to_dict()
    assert counts["Cardiomegaly"] == 2_776


@pytest.mark.parametrize("folders", [True, False])
def test_both_layouts(tmp_path: Path, write_image: WriteImage, folders: bool) -> None:
    root = write(tmp_path, LINES, write_image, folders)
    listing = NihChestXray14().list_scans(root)
    assert not listing.refused
    assert len(listing.scans) == 5
    first = listing.scans[0]
    assert first.key == ("images_001/images/" if folders else "images/") + "00000001_000.png"
    assert first.files == (root / first.key,)
    assert (first.subject, first.session) == ("1", "0")
    assert dict(first.attributes) == {"findings": "Cardiomegaly", "sex": "M", "age": 57, "view": "PA"}
    assert [scan.attributes["age"] for scan in listing.scans] == [57, 58, 1.08, 36, 37.5]


def test_official_split_classes_and_views(tmp_path: Path, write_image: WriteImage) -> None:
    root = write(tmp_path, LINES, write_image)
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (root / "test_list.txt").write_bytes(b"00000003_000.png\r\n")
    scans = NihChestXray14().list_scans(root).scans
    parts = [scan.attributes.get("official_split") for scan in scans]
    assert parts == ["train_val", "train_val", None, "test", None]
    scans = NihChestXray14(NihConfig(classes=("paper",))).list_scans(root).scans
    labels = [scan.attributes["label"] for scan in scans]
    assert labels == ["Cardiomegaly", "Cardiomegaly", "Healthy", "Pleural Effusion"]
    scans = NihChestXray14(NihConfig(classes=("cardiomegaly", "hernia"), exclusive="findings")).list_scans(root).scans
    assert [scan.key[-16:] for scan in scans] == ["00000001_000.png"]
    assert len(NihChestXray14(NihConfig(views=("AP",))).list_scans(root).scans) == 1
    (root / "test_list.txt").write_text("00000001_000.png\n")
    with pytest.raises(DataError, match=r"00000001_000\.png is in both lists"):
        NihChestXray14().list_scans(root)


@pytest.mark.parametrize("age", ["411Y", "148", "0412Y"])
def test_impossible_ages_are_refused_or_omitted(tmp_path: Path, write_image: WriteImage, age: str) -> None:
    root = write(tmp_path, [*LINES, f"00000004_000.png,Mass,0,4,{age},M,PA{TAIL}"], write_image)
    listing = NihChestXray14().list_scans(root)
    assert [one.name for one in listing.refused] == ["Data_Entry_2017.csv, line 7"]
    assert age in listing.refused[0].reason
    listing = NihChestXray14(NihConfig(bad_age="omit")).list_scans(root)
    assert not listing.refused
    assert "age" not in listing.scans[-1].attributes
    assert listing.scans[0].attributes["age"] == 57


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("../00000009_000.png,Mass,0,9,60,M,PA" + TAIL, "is not named such as"),
        ("/etc/passwd,Mass,0,9,60,M,PA" + TAIL, "is not named such as"),
        ("00000001_000.png,Mass,0,9,60,M,PA" + TAIL, "listed already, in line 2"),
        ("00000009_000.png,Mass,0,9,60,M,PA" + TAIL, "there is no file 00000009_000.png"),
        ("00000008_000.png,Effusions,0,8,60,M,PA" + TAIL, "Did you mean 'Effusion'"),
        ("00000008_000.png,Mass,0,8,sixty,M,PA" + TAIL, "not a number"),
        ("00000008_000.png,Mass,0,8,nan,M,LAT" + TAIL, "the view position is 'LAT'"),
        ("00000008_000.png,Mass,x,8,60,M,PA" + TAIL, "the follow-up number is 'x'"),
        ("00000008_000.png,Mass,0,,60,M,PA" + TAIL, "the patient ID is ''"),
        ("00000008_000.png,Mass,0,8,60,W,PA" + TAIL, "the sex is 'W'"),
        ("00000008_000.png,Mass,0,8,60,M", "it has 6 cells"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, write_image: WriteImage, line: str, reason: str) -> None:
    root = write(tmp_path, [LINES[0]], write_image)
    write_image(root / "images_001/images/00000008_000.png")
    write_image(root / "images_002/images/00000002_000.png")
    table = root / "Data_Entry_2017.csv"
    table.write_bytes(table.read_bytes() + f"{line}\r\n{LINES[2]}\r\n".encode())
    listing = NihChestXray14().list_scans(root)
    assert [(one.name, reason in one.reason) for one in listing.refused] == [("Data_Entry_2017.csv, line 3", True)]
    assert [scan.subject for scan in listing.scans] == ["1", "2"]


def test_an_image_in_two_folders_or_outside_is_refused(tmp_path: Path, write_image: WriteImage) -> None:
    root = write(tmp_path / "set", LINES, write_image)
    write_image(root / "copy/00000001_000.png")
    (root / "images_003/images/00000002_000.png").unlink()
    (root / "images_003/images/00000002_000.png").symlink_to(write_image(tmp_path / "else.png"))
    (root / "images_099").symlink_to(tmp_path)
    refused = {one.name: one.reason for one in NihChestXray14().list_scans(root).refused}
    assert "more than one: copy/00000001_000.png" in refused["Data_Entry_2017.csv, line 2"]
    assert "there is no file" in refused["Data_Entry_2017.csv, line 4"]
    assert "symbolic link" in refused["images_003/images/00000002_000.png"]
    assert "symbolic link" in refused["images_099"]


def test_unusable_tables(tmp_path: Path, write_image: WriteImage) -> None:
    with pytest.raises(DataError, match="Data_Entry_2017_v2020.csv or Data_Entry_2017.csv"):
        NihChestXray14().list_scans(tmp_path)
    root = write(tmp_path, LINES, write_image)
    table = root / "Data_Entry_2017.csv"
    table.write_text(table.read_text().replace("Patient Gender", "Patients Gender"))
    with pytest.raises(DataError, match="no column 'Patient Gender' or 'Patient Sex'. Is it 'Patients Gender'"):
        NihChestXray14().list_scans(root)
    table.write_text(table.read_text().replace("Patients Gender", "patient sex"))
    assert len(NihChestXray14().list_scans(root).scans) == 5
    for settings in ({"views": ("lateral",)}, {"classes": ("Hernia",), "views": ("AP",)}):
        with pytest.raises(DataError, match="no image that is wanted"):
            NihChestXray14(NihConfig(**settings)).list_scans(root)  # type: ignore[arg-type]


def test_settings_are_checked() -> None:
    assert data_source.get("nih_chestxray14") is NihChestXray14
    with pytest.raises(UnknownNameError, match="'Pleural_Thickening'"):
        NihConfig(classes=("pleural thickning",))
    with pytest.raises(UnknownNameError, match="'omit'"):
        NihConfig(bad_age="omitt")
    with pytest.raises(ConfigurationError, match="No view"):
        NihConfig(views=())
