from __future__ import annotations

import gzip
import importlib.util
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pandas as pd
import pytest

from latentdrift.data.source import data_source
from latentdrift.data.sources._findings import FINDINGS
from latentdrift.data.sources.chexpert import CheXpert, CheXpertConfig
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

HEADER = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)
CLEAR, HEART, FLUID, LUNG = (FINDINGS.index(name) for name in (
    "No Finding", "Cardiomegaly", "Pleural Effusion", "Pneumonia"
))  # fmt: skip

WriteImage = Callable[..., Path]


def row(path: str, *, age: str = "60", sex: str = "Female", side: str = "", view: str = "AP", **said: str) -> str:
    """A line of the table; findings by their first word, such as Cardiomegaly="1.0"."""
    cells = [next((v for n, v in said.items() if finding.startswith(n)), "") for finding in FINDINGS]
    side = side or ("Lateral" if "lateral" in path else "Frontal")
    return ",".join([path, sex, age, side, "" if side == "Lateral" else view, *cells])


def small(root: Path, lines: Sequence[str], write_image: WriteImage, folder: str = "CheXpert-v1.0-small") -> Path:
    """The layout of CheXpert-v1.0-small: the table beside train/."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    (root / folder / "train.csv").write_text("\n".join([HEADER, *lines]) + "\n", encoding="utf-8")
    for number, line in enumerate(lines):
        path = line.split(",")[0]
        if "/train/" in path and ".." not in path:
            write_image(root / folder / ("train/" + path.split("/train/")[1]), number)
    return root


P = "CheXpert-v1.0-small/train/"
LINES = [
    row(P + "patient00001/study1/view1_frontal.jpg", age="68", No="1.0", Support="1.0"),
    row(P + "patient00002/study1/view1_frontal.jpg", Cardiomegaly="1.0", Edema="-1.0", view="PA", sex="Male"),
    row(P + "patient00002/study2/view1_frontal.jpg", Cardiomegaly="1.0", Pneumonia="-1.0"),
    row(P + "patient00002/study2/view2_lateral.jpg", Cardiomegaly="1.0"),
    row(P + "patient00003/study1/view1_frontal.jpg", **{"Pleural Effusion": "1.0", "Lung Opacity": "1.0"}),
    row(P + "patient00004/study1/view1_frontal.jpg", Pneumonia="0.0"),
]  # fmt: skip


def keys(source: CheXpert, root: Path) -> list[str]:
    return [scan.key.split("train/")[1] for scan in source.list_scans(root).scans]


@pytest.fixture(scope="module")
def real() -> tuple[Path, pd.DataFrame]:
    """The real training table, which torchxrayvision ships."""
    spec = importlib.util.find_spec("torchxrayvision")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0]) / "data"
    return folder, pd.read_csv(folder / "chexpert_train.csv.gz")


def real_source(**settings: object) -> CheXpert:
    settings = {"tables": ("chexpert_train.csv.gz",), "check_files": False, **settings}
    return CheXpert(CheXpertConfig(**settings))  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_real_table(real: tuple[Path, pd.DataFrame]) -> None:
    folder, table = real
    start = time.process_time()
    listing = real_source(views=("all",)).list_scans(folder)
    assert time.process_time() - start < 30  # 5 s of a processor that does nothing else
    wrong = table["AP/PA"].isin(["LL", "RL"])  # Frontal and left lateral at once
    ageless = table["Age"] == 0
    assert (len(table), wrong.sum(), ageless.sum()) == (223_414, 17, 3)
    assert len(listing.scans) == 223_394
    assert len(listing.refused) == 20
    lines = {f"chexpert_train.csv.gz, line {index + 2}" for index in table.index[wrong | ageless]}
    assert {one.name for one in listing.refused} == lines
    kept = table[~wrong & ~ageless].reset_index(drop=True)
    assert [scan.key for scan in listing.scans] == kept["Path"].tolist()
    assert [scan.attributes["age"] for scan in listing.scans] == kept["Age"].tolist()
    sexes = kept["Sex"].map({"Female": "F", "Male": "M", "Unknown": "unknown"})
    assert [scan.attributes.get("sex", "unknown") for scan in listing.scans] == sexes.tolist()
    assert [scan.subject for scan in listing.scans] == kept["Path"].str.split("/").str[2].tolist()
    assert [scan.session for scan in listing.scans] == kept["Path"].str.split("/").str[3].tolist()
    assert [s.attributes["view"] for s in listing.scans] == kept["AP/PA"].fillna("Lateral").tolist()
    for column in ("Cardiomegaly", "Pleural Effusion", "No Finding"):
        said = [column in str(scan.attributes["findings"]).split("|") for scan in listing.scans]
        assert said == (kept[column] == 1).tolist()


@pytest.mark.parametrize("rule", ["u-zeros", "u-ones", "u-ignore", "u-keep", "u-drop"])
def test_classes_of_the_real_table_under_every_rule(real: tuple[Path, pd.DataFrame], tmp_path: Path, rule: str) -> None:
    table = real[1].iloc[::8].reset_index(drop=True)
    table.to_csv(tmp_path / "chexpert_train.csv.gz", index=False)
    listing = real_source(classes=("paper",), uncertain=rule).list_scans(tmp_path)
    frontal = table[(table["Frontal/Lateral"] == "Frontal") & table["AP/PA"].isin(["AP", "PA"]) & (table["Age"] > 0)]
    values = frontal[list(FINDINGS)].fillna(0)
    if rule == "u-drop":
        values = values[(values != -1).all(axis=1)]
    values = values.replace(-1, {"u-zeros": 0, "u-ones": 1}.get(rule, -1))
    four = values[["No Finding", "Cardiomegaly", "Pleural Effusion", "Pneumonia"]]
    one = ((four == 1).sum(axis=1) == 1) & ~(four == -1).any(axis=1)
    ill = (values.drop(columns=["No Finding", "Support Devices"]) != 0).any(axis=1)
    one &= ~((four["No Finding"] == 1) & ill)
    expected = four[one].idxmax(axis=1).replace("No Finding", "Healthy")
    assert len(expected) > 5_000
    assert [scan.attributes["label"] for scan in listing.scans] == expected.tolist()


def test_images_are_found_whatever_stands_before_train(tmp_path: Path, write_image: WriteImage) -> None:
    source = CheXpert(CheXpertConfig(views=("all",)))
    root = small(tmp_path / "a", LINES, write_image)
    for start in (root, root / "CheXpert-v1.0-small"):
        listing = source.list_scans(start)
        assert len(listing.scans) == 6
        assert not listing.refused
        assert all(scan.files[0].is_file() and (start / scan.key) == scan.files[0] for scan in listing.scans)
    # The large set: four batches, two of them without a folder train/, and the table says CheXpert-v1.0.
    big = tmp_path / "b"
    (big / "CheXpert-v1.0 batch 1 (validate & csv)").mkdir(parents=True)
    lines = [line.replace("CheXpert-v1.0-small", "CheXpert-v1.0") for line in LINES]
    (big / "CheXpert-v1.0 batch 1 (validate & csv)/train.csv").write_text("\n".join([HEADER, *lines]), encoding="utf-8")
    for number, line in enumerate(lines):
        rest = line.split(",")[0].split("/train/")[1]
        batch = "CheXpert-v1.0 batch 2 (train 1)" if number < 3 else "CheXpert-v1.0 batch 3 (train 2)"
        write_image(big / batch / rest.replace("patient00002/study2/view2", "patient00005/study2/view2"), number)
    listing = source.list_scans(big)
    assert [scan.key for scan in listing.scans][:2] == [
        "CheXpert-v1.0 batch 2 (train 1)/patient00001/study1/view1_frontal.jpg",
        "CheXpert-v1.0 batch 2 (train 1)/patient00002/study1/view1_frontal.jpg",
    ]
    assert [one.name for one in listing.refused] == ["train.csv, line 5"]
    assert "there is no file" in listing.refused[0].reason


def test_two_copies_are_told_apart_by_the_table_or_refused(tmp_path: Path, write_image: WriteImage) -> None:
    root = small(tmp_path, LINES[:1], write_image)
    write_image(root / "CheXpert-v1.0/train/patient00001/study1/view1_frontal.jpg")
    assert [s.key for s in CheXpert().list_scans(root).scans] == [P + "patient00001/study1/view1_frontal.jpg"]
    table = root / "CheXpert-v1.0-small/train.csv"
    table.write_text(table.read_text().replace("CheXpert-v1.0-small", "Other"))
    with pytest.raises(DataError, match=r"patient00001 is in .*CheXpert-v1\.0.* and "):
        CheXpert().list_scans(root)


def test_attributes_and_views(tmp_path: Path, write_image: WriteImage) -> None:
    root = small(tmp_path, LINES, write_image)
    listing = CheXpert().list_scans(root)
    first, second = listing.scans[:2]
    assert (first.subject, first.session) == ("patient00001", "study1")
    assert dict(first.attributes) == {
        "findings": "No Finding|Support Devices", "sex": "F", "age": 68, "view": "AP", "official_split": "train"
    }  # fmt: skip
    assert (second.attributes["sex"], second.attributes["view"]) == ("M", "PA")
    assert listing.scans[-1].attributes["findings"] == "None Stated"
    assert len(listing.scans) == 5
    assert keys(CheXpert(CheXpertConfig(views=("PA",))), root) == ["patient00002/study1/view1_frontal.jpg"]
    assert keys(CheXpert(CheXpertConfig(views=("lateral",))), root) == ["patient00002/study2/view2_lateral.jpg"]


def test_classes_exclude_each_other(tmp_path: Path, write_image: WriteImage) -> None:
    root = small(tmp_path, LINES, write_image)

    def labels(**settings: object) -> dict[str, object]:
        listing = CheXpert(CheXpertConfig(**settings)).list_scans(root)  # type: ignore[arg-type]
        return {f"{scan.subject}/{scan.session}"[-8:]: scan.attributes["label"] for scan in listing.scans}

    paper = ("healthy", "cardiomegaly", "pleural effusion", "pneumonia")
    assert labels(classes=("paper",)) == labels(classes=paper) == {
        "1/study1": "Healthy", "2/study1": "Cardiomegaly", "3/study1": "Pleural Effusion"
    }  # fmt: skip
    assert labels(classes=paper, uncertain="u-zeros")["2/study2"] == "Cardiomegaly"
    assert "2/study2" not in labels(classes=paper, uncertain="u-ones")
    assert "2/study2" in labels(classes=paper, uncertain_for=("Pneumonia=u-zeros",))
    # Alone among all findings: the effusion comes with an opacity, and the heart of study1 perhaps with an edema.
    assert labels(classes=paper, exclusive="findings") == {"1/study1": "Healthy"}


def test_findings_as_attributes_of_their_own(tmp_path: Path, write_image: WriteImage) -> None:
    root = small(tmp_path, LINES, write_image)
    config = CheXpertConfig(finding_attributes=("pneumonia",), uncertain="u-keep")
    scans = CheXpert(config).list_scans(root).scans
    assert [scan.attributes.get("pneumonia") for scan in scans] == [None, None, "uncertain", None, "no"]
    assert scans[2].attributes["findings"] == "Cardiomegaly|Possible Pneumonia"


def test_valid_and_packed_tables_are_read_too(tmp_path: Path, write_image: WriteImage) -> None:
    root = small(tmp_path, LINES[:1], write_image)
    valid = row("CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg", No="0.0", Edema="1.0")
    with gzip.open(root / "CheXpert-v1.0-small/valid.csv.gz", "wt", encoding="utf-8-sig", newline="") as file:
        file.write(f"{HEADER}\r\n{valid}\r\n")
    write_image(root / "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg")
    scans = CheXpert().list_scans(root).scans
    assert [scan.attributes["official_split"] for scan in scans] == ["train", "valid"]
    assert scans[1].attributes["findings"] == "Edema"


GOOD = P + "patient00009/study1/view1_frontal.jpg"


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (row("../CheXpert/train/patient00001/study1/view1_frontal.jpg"), "leaves the folder"),
        (row("/train/patient00001/study1/view1_frontal.jpg"), "leaves the folder"),
        (row(P + "patient00001/../../x/view1_frontal.jpg"), "leaves the folder"),
        (row("C:\\train\\patient00001\\study1\\view1_frontal.jpg"), "leaves the folder"),
        (row(P + "patient00001/study1/view1_frontal.gif"), "is not …/train/"),
        (row(P + "patient00001/study1/view1_frontal.jpg"), "listed already, in train.csv, line 2"),
        (row(P + "patient99999/study1/view1_frontal.jpg"), "there is no file"),
        (row(GOOD, age="old"), "the age is 'old', not a number"),
        (row(GOOD, age="nan"), "CheXpert's patients are adults"),
        (row(GOOD, age="inf"), "not a number"),
        (row(GOOD, age="-1"), "not from 0 to 120"),
        (row(GOOD, age="1e2"), "not a number"),
        (row(GOOD, sex="Both"), "the sex is 'Both'"),
        (row(GOOD, side="Top"), "Frontal/Lateral is 'Top'"),
        (row(GOOD, view="LL"), "one is wrong"),
        (row(GOOD, Edema="2.0"), "Edema is '2.0', not 1, 0, -1 or empty"),
        (row(GOOD) + ",1", "it has 20 cells, the first line 19"),
        (GOOD, "it has 1 cells"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(tmp_path: Path, write_image: WriteImage, line: str, reason: str) -> None:
    root = small(tmp_path, [LINES[0], LINES[1]], write_image)
    table = root / "CheXpert-v1.0-small/train.csv"
    table.write_text(table.read_text() + line + "\n" + LINES[4] + "\n", encoding="utf-8")
    for path in (GOOD, P + "patient00003/study1/view1_frontal.jpg"):
        write_image(root / path)
    listing = CheXpert().list_scans(root)
    assert [(one.name, reason in one.reason) for one in listing.refused] == [("train.csv, line 4", True)], listing
    assert [scan.subject for scan in listing.scans] == ["patient00001", "patient00002", "patient00003"]


def test_links_out_of_the_folder_are_refused(tmp_path: Path, write_image: WriteImage) -> None:
    root = small(tmp_path / "set", LINES[:2], write_image)
    secret = write_image(tmp_path / "elsewhere/patient00009/study1/view1_frontal.jpg")
    table = root / "CheXpert-v1.0-small/train.csv"
    table.write_text(table.read_text() + row(GOOD) + "\n")
    (root / P / "patient00009").symlink_to(secret.parents[1])
    first = root / P / "patient00001/study1/view1_frontal.jpg"
    first.unlink()
    first.symlink_to(secret)
    inside = root / P / "patient00002/study1/view1_frontal.jpg"
    inside.rename(root / "real.jpg")
    inside.symlink_to(root / "real.jpg")
    listing = CheXpert().list_scans(root)
    assert [scan.subject for scan in listing.scans] == ["patient00002"]
    assert [one.name for one in listing.refused] == ["train.csv, line 2", "train.csv, line 4"]
    assert all("symbolic link" in one.reason for one in listing.refused)


def test_unusable_tables_and_folders(tmp_path: Path, write_image: WriteImage) -> None:
    with pytest.raises(DataError, match="neither train.csv nor valid.csv"):
        CheXpert().list_scans(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        CheXpert().list_scans(tmp_path / "nowhere")
    with pytest.raises(DataError, match="hold no mine.csv"):
        CheXpert(CheXpertConfig(tables=("mine.csv",))).list_scans(tmp_path)
    root = small(tmp_path, LINES, write_image)
    table = root / "CheXpert-v1.0-small/train.csv"
    whole = table.read_text()
    for content, message in [
        (whole.replace("Cardiomegaly,", "Cardiomegly,", 1), "no column 'Cardiomegaly'. Is it 'Cardiomegly'"),
        (whole.replace("Sex,", "Age,", 1), "the column 'Age' twice"),
        (HEADER + '\n"' + whole, "not CSV"),
        ("", "no names of columns"),
        (HEADER + "\n", "no image that is wanted"),
        ("x" * (1 << 20), "longer than any table"),
    ]:
        table.write_text(content)
        with pytest.raises(DataError, match=message.replace("'", ".")):
            CheXpert().list_scans(root)
    table.write_bytes(b"\xff\xfe" + whole.encode("utf-16-le"))
    with pytest.raises(DataError, match="not UTF-8"):
        CheXpert().list_scans(root)
    packed = gzip.compress(whole.encode())
    table.unlink()
    for damage in (packed[: len(packed) // 2], packed[:40] + b"\0" * 30 + packed[70:], b"no gzip"):
        table.with_name("train.csv.gz").write_bytes(damage)
        with pytest.raises(DataError, match="damaged gzip"):
            CheXpert().list_scans(root)


def test_wrong_settings_are_refused_with_close_names() -> None:
    for settings, message in [
        ({"uncertain": "u-one"}, "Did you mean 'u-ones'"),
        ({"uncertain_for": ("Atelectasys=u-ones",)}, "Did you mean 'Atelectasis'"),
        ({"classes": ("Cardiomegali",)}, "Did you mean 'Cardiomegaly'"),
        ({"views": ("front",)}, "Did you mean 'frontal'"),
        ({"exclusive": "class"}, "Did you mean 'classes'"),
        ({"finding_attributes": ("Ede",)}, "Did you mean 'Edema'"),
    ]:
        with pytest.raises(UnknownNameError, match=message):
            CheXpertConfig(**settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Atelectasis=u-ones"):
        CheXpertConfig(uncertain_for=("Edema",))
    with pytest.raises(ConfigurationError, match="one finding twice"):
        CheXpertConfig(classes=("effusion", "Pleural Effusion"))


def test_it_is_registered_with_help_for_every_flag() -> None:
    import tyro

    source = data_source.get("chexpert")
    assert source is CheXpert
    parser = tyro.extras.get_parser(source.config_class)
    text = parser.format_help()
    for flag in ("--uncertain", "--classes", "--exclusive", "--views", "--check-files"):
        assert flag in text
    assert "Keep images of exactly one" in text  # a field of the base class has its sentence too
