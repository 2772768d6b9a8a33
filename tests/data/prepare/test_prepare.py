from __future__ import annotations

import csv
import importlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from latentdrift.data import Cohort
from latentdrift.data.prepare import Preparation, PrepareConfig, prepare_cohort, read_geometry
from latentdrift.data.prepare import run as run_module
from latentdrift.data.prepare.convert import Converted, convert_scan, safe_path, time_limit
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing
from latentdrift.data.volumes.placement import Placement
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError


@dataclass(frozen=True)
class NoSettings:
    """Nothing to set."""


class Folder(DataSource):
    """Every file below the root, with the subject from its folder and an attribute from its name."""

    config_class = NoSettings
    title = "A folder"
    needs = "files"
    label = "stage"
    modality = "MR"

    def list_scans(self, root: Path) -> Listing:
        files = sorted(path for path in root.rglob("*") if path.is_file())
        scans = tuple(
            Scan(
                key=path.relative_to(root).as_posix(),
                files=(path,),
                subject=path.parent.name,
                session="1",
                attributes={"stage": "AD" if "ad" in path.name else "CN", "age": 70.5},
            )
            for path in files
        )
        return Listing(scans, (Refusal("table, line 7", "no such file"),))


def head(shape: tuple[int, int, int], scale: float = 1000.0) -> np.ndarray:
    """An ellipsoid that is brighter towards the front, on air with a little noise."""
    grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    radius = sum((axis / 0.8) ** 2 for axis in grid)
    noise = np.random.default_rng(0).uniform(0, 0.01, shape)
    return ((np.where(radius < 1, 0.5 + 0.3 * grid[1], 0) + noise) * scale).astype(np.int16)


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    import nibabel

    root = tmp_path / "source"
    for subject, name in (("s1", "cn.nii.gz"), ("s2", "ad.nii.gz"), ("s3", "cn.nii")):
        (root / subject).mkdir(parents=True)
        image = nibabel.Nifti1Image(head((40, 48, 32)), np.diag([2.0, 2.0, 3.0, 1.0]))
        nibabel.save(image, root / subject / name)
    Image.fromarray((head((40, 30, 8))[:, :, 4] / 4).clip(0, 255).astype(np.uint8)).save(root / "s3" / "xray.png")
    return root


def prepare(scans: Path, out: Path, **settings: Any) -> Preparation:
    return prepare_cohort(Folder(), scans, out, PrepareConfig(size=48, workers=1, **settings))


def test_a_cohort_comes_out(scans: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    made = prepare_cohort(
        Folder(),
        scans,
        tmp_path / "out",
        PrepareConfig(size=48, workers=1, positions=(0.0, 9.0)),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told[0] == (0, 4)
    assert told[-1] == (4, 4)
    assert len(made.cohort) == 3 * 2 + 1
    assert made.cohort.class_attribute() == "stage"
    assert made.cohort.counts("stage") == {"AD": 2, "CN": 5}
    assert {record.subject for record in made.cohort} == {"s1", "s2", "s3"}
    assert made.refused == (Refusal("table, line 7", "no such file"),)
    modes = set()
    for record in made.cohort:
        with Image.open(record.image) as file:
            assert file.size == (48, 48)
            modes.add((record.image.parent.name, record.image.name.startswith("xray"), file.mode))
    assert {mode for _, xray, mode in modes if xray} == {"L"}
    assert all(mode.startswith("I") for _, xray, mode in modes if not xray)
    reopened = Cohort.open(tmp_path / "out", missing="keep")
    assert reopened.content_hash() == made.cohort.content_hash()
    assert not list((tmp_path / "out").rglob("*.partial"))


def test_an_image_is_the_placement_of_its_slice(scans: Path, tmp_path: Path) -> None:
    import nibabel

    out = tmp_path / "out"
    made = prepare(scans, out, positions=(0.0,))
    record = next(record for record in made.cohort if record.subject == "s1")
    known = read_geometry(record.image)
    assert known is not None
    placement = Placement.from_dict(known["placement"])
    assert placement.shape in ((48, 40), (40, 48))
    voxels = nibabel.load(scans / known["files"][0]).get_fdata()
    middle = voxels[:, :, known["cut"]["index"]]
    with Image.open(record.image) as file:
        shown = np.asarray(file).astype(np.float64) / 65535
    # Front of the head is up and bright; the whole plane is there once, at its own proportions.
    assert shown[: 48 // 2].mean() > shown[48 // 2 :].mean()
    scaled = np.clip((middle - placement.low) / (placement.high - placement.low), 0, 1)
    assert shown.sum() * placement.pixel**2 == pytest.approx(scaled.sum() * 2.0 * 2.0, rel=0.02)
    assert read_geometry(scans / "s3" / "xray.png") is None


def test_a_second_run_reads_nothing_again(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    prepare(scans, out)
    before = {path: path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")}
    calls: list[str] = []

    def counted(scan: Scan, **rest: Any) -> Converted:
        calls.append(scan.key)
        return convert_scan(scan, **rest)

    monkeypatch.setattr(run_module, "convert_scan", counted)
    assert prepare(scans, out).resumed == 4
    assert calls == []
    assert {path: path.stat().st_mtime_ns for path in (out / "images").rglob("*.png")} == before
    # A file that changed, an image that is gone and other settings are made anew; nothing else is.
    changed = scans / "s2" / "ad.nii.gz"
    os.utime(changed, ns=(1, 1))
    next((out / "images" / "s1").rglob("*.png")).unlink()
    prepare(scans, out)
    assert sorted(calls) == ["s1/cn.nii.gz", "s2/ad.nii.gz"]
    calls.clear()
    prepare(scans, out, positions=(6.0,))
    assert len(calls) == 4


def test_damaged_scans_are_named_and_the_rest_goes_on(scans: Path, tmp_path: Path) -> None:
    whole = (scans / "s3" / "cn.nii").read_bytes()
    (scans / "s1" / "cut.nii").write_bytes(whole[: len(whole) // 2])
    (scans / "s1" / "text.dcm").write_text("not a DICOM file")
    (scans / "s1" / "empty.png").touch()
    Image.fromarray(np.full((20, 20, 3), (255, 0, 0), np.uint8)).save(scans / "s1" / "colour.png")
    made = prepare(scans, tmp_path / "out")
    assert len(made.cohort) == 4
    reasons = {refusal.name: refusal.reason for refusal in made.refused}
    assert set(reasons) == {"table, line 7", "s1/cut.nii", "s1/text.dcm", "s1/empty.png", "s1/colour.png"}
    assert "colour" in reasons["s1/colour.png"]
    with (tmp_path / "out" / "refused.csv").open(newline="") as file:
        assert {row["name"]: row["reason"] for row in csv.DictReader(file)} == reasons


def test_processes_give_what_one_gives(scans: Path, tmp_path: Path) -> None:
    one = prepare(scans, tmp_path / "one")
    two = prepare_cohort(Folder(), scans, tmp_path / "two", PrepareConfig(size=48, workers=2))
    assert one.cohort.content_hash() == two.cohort.content_hash()
    for name in ("metadata.csv", "geometry.jsonl", "refused.csv"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


DYING = """import os
from latentdrift.data.prepare.convert import Converted

def dies(scan):
    if scan.key == "s2/ad.nii.gz":
        os._exit(1)
    return Converted(scan.key, ({"file_name": f"{scan.key}.png"},))
"""


def test_a_process_that_dies_costs_one_scan(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A module of its own: a fresh process must be able to import what it is to run.
    (tmp_path / "dying_reader.py").write_text(DYING)
    monkeypatch.syspath_prepend(str(tmp_path))
    dies = importlib.import_module("dying_reader").dies
    found = {c.key: c for c in run_module.convert_all(dies, Folder().list_scans(scans).scans, workers=2)}
    assert len(found) == 4
    assert found["s2/ad.nii.gz"].refused == (run_module.DIED,)
    assert all(converted.rows for key, converted in found.items() if key != "s2/ad.nii.gz")


def test_what_takes_too_long_is_refused() -> None:
    import time

    with pytest.raises(DataError, match="longer than 1 s"), time_limit(1):
        time.sleep(5)
    with time_limit(0):
        pass


def test_names_stay_inside_and_apart() -> None:
    assert safe_path("sub-01/anat/a.nii.gz") == "sub-01/anat/a-" + safe_path("sub-01/anat/a.nii.gz")[-8:]
    assert safe_path("../../etc/passwd").split("/")[:2] == ["_", "_"]
    assert safe_path("a b") != safe_path("a_b")
    assert safe_path("x.nii") != safe_path("x.nii.gz")
    assert ".." not in safe_path("a/../b").split("/")


def test_slices_without_a_head_are_refused(scans: Path, tmp_path: Path) -> None:
    made = prepare(scans, tmp_path / "out", positions=(0.0, 500.0))
    assert sum("+500 mm" in refusal.reason for refusal in made.refused) == 3
    assert len(made.cohort) == 4


def test_twins_are_listed_once(scans: Path) -> None:
    listing = Folder().list_scans(scans)
    found = run_module.without_twins(Listing(listing.scans * 2))
    assert found.scans == listing.scans
    assert [refusal.name for refusal in found.refused] == [scan.key for scan in listing.scans]


def test_a_limit_spreads(scans: Path, tmp_path: Path) -> None:
    made = prepare_cohort(Folder(), scans, tmp_path / "out", PrepareConfig(size=48, workers=1), limit=2)
    assert {record.subject for record in made.cohort} == {"s1", "s3"}
    with pytest.raises(DataError, match="limit is 0"):
        prepare_cohort(Folder(), scans, tmp_path / "out", PrepareConfig(size=48), limit=0)


def test_a_source_of_which_nothing_can_be_used(tmp_path: Path) -> None:
    (tmp_path / "in" / "s").mkdir(parents=True)
    with pytest.raises(DataError, match="no scan that can be used"):
        prepare(tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "s" / "bad.nii").write_bytes(b"bad")
    with pytest.raises(DataError, match=r"None of the 1 scans .*refused.csv"):
        prepare(tmp_path / "in", tmp_path / "out")
    with pytest.raises(DataError, match="is not a folder"):
        prepare(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(DataError, match="the source's own folder"):
        prepare(tmp_path / "in", tmp_path / "in")


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"size": 4}, "size is 4"),
        ({"extent_mm": 0.0}, "extent_mm is 0.0"),
        ({"positions": ()}, "give at least one"),
        ({"positions": (1.0, 1.0)}, "each once"),
        ({"positions": (float("nan"),)}, "give millimetres"),
        ({"min_foreground": 1.0}, "min_foreground is 1.0"),
        ({"frame": -1}, "frame is -1"),
    ],
)
def test_settings_that_cannot_be(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        PrepareConfig(**setting)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'axial'"):
        PrepareConfig(plane="axal")  # type: ignore[arg-type]


def test_the_fingerprint_is_of_what_changes_images() -> None:
    plain = PrepareConfig()
    assert plain.fingerprint() == PrepareConfig(workers=3, time_limit_s=9).fingerprint()
    assert plain.fingerprint() != PrepareConfig(size=128).fingerprint()


def test_a_damaged_geometry_is_named(scans: Path, tmp_path: Path) -> None:
    made = prepare(scans, tmp_path / "out")
    path = tmp_path / "out" / "geometry.jsonl"
    lines = path.read_text().splitlines()
    assert all(json.loads(line)["root"] == str(scans.resolve()) for line in lines)
    path.write_text("\n".join(lines[1:]) + "\n")
    with pytest.raises(DataError, match="does not list"):
        read_geometry(made.cohort[0].image)
    path.write_text(lines[0][:-30] + "\n")
    with pytest.raises(DataError, match="line 1 is damaged"):
        read_geometry(made.cohort[0].image)


def test_a_run_that_was_killed_goes_on(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"

    class Killed(BaseException):
        pass

    def stop_at_third(done: int, total: int) -> None:
        if done == 3:
            raise Killed

    with pytest.raises(Killed):
        prepare_cohort(Folder(), scans, out, PrepareConfig(size=48, workers=1), progress=stop_at_third)
    assert not (out / "metadata.csv").exists()
    ledger = out / ".prepared.jsonl"
    ledger.write_text(ledger.read_text()[:-20])  # killed while it wrote the last line
    calls: list[str] = []

    def counted(scan: Scan, **rest: Any) -> Converted:
        calls.append(scan.key)
        return convert_scan(scan, **rest)

    monkeypatch.setattr(run_module, "convert_scan", counted)
    made = prepare(scans, out)
    assert (made.resumed, len(calls), len(made.cohort)) == (2, 2, 4)
    whole = prepare(scans, tmp_path / "whole")
    assert whole.cohort.content_hash() == made.cohort.content_hash()
    assert len(ledger.read_text().splitlines()) == 4
