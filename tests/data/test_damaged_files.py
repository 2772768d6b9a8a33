"""Hundreds of damaged files among good ones: each is refused by name and reason, and the good ones go on."""

from __future__ import annotations

import csv
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from latentdrift.data.formats.dicom import read_dicom
from latentdrift.data.formats.nifti import read_nifti
from latentdrift.data.formats.reading import read_scan
from latentdrift.data.scan import Plane, Volume
from latentdrift.data.source import DataSource
from latentdrift.data.sources.dicom import DicomTree
from latentdrift.data.sources.imagefolder import ImageFolder
from latentdrift.data.sources.nifti import NiftiSource
from latentdrift.errors import DataError
from tests.data.damage import GENERIC, Damaged
from tests.data.damaged_dicom import damaged_dicom, good_dicom, good_series
from tests.data.damaged_nifti import damaged_nifti, good_nifti
from tests.data.damaged_pictures import damaged_pictures, good_pictures
from tests.data.prepare_listed import prepare_listed

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # of pydicom and Pillow, on odd headers

SEED = 20
CEILING = 6 << 30
"""Bytes of address space that the process may have."""

PEAK_MIB = 1200
"""Half as much again as the 800 that were measured; the largest file claims, and decodes to, 79 million pixels."""

SECONDS = 120


@dataclass(frozen=True)
class Run:
    """What one process made of all files."""

    root: Path
    out: Path
    good: list[str]
    damaged: list[Damaged]
    hazards: list[str]
    refused: dict[str, list[str]]
    peak_mib: float


def write_good(root: Path, work: Path) -> list[tuple[str, list[str]]]:
    """Write good files; return (key, paths) of their scans."""
    listing = []
    for name, content in {**good_nifti(), **good_dicom(work), **good_pictures()}.items():
        (root / "good").mkdir(parents=True, exist_ok=True)
        (root / "good" / name).write_bytes(content)
        if name != "pair.hdr":
            listing.append((f"good/{name}", [str(root / "good" / name)]))
    files = []
    for name, content in good_series(work).items():
        path = root / "good" / "series" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
        files.append(str(path))
    return [*listing, ("good/series", files)]


def write_hazards(root: Path) -> list[tuple[str, list[str]]]:
    """Make what is no file at all, or is called what no file should be; return (key, paths)."""
    folder = root / "hazards"
    folder.mkdir(parents=True)
    good = str(root / "good" / "int16.nii")
    named = []
    for suffix in ("nii", "nii.gz", "dcm", "png"):
        os.mkfifo(folder / f"pipe.{suffix}")
        (folder / f"folder.{suffix}").mkdir()
        (folder / f"loop.{suffix}").symlink_to(f"loop.{suffix}")
        (folder / f"broken.{suffix}").symlink_to("nowhere")
        named += [f"{kind}.{suffix}" for kind in ("pipe", "folder", "loop", "broken", "missing")]
    if os.geteuid() != 0:
        for suffix in ("nii", "dcm", "png"):
            (folder / f"closed.{suffix}").write_bytes(b"closed")
            (folder / f"closed.{suffix}").chmod(0)
            named.append(f"closed.{suffix}")
    listing = [(f"hazards/{name}", [str(folder / name)]) for name in named]
    latin = os.fsdecode(b"caf\xe9.nii")
    (folder / latin).write_bytes(Path(good).read_bytes())
    listing += [(f"hazards/{latin}", [str(folder / latin)]), ("hazards/no-files", [])]
    return [*listing, ("hazards/mixed", [good, good])]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    base = tmp_path_factory.mktemp("damaged")
    root, work = base / "root", base / "work"
    rng = random.Random(SEED)
    good = write_good(root, work)
    hazards = write_hazards(root)
    damaged = [*damaged_nifti(rng), *damaged_dicom(rng, work), *damaged_pictures(rng)]
    listing = [(one.name, [str(path) for path in one.write(root)]) for one in damaged]
    # A table may call a good file anything; the image has to stay below the cohort's folder.
    names = ["../../../escaped.nii", "/absolute.nii", "d" * 5000, "/".join(["deep" * 40] * 60), " ", "a\nb", "..", "😀"]
    named = [(name, [str(root / "good" / "int16.nii")]) for name in names]
    # Good and damaged ones in turns, so that nothing is right only because the damage came last.
    mixed = [*good, *named, *hazards, *listing, good[0]]
    random.Random(0).shuffle(mixed)
    (base / "listing.json").write_text(json.dumps(mixed))
    program = Path(__file__).with_name("prepare_listed.py")
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, program, base / "listing.json", root, base / "out", base / "result.json", str(CEILING)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    assert time.monotonic() - began < SECONDS
    found = json.loads((base / "result.json").read_text())
    refused: dict[str, list[str]] = {}
    for name, reason in found["refused"]:
        refused.setdefault(name, []).append(reason)
    keys = [key for key, _ in [*good, *named]]
    return Run(root, base / "out", keys, damaged, [key for key, _ in hazards], refused, found["peak_mib"])


def images_of(out: Path) -> dict[str, Path]:
    """Return the (first) image of every scan, by its key."""
    rows = [json.loads(line) for line in (out / "geometry.jsonl").read_text().splitlines()]
    return {row["key"]: out / row["file_name"] for row in rows}


def test_there_are_hundreds_of_every_kind(run: Run) -> None:
    assert len({one.name for one in run.damaged}) == len(run.damaged) >= 450
    assert sum(one.invalid for one in run.damaged) >= 380
    for suffix in (".nii", ".nii.gz", ".img", ".dcm", ".png", ".jpg", ".tif"):
        assert sum(one.name.endswith(suffix) for one in run.damaged) >= 7


def test_the_same_seed_gives_the_same_files(run: Run, tmp_path: Path) -> None:
    rng = random.Random(SEED)
    again = [*damaged_nifti(rng), *damaged_dicom(rng, tmp_path)]
    assert again == run.damaged[: len(again)]


def test_what_cannot_be_right_is_refused(run: Run) -> None:
    accepted = [one.name for one in run.damaged if one.invalid and one.name not in run.refused]
    assert accepted == []


def test_reasons_are_in_plain_words(run: Run) -> None:
    generic = {name: r for name, reasons in run.refused.items() for r in reasons if GENERIC.search(r) or len(r) < 20}
    assert generic == {}


def test_reasons_are_the_right_ones(run: Run) -> None:
    wrong = {
        one.name: run.refused.get(one.name)
        for one in run.damaged
        if one.says and not any(one.says in reason for reason in run.refused.get(one.name, []))
    }
    assert wrong == {}


def test_no_scan_is_lost(run: Run) -> None:
    images = images_of(run.out)
    keys = {*run.good, *(one.name for one in run.damaged), *run.hazards}
    lost = [key for key in keys if key not in images and key not in run.refused]
    assert lost == [f"hazards/{os.fsdecode(bytes([99, 97, 102, 0xE9]))}.nii"]
    assert "not UTF-8" in run.refused["hazards/caf\\udce9.nii"][0]
    with (run.out / "refused.csv").open(encoding="utf-8", newline="") as file:
        assert {row["name"] for row in csv.DictReader(file)} == set(run.refused)
    assert run.refused[run.good[0]] == ["it is listed twice; the first is used."]


def test_hazards_are_refused(run: Run) -> None:
    images = images_of(run.out)
    assert not set(run.hazards) & set(images)
    assert len(run.hazards) >= 23


def test_good_files_are_what_they_are_without_damaged_ones(run: Run, tmp_path: Path) -> None:
    alone = write_good(tmp_path / "root", tmp_path / "work")
    (tmp_path / "listing.json").write_text(json.dumps(alone))
    made = prepare_listed(tmp_path / "listing.json", tmp_path / "root", tmp_path / "out")
    assert made.refused == ()
    expected, found = images_of(tmp_path / "out"), images_of(run.out)
    assert len(expected) == len(alone) >= 25
    for key, path in expected.items():
        with Image.open(path) as one, Image.open(found[key]) as other:
            assert one.mode == other.mode
            assert np.ptp(np.asarray(one)) > 0
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other), err_msg=key)


def test_images_stay_below_the_cohort(run: Run) -> None:
    images = images_of(run.out)
    assert all(key in images for key in run.good)
    assert len(set(images.values())) == len(images)
    for path in images.values():
        assert path.resolve().is_relative_to((run.out / "images").resolve())
    assert sorted(path.name for path in run.out.parent.iterdir()) == [
        "listing.json", "out", "result.json", "root", "work",
    ]  # fmt: skip


def test_memory_has_a_bound(run: Run) -> None:
    assert run.peak_mib < PEAK_MIB


@pytest.mark.parametrize(
    ("source", "wanted"),
    [(NiftiSource(), {"int16.nii", "uint8.nii.gz", "pair.img"}), (DicomTree(), {"IM0000", "IM0003", "IM0007"})],
    ids=["nifti", "dicom"],
)
def test_sources_list_the_same_tree(run: Run, source: DataSource, wanted: set[str]) -> None:
    listing = source.list_scans(run.root)
    for scan in listing.scans:
        assert all(path.is_file() and path.resolve().is_relative_to(run.root.resolve()) for path in scan.files)
    reasons = {refusal.name: refusal.reason for refusal in listing.refused}
    assert "link" in reasons["hazards/loop.nii"]
    assert all(refusal.reason for refusal in listing.refused)
    assert wanted <= {path.name for scan in listing.scans for path in scan.files}


def test_links_out_of_the_root_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    for name, content in {**good_nifti(), **good_pictures()}.items():
        (root / name).write_bytes(content)
        (outside / name).write_bytes(content)
    (root / "out.nii").symlink_to(outside / "int16.nii")
    (root / "out.png").symlink_to(outside / "eight.png")
    (root / "folder").symlink_to(outside)
    (root / "metadata.csv").write_text("file_name\nout.png\nfolder/eight.png\neight.png\n")
    pictures = ImageFolder().list_scans(root)
    assert [scan.key for scan in pictures.scans] == ["eight.png"]
    assert {refusal.name for refusal in pictures.refused} == {"metadata.csv, line 2", "metadata.csv, line 3"}
    (root / "metadata.csv").unlink()
    volumes = NiftiSource().list_scans(root)
    assert {"out.nii", "folder"} <= {refusal.name for refusal in volumes.refused}
    assert all(not str(path.resolve()).startswith(str(outside)) for scan in volumes.scans for path in scan.files)


def read(name: str, content: bytes) -> Volume | Plane | str:
    """Read bytes under a name by what that name says, or return what was said against them."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            if name.endswith((".nii", ".nii.gz")):
                return read_nifti(path)
            return read_dicom([path]) if name.endswith(".dcm") else read_scan([path])
        except DataError as error:
            return str(error)


NIFTI_HEADER = good_nifti()["int16.nii"][:352]
HEADS: dict[str, list[bytes]] = {
    "x.nii": [b"", NIFTI_HEADER[:4], NIFTI_HEADER[:40], NIFTI_HEADER, b"\x1c\x02\0\0n+2\0\r\n\x1a\n"],
    "x.nii.gz": [b"", b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\xff"],
    "x.dcm": [
        bytes(128) + b"DICM", b"\x08\0\x05\0", bytes(128) + b"DICM\x02\0\x10\0UI\x14\x001.2.840.10008.1.2.1\0",
        bytes(128) + b"DICM\x02\0\x10\0UI\x12\x001.2.840.10008.1.2\0",
    ],
    "x.png": [b"", b"\x89PNG\r\n\x1a\n", good_pictures()["sixteen.png"][:41]],
    "x.jpg": [b"\xff\xd8", good_pictures()["photo.jpg"][:200]],
    "x.tif": [b"II*\0", good_pictures()["eight.tif"][:100]],
    "x.mgz": [b"", b"\0\0\0\1"],
    "x.img": [b""],
}  # fmt: skip


@pytest.mark.parametrize("name", HEADS)
def test_random_bytes_are_refused_or_read(name: str) -> None:
    @settings(max_examples=60, deadline=None)
    @given(head=st.sampled_from(HEADS[name]), tail=st.binary(max_size=600))
    def check(head: bytes, tail: bytes) -> None:
        found = read(name, head + tail)
        if isinstance(found, str):
            assert name in found or "x.hdr" in found
        else:
            values = found.voxels if isinstance(found, Volume) else found.pixels
            assert np.isfinite(values).all()

    check()


@pytest.mark.slow
def test_many_random_changes(tmp_path: Path) -> None:
    """Tens of thousands of changed files, by the program beside this one; it can be given other seeds by hand."""
    program = Path(__file__).with_name("fuzz_readers.py")
    command: list[Any] = [sys.executable, program, "--count", "20000", "--seed", "1", "--out", tmp_path / "found.json"]
    done = subprocess.run(command, capture_output=True, timeout=3600, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["tried"] == 20000
    assert found["findings"] == []
