"""Marks, manifest and `verify`: what agrees, and each way in which it may not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentdrift.data import write_png
from latentdrift.data.export.picture import write_picture
from latentdrift.data.files import sha256_of
from latentdrift.data.provenance.manifest import (
    MANIFEST_FILE,
    Origin,
    SyntheticFile,
    read_manifest,
    write_manifest,
)
from latentdrift.data.provenance.marks import STATEMENT, marks
from latentdrift.data.provenance.reading import read_marks
from latentdrift.data.provenance.verify import Checked, verify
from latentdrift.errors import DataError
from latentdrift.report import write_gif

PIXELS = np.arange(256, dtype=np.uint8).reshape(16, 16)
ORIGIN = Origin(
    {"name": "toy", "sha256": "ab" * 32}, {"used": "none"}, {"name": "sdedit", "config": {}}, {"steps": 4}, "a command"
)
SOURCE = "cd" * 32


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two synthetic images with a manifest, and the real one that they were made from."""
    files = [
        SyntheticFile(f"{seed}.png", seed, "a <b> δ", {"stage": "AD"}, "scan.png", SOURCE, "a c") for seed in (7, 8)
    ]
    for one in files:
        write_png(tmp_path / one.file, PIXELS, text=ORIGIN.marks() | one.marks(), synthetic=True)
    write_png(tmp_path / "7-source.png", PIXELS)
    write_manifest(tmp_path, ORIGIN, files)
    return tmp_path


def problems(folder: Path, **wanted: object) -> dict[str, list[str]]:
    return {one.file.name: list(one.problems) for one in verify(folder, **wanted) if one.problems}  # type: ignore[arg-type]


def test_what_the_manifest_holds(folder: Path) -> None:
    found = json.loads((folder / MANIFEST_FILE).read_text())
    assert found["statement"] == STATEMENT
    assert found["model"] == ORIGIN.model
    assert found["made"].endswith("+00:00")
    assert {"python", "latentdrift", "torch"} <= found["versions"].keys()
    first = found["files"][0]
    assert first["sha256"] == sha256_of(folder / "7.png")
    assert (first["seed"], first["prompt"], first["attributes"]) == (7, "a <b> δ", {"stage": "AD"})
    assert first["source"] == {"file": "scan.png", "sha256": SOURCE, "prompt": "a c"}


def test_all_agrees(folder: Path) -> None:
    found = {one.file.name: one for one in verify(folder)}
    assert [name for name, one in found.items() if one.synthetic] == ["7.png", "8.png"]
    assert not found["7-source.png"].synthetic
    assert all(one.problems == () for one in found.values())
    assert {one.model_sha256 for one in found.values()} == {"ab" * 32, None}
    assert problems(folder, model_sha256="ab" * 32, sources={SOURCE}) == {}
    assert verify(folder / "8.png")[0].entry is not None


def test_a_changed_pixel(folder: Path) -> None:
    changed = PIXELS.copy()
    changed[0, 0] += 1
    write_png(folder / "7.png", changed, text=read_marks(folder / "7.png").facts, synthetic=True)
    assert list(problems(folder)) == ["7.png"]
    assert "has changed" in problems(folder)["7.png"][0]


def test_a_lost_mark(folder: Path) -> None:
    Image.open(folder / "8.png").save(folder / "8.png", pnginfo=None)
    assert any("lost its mark" in text for text in problems(folder)["8.png"])


def test_a_missing_file(folder: Path) -> None:
    (folder / "7.png").unlink()
    assert problems(folder) == {"7.png": ["is listed in manifest.json, and missing"]}


@pytest.mark.parametrize(("name", "value"), [("model_sha256", "ef" * 32), ("seed", 9), ("source_sha256", "00")])
def test_a_file_that_says_something_else(folder: Path, name: str, value: object) -> None:
    write_png(folder / "7.png", PIXELS, text={**read_marks(folder / "7.png").facts, name: value}, synthetic=True)
    assert any(text.startswith(f"says {name} {value}") for text in problems(folder)["7.png"])


def test_another_model_and_other_sources(folder: Path) -> None:
    assert all("another model" in text for (text,) in problems(folder, model_sha256="ef" * 32).values())
    other = problems(folder, sources={"00"})
    assert set(other) == {"7.png", "8.png"}
    assert all("none of the sources" in text for (text,) in other.values())


def test_a_damaged_manifest_and_no_files(folder: Path, tmp_path: Path) -> None:
    (folder / MANIFEST_FILE).write_text('{"schema": "latentdrift.manifest/1"')
    with pytest.raises(DataError, match="damaged"):
        verify(folder)
    (folder / MANIFEST_FILE).write_text('{"schema": "somebody/9", "files": []}')
    with pytest.raises(DataError, match="update latentdrift"):
        read_manifest(folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        verify(tmp_path / "empty")
    with pytest.raises(DataError, match="There is no"):
        verify(tmp_path / "gone")


def test_marks_of_every_format_of_pictures(tmp_path: Path) -> None:
    facts = {"model": "toy", "model_sha256": "ab", "seed": 3, "source_sha256": None}
    unit = np.linspace(0, 1, 256).reshape(16, 16)
    write_picture(tmp_path / "a.png", unit, bits=16, text=facts, synthetic=True)
    write_picture(tmp_path / "a.tiff", unit, text=facts, synthetic=True)
    write_gif(tmp_path / "a.gif", [PIXELS, PIXELS[::-1].copy()], facts=facts)
    for name in ("a.png", "a.tiff", "a.gif"):
        found = read_marks(tmp_path / name)
        assert found.synthetic
        assert {key: found.facts[key] for key in ("model", "model_sha256", "seed")} == {
            "model": "toy",
            "model_sha256": "ab",
            "seed": "3",
        }
        assert found.facts["Disclaimer"] == STATEMENT
        assert "source_sha256" not in found.facts
    write_picture(tmp_path / "b.png", unit, text={"SyntheticData": "NO"})
    assert not read_marks(tmp_path / "b.png").synthetic
    (tmp_path / "c.gif").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="cannot be read"):
        read_marks(tmp_path / "c.gif")
    with pytest.raises(DataError, match="no format that carries marks"):
        read_marks(Path(__file__))


def test_marks_win_over_facts() -> None:
    assert marks({"SyntheticData": "NO"})["SyntheticData"] == "YES"
    assert isinstance(verify(Path(__file__))[0], Checked)
