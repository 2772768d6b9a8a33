from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentdrift.data.export.edit import EXPORTS, open_edit_source, write_edit
from latentdrift.data.export.residual import Residual
from latentdrift.data.images import read_array
from latentdrift.data.prepare import PrepareConfig, prepare_cohort
from latentdrift.data.scan import Scan
from latentdrift.data.source import DataSource, Listing
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

SHAPE = (40, 48, 24)


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A head of int16 values with a slope and an intercept, axes left, posterior, superior, 2 x 2 x 3 mm."""
    import nibabel

    grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in SHAPE), indexing="ij")
    radius = sum((axis / 0.85) ** 2 for axis in grid)
    noise = np.random.default_rng(3).integers(0, 12, SHAPE)
    values = (np.where(radius < 1, 600 - 250 * grid[1], 0) + noise).astype(np.int16)
    image = nibabel.Nifti1Image(values, np.diag([-2.0, -2.0, 3.0, 1.0]))
    image.header.set_slope_inter(0.5, -10.0)
    path = tmp_path / "head.nii.gz"
    nibabel.save(image, path)
    return path


def stored(path: Path) -> np.ndarray:
    import nibabel

    return np.asarray(nibabel.load(path).dataobj.get_unscaled())


def spot(size: int) -> np.ndarray:
    """A change of a tenth of the range in a square left of the middle, towards the front."""
    difference = np.zeros((size, size), np.float32)
    difference[size // 4 : size // 2, size // 4 : size // 2] = 0.1
    return difference


def test_an_edit_goes_back_into_the_slice_it_came_from(volume: Path, tmp_path: Path) -> None:
    import nibabel

    source = open_edit_source([volume], 32, PrepareConfig(size=32), modality="MR")
    assert source.image().shape == (32, 32)
    assert source.cut is not None
    change = source.change(spot(32))
    (out,) = write_edit(source, change, tmp_path / "edited.v1", ["nifti"], {"model": "toy", "seed": 0})
    assert out.name == "edited.v1.nii.gz"
    before, after = nibabel.load(volume), nibabel.load(out)
    assert np.array_equal(before.affine, after.affine)
    assert (after.dataobj.slope, after.dataobj.inter) == (0.5, -10.0)
    assert after.header.get_data_dtype() == np.int16
    difference = stored(out).astype(int) - stored(volume)
    touched = np.argwhere(difference)
    assert set(touched[:, 2]) == {source.cut.index}
    # Left in the image is the patient's left, where this array's first axis is large; its second is small in front.
    x, y = (touched[:, axis].mean() / SHAPE[axis] for axis in (0, 1))
    assert x > 0.5
    assert y < 0.5
    expected = 0.1 * (source.placement.high - source.placement.low) / 0.5
    assert np.median(difference[tuple(touched.T)]) == pytest.approx(expected, abs=1)
    found = json.loads(after.header.extensions[0].get_content())
    assert found["SyntheticData"] == "YES"
    assert found["model"] == "toy"
    assert len(found["source_sha256"]) == 64


def test_what_the_model_sees_changes_as_it_said(volume: Path, tmp_path: Path) -> None:
    source = open_edit_source([volume], 32, PrepareConfig(size=32), modality="MR")
    difference = spot(32)
    (out,) = write_edit(source, source.change(difference), tmp_path / "edited", ["nifti"], {})
    again = open_edit_source([out], 32, PrepareConfig(size=32), modality="MR")
    seen = source.placement.show(again.plane.pixels) - source.image()
    inner = np.s_[10:14, 10:14]
    # The brightest tissue is cut at white; the rest moves by what was asked.
    room = source.image()[inner] < 0.88
    assert room.any()
    assert np.abs(seen[inner] - difference[inner])[room].max() < 0.02
    assert np.abs(seen[difference == 0]).max() < 0.06
    assert np.abs(seen[20:, :]).max() == 0


def test_changes_below_the_threshold_keep_their_bits(volume: Path, tmp_path: Path) -> None:
    source = open_edit_source([volume], 32, PrepareConfig(size=32))
    threshold = np.full((32, 32), 0.2)
    (out,) = write_edit(source, source.change(spot(32), threshold), tmp_path / "same", ["nifti"], {})
    assert np.array_equal(stored(out), stored(volume))


def test_pictures_are_of_the_scans_own_resolution(volume: Path, tmp_path: Path) -> None:
    source = open_edit_source([volume], 16, PrepareConfig(size=16))
    change = source.change(spot(16))
    png, tiff, npz = write_edit(source, change, tmp_path / "e", ["png16", "tiff", "residual"], {"seed": 1})
    for path in (png, tiff):
        pixels = read_array(path)
        assert pixels.shape == (48, 40)
        assert np.allclose(pixels, source.edited(change), atol=1 / 65535)
    with Image.open(png) as file:
        assert file.text["SyntheticData"] == "YES"
    residual = Residual.load(npz)
    assert np.array_equal(residual.change, change)
    assert residual.cut == source.cut
    assert np.array_equal(residual.apply(source.plane.pixels), source.plane.pixels + change)
    with pytest.raises(DataError, match="made for other pixels"):
        residual.apply(source.plane.pixels + 1)


@dataclass(frozen=True)
class NoSettings:
    """Nothing to set."""


class Tree(DataSource):
    config_class = NoSettings
    title = "NIfTI files"
    needs = "files"
    modality = "MR"

    def list_scans(self, root: Path) -> Listing:
        return Listing(tuple(Scan(path.name, (path,)) for path in sorted(root.glob("*.nii.gz"))))


def test_a_prepared_image_leads_back_to_its_scan(volume: Path, tmp_path: Path) -> None:
    settings = PrepareConfig(size=64, positions=(6.0,), extent_mm=110.0, workers=1)
    made = prepare_cohort(Tree(), volume.parent, tmp_path / "cohort", settings)
    source = open_edit_source([made.cohort[0].image], 32)
    assert source.prepared
    assert source.files == (volume.parent.resolve() / volume.name,)
    assert source.placement.extent == 110.0
    direct = open_edit_source([volume], 32, settings, modality="MR")
    assert source.cut == direct.cut
    assert np.array_equal(source.image(), direct.image())
    (out,) = write_edit(source, source.change(spot(32)), tmp_path / "edited", ["nifti"], {})
    assert set(np.argwhere(stored(out) != stored(volume))[:, 2]) == {direct.cut.index}  # type: ignore[union-attr]
    volume.rename(volume.with_name("elsewhere.nii.gz"))
    with pytest.raises(DataError, match=r"head.nii.gz, of which .* is gone"):
        open_edit_source([made.cohort[0].image], 32)


def test_a_picture_is_a_scan_of_itself(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 30 * 20).reshape(30, 20).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / "x.png")
    source = open_edit_source([tmp_path / "x.png"], 30)
    assert source.cut is None
    assert not source.prepared
    assert source.plane.bits == 16
    assert np.allclose(source.image()[:, 5:25], values / 65535, atol=1e-6)
    with pytest.raises(ConfigurationError, match="no NIfTI volume"):
        write_edit(source, source.change(spot(30)), tmp_path / "e", ["nifti"], {})
    with pytest.raises(ConfigurationError, match="no DICOM file"):
        write_edit(source, source.change(spot(30)), tmp_path / "e", ["dicom"], {})
    with pytest.raises(UnknownNameError, match="Did you mean 'dicom'"):
        write_edit(source, source.change(spot(30)), tmp_path / "e", ["dicm"], {})
    assert set(EXPORTS) == {"png16", "tiff", "nifti", "dicom", "residual"}


def test_a_place_without_a_slice_is_named(volume: Path) -> None:
    with pytest.raises(DataError, match=r"axial slice at \+400 mm"):
        open_edit_source([volume], 32, PrepareConfig(size=32, positions=(400.0,)))


def test_a_registered_image_has_no_way_back(volume: Path, tmp_path: Path) -> None:
    made = prepare_cohort(Tree(), volume.parent, tmp_path / "cohort", PrepareConfig(size=32, workers=1))
    path = tmp_path / "cohort" / "geometry.jsonl"
    path.write_text(path.read_text().replace('"register": "none"', '"register": "rigid"'))
    with pytest.raises(ConfigurationError, match="resampled by registration"):
        open_edit_source([made.cohort[0].image], 32)
    with pytest.raises(ConfigurationError, match="resampled by registration"):
        open_edit_source([volume], 32, PrepareConfig(register="affine"))
