"""What a study's folder holds, and that nothing in it tells which image is real."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentdrift.data import Cohort
from latentdrift.errors import ConfigurationError, DataError, LatentDriftError, UnknownNameError
from latentdrift.studio.reader_study.build import BuildConfig, Built, build_study
from latentdrift.studio.reader_study.study import read_key, read_study, write_key


def chunks(path: Path) -> list[bytes]:
    """Return the names of a PNG file's chunks."""
    content, place, found = path.read_bytes(), 8, []
    while place < len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        found.append(content[place + 4 : place + 8])
        place += 12 + length
    return found


def test_kinds_and_classes_are_in_equal_parts(built: Built) -> None:
    counted = Counter((truth.arm, truth.shown) for truth in built.truths)
    assert counted["", "NonDemented"] == counted["", "MildDemented"] == 2
    assert {arm for arm, _ in counted} == {"", "plain", "drifted"}
    assert all(counted[arm, stage] == 1 for arm in ("plain", "drifted") for stage in built.study.classes)


def test_subjects_are_different_where_there_are_enough(built: Built) -> None:
    real = [truth.subject for truth in built.truths if not truth.arm and truth.shown == "NonDemented"]
    assert len(set(real)) == len(real)


def test_files_differ_in_their_pixels_alone(built: Built) -> None:
    paths = sorted((built.study.folder / "images").iterdir())
    assert [path.stem for path in paths] == list(built.study.images)
    assert len({(path.stat().st_mtime, path.stat().st_mode) for path in paths}) == 1
    for path in paths:
        assert set(chunks(path)) == {b"IHDR", b"IDAT", b"IEND"}
        with Image.open(path) as image:
            assert (image.size, image.mode) == ((24, 24), "L")


def test_names_do_not_tell_the_kind(tmp_path: Path, cohorts: dict[str, Cohort]) -> None:
    """Over twenty studies the kinds stand in the order of names as in one that is drawn."""
    first_half = 0
    for seed in range(20):
        config = BuildConfig(count=8, readers=1, seed=seed)
        made = build_study(tmp_path / str(seed), cohorts["real"], {"plain": cohorts["plain"]}, config)
        first_half += sum(bool(truth.arm) for truth in made.truths[:4])
    assert 24 <= first_half <= 56  # of 80, 40 expected


def test_the_folder_does_not_hold_the_truth(built: Built) -> None:
    text = (built.study.folder / "study.json").read_text()
    assert "plain" not in text
    assert all(truth.file not in text for truth in built.truths)
    assert {path.name for path in built.study.folder.iterdir()} == {"images", "study.json"}


def test_pixels_are_those_of_the_source(built: Built) -> None:
    truth = next(truth for truth in built.truths if not truth.arm)
    with Image.open(built.study.image(truth.image)) as ours, Image.open(truth.file) as source:
        assert np.array_equal(np.asarray(ours), np.asarray(source))


def test_each_reader_has_an_own_order_and_repeats(built: Built) -> None:
    first, second = built.study.readers
    assert first.order != second.order
    assert first.code != second.code
    for reader in (first, second):
        assert set(reader.order) == set(built.study.images)
        assert len(reader.order) == 9
        (twice,) = [name for name, times in Counter(reader.order).items() if times == 2]
        assert reader.order.index(twice) < 3  # the first third
        assert reader.order[4:].count(twice) == 1  # and again in the second half


def test_the_seed_decides_all_but_the_codes(tmp_path: Path, cohorts: dict[str, Cohort]) -> None:
    made = [
        build_study(tmp_path / name, cohorts["real"], {"plain": cohorts["plain"]}, BuildConfig(count=8, seed=seed))
        for name, seed in (("a", 5), ("b", 5), ("c", 6))
    ]
    assert made[0].truths == made[1].truths != made[2].truths
    assert [reader.order for reader in made[0].study.readers] == [reader.order for reader in made[1].study.readers]
    assert made[0].study.readers[0].code != made[1].study.readers[0].code


def test_colour_of_one_kind_is_taken_from_all(tmp_path: Path, cohorts: dict[str, Cohort]) -> None:
    made = build_study(tmp_path / "a", cohorts["real"], {"colour": cohorts["colour"]}, BuildConfig(count=8))
    assert any("all are shown in gray" in note for note in made.notes)
    modes = {Image.open(path).mode for path in (tmp_path / "a" / "images").iterdir()}
    assert modes == {"L"}
    coloured = {"colour": cohorts["colour"][6:]}
    build_study(tmp_path / "b", cohorts["colour"][:6], coloured, BuildConfig(count=8))
    assert {Image.open(path).mode for path in (tmp_path / "b" / "images").iterdir()} == {"RGB"}


def test_what_may_tell_the_kinds_apart_is_said(
    tmp_path: Path, cohorts: dict[str, Cohort], folders: dict[str, Path]
) -> None:
    for path in sorted(folders["real"].glob("*.png")):
        with Image.open(path) as image:
            (tmp_path / "jpeg" / ("abc"[int(path.stem) % 3])).mkdir(parents=True, exist_ok=True)
            image.save(tmp_path / "jpeg" / ("abc"[int(path.stem) % 3]) / f"{path.stem}.jpg")
    jpeg = Cohort.open(tmp_path / "jpeg")
    config = BuildConfig(count=8, size=48)
    made = build_study(tmp_path / "a", jpeg, {"plain": cohorts["plain"]}, config)
    assert any("Real files are JPEG, synthetic ones PNG" in note for note in made.notes)
    assert any("enlarged to 48" in note for note in made.notes)


def test_study_and_key_are_read_back(built: Built, tmp_path: Path) -> None:
    write_key(tmp_path / "key.csv", built.truths)
    study = read_study(built.study.folder)
    assert study == built.study
    assert tuple(read_key(tmp_path / "key.csv", study).values()) == built.truths
    assert study.reader(f" {study.readers[1].code.upper()} ") == study.readers[1]
    assert study.reader("") is None


def test_the_key_of_another_study_is_refused(built: Built, tmp_path: Path) -> None:
    write_key(tmp_path / "key.csv", built.truths[1:])
    with pytest.raises(DataError, match="another study: it lacks 1 of 8"):
        read_key(tmp_path / "key.csv", built.study)
    (tmp_path / "none.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="no key"):
        read_key(tmp_path / "none.csv", built.study)
    with pytest.raises(DataError, match="cannot be read"):
        read_key(tmp_path / "missing.csv", built.study)


@pytest.mark.parametrize(
    ("text", "says"),
    [("{", "damaged"), ('{"version": 1}', "damaged"), ('{"version": 2}', "version 2"), (None, "cannot be read")],
)
def test_a_damaged_study_is_refused(built: Built, text: str | None, says: str) -> None:
    path = built.study.folder / "study.json"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises(DataError, match=says):
        read_study(built.study.folder)


def test_a_study_without_an_image_is_refused(built: Built) -> None:
    built.study.image(built.study.images[0]).unlink()
    with pytest.raises(DataError, match="lacks 1 images"):
        read_study(built.study.folder)


def test_a_name_that_is_a_path_is_refused(built: Built) -> None:
    path = built.study.folder / "study.json"
    path.write_text(path.read_text().replace(built.study.images[0], "../../secret"))
    with pytest.raises(DataError, match="lacks 1 images"):
        read_study(built.study.folder)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"readers": 0}, ConfigurationError, "--readers 0"),
        ({"repeats": 3}, ConfigurationError, "--repeats 3 of 8"),
        ({"classes": ("a", "b")}, ConfigurationError, "--attribute"),
        ({"attribute": "stag"}, UnknownNameError, "'stage'"),
        ({"attribute": "stage", "classes": ("NonDemented", "Mild")}, UnknownNameError, "'MildDemented'"),
        ({"attribute": "stage", "classes": ("NonDemented",)}, ConfigurationError, "2 to 9"),
        ({"count": 1}, ConfigurationError, "--count 1 is too small"),
        ({"count": 30}, DataError, "has 12 images; 15 are needed"),
        ({"size": 4}, ConfigurationError, "image size"),
    ],
)
def test_settings_that_cannot_be(
    tmp_path: Path, cohorts: dict[str, Cohort], change: dict[str, Any], error: type[LatentDriftError], says: str
) -> None:
    config = dataclasses.replace(BuildConfig(count=8), **change)
    with pytest.raises(error, match=says):
        build_study(tmp_path, cohorts["real"], {"plain": cohorts["plain"]}, config)


def test_an_image_that_is_in_both_sets_is_refused(tmp_path: Path, cohorts: dict[str, Cohort]) -> None:
    with pytest.raises(DataError, match="are the same image"):
        build_study(tmp_path, cohorts["real"], {"copies": cohorts["real"]}, BuildConfig(count=24))
