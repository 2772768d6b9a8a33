from __future__ import annotations

import gzip
import itertools
import struct
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from latentdrift.data.formats.nifti import nifti_facts, read_nifti
from latentdrift.data.formats.nifti_header import read_layout
from latentdrift.errors import DataError

AFFINE = np.array([[0, 0, 1.5, -20], [-2.0, 0, 0, 31], [0, 3.0, 0, -7], [0, 0, 0, 1]], float)
CH2 = Path("/usr/share/mricron/templates/ch2.nii.gz")


def volume(shape: tuple[int, ...] = (5, 6, 7), dtype: str = "int16", seed: int = 0) -> Any:
    values = np.random.default_rng(seed).normal(100, 40, shape)
    return values.astype(dtype) if np.dtype(dtype).kind == "f" else np.clip(values, 0, 250).astype(dtype)


def save(path: Path, values: Any, affine: Any = AFFINE, kind: Any = nibabel.Nifti1Image, **header: Any) -> Path:
    image = kind(values, affine, dtype=values.dtype)
    for name, value in header.items():
        image.header[name] = value
    nibabel.save(image, path)
    return path


def patched(path: Path, offset: int, code: str, *values: Any) -> Path:
    """Change bytes of the header, in a file that may be compressed."""
    zipped = path.suffix == ".gz"
    content = bytearray(gzip.decompress(path.read_bytes()) if zipped else path.read_bytes())
    struct.pack_into("<" + code, content, offset, *values)
    path.write_bytes(gzip.compress(bytes(content)) if zipped else bytes(content))
    return path


@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]
)
def test_single_files_of_every_type_are_read_as_nibabel_reads_them(
    tmp_path: Path, kind: Any, suffix: str, dtype: str
) -> None:
    path = save(tmp_path / f"a{suffix}", volume(dtype=dtype), kind=kind)
    found, expected = read_nifti(path), nibabel.load(path)
    np.testing.assert_array_equal(found.voxels, expected.get_fdata().astype(np.float32))
    np.testing.assert_allclose(found.affine, expected.affine, atol=1e-6)
    assert found.voxels.dtype == np.float32
    assert found.facts["stored"] == dtype
    assert found.facts["axes"] == "PSR"


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("zipped", ["", ".gz"])
def test_pairs_and_byte_orders(tmp_path: Path, order: str, kind: Any, zipped: str) -> None:
    values = volume(dtype="int16")
    header = kind.header_class(endianness=order)
    header.set_data_dtype(np.int16)
    image = kind(values, AFFINE, header)
    nibabel.save(image, tmp_path / f"a.img{zipped}")
    for name in (f"a.img{zipped}", f"a.hdr{zipped}"):
        found = read_nifti(tmp_path / name)
        np.testing.assert_array_equal(found.voxels, values)
        np.testing.assert_allclose(found.affine, AFFINE)
    assert read_layout(tmp_path / f"a.img{zipped}").header.endianness == order


@pytest.mark.parametrize(
    ("slope", "intercept"),
    [(0.0, 7.0), (float("nan"), 0.0), (1.0, 0.0), (0.5, -1024.0), (-2.0, 3.0), (1.0, -1024.0), (1e-3, 1e3)],
)
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_scaling_is_nibabels(tmp_path: Path, slope: float, intercept: float, dtype: str) -> None:
    path = save(tmp_path / "a.nii", volume(dtype=dtype))
    patched(path, 112, "2f", slope, intercept)
    expected = nibabel.load(path).get_fdata().astype(np.float32)
    np.testing.assert_array_equal(read_nifti(path).voxels, expected)


def test_frames_of_4d_and_5d_files(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", volume((4, 5, 6, 3, 2)))
    expected = nibabel.load(path).get_fdata()
    for frame, (t, u) in enumerate((t, u) for u in range(2) for t in range(3)):
        found = read_nifti(path, frame=frame)
        np.testing.assert_array_equal(found.voxels, expected[..., t, u])
        assert found.facts["frames"] == 6
    for frame in (-1, 6):
        with pytest.raises(DataError, match=r"a\.nii\.gz has 6 volumes, 0 to 5; there is no frame"):
            read_nifti(path, frame=frame)


def test_2d_files_are_one_slice(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", volume((9, 8)), np.diag([2.0, 3, 1, 1]))
    found = read_nifti(path)
    assert found.voxels.shape == (9, 8, 1)
    np.testing.assert_array_equal(found.voxels[..., 0], nibabel.load(path).get_fdata())
    patched(path, 88, "f", 0.0)  # pixdim[3]
    patched(path, 280 + 8, "f", 0.0)
    patched(path, 280 + 24, "f", 0.0)
    patched(path, 280 + 40, "f", 0.0)
    found = read_nifti(path)
    np.testing.assert_allclose(found.affine[:3, :3], np.diag([2.0, 3, 1]))
    assert found.facts["thickness"] == "not given; taken as 1 mm"


def test_sform_comes_before_qform_and_both_before_an_assumption(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume(), AFFINE)
    other = nibabel.affines.from_matvec(np.diag([2.0, 3, 1.5]), [1, 2, 3])
    image.set_sform(AFFINE, 2)
    image.set_qform(other, 1)
    nibabel.save(image, tmp_path / "both.nii")
    image.set_sform(None, 0)
    nibabel.save(image, tmp_path / "qform.nii")
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "none.nii")
    for name, affine, origin in (("both", AFFINE, "sform"), ("qform", other, "qform"), ("none", None, "assumed")):
        found = read_nifti(tmp_path / f"{name}.nii")
        expected = nibabel.load(tmp_path / f"{name}.nii").affine
        np.testing.assert_allclose(found.affine, expected if affine is None else affine, atol=1e-5)
        assert found.facts["orientation_from"].startswith(origin)
    damaged = patched(tmp_path / "both.nii", 280, "12f", *[0.0] * 12)
    found = read_nifti(damaged)
    np.testing.assert_allclose(found.affine, other, atol=1e-5)
    assert found.facts["sform"] == "damaged; the qform is used"


def test_qfac_of_zero_counts_as_one(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume(), np.diag([2.0, 3, 1.5, 1]))
    image.set_sform(None, 0)
    image.set_qform(np.diag([2.0, 3, 1.5, 1]), 1)
    nibabel.save(image, tmp_path / "a.nii")
    for qfac, third in ((0.0, 1.5), (1.0, 1.5), (-1.0, -1.5), (5.0, 1.5)):
        patched(tmp_path / "a.nii", 76, "f", qfac)
        np.testing.assert_allclose(np.diag(read_nifti(tmp_path / "a.nii").affine), [2, 3, third, 1], atol=1e-6)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("mm", 1), ("micron", 0.001)])
def test_units_become_millimetres(tmp_path: Path, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(volume(), np.diag([2 / factor, 3 / factor, 4 / factor, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    found = read_nifti(tmp_path / "a.nii")
    np.testing.assert_allclose(found.facts["spacing"], [2, 3, 4], rtol=1e-5)


def test_voxels_that_are_not_numbers(tmp_path: Path) -> None:
    values = volume((4, 4, 4), "float32")
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    found = read_nifti(save(tmp_path / "a.nii", values))
    assert found.facts["not_finite"] == "3 voxels, set to 0"
    assert not found.voxels[0, 0, :3].any()
    np.testing.assert_array_equal(found.voxels[1:], values[1:])
    values[:2] = np.nan
    with pytest.raises(DataError, match=r"a\.nii: 32 of 64 voxels are not finite"):
        read_nifti(save(tmp_path / "a.nii", values))
    huge = np.full((4, 4, 4), 1e300)
    with pytest.raises(DataError, match="not finite"):
        read_nifti(save(tmp_path / "b.nii", huge))


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "complex64"])
def test_colours_and_complex_numbers_are_refused_with_the_reason(tmp_path: Path, kind: str) -> None:
    if kind == "complex64":
        values: Any = np.zeros((3, 3, 3), np.complex64)
    else:
        values = np.zeros((3, 3, 3), [(letter, "u1") for letter in kind])
    path = save(tmp_path / "a.nii", values)
    with pytest.raises(DataError, match=r"a\.nii holds (colours|complex)"):
        read_nifti(path)


def test_analyze_and_mgh_by_nibabel(tmp_path: Path) -> None:
    values = volume()
    nibabel.save(nibabel.AnalyzeImage(values, np.diag([-2.0, 3, 4, 1])), tmp_path / "a.img")
    nibabel.save(nibabel.MGHImage(values, AFFINE), tmp_path / "m.mgz")
    nibabel.save(nibabel.MGHImage(volume((3, 4, 5, 2)), AFFINE), tmp_path / "n.mgh")
    found = read_nifti(tmp_path / "a.img")
    np.testing.assert_array_equal(found.voxels, values)
    assert found.facts["format"] == "Analyze"
    assert "cannot be told" in found.facts["orientation_from"]
    found = read_nifti(tmp_path / "m.mgz")
    np.testing.assert_array_equal(found.voxels, values)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-5)
    np.testing.assert_array_equal(read_nifti(tmp_path / "n.mgh", 1).voxels, volume((3, 4, 5, 2))[..., 1])
    assert nifti_facts(tmp_path / "n.mgh")["frames"] == 2
    for name in ("a.img", "m.mgz", "n.mgh"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(DataError, match=name):
            read_nifti(tmp_path / name, 0)


def test_compression_is_seen_in_the_file_not_in_its_name(tmp_path: Path) -> None:
    save(tmp_path / "a.nii", volume())
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii").read_bytes())
    (tmp_path / "c.nii").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes()))
    for name in ("b.nii.gz", "c.nii"):
        np.testing.assert_array_equal(read_nifti(tmp_path / name).voxels, volume())


def test_facts_hold_no_identifiers(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.nii", volume(), descrip=b"DOE^JANE 1950", db_name=b"JANE", aux_file=b"DOE", intent_name=b"J"
    )
    for facts in (nifti_facts(path), read_nifti(path).facts):
        assert "DOE" not in str(facts)
        assert "JANE" not in str(facts)
    for text, shown in (
        (b"FSL5.0 DOE JANE", "FSL5.0"),
        (b"spm - algebra", "spm"),
        (b"dcm2niix v1.0 DOE", "dcm2niix v1.0"),
    ):
        assert nifti_facts(save(path, volume(), descrip=text))["description"] == shown
    facts = nifti_facts(path)
    assert facts["shape"] == [5, 6, 7]
    assert facts["spacing"] == [2, 3, 1.5]
    assert facts["tilt_degrees"] == 0


def test_tilt_is_told(tmp_path: Path) -> None:
    angle = np.deg2rad(17)
    turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
    path = save(tmp_path / "a.nii", volume(), nibabel.affines.from_matvec(turn @ np.diag([1, 1, 3.0])))
    assert read_nifti(path).facts["tilt_degrees"] == pytest.approx(17, abs=1e-3)


DAMAGES = [
    (0, "i", (7,), "is no NIfTI file"),
    (40, "h", (0,), r"dim\[0\] is 0"),
    (40, "h", (9,), r"dim\[0\] is 9"),
    (40, "h", (1,), r"dim\[0\] is 1"),
    (42, "h", (0,), "at least one voxel"),
    (44, "h", (-6,), "at least one voxel"),
    (42, "3h", (32767, 32767, 32767), "more than 536,870,912"),
    (42, "h", (500,), "cut short|cannot hold"),
    (42, "h", (2,), "bytes more than|goes on after"),
    (40, "8h", (7, 5, 6, 7, 32767, 32767, 32767, 32767), "claims .* bytes"),
    (70, "h", (99,), "data type 99"),
    (70, "h", (64,), "cut short|cannot hold"),
    (80, "f", (-2.0,), "distance of voxels along axis 1 is -2"),
    (84, "f", (0.0,), "distance of voxels along axis 2 is 0"),
    (88, "f", (float("nan"),), "axis 3 is nan"),
    (88, "f", (1e30,), "axis 3 is 1e\\+30"),
    (108, "f", (-5.0,), "begin at byte -5"),
    (108, "f", (float("nan"),), "begin at byte nan"),
    (108, "f", (1e30,), "begin at byte"),
    (112, "2f", (2.0, float("inf")), "scl_inter is inf"),
    (280, "12f", (float("nan"),) * 12, "affine"),
    (280, "12f", (1.0, 1, 1, 0) * 3, "affine"),
    (344, "4s", (b"junk",), "magic"),
    (344, "4s", (b"ni1\0",), "magic"),
]


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: f"{damage[0]}-{damage[2][0]}")
def test_headers_that_cannot_be_true_are_refused_with_the_file(tmp_path: Path, damage: Any, suffix: str) -> None:
    offset, code, values, message = damage
    image = nibabel.Nifti1Image(volume((5, 60, 7)), AFFINE)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / f"a{suffix}")
    path = patched(tmp_path / f"a{suffix}", offset, code, *values)
    tracemalloc.start()
    with pytest.raises(DataError, match=rf"a\.nii.*({message})"):
        read_nifti(path)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


def test_quaternions_that_are_no_rotation(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(volume(), AFFINE)
    image.set_sform(None, 0)
    image.set_qform(AFFINE, 1)
    nibabel.save(image, tmp_path / "a.nii")
    with pytest.raises(DataError, match=r"a\.nii: the qform in the header is no rotation"):
        read_nifti(patched(tmp_path / "a.nii", 256, "3f", 3.0, 2.0, 2.0))


@pytest.mark.parametrize("kept", [0, 1, 3, 100, 347, 351, 360, -1])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_files_cut_short_anywhere(tmp_path: Path, kept: int, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", volume((20, 20, 20)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.nii"):
        read_nifti(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii", volume((16, 16, 16), "uint8"))
    bomb = tmp_path / "bomb.nii.gz"
    bomb.write_bytes(gzip.compress(path.read_bytes() + bytes(2**27)))
    claim = patched(path, 42, "3h", 1000, 1000, 500)
    small = tmp_path / "claim.nii.gz"
    small.write_bytes(gzip.compress(claim.read_bytes()))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"bomb\.nii\.gz goes on after its last voxel"):
        read_nifti(bomb)
    with pytest.raises(DataError, match=r"claim\.nii\.gz: .* compressed bytes cannot hold the 500,000,352"):
        read_nifti(small)
    assert tracemalloc.get_traced_memory()[1] < 2**23
    tracemalloc.stop()


def test_a_flipped_bit_in_compressed_voxels_is_noticed(tmp_path: Path) -> None:
    path = save(tmp_path / "a.nii.gz", volume((20, 20, 20)))
    good = path.read_bytes()
    noticed = 0
    for place in range(400, len(good), len(good) // 40):
        content = bytearray(good)
        content[place] ^= 4
        path.write_bytes(bytes(content))
        with pytest.raises(DataError, match=r"a\.nii\.gz"):
            read_nifti(path)
        noticed += 1
    assert noticed > 30


def test_missing_files_and_partners(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_nifti(tmp_path / "a.nii")
    nibabel.save(nibabel.Nifti1Pair(volume(), AFFINE), tmp_path / "a.img")
    (tmp_path / "a.hdr").unlink()
    with pytest.raises(DataError, match=r"a\.hdr: there is no such file"):
        read_nifti(tmp_path / "a.img")
    (tmp_path / "text.nii").write_text("participant_id\tage\n" * 100)
    with pytest.raises(DataError, match=r"text\.nii is no NIfTI"):
        read_nifti(tmp_path / "text.nii")


def test_random_bytes_in_the_header_never_raise_anything_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    good = save(tmp_path / "good.nii", volume((8, 9, 10))).read_bytes()
    path = tmp_path / "a.nii"
    read = 0
    for _ in range(300):
        content = bytearray(good)
        for place in rng.integers(0, 352, rng.integers(1, 6)):
            content[place] = rng.integers(256)
        path.write_bytes(bytes(content))
        try:
            assert np.isfinite(read_nifti(path).voxels).all()
            read += 1
        except DataError as error:
            assert "a.nii" in str(error)  # noqa: PT017
    assert read > 20


@pytest.mark.skipif(not CH2.is_file(), reason="Debian's mricron-data is not installed")
def test_a_real_t1_volume() -> None:
    found, expected = read_nifti(CH2), nibabel.load(CH2)
    np.testing.assert_array_equal(found.voxels, expected.get_fdata().astype(np.float32))
    np.testing.assert_array_equal(found.affine, expected.affine)
    assert found.facts["axes"] == "RAS"
    assert found.facts["description"] == "spm"
    assert "john" not in str(found.facts)


def test_orders_of_axes_are_all_read(tmp_path: Path) -> None:
    for number, order in enumerate(itertools.permutations(range(3))):
        affine = np.eye(4)
        affine[:3, :3] = np.eye(3)[list(order)] * [1, 2, 3]
        path = save(tmp_path / f"{number}.nii", volume(), affine)
        assert read_nifti(path).facts["axes"] == "".join(nibabel.aff2axcodes(nibabel.load(path).affine))
