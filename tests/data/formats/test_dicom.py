"""Planes from single files: pydicom's own files in many transfer syntaxes, and images that the test makes."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut, convert_color_space
from pydicom.uid import RLELossless

from latentdrift.data.formats.dicom import read_dicom
from latentdrift.data.scan import Plane
from latentdrift.errors import DataError
from tests.data.formats.dicom_files import IDENTIFIERS, NATIVE, header, save, with_pixels

BUNDLED_GRAY = {
    "CT_small.dcm": "Explicit VR Little Endian",
    "MR_small.dcm": "Explicit VR Little Endian",
    "MR_small_implicit.dcm": "Implicit VR Little Endian",
    "MR_small_bigendian.dcm": "Explicit VR Big Endian",
    "MR_small_padded.dcm": "Explicit VR Little Endian",
    "MR_small_RLE.dcm": "RLE Lossless",
    "MR_small_jpeg_ls_lossless.dcm": "JPEG-LS Lossless Image Compression",
    "MR_small_jp2klossless.dcm": "JPEG 2000 Image Compression (Lossless Only)",
    "JPEGLSNearLossless_08.dcm": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "JPEGLSNearLossless_16.dcm": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "JPEG2000.dcm": "JPEG 2000 Image Compression",
    "J2K_pixelrep_mismatch.dcm": "JPEG 2000 Image Compression (Lossless Only)",
    "JPGExtended.dcm": "JPEG Extended (Process 2 and 4)",
    "image_dfl.dcm": "Deflated Explicit VR Little Endian",
    "examples_overlay.dcm": "Explicit VR Little Endian",
    "rtdose_1frame.dcm": "Implicit VR Little Endian",
}
"""Gray images inside pydicom's wheel: nothing is downloaded."""

BUNDLED_COLOUR = {
    "SC_rgb_jpeg_gdcm.dcm": "JPEG Lossless, Non-Hierarchical, First-Order Prediction (Process 14 [Selection Value 1])",
    "SC_rgb_jpeg_dcmtk.dcm": "JPEG Baseline (Process 1)",
    "SC_rgb_rle.dcm": "RLE Lossless",
    "SC_rgb_jls_lossy_line.dcm": "JPEG-LS Lossy (Near-Lossless) Image Compression",
    "SC_rgb_gdcm_KY.dcm": "JPEG 2000 Image Compression",
    "SC_ybr_full_422_uncompressed.dcm": "Explicit VR Little Endian",
    "SC_rgb_small_odd_big_endian.dcm": "Explicit VR Big Endian",
    "ExplVR_BigEnd.dcm": "Explicit VR Big Endian",
    "examples_rgb_color.dcm": "Explicit VR Little Endian",
}


def bundled(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str), f"{name} is not inside pydicom's wheel"
    return Path(found)


def plane(path: Path, **how: Any) -> Plane:
    found = read_dicom([path], **how)
    assert isinstance(found, Plane)
    return found


@pytest.mark.parametrize(("name", "syntax"), BUNDLED_GRAY.items())
def test_gray_files_of_many_syntaxes_hold_what_pydicom_makes_of_them(name: str, syntax: str) -> None:
    found = plane(bundled(name))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        source = dcmread(bundled(name))
        expected = np.asarray(apply_modality_lut(source.pixel_array, source), np.float64)
    padded = source.get("PixelPaddingValue")
    seen = np.ones(expected.shape, bool) if padded is None else source.pixel_array != padded
    np.testing.assert_allclose(found.pixels[seen], expected[seen], rtol=1e-6, atol=1e-6)
    assert found.facts["transfer_syntax"] == syntax
    assert found.bits == source.BitsStored


@pytest.mark.parametrize(("name", "syntax"), BUNDLED_COLOUR.items())
def test_colour_is_read_as_luminance_and_said_to_be(name: str, syntax: str) -> None:
    found = plane(bundled(name))
    source = dcmread(bundled(name))
    rgb = source.pixel_array.astype(np.float64)  # pydicom 3 gives RGB for YBR
    expected = 0.299 * rgb[..., 0] + 0.587 * rgb[..., 1] + 0.114 * rgb[..., 2]
    np.testing.assert_allclose(found.pixels, expected, atol=1e-3)
    assert found.facts["transfer_syntax"] == syntax
    assert "luminance" in found.facts["colour"]
    assert found.window == (0, 255)


def test_a_palette_becomes_luminance_of_its_colours() -> None:
    found = plane(bundled("examples_palette.dcm"))
    source = dcmread(bundled("examples_palette.dcm"))
    rgb = apply_color_lut(source.pixel_array, source)
    rgb = rgb >> 8 if rgb.dtype == np.uint16 else rgb
    gray = convert_color_space(rgb[..., :3].astype(np.uint8), "RGB", "YBR_FULL")[..., 0]
    assert np.abs(found.pixels - gray).max() <= 1  # pydicom rounds to whole levels
    assert (found.bits, found.facts["photometric"]) == (8, "PALETTE COLOR")


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize(
    ("dtype", "bits"), [("u1", 8), ("<u2", 10), ("<u2", 12), ("<u2", 16), ("<i2", 12), ("<i2", 16), ("i1", 8)]
)
def test_depths_signs_and_byte_orders(tmp_path: Path, syntax: str, dtype: str, bits: int) -> None:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if "i" in dtype else (0, 2**bits - 1)
    stored = np.linspace(low, high, 6 * 8).round().astype(dtype).reshape(6, 8)
    made = with_pixels(header(RescaleSlope="0.5", RescaleIntercept="-3"), stored, bits=bits)
    found = plane(save(made, tmp_path / "x", syntax))
    np.testing.assert_array_equal(found.pixels, stored * 0.5 - 3)
    assert (found.bits, found.modality, found.spacing) == (bits, "OT", (1.0, 1.0))


def test_bits_above_the_stored_ones_are_not_part_of_the_value(tmp_path: Path) -> None:
    stored = np.arange(-8, 8, dtype=np.int16).reshape(4, 4) * 200
    overlay = (stored.astype(np.uint16) & 0x0FFF) | 0xA000  # an old overlay in the highest bits
    made = with_pixels(header(), overlay, bits=12)
    made.PixelRepresentation = 1
    np.testing.assert_array_equal(plane(save(made, tmp_path / "x")).pixels, stored)
    made = with_pixels(header(), (stored.astype(np.uint16) << 4) | 0x000F, bits=12)
    made.PixelRepresentation, made.HighBit = 1, 15
    np.testing.assert_array_equal(plane(save(made, tmp_path / "y")).pixels, stored)


def test_run_lengths_of_twelve_bits(tmp_path: Path) -> None:
    stored = (np.arange(64 * 48).reshape(64, 48) % 4096).astype("<u2")
    path = save(with_pixels(header(), stored, bits=12), tmp_path / "x")
    packed = dcmread(path)
    packed.compress(RLELossless)
    packed.save_as(path)
    found = plane(path)
    np.testing.assert_array_equal(found.pixels, stored)
    assert found.facts["transfer_syntax"] == "RLE Lossless"


@pytest.mark.parametrize(("signed", "first"), [(False, 100), (True, -50)])
def test_a_modality_table_is_applied_as_pydicom_does(tmp_path: Path, signed: bool, first: int) -> None:
    stored = np.arange(-128, 128).reshape(16, 16) if signed else np.arange(256).reshape(16, 16)
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if signed else "US", [80, first, 16])
    item.add_new("LUTData", "US", [int(1000 + 3 * n + n * n) for n in range(80)])
    item.ModalityLUTType = "OD"
    made = with_pixels(header(ModalityLUTSequence=[item]), stored.astype("<i2" if signed else "<u2"))
    path = save(made, tmp_path / "x")
    expected = apply_modality_lut(stored, dcmread(path))
    found = plane(path)
    np.testing.assert_array_equal(found.pixels, expected)
    assert found.facts["units"] == "OD"


def test_monochrome1_stays_as_stored_and_is_said_to_be_inverted(tmp_path: Path) -> None:
    stored = np.arange(16, dtype="<u2").reshape(4, 4)
    found = plane(save(with_pixels(header("DX"), stored, bits=12, photometric="MONOCHROME1"), tmp_path / "x"))
    np.testing.assert_array_equal(found.pixels, stored)
    assert found.inverted
    assert not plane(save(with_pixels(header("DX"), stored, bits=12), tmp_path / "y")).inverted


def test_ct_is_in_hounsfield_units_and_padding_is_air(tmp_path: Path) -> None:
    stored = np.array([[-2000, -2000, 0], [1024, 1064, 2024]], "<i2")
    made = with_pixels(header("CT", RescaleSlope=1, RescaleIntercept=-1024), stored)
    made.add_new("PixelPaddingValue", "US", 2**16 - 2000)  # as written by many: unsigned, the pixels signed
    found = plane(save(made, tmp_path / "x"))
    np.testing.assert_array_equal(found.pixels, [[-1000, -1000, -1024], [0, 40, 1000]])
    assert found.facts["units"] == "HU"
    assert found.facts["padding"] == pytest.approx(1 / 3)


@pytest.mark.parametrize(("photometric", "fill"), [("MONOCHROME2", 0), ("MONOCHROME1", 900)])
def test_a_range_of_padding_becomes_the_darkest_other_value(tmp_path: Path, photometric: str, fill: int) -> None:
    stored = np.array([[0, 3, 5, 100], [500, 900, 4, 6]], "<u2")
    made = with_pixels(header("DX"), stored, photometric=photometric)
    made.add_new("PixelPaddingValue", "US", 6)
    made.add_new("PixelPaddingRangeLimit", "US", 3)
    expected = np.where((stored >= 3) & (stored <= 6), fill, stored)
    np.testing.assert_array_equal(plane(save(made, tmp_path / "x")).pixels, expected)


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT"])
@pytest.mark.parametrize(("centre", "width"), [(40, 80), (40.5, 81), (-600, 1500), (10, 2)])
def test_windows_are_those_of_the_standard(tmp_path: Path, function: str | None, centre: float, width: float) -> None:
    stored = np.arange(-2000, 2000, dtype="<i2").reshape(40, 100)
    made = with_pixels(header("CT", WindowCenter=centre, WindowWidth=width), stored)
    if function:
        made.VOILUTFunction = function
    path = save(made, tmp_path / "x")
    found = plane(path)
    assert found.window is not None
    low, high = found.window
    shown = np.clip((found.pixels.astype(float) - low) / (high - low), 0, 1)
    expected = (apply_voi_lut(stored, dcmread(path)) + 2**15) / (2**16 - 1)
    np.testing.assert_allclose(shown, expected, atol=2e-5)


def test_a_sigmoid_has_the_range_of_its_tangent(tmp_path: Path) -> None:
    made = with_pixels(header(WindowCenter=100, WindowWidth=60, VOILUTFunction="SIGMOID"), np.zeros((2, 2), "<u2"))
    found = plane(save(made, tmp_path / "x"))
    assert found.window == (70, 130)
    assert "SIGMOID" in found.facts["window_from"]


def test_one_of_several_windows_is_chosen_by_place_or_name(tmp_path: Path) -> None:
    made = with_pixels(header("CT", WindowCenter=[40, 600], WindowWidth=[81, 2801]), np.zeros((2, 2), "<i2"))
    made.WindowCenterWidthExplanation = ["BRAIN", "Bone"]
    path = save(made, tmp_path / "x")
    assert plane(path).window == (-0.5, 79.5)
    assert plane(path, window=1).window == plane(path, window="bone").window == (-800.5, 1999.5)
    with pytest.raises(DataError, match="brain, bone"):
        plane(path, window="lung")
    with pytest.raises(DataError, match="no window 2"):
        plane(path, window=2)


def test_useless_windows_are_none_and_that_is_told(tmp_path: Path) -> None:
    found = plane(save(with_pixels(header(WindowCenter=5, WindowWidth=0), np.zeros((2, 2), "<u2")), tmp_path / "x"))
    assert found.window is None
    assert "width is 0" in found.facts["window_from"]


@pytest.mark.parametrize("falling", [False, True])
def test_a_straight_table_is_its_window(tmp_path: Path, falling: bool) -> None:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [101, 50, 12])
    entries = [round(40.95 * n) for n in range(101)]
    item.add_new("LUTData", "US", entries[::-1] if falling else entries)
    made = with_pixels(header("DX", VOILUTSequence=[item]), np.zeros((2, 2), "<u2"), bits=12)
    found = plane(save(made, tmp_path / "x"))
    assert found.window == pytest.approx((50, 150), abs=0.1)
    assert found.inverted == falling
    assert "VOI LUT" in found.facts["window_from"]


def test_a_curved_table_gives_a_range_within_it(tmp_path: Path) -> None:
    places = np.arange(1000)
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [1000, 0, 16])
    curve = 65535 / (1 + np.exp(-(places - 500) / 50))
    item.add_new("LUTData", "OW", curve.round().astype("<u2").tobytes())
    found = plane(save(with_pixels(header("DX", VOILUTSequence=[item]), np.zeros((2, 2), "<u2")), tmp_path / "x"))
    reach = 50 * np.log(9)  # of the logistic curve: 10 % and 90 % are ln 9 scales from its middle
    assert found.window == pytest.approx((500 - reach * 1.25, 500 + reach * 1.25), abs=0.5)


@pytest.mark.parametrize(
    ("given", "spacing", "source"),
    [
        ({"PixelSpacing": [0.5, 0.7], "ImagerPixelSpacing": [1, 1]}, (0.5, 0.7), "PixelSpacing"),
        ({"ImagerPixelSpacing": [0.2, 0.3]}, (0.2, 0.3), "ImagerPixelSpacing"),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, (0.1, 0.1), "NominalScannedPixelSpacing"),
        ({"PixelAspectRatio": [4, 2]}, (2.0, 1.0), "PixelAspectRatio"),
        ({}, (1.0, 1.0), "none"),
    ],
)
def test_spacing_comes_from_the_best_attribute(
    tmp_path: Path, given: dict[str, Any], spacing: tuple[float, float], source: str
) -> None:
    found = plane(save(with_pixels(header(**given), np.zeros((2, 3), "u1"), bits=8), tmp_path / "x"))
    assert found.spacing == spacing
    assert found.facts["spacing_from"] == source


def test_a_frame_of_a_loop_is_chosen(tmp_path: Path) -> None:
    frames = np.arange(3 * 4 * 5, dtype="u1").reshape(3, 4, 5)
    path = save(with_pixels(header("US"), frames, bits=8), tmp_path / "x")
    for frame in range(3):
        np.testing.assert_array_equal(plane(path, frame=frame).pixels, frames[frame])
    with pytest.raises(DataError, match="3 frame"):
        plane(path, frame=3)
    assert plane(bundled("examples_ybr_color.dcm"), frame=29).facts["frames"] == 30


def test_private_attributes_and_missing_ones_do_not_matter(tmp_path: Path) -> None:
    made = Dataset()
    made.SOPClassUID, made.Rows, made.Columns = "1.2.840.10008.5.1.4.1.1.7", 2, 2
    made.BitsAllocated, made.PixelData = 8, bytes([1, 2, 3, 4])
    made["PixelData"].VR = "OB"
    block = made.private_block(0x0029, "SOMEBODY", create=True)
    block.add_new(0x10, "UN", b"\xff\xfe\x00\xe0\xff\xff\xff\xffjunk")
    np.testing.assert_array_equal(plane(save(made, tmp_path / "x")).pixels, [[1, 2], [3, 4]])


def test_nothing_in_the_facts_names_the_patient(tmp_path: Path) -> None:
    made = with_pixels(header("MR"), np.zeros((2, 2), "<u2"))
    uids = [str(made[name].value) for name in ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID")]
    text = repr(plane(save(made, tmp_path / "x")).facts)
    assert not [value for value in [*IDENTIFIERS.values(), *uids] if value in text]


def test_old_files_without_preamble_are_read(tmp_path: Path) -> None:
    stored = np.arange(6, dtype="<u2").reshape(2, 3)
    for syntax in NATIVE[:3]:
        path = save(with_pixels(header(), stored), tmp_path / "x", syntax)
        data = path.read_bytes()
        length = struct.unpack("<I", data[140:144])[0]
        path.write_bytes(data[144 + length :])
        np.testing.assert_array_equal(plane(path).pixels, stored)
