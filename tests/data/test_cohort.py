from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from latentdrift.data import Cohort, Record
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

Table = Callable[..., Path]

HEADER = "file_name,patient_id,follow_up,age,sex,findings"
LINES = [
    HEADER,
    "images/a.png,007,0,61,F,No Finding",
    "images/b.png,007,1,62,F,None",
    "images/c.png,12,0,48,M,Pneumonia",
    "images/d.png,13,0,55,M,NA",
]


def test_table_is_read_with_types_and_words_as_written(table: Table) -> None:
    cohort = Cohort.open(table(LINES))
    assert len(cohort) == 4
    assert cohort.attribute_names == ("age", "sex", "findings")
    assert cohort.values("age") == [61, 62, 48, 55]
    assert all(type(age) is int for age in cohort.values("age"))
    assert cohort.values("findings") == ["No Finding", "None", "Pneumonia", "NA"]
    assert [record.subject for record in cohort] == ["007", "007", "12", "13"]
    assert [record.session for record in cohort] == ["0", "1", "0", "0"]
    assert cohort[2].key == "images/c.png"
    assert cohort[2].image.is_file()
    assert cohort.counts("sex") == {"F": 2, "M": 2}
    assert cohort.counts("subject") == {"007": 2, "12": 1, "13": 1}


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1", "2.5", "-3e2"], [1.0, 2.5, -300.0]),
        (["01", "02", "03"], ["01", "02", "03"]),
        (["1", "two", "3"], ["1", "two", "3"]),
        (["1_000", "2", "3"], ["1_000", "2", "3"]),
        (["nan", "none", "x"], ["nan", "none", "x"]),
    ],
)
def test_a_column_is_numbers_only_where_all_of_it_is(table: Table, cells: list[str], expected: list[object]) -> None:
    lines = ["file_name,x", *(f"{i}.png,{cell}" for i, cell in enumerate(cells))]
    assert Cohort.open(table(lines)).values("x") == expected


def test_jsonl_keeps_types(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    rows = [{"file_name": "a.png", "age": 70.5, "stage": "12", "subject": 3}, {"file_name": "b.png", "age": 71}]
    rows[1] |= {"stage": "x", "subject": 4}
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    for name in ("a.png", "b.png"):
        write_image(tmp_path / name)
    cohort = Cohort.open(tmp_path)
    assert cohort.values("age") == [70.5, 71]
    assert cohort.values("stage") == ["12", "x"]
    assert cohort[0].subject == "3"


def test_class_folders(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    for name in ("train/AD/1.png", "train/AD/deep/2.png", "test/CN/3.png", "test/CN/.hidden.png"):
        write_image(tmp_path / name)
    (tmp_path / "test/CN/notes.txt").write_text("no image", encoding="utf-8")
    cohort = Cohort.open(tmp_path)
    assert cohort.counts("label") == {"AD": 2, "CN": 1}
    assert Cohort.open(tmp_path, label="stage").values("stage") == cohort.values("label")


def test_a_folder_of_images_has_no_attributes(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    assert Cohort.open(tmp_path).attribute_names == ()


def test_images_both_in_and_outside_class_folders_are_refused(tmp_path: Path, write_image: Callable[..., Path]) -> None:
    write_image(tmp_path / "a.png")
    write_image(tmp_path / "AD/b.png")
    with pytest.raises(DataError, match=r"1 missing values.*a\.png"):
        Cohort.open(tmp_path)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file_name,x", "a.png,1", "a.png,2"], r"line 3: a\.png is listed already.*line 2"),
        (["file_name,x", "a.png,1", "./a.png,2"], "listed already"),
        (["file_name,x", "../a.png,1"], "leaves the cohort's folder"),
        (["file_name,x", "b/../../a.png,1"], "leaves the cohort's folder"),
        (["file_name,x", "/etc/passwd,1"], "leaves the cohort's folder"),
        (["file_name,x", "a\0.png,1"], r"metadata\.csv|leaves"),
        (["path,x", "a.png,1"], "no column 'file_name'.*path, x"),
        (["file_name,x", ",1"], "no file_name"),
        (["file_name,x", "a.png"], "1 cells and the first line 2"),
        (["file_name,x", "a.png,1,2"], "3 cells and the first line 2"),
        (["file_name,x,x", "a.png,1,2"], "column 'x' twice"),
        (["file_name,age", "a.png,61", "b.png,nan"], "line 3: 'age' is nan"),
        (["file_name,age", "a.png,61", "b.png,-inf"], "line 3: 'age' is -inf"),
        (["file_name,age", 'a.png,"6'], "not CSV"),
        (["file_name,age"], "holds no image"),
        ([""], "no column 'file_name'"),
    ],
)
def test_damaged_tables_are_refused_with_the_place(table: Table, lines: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        Cohort.open(table(lines, images=False))


def test_tables_that_are_no_text_or_no_json(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_bytes(b"file_name,x\na.png,\xff\xfe")
    with pytest.raises(DataError, match="not UTF-8"):
        Cohort.open(tmp_path)
    (tmp_path / "metadata.csv").unlink()
    for text, message in [
        ("{", "not JSON"),
        ("[1]", "not a JSON object"),
        ('{"file_name": ["a"]}', "'file_name' is list"),
    ]:
        (tmp_path / "metadata.jsonl").write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=f"line 1.*{message}"):
            Cohort.open(tmp_path)
    (tmp_path / "metadata.csv").write_text("file_name\n", encoding="utf-8")
    with pytest.raises(DataError, match="both"):
        Cohort.open(tmp_path)


def test_empty_and_missing_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no image"):
        Cohort.open(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        Cohort.open(tmp_path / "nowhere")


def test_bad_images_are_counted_and_the_first_are_named(table: Table) -> None:
    folder = table(["file_name", *(f"{i}.png" for i in range(9))])
    (folder / "0.png").unlink()
    (folder / "1.png").write_bytes(b"")
    (folder / "2.png").write_text("not an image", encoding="utf-8")
    content = bytearray((folder / "3.png").read_bytes())
    content[-20] ^= 255
    (folder / "3.png").write_bytes(content)
    with pytest.raises(DataError) as caught:
        Cohort.open(folder)
    message = str(caught.value)
    assert message.startswith("4 of 9 images")
    for name, why in [
        ("0.png", "there is no such file"),
        ("1.png", "the file is empty"),
        ("2.png", "no known image format"),
        ("3.png", ""),
    ]:
        assert f"{folder / name}: {why}" in message
    for i in range(9):
        (folder / f"{i}.png").unlink(missing_ok=True)
    with pytest.raises(DataError, match="9 of 9 images.*\n(.*\n){5}  and 4 more"):
        Cohort.open(folder)


def test_missing_values(table: Table) -> None:
    folder = table(["file_name,age,stage", "a.png,61,CN", "b.png,,AD", "c.png,70,"])
    with pytest.raises(DataError, match=r"2 missing values.*line 3: 'age'.*line 4: 'stage'"):
        Cohort.open(folder)
    assert [r.key for r in Cohort.open(folder, missing="drop")] == ["a.png"]
    assert [r.key for r in Cohort.open(folder, columns=["stage"], missing="drop")] == ["a.png", "b.png"]
    kept = Cohort.open(folder, missing="keep")
    assert dict(kept[1].attributes) == {"stage": "AD"}
    assert kept[0].attributes["age"] == 61
    with pytest.raises(DataError, match=r"1 of 3 images have no 'age', first b\.png"):
        kept.values("age")


def test_unknown_names_come_with_close_ones(table: Table) -> None:
    folder = table(LINES)
    cohort = Cohort.open(folder)
    for call in (
        lambda: Cohort.open(folder, columns=["findngs"]),
        lambda: Cohort.open(folder, label="findngs"),
        lambda: cohort.values("findngs"),
        lambda: cohort.where(findngs="NA"),
        lambda: cohort.split({"train": 0.5, "test": 0.5}, stratify="findngs"),
    ):
        with pytest.raises(UnknownNameError, match="Did you mean 'findings'"):
            call()
    with pytest.raises(UnknownNameError, match="Did you mean 'Pneumonia'"):
        cohort.where(findings="Pneumona")
    with pytest.raises(UnknownNameError, match="'refuse'|refuse"):
        Cohort.open(folder, missing="refse")


def test_where_takes_a_value_several_or_a_question(table: Table) -> None:
    cohort = Cohort.open(table(LINES))
    assert [r.key for r in cohort.where(sex="M")] == ["images/c.png", "images/d.png"]
    assert len(cohort.where(findings=["NA", "None"])) == 2
    assert [r.key for r in cohort.where(sex="F", age=lambda age: age > 61)] == ["images/b.png"]
    assert len(cohort.where(subject="007")) == 2
    with pytest.raises(DataError, match="No image"):
        cohort.where(sex="F", findings="Pneumonia")


def test_take_is_seeded_and_ordered(table: Table) -> None:
    cohort = Cohort.open(table(["file_name", *(f"{i:02}.png" for i in range(30))]))
    keys = [record.key for record in cohort.take(10, seed=1)]
    assert keys == [record.key for record in cohort.take(10, seed=1)] == sorted(set(keys))
    assert keys != [record.key for record in cohort.take(10, seed=2)]
    for count in (0, 31):
        with pytest.raises(ConfigurationError, match="has 30"):
            cohort.take(count)


def test_content_hash_follows_pixels_and_attributes_but_not_order_or_place(table: Table, tmp_path: Path) -> None:
    folder = table(LINES)
    cohort = Cohort.open(folder)
    before = cohort.content_hash()
    assert Cohort(list(cohort)[::-1], folder, "x").content_hash() == before
    changed = Cohort.open(table([line.replace(",55,", ",56,") for line in LINES]))
    assert changed.content_hash() != before
    image = folder / "images/a.png"
    Image.new("L", (3, 3), 9).save(image)
    assert cohort.content_hash() != before
    image.unlink()
    with pytest.raises(DataError, match=r"a\.png cannot be read"):
        cohort.content_hash()


def test_records_can_be_sent_to_workers_and_be_members_of_sets(table: Table) -> None:
    record = Cohort.open(table(LINES))[0]
    assert pickle.loads(pickle.dumps(record)) == record
    assert len({record, Record(record.image, record.subject, record.session, dict(record.attributes), record.key)}) == 1


def test_gray_is_seen_in_the_pixels(table: Table) -> None:
    folder = table(["file_name", "a.png", "b.png"])
    Image.new("RGB", (5, 5), (90, 91, 92)).save(folder / "b.png")
    assert Cohort.open(folder).is_gray()
    Image.new("RGB", (5, 5), (90, 91, 120)).save(folder / "b.png")
    assert not Cohort.open(folder).is_gray()


def test_same_key_twice_or_nothing_is_no_cohort(tmp_path: Path) -> None:
    record = Record(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png 2 times"):
        Cohort([record, record], tmp_path, "x")
    with pytest.raises(DataError, match="no image"):
        Cohort([], tmp_path, "x")
