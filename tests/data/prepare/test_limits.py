"""What ends a scan from outside (time, memory, a tool that is not there), and what a next run makes of it."""

from __future__ import annotations

import os
import random
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from latentdrift.data.prepare import PrepareConfig, prepare_cohort
from latentdrift.data.prepare import convert as convert_module
from latentdrift.data.prepare.convert import LONGEST_PATH, NO_MEMORY, Clock, convert_scan, safe_path, time_limit
from latentdrift.data.prepare.ledger import LEDGER, Ledger
from latentdrift.data.prepare.run import THREADS, one_thread_each
from latentdrift.data.scan import Scan, Volume
from latentdrift.data.sources.nifti import NiftiSource
from latentdrift.errors import DataError
from tests.data.damage import head

CONFIG = PrepareConfig(size=32, workers=1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for name in ("a.nii", "b.nii"):
        image = nibabel.Nifti1Image(head((16, 18, 14)).astype(np.int16), np.diag([4.0, 4.0, 5.0, 1.0]))
        nibabel.save(image, folder / name)
    return folder


def replace_reading(monkeypatch: pytest.MonkeyPatch, name: str, instead: Any) -> None:
    """Have `instead` called where the file of that name is read."""
    plain = convert_module.read_scan

    def read(files: Any, **rest: Any) -> Volume:
        return instead() if files[0].name == name else plain(files, **rest)

    monkeypatch.setattr(convert_module, "read_scan", read)


def out_of_memory() -> None:
    raise MemoryError


@pytest.mark.parametrize(
    ("instead", "says"), [(lambda: time.sleep(5), "took longer than 1 s"), (out_of_memory, NO_MEMORY)]
)
def test_what_wanted_time_or_memory_is_tried_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instead: Any, says: str
) -> None:
    with monkeypatch.context() as context:
        replace_reading(context, "b.nii", instead)
        first = prepare_cohort(NiftiSource(), root, tmp_path / "out", PrepareConfig(size=32, workers=1, time_limit_s=1))
    assert len(first.cohort) == 1
    assert says in first.refused[0].reason
    again = prepare_cohort(NiftiSource(), root, tmp_path / "out", CONFIG)
    assert (len(again.cohort), again.refused, again.resumed) == (2, (), 1)


def test_a_tool_that_was_missing_is_looked_for_again(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    settings = PrepareConfig(size=32, workers=1, strip="hd-bet")
    with pytest.raises(DataError, match="None of the 2 scans"):
        prepare_cohort(NiftiSource(), root, tmp_path / "out", settings)
    assert Ledger(tmp_path / "out", settings).recall(Scan("a.nii", (root / "a.nii",))) is None


def test_a_damaged_file_is_remembered_until_it_changes(root: Path, tmp_path: Path) -> None:
    (root / "c.nii").write_bytes((root / "a.nii").read_bytes()[:500])
    for resumed in (0, 3):
        made = prepare_cohort(NiftiSource(), root, tmp_path / "out", CONFIG)
        assert (made.resumed, [refusal.name for refusal in made.refused]) == (resumed, ["c.nii"])
    (root / "c.nii").write_bytes((root / "a.nii").read_bytes())
    assert prepare_cohort(NiftiSource(), root, tmp_path / "out", CONFIG).refused == ()


def test_the_time_limit_holds_where_a_library_goes_on_after_an_error() -> None:
    clock, began, caught = Clock(), time.monotonic(), []

    def three_decoders() -> None:
        for _ in range(2):
            with suppress(DataError):
                time.sleep(20)
            caught.append(time.monotonic())
        time.sleep(20)

    with pytest.raises(DataError, match="longer than 1 s"), time_limit(1, clock):
        three_decoders()
    assert len(caught) == 2
    assert time.monotonic() - began < 8
    assert clock.expired
    time.sleep(1.2)  # no alarm comes after the block


def test_a_reason_that_a_library_has_put_in_its_own_words_is_the_time_limit(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrapped() -> None:
        try:
            time.sleep(20)
        except DataError as error:
            raise RuntimeError("decoder failed") from error

    replace_reading(monkeypatch, "a.nii", lambda: suppressing(wrapped))

    def suppressing(call: Any) -> None:
        try:
            call()
        except RuntimeError as error:
            raise DataError(f"a.nii cannot be decoded: {error}") from error

    settings = PrepareConfig(size=32, workers=1, time_limit_s=1)
    found = convert_scan(Scan("a.nii", (root / "a.nii",)), root, tmp_path / "out", settings, "MR")
    assert "longer than 1 s" in found.refused[0]
    assert not found.lasting


def test_a_damaged_ledger_costs_time_only(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    whole = prepare_cohort(NiftiSource(), root, out, CONFIG)
    content = (out / LEDGER).read_bytes()
    rng = random.Random(0)
    broken = [
        b'{"key": "a.nii"}\n[1]\n"x"\n{}\n\xff\n',
        content.replace(b'"rows"', b'"sows"'),
        content[: len(content) // 2],
    ]
    for _ in range(30):
        data = bytearray(content)
        for place in rng.sample(range(len(data)), 5):
            data[place] = rng.randrange(256)
        broken.append(bytes(data))
    for damaged in broken:
        (out / LEDGER).write_bytes(damaged)
        again = prepare_cohort(NiftiSource(), root, out, CONFIG)
        assert again.cohort.content_hash() == whole.cohort.content_hash()


def test_workers_calculate_with_one_thread_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in THREADS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(THREADS[0], "3")
    with one_thread_each():
        assert [os.environ[name] for name in THREADS] == ["3", "1", "1"]
    assert [os.environ.get(name) for name in THREADS] == ["3", None, None]


def test_long_names_stay_short_enough_for_a_file() -> None:
    for key in ("d" * 5000, "/".join(["deep" * 40] * 60), "/".join("x" * 400)):
        path = safe_path(key)
        assert len(path) <= LONGEST_PATH + 9
        assert max(map(len, path.split("/"))) <= 129
    assert safe_path("d" * 5000) != safe_path("d" * 5001)
