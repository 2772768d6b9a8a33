from __future__ import annotations

import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from latentdrift.data.export.nifti import write_nifti_edit
from latentdrift.data.export.residual import confine
from latentdrift.data.formats.nifti import read_nifti
from latentdrift.data.provenance.marks import marks
from latentdrift.data.volumes.cut import PLANES, Cut, choose_cuts, cut_at, plane_of
from latentdrift.data.volumes.intensity import intensity_range
from latentdrift.data.volumes.placement import Placement
from latentdrift.errors import ConfigurationError, DataError

AFFINE = np.array([[0, 0, 1.5, -20], [-2.0, 0, 0, 31], [0, 3.0, 0, -7], [0, 0, 0, 1]], float)
CH2 = Path("/usr/share/mricron/templates/ch2.nii.gz")
KINDS = {1: (nibabel.Nifti1Image, nibabel.Nifti1Pair), 2: (nibabel.Nifti2Image, nibabel.Nifti2Pair)}


def scan(
    path: Path, *, version: int = 1, dtype: str = "<i2", shape: tuple[int, ...] = (9, 10, 11), **entries: Any
) -> Path:
    pair = ".img" in path.name
    kind = KINDS[version][pair]
    header = kind.header_class(endianness=dtype[0] if dtype[0] in "<>" else "<")
    values = np.random.default_rng(0).integers(0, 200, shape).astype(dtype)
    header.set_data_dtype(values.dtype)
    image = kind(values, AFFINE, header, dtype=values.dtype)
    image.set_qform(AFFINE, 1)
    image.header["descrip"] = b"DOE^JANE"
    image.header["aux_file"] = b"DOE"
    image.header["cal_max"] = 180
    image.header["toffset"] = 2.5
    for name, value in entries.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def raw(path: Path) -> np.ndarray:
    return np.asarray(nibabel.load(path).dataobj.get_unscaled())


def cut_of(path: Path, plane: str = "axial", index: int = 4, frame: int = 0) -> tuple[Cut, np.ndarray]:
    volume = read_nifti(path, frame)
    cut = cut_at(volume, plane, index)
    change = np.zeros(cut.take(volume.voxels).shape, np.float32)
    change[2:5, 3:7] = 12
    return cut, change


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["u1", "<i2", ">i2", "<f4", ">f8", "<i4"])
@pytest.mark.parametrize(("inside", "outside"), [("a.nii", "b.nii.gz"), ("a.nii.gz", "b.nii"), ("a.img", "b.img")])
def test_only_changed_voxels_differ_and_nibabel_reads_it(
    tmp_path: Path, version: int, dtype: str, inside: str, outside: str
) -> None:
    source = scan(tmp_path / inside, version=version, dtype=dtype)
    cut, change = cut_of(source)
    out = write_nifti_edit(source, tmp_path / "out" / outside, cut, change, description={"model": "tiny", "δ": 1})
    before, after = nibabel.load(source), nibabel.load(out)
    np.testing.assert_array_equal(after.affine, before.affine)
    expected = raw(source).copy()
    cut.take(expected)[change != 0] += 12
    np.testing.assert_array_equal(raw(out), expected)
    assert raw(out).dtype == raw(source).dtype
    same = before.header.structarr.dtype.names
    different = {n for n in same if before.header[n].tobytes() != after.header[n].tobytes()}
    assert different <= {"descrip", "aux_file", "vox_offset"}
    assert after.header.endianness == before.header.endianness
    assert after.header["descrip"].item().startswith(b"SYNTHETIC")
    (extension,) = after.header.extensions
    assert extension.get_code() == 6
    told = json.loads(extension.get_content())
    assert told == {**marks(), "model": "tiny", "δ": 1}
    assert told["SyntheticData"] == "YES"
    content = b"".join(
        gzip.decompress(p.read_bytes()) if p.suffix == ".gz" else p.read_bytes() for p in (tmp_path / "out").iterdir()
    )
    assert b"DOE" not in content
    assert {p.name for p in (tmp_path / "out").iterdir()} == ({outside, "b.hdr"} if "img" in outside else {outside})


@pytest.mark.parametrize(("inside", "outside"), [("a.img", "b.nii.gz"), ("a.nii.gz", "b.img"), ("a.nii", "b.img.gz")])
def test_pairs_and_single_files_become_each_other(tmp_path: Path, inside: str, outside: str) -> None:
    source = scan(tmp_path / inside)
    cut, change = cut_of(source)
    out = write_nifti_edit(source, tmp_path / outside, cut, change, description={})
    found = read_nifti(out)
    np.testing.assert_array_equal(found.voxels, nibabel.load(out).get_fdata())
    assert np.count_nonzero(found.voxels != read_nifti(source).voxels) == np.count_nonzero(change)


@pytest.mark.parametrize(("slope", "intercept"), [(0.5, -1024.0), (-2.0, 3.0), (0.0, 9.0)])
def test_changes_are_in_real_units_and_scaling_is_kept(tmp_path: Path, slope: float, intercept: float) -> None:
    source = scan(tmp_path / "a.nii")
    content = bytearray(source.read_bytes())
    content[112:120] = np.array([slope, intercept], "<f4").tobytes()
    source.write_bytes(bytes(content))
    cut, change = cut_of(source, "sagittal")
    out = write_nifti_edit(source, tmp_path / "b.nii", cut, change, description={})
    difference = nibabel.load(out).get_fdata() - nibabel.load(source).get_fdata()
    np.testing.assert_allclose(cut.take(difference), change)
    assert np.count_nonzero(difference) == np.count_nonzero(change)
    assert out.read_bytes()[112:120] == source.read_bytes()[112:120]


@pytest.mark.parametrize("plane", PLANES)
def test_only_the_asked_frame_of_4d_changes(tmp_path: Path, plane: str) -> None:
    source = scan(tmp_path / "a.nii.gz", shape=(9, 10, 11, 2, 2))
    cut, change = cut_of(source, plane, 3, frame=2)
    out = write_nifti_edit(source, tmp_path / "b.nii.gz", cut, change, frame=2, description={})
    for frame in range(4):
        difference = read_nifti(out, frame).voxels - read_nifti(source, frame).voxels
        np.testing.assert_array_equal(cut.take(difference), change if frame == 2 else 0 * change)
        assert np.count_nonzero(difference) == (np.count_nonzero(change) if frame == 2 else 0)
    with pytest.raises(DataError, match="no frame 4"):
        write_nifti_edit(source, tmp_path / "c.nii.gz", cut, change, frame=4, description={})


def test_a_change_drawn_at_a_place_in_the_world_is_there_for_every_orientation(tmp_path: Path) -> None:
    for number, order in enumerate(itertools.permutations(range(3))):
        signs = [(-1) ** (number >> bit & 1) for bit in range(3)]
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)] * signs
        affine[:3, 3] = [3, -4, 5]
        values = np.zeros((9, 9, 9), np.int16)
        source = tmp_path / f"{number}.nii"
        nibabel.save(nibabel.Nifti1Image(values, affine), source)
        volume = read_nifti(source)
        cut = cut_at(volume, "axial", 4)
        change = np.zeros((9, 9), np.float32)
        change[2, 6] = 50
        # Row 2 of 9 is 2 mm anterior of the middle, column 6 is 2 mm to its right.
        middle = nibabel.affines.apply_affine(affine, [4, 4, 4])
        out = write_nifti_edit(source, tmp_path / f"{number}-out.nii", cut, change, description={})
        image = nibabel.load(out)
        (voxel,) = np.argwhere(image.get_fdata())
        np.testing.assert_allclose(nibabel.affines.apply_affine(image.affine, voxel), middle + np.array([2, 2, 0]))


def test_no_change_changes_no_voxel_and_the_same_edit_gives_the_same_bytes(tmp_path: Path) -> None:
    source = scan(tmp_path / "a.nii.gz", dtype="<f4")
    cut, change = cut_of(source)
    first, second = (
        write_nifti_edit(source, tmp_path / f"{name}.nii.gz", cut, 0 * change, description={"a": 1}) for name in "bc"
    )
    assert first.read_bytes() == second.read_bytes()
    assert raw(first).tobytes() == raw(source).tobytes()


def test_extensions_are_dropped_unless_asked_for(tmp_path: Path) -> None:
    for name, order in (("a.nii", "<"), ("b.nii", ">"), ("c.img", "<")):
        kind = nibabel.Nifti1Pair if name == "c.img" else nibabel.Nifti1Image
        header = kind.header_class(endianness=order)
        header.set_data_dtype("i2")
        image = kind(np.zeros((9, 9, 9), np.int16), AFFINE, header)
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"DOE^JANE"))
        image.header.extensions.append(nibabel.nifti1.Nifti1Extension("afni", b"<AFNI/>"))
        nibabel.save(image, tmp_path / name)
        cut, change = cut_of(tmp_path / name)
        out = tmp_path / f"out-{name}"
        write_nifti_edit(tmp_path / name, out, cut, change, description={})
        assert [e.get_code() for e in nibabel.load(out).header.extensions] == [6]
        write_nifti_edit(tmp_path / name, out, cut, change, description={}, keep_text=True)
        found = nibabel.load(out)
        assert [e.get_code() for e in found.header.extensions] == [6, 4, 6]
        assert b"JANE" in found.header.extensions[0].get_content()
        assert np.count_nonzero(found.get_fdata()) == np.count_nonzero(change)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_what_follows_the_voxels_is_dropped_unless_asked_for(tmp_path: Path, suffix: str) -> None:
    source = scan(tmp_path / f"a{suffix}")
    opened: Any = gzip.open if suffix.endswith(".gz") else Path.open
    with opened(source, "ab") as file:
        file.write(b"DOE^JANE")
    cut, change = cut_of(source)
    for keep in (False, True):
        out = write_nifti_edit(source, tmp_path / f"b{suffix}", cut, change, description={}, keep_text=keep)
        with opened(out, "rb") as file:
            assert (b"JANE" in file.read()) is keep
        assert raw(out).shape == raw(source).shape


def test_the_scan_is_never_overwritten_and_nothing_half_written_stays(tmp_path: Path) -> None:
    source = scan(tmp_path / "a.nii.gz")
    content = source.read_bytes()
    cut, change = cut_of(source)
    (tmp_path / "link").symlink_to(tmp_path)
    for out in (source, tmp_path / "link" / "a.nii.gz"):
        with pytest.raises(ConfigurationError, match="is the scan itself"):
            write_nifti_edit(source, out, cut, change, description={})
    pair = scan(tmp_path / "p.img")
    with pytest.raises(ConfigurationError, match="is the scan itself"):
        write_nifti_edit(pair, tmp_path / "p.img", cut, change, description={})
    with pytest.raises(ConfigurationError, match=r"b\.png: volumes are written as"):
        write_nifti_edit(source, tmp_path / "b.png", cut, change, description={})
    for wrong in (change[1:], np.full_like(change, np.nan)):
        with pytest.raises(DataError, match="change"):
            write_nifti_edit(source, tmp_path / "b.nii", cut, wrong, description={})
    with pytest.raises(DataError, match="no JSON"):
        write_nifti_edit(source, tmp_path / "b.nii", cut, change, description={"a": object()})
    source.write_bytes(content[:-200])
    with pytest.raises(DataError, match=r"a\.nii\.gz"):
        write_nifti_edit(source, tmp_path / "b.nii", cut, change, description={})
    nibabel.save(nibabel.AnalyzeImage(np.zeros((9, 10, 11), np.int16), np.eye(4)), tmp_path / "old.img")
    with pytest.raises(DataError, match="Convert it to NIfTI first"):
        write_nifti_edit(tmp_path / "old.img", tmp_path / "b.nii", cut, change, description={})
    assert {path.name for path in tmp_path.iterdir()} == {"a.nii.gz", "p.img", "p.hdr", "link", "old.img", "old.hdr"}


@pytest.mark.skipif(not CH2.is_file(), reason="Debian's mricron-data is not installed")
def test_an_edit_of_a_real_slice_goes_back_into_its_volume(tmp_path: Path) -> None:
    """ch2 → the model's square image → a made change → its volume, as an edit of a user's own scan would."""
    volume = read_nifti(CH2, modality="MR")
    low, high = intensity_range(volume)
    (cut,) = choose_cuts(volume, "axial", (18.0,))
    plane = plane_of(volume, cut)
    place = Placement.of(plane, 256, low, high, extent=208)
    image = place.show(plane.pixels)
    rows, columns = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    blob = 0.4 * np.exp(-((rows - 120) ** 2 + (columns - 150) ** 2) / 300)
    change = confine(place.bring_back(np.clip(image - blob, 0, 1) - image), 0.02 * (high - low))
    out = write_nifti_edit(CH2, tmp_path / "ch2.nii.gz", cut, change, description={"test": True}, low=0)
    before, after = nibabel.load(CH2), nibabel.load(out)
    np.testing.assert_array_equal(after.affine, before.affine)
    assert after.get_data_dtype() == before.get_data_dtype()
    difference = after.get_fdata() - before.get_fdata()
    touched = np.argwhere(difference)
    assert set(touched[:, 2]) == {cut.index}
    assert 100 < len(touched) < 3000
    # The blob is 150.5 - 128 pixels of 0.8125 mm right of the middle of the field of view, and 8 anterior of it.
    middle = nibabel.affines.apply_affine(after.affine, [90, 108, cut.index])
    found = nibabel.affines.apply_affine(after.affine, touched.mean(0))
    np.testing.assert_allclose(found - middle, [22.5 * 0.8125, 7.5 * 0.8125, 0], atol=3)
    seen = place.show(plane_of(read_nifti(out), cut).pixels)
    assert np.abs(seen - np.clip(image - blob, 0, 1)).max() < 0.06
