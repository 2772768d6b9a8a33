"""Damaged tables: an error that names file and line, or the row is refused and the rest goes on."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from latentdrift.data import Cohort
from latentdrift.data.prepare import PrepareConfig, prepare_cohort
from latentdrift.data.sources.imagefolder import ImageFolder
from latentdrift.data.sources.nifti import NiftiSource
from latentdrift.errors import DataError, UnknownNameError
from tests.data.damage import mutated
from tests.data.damaged_nifti import good_nifti
from tests.data.damaged_pictures import good_pictures

Write = Callable[..., Path]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two good images, one of them twice, and what is no image; another outside."""
    root = tmp_path / "cohort"
    root.mkdir()
    pictures = good_pictures()
    (tmp_path / "outside.png").write_bytes(pictures["eight.png"])
    for name in ("a.png", "b.png"):
        (root / name).write_bytes(pictures["eight.png"])
    (root / "empty.png").touch()
    (root / "cut.png").write_bytes(pictures["eight.png"][:200])
    (root / "text.png").write_text("no image")
    (root / "folder.png").mkdir()
    (root / "loop.png").symlink_to("loop.png")
    os.mkfifo(root / "pipe.png")
    return root


CSV: list[tuple[bytes, str]] = [
    (b"", "no column 'file_name'"),
    (b"\n\n\n", "no column 'file_name'"),
    (b"file,age\na.png,61\n", "no column 'file_name'"),
    (b"file_name,age,age\na.png,61,62\n", "'age' twice"),
    (b"file_name,age\na.png,61\nb.png\n", "line 3 has 1 cells"),
    (b"file_name,age\na.png,61\nb.png,62,63\n", "line 3 has 3 cells"),
    (b'file_name,age\na.png,"61\nb.png,62\n', "line 3 is not CSV"),
    (b"file_name,note\na.png,caf\xe9\n", "not UTF-8"),
    ("file_name,age\na.png,61\n".encode("utf-16"), "not UTF-8"),
    (b"\xff\xfe\x00\x00", "not UTF-8"),
    (b"file_name,age\na.png," + b"9" * 200_000 + b"\n", "line"),
    (b"file_name,age\na.png,61\n,62\n", "line 3 has no file_name"),
    (b"file_name,age\na.png,61\na.png,62\n", "line 3: a.png is listed already, in metadata.csv, line 2"),
    (b"file_name,age\na.png,61\n./a.png,62\n", "line 3: a.png is listed already"),
    (b"file_name,age\n../outside.png,61\n", "line 2: '../outside.png' leaves"),
    (b"file_name,age\nx/../../outside.png,61\n", "line 2"),
    (b"file_name,age\n/etc/passwd,61\n", "line 2: '/etc/passwd' leaves"),
    (b"file_name,age\na.png,61\nb.png,nan\n", "line 3: 'age' is nan"),
    (b"file_name,age\na.png,61\nb.png,-inf\n", "line 3: 'age' is -inf"),
    (b"file_name,age\na.png,61\nb.png,1e999\n", "line 3: 'age' is inf"),
    (b"file_name,age\na.png,61\nb.png,\n", "line 3: 'age'"),
    (b"file_name,age\nmissing.png,61\n", "missing.png: there is no such file"),
    (b"file_name,age\na.png,61\nempty.png,62\n", "empty.png: the file is empty"),
    (b"file_name,age\ncut.png,62\n", "cut.png: "),
    (b"file_name,age\ntext.png,62\n", "text.png: no known image format"),
    (b"file_name,age\nfolder.png,62\n", "folder.png: there is no such file"),
    (b"file_name,age\npipe.png,62\n", "pipe.png: there is no such file"),
    (b"file_name,age\nloop.png,62\n", "loop.png: there is no such file"),
    (b"file_name,age\na.png\0,62\n", "line 2"),
    (b"file_name,age\n" + b"x" * 5000 + b",62\n", "x: "),
    (b"file_name,age\n.,62\n", "line 2"),
]
JSONL: list[tuple[bytes, str]] = [
    (b"{}\n", "no column 'file_name'"),
    (b'{"file_name": "a.png"}\n{"file_name": \n', "line 2 is not JSON"),
    (b'{"file_name": "a.png"}\n["b.png"]\n', "line 2 is not a JSON object"),
    (b'{"file_name": "a.png", "box": [1, 2]}\n', "line 1: 'box' is list"),
    (b'{"file_name": "a.png", "age": {"years": 61}}\n', "line 1: 'age' is dict"),
    (b'{"file_name": 7}\n', "line 1 has no file_name"),
    (b'{"file_name": "a.png", "age": NaN}\n', "line 1: 'age' is nan"),
    (b'{"file_name": "a.png", "age": -Infinity}\n', "line 1: 'age' is -inf"),
    (b'{"file_name": "a.png", "age": 1e999}\n', "line 1: 'age' is inf"),
    (b'{"file_name": "a.png", "age": ' + b"9" * 400 + b"}\n", "line 1: 'age' is a number of more than 18 digits"),
    (b'{"file_name": "a.png", "age": ' + b"9" * 9000 + b"}\n", "line 1 is not JSON"),
    (b'{"file_name": "a.png", "age": 61, " age": 62}\n', "line 1 has 'age' twice"),
    (b'{"file_name": "a\\ud800.png"}\n', "line 1 is not JSON"),
    (b'{"file_name": "a.png", "stage": "\\udfff"}\n', "line 1 is not JSON"),
    (b'{"file_name": "a.png"}\n' + b"[" * 100_000, "line 2 is not JSON"),
    (b'{"file_name": "../outside.png"}\n', "line 1: '../outside.png' leaves"),
    (b'{"file_name": "a.png"}\n{"file_name": "a.png"}\n', "line 2: a.png is listed already"),
    (b'{"file_name": "caf\xe9"}\n', "not UTF-8"),
]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [("metadata.csv", *case) for case in CSV] + [("metadata.jsonl", *case) for case in JSONL],
    ids=lambda value: None if isinstance(value, bytes) else re.sub(r"[^\w. ]", "", value)[:40],
)
def test_a_cohort_names_file_and_line(folder: Path, name: str, content: bytes, says: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        Cohort.open(folder)
    message = str(caught.value)
    assert says in message
    assert name in message or ".png" in message or str(folder) in message
    assert not re.search(r"[A-Z]\w*(Error|Exception)\b", message)


def test_names_that_are_not_there_are_told(folder: Path) -> None:
    (folder / "metadata.csv").write_text("file_name,stage\na.png,AD\nb.png,CN\n")
    with pytest.raises(UnknownNameError, match="Did you mean 'stage'"):
        Cohort.open(folder, label="stag")
    with pytest.raises(UnknownNameError, match="Did you mean 'stage'"):
        Cohort.open(folder, columns=["stages"])
    with pytest.raises(UnknownNameError, match="Did you mean 'drop'"):
        Cohort.open(folder, missing="dropp")


def opened(folder: Path) -> tuple[str, Cohort | None]:
    """Return the cohort, or what was said against it; any other exception fails the test."""
    try:
        return "", Cohort.open(folder, missing="keep")
    except DataError as error:
        return str(error), None


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_random_damage_is_an_error_that_names_the_file(folder: Path, name: str) -> None:
    rows = [{"file_name": "a.png", "age": 61, "stage": "AD"}, {"file_name": "b.png", "age": 70, "stage": "CN"}]
    content = "file_name,age,stage\na.png,61,AD\nb.png,70,CN\n" if name.endswith("csv") else ""
    content = content or "".join(json.dumps(row) + "\n" for row in rows)
    rng, outcomes = random.Random(name), []
    for _ in range(150):
        (folder / name).write_bytes(mutated(content.encode(), rng))
        said, cohort = opened(folder)
        outcomes.append("refused" if cohort is None else "opened")
        assert cohort is not None or name in said or ".png" in said or str(folder) in said
        if cohort is not None:
            cohort.content_hash()
            assert all(record.image.resolve().parent == folder.resolve() for record in cohort)
    assert set(outcomes) == {"refused", "opened"}


BAD_ROWS: list[tuple[str, str]] = [
    ("../outside.nii,s,70", "leaves the folder"),
    ("/etc/passwd.nii,s,70", "leaves the folder"),
    ("C:\\scan.nii,s,70", "leaves the folder"),
    ("missing.nii,s,70", "no file missing.nii"),
    ("empty.nii,s,70", "empty"),
    ("folder.nii,s,70", "not a file"),
    ("pipe.nii,s,70", "not a file"),
    ("loop.nii,s,70", "symbolic links"),
    ("out.nii,s,70", "leads out of the folder"),
    ("linked/int16.nii,s,70", "leads out of the folder"),
    ("good.nii,s,71", "listed already, in metadata.csv, line 2"),
    ("text.txt,s,70", "is no .nii"),
    (",s,70", "no path"),
    ("other0.nii,s,old", "'old'"),
    ("other1.nii,s,nan and more", "nan and more"),
    ("other2.nii,s,-4", "-4"),
    ("other3.nii,s,1e9", "1e9"),
    ("other.nii,s", "2 cells"),
    ("other.nii,s,70,7", "4 cells"),
    ("x" * 400 + ".nii,s,70", "too long"),
]


def test_a_tree_refuses_the_row_and_goes_on(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "elsewhere"
    root.mkdir()
    outside.mkdir()
    content = good_nifti()["int16.nii"]
    others = [root / f"other{number}.nii" for number in range(4)]
    for path in (root / "good.nii", *others, root / "last.nii", outside / "int16.nii"):
        path.write_bytes(content)
    (tmp_path / "outside.nii").write_bytes(content)
    (root / "empty.nii").touch()
    (root / "folder.nii").mkdir()
    (root / "text.txt").write_text("text")
    os.mkfifo(root / "pipe.nii")
    (root / "loop.nii").symlink_to("loop.nii")
    (root / "out.nii").symlink_to(outside / "int16.nii")
    (root / "linked").symlink_to(outside)
    lines = ["path,subject,age", "good.nii,s1,70", *(row for row, _ in BAD_ROWS), "last.nii,s2,71"]
    (root / "metadata.csv").write_text("\n".join(lines) + "\n")
    listing = NiftiSource().list_scans(root)
    assert [scan.key for scan in listing.scans] == ["good.nii", "last.nii"]
    reasons = {refusal.name: refusal.reason for refusal in listing.refused}
    for number, (row, says) in enumerate(BAD_ROWS, 3):
        assert says.lower() in reasons[f"metadata.csv, line {number}"].lower(), row
    made = prepare_cohort(NiftiSource(), root, tmp_path / "out", PrepareConfig(size=32, workers=1))
    assert [record.subject for record in made.cohort] == ["s1", "s2"]
    assert {refusal.name for refusal in made.refused} == set(reasons)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
def test_what_a_damaged_table_still_lists_is_prepared_and_opened(folder: Path, tmp_path: Path, name: str) -> None:
    rows = [{"file_name": "a.png", "subject": "s1", "age": 61}, {"file_name": "b.png", "subject": "s2", "age": 70}]
    content = "file_name,subject,age\na.png,s1,61\nb.png,s2,70\n" if name.endswith("csv") else ""
    content = content or "".join(json.dumps(row) + "\n" for row in rows)
    rng, prepared = random.Random(name), 0
    for number in range(100):
        (folder / name).write_bytes(mutated(content.encode(), rng))
        try:
            listing = ImageFolder().list_scans(folder)
        except DataError:
            continue
        made = prepare_cohort(ImageFolder(), folder, tmp_path / f"out{number}", PrepareConfig(size=16, workers=1))
        assert len(made.cohort) == len(listing.scans)
        prepared += 1
    assert prepared > 3
