from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentdrift.data import Cohort
from latentdrift.data.source import data_source
from latentdrift.data.sources.imagefolder import ImageFolder, ImageFolderConfig
from latentdrift.errors import DataError, UnknownNameError

WriteImage = Callable[..., Path]
LINES = [
    "file_name,patient_id,follow_up,age,sex,code",
    "images/a.png,007,0,61,F,01",
    "images/b.png,007,1,62,F,02",
    "images/c.png,12,0,,M,10",
]


def test_it_gives_what_a_cohort_reads(table: Callable[..., Path]) -> None:
    root = table(LINES)
    listing = ImageFolder().list_scans(root)
    cohort = Cohort.open(root, missing="keep")
    assert not listing.refused
    assert [(s.key, s.files[0], s.subject, s.session, dict(s.attributes)) for s in listing.scans] == [
        (r.key, r.image, r.subject, r.session, dict(r.attributes)) for r in cohort
    ]
    assert listing.scans[0].subject == "007"
    assert listing.scans[0].attributes == {"age": 61, "sex": "F", "code": "01"}


def test_jsonl_class_folders_and_chosen_columns(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("train/AD/1.png", "test/CN/2.png"):
        write_image(tmp_path / name)
    scans = ImageFolder(ImageFolderConfig(class_column="stage")).list_scans(tmp_path).scans
    assert [(scan.key, dict(scan.attributes)) for scan in scans] == [
        ("test/CN/2.png", {"stage": "CN"}), ("train/AD/1.png", {"stage": "AD"})
    ]  # fmt: skip
    rows = [{"file_name": "train/AD/1.png", "age": 70.5, "x": 1, "subject": 3}, {"file_name": "../x.png", "age": 7}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    listing = ImageFolder(ImageFolderConfig(columns=("age",))).list_scans(tmp_path)
    assert [(scan.subject, dict(scan.attributes)) for scan in listing.scans] == [("3", {"age": 70.5})]
    assert [one.name for one in listing.refused] == ["metadata.jsonl, line 2"]
    with pytest.raises(UnknownNameError, match="'age'"):
        ImageFolder(ImageFolderConfig(columns=("agee",))).list_scans(tmp_path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("../a.png,1,1,1,F,1", "leaves the folder"),
        ("images/../../a.png,1,1,1,F,1", "leaves the folder"),
        ("/etc/passwd,1,1,1,F,1", "leaves the folder"),
        ("C:/a.png,1,1,1,F,1", "leaves the folder"),
        ("..\\a.png,1,1,1,F,1", "leaves the folder"),
        ("a\0.png,1,1,1,F,1", "leaves the folder"),
        (",1,1,1,F,1", "it has no file_name"),
        ("./images//a.png,1,1,1,F,1", "listed already, in metadata.csv, line 2"),
        ("nowhere.png,1,1,1,F,1", "there is no file"),
        ("images,1,1,1,F,1", "is not a file"),
        ("images/empty.png,1,1,1,F,1", "is empty"),
        ("images/a.png/x.png,1,1,1,F,1", "there is no file"),
        ("images/out.png,1,1,1,F,1", "symbolic link"),
        ("images/loop.png,1,1,1,F,1", "loop.png"),
        ("x" * 5000 + ",1,1,1,F,1", "cannot be reached"),
        ("a/" * 5000 + "x.png,1,1,1,F,1", "there is no file"),
        ("images/d.png,1,1,nan,F,1", "'age' is nan"),
        ("images/d.png,1,1", "it has 3 cells"),
    ],
)
def test_a_bad_row_is_refused_with_its_line(
    table: Callable[..., Path], write_image: WriteImage, line: str, reason: str
) -> None:
    root = table(LINES)
    for name in ("images/d.png", "images/e.png"):
        write_image(root / name)
    (root / "images/empty.png").touch()
    (root / "images/out.png").symlink_to(write_image(root.parent / f"{root.name}-outside.png"))
    (root / "images/loop.png").symlink_to(root / "images/loop.png")
    with (root / "metadata.csv").open("a", encoding="utf-8") as file:
        file.write(f"{line}\nimages/e.png,13,0,70,F,05\n")
    listing = ImageFolder().list_scans(root)
    assert [one.name for one in listing.refused] == ["metadata.csv, line 5"]
    assert reason in listing.refused[0].reason
    assert [scan.key[-5:] for scan in listing.scans] == ["a.png", "b.png", "c.png", "e.png"]


def test_unusable_folders(tmp_path: Path, write_image: WriteImage) -> None:
    with pytest.raises(DataError, match="not a folder"):
        ImageFolder().list_scans(tmp_path / "nowhere")
    with pytest.raises(DataError, match="no image"):
        ImageFolder().list_scans(tmp_path)
    for name, content, message in [
        ("metadata.csv", "path,x\na.png,1\n", "no column 'file_name'"),
        ("metadata.csv", "file_names,x\na.png,1\n", "Is it 'file_names'"),
        ("metadata.csv", 'file_name,x\na.png,"1\n', "not CSV"),
        ("metadata.csv", "file_name\n../a.png\n", "no image that can be used.*line 2.*leaves the folder"),
        ("metadata.jsonl", "{", "not JSON"),
        ("metadata.jsonl", '{"path": "a.png"}', "no 'file_name'"),
    ]:
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(DataError, match=message):
            ImageFolder().list_scans(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "metadata.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        ImageFolder().list_scans(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name\n")
    with pytest.raises(DataError, match="both"):
        ImageFolder().list_scans(tmp_path)
    assert data_source.get("imagefolder") is ImageFolder


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(alphabet='ab./\\,"\n\r\0:~é\ufeff', max_size=12), max_size=6))
def test_no_table_gets_out_of_the_folder_or_raises_anything_else(tmp_path: Path, texts: list[str]) -> None:
    root = tmp_path / "set"
    root.mkdir(exist_ok=True)
    for path in (tmp_path / "a", tmp_path / "b", root / "a", root / "b"):
        path.write_bytes(b"x")
    (root / "metadata.csv").write_text("file_name\n" + "\n".join(texts), encoding="utf-8", newline="")
    try:
        listing = ImageFolder().list_scans(root)
    except DataError:
        return
    assert {scan.files[0] for scan in listing.scans} <= {root / "a", root / "b"}
    assert len({scan.key for scan in listing.scans}) == len(listing.scans)
    assert all("line" in one.name for one in listing.refused)
