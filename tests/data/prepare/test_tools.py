"""`prepare` with a skull stripper: a program on the path that the test makes, which really returns a mask."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from latentdrift.data.export.edit import open_edit_source
from latentdrift.data.prepare.config import PrepareConfig
from latentdrift.data.prepare.convert import convert_scan
from latentdrift.data.scan import Scan

HD_BET = """#!{python}
import sys
import nibabel
import numpy as np
words = sys.argv[1:]
source, out = words[words.index("-i") + 1], words[words.index("-o") + 1]
image = nibabel.load(source)
shape = image.shape
grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
inside = sum((axis / 0.6) ** 2 for axis in grid) < 1
values = image.get_fdata() * inside
nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), image.affine), out)
mask = out.replace(".nii.gz", "_bet.nii.gz")
nibabel.save(nibabel.Nifti1Image(inside.astype(np.uint8), image.affine), mask)
"""


@pytest.fixture
def head(tmp_path: Path) -> Path:
    import nibabel

    grid = np.meshgrid(*(np.linspace(-1, 1, 32) for _ in range(3)), indexing="ij")
    values = (np.where(sum((axis / 0.9) ** 2 for axis in grid) < 1, 800, 0)).astype(np.int16)
    values += np.random.default_rng(0).integers(0, 9, values.shape).astype(np.int16)
    path = tmp_path / "head.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.diag([4.0, 4.0, 4.0, 1.0])), path)
    return path


def test_the_skull_goes_and_stays_away_when_the_image_is_opened_again(
    head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "hd-bet"
    program.parent.mkdir()
    program.write_text(HD_BET.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    settings = PrepareConfig(size=32, strip="hd-bet", min_foreground=0.0)
    converted = convert_scan(Scan("head.nii.gz", (head,)), head.parent, tmp_path / "out", settings, "MR")
    assert converted.refused == ()
    whole = open_edit_source([head], 32, PrepareConfig(size=32), modality="MR")
    stripped = open_edit_source([head], 32, settings, modality="MR")
    assert (stripped.plane.pixels > 400).sum() < 0.6 * (whole.plane.pixels > 400).sum()
    inner = np.s_[12:20, 12:20]
    assert np.array_equal(stripped.plane.pixels[inner], whole.plane.pixels[inner])


def test_a_tool_that_is_not_there_is_said_with_how_to_get_it(
    head: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    scan = Scan("head.nii.gz", (head,))
    for settings, says in (({"strip": "hd-bet"}, "pip install 'hd-bet"), ({"register": "rigid"}, "antspyx")):
        converted = convert_scan(scan, head.parent, tmp_path / "out", PrepareConfig(size=32, **settings), "MR")
        assert converted.rows == ()
        assert says in converted.refused[0]
