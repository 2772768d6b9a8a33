"""Damaged and hostile files: each is refused by name and reason, before it can do harm."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from latentdrift.data.formats.dicom import pixels, read_dicom
from latentdrift.data.formats.dicom.pixels import codestream_size
from latentdrift.errors import DataError
from tests.data.formats.dicom_files import NATIVE, header, save, with_pixels


def bundled(name: str) -> Path:
    found = get_testdata_file(name, download=False)
    assert isinstance(found, str), f"{name} is not inside pydicom's wheel"
    return Path(found)


def test_damaged_files_of_pydicom_are_refused() -> None:
    for name in ("MR_truncated.dcm", "JPEG-lossy.dcm", "JPEG2000-embedded-sequence-delimiter.dcm", "badVR.dcm"):
        with pytest.raises(DataError, match=name):
            read_dicom([bundled(name)])


def damaged(kind: str, path: Path) -> Path:
    made = with_pixels(header("MR", PixelSpacing=[1, 1]), np.zeros((8, 8), "<u2"))
    if kind == "no pixels":
        del made.PixelData
    elif kind == "no rows":
        del made.Rows
    elif kind == "zero rows":
        made.Rows = 0
    elif kind == "huge":
        made.Rows = made.Columns = 60000
    elif kind == "short":
        made.PixelData = made.PixelData[:100]
    elif kind == "bits":
        made.BitsStored = 40
    elif kind == "spacing":
        made.PixelSpacing = [-1, 1]
    elif kind == "not a number":
        made.add_new("PixelSpacing", "DS", "1\\1")
        made["PixelSpacing"]._value = ["a", "b"]
    elif kind == "slope":
        made.RescaleSlope, made.RescaleIntercept = 0, 0
    elif kind == "samples":
        made.SamplesPerPixel = 2
    save(made, path)
    if kind == "syntax":
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.9\0", 1))
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_bytes(b"this is no image " * 100)
    elif kind == "cut":
        path.write_bytes(path.read_bytes()[:400])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no pixels", "no PixelData"), ("no rows", "Rows is missing"), ("zero rows", "0 rows"), ("huge", "bomb"),
        ("short", "less than expected"), ("bits", "BitsStored 40"), ("spacing", "PixelSpacing"),
        ("slope", "RescaleSlope is 0"), ("samples", "SamplesPerPixel is 2"), ("syntax", "1.2.840.10008.1.2.9"),
        ("empty", "no DICOM file"), ("text", "no DICOM file"), ("cut", "no PixelData"),
    ],
)  # fmt: skip
def test_damaged_files_are_refused_by_name_and_reason(tmp_path: Path, kind: str, reason: str) -> None:
    path = damaged(kind, tmp_path / "broken.dcm")
    with pytest.raises(DataError, match=reason) as caught:
        read_dicom([path])
    assert "broken.dcm" in str(caught.value)


def refusal(path: Path) -> int:
    """Whether a file is refused, by name; any other exception fails the test."""
    try:
        read_dicom([path])
    except DataError as error:
        if path.name not in str(error):
            raise
        return 1
    return 0


def test_every_truncation_is_refused_or_read(tmp_path: Path) -> None:
    data = bundled("MR_small_jp2klossless.dcm").read_bytes()
    path, refused = tmp_path / "cut.dcm", 0
    for length in range(0, len(data), 97):
        path.write_bytes(data[:length])
        refused += refusal(path)
    assert refused > 50


@pytest.mark.parametrize("name", ["MR_small.dcm", "MR_small_RLE.dcm", "MR_small_jp2klossless.dcm"])
@pytest.mark.parametrize("reach", [1700, None])
def test_flipped_bytes_are_refused_or_read(tmp_path: Path, name: str, reach: int | None) -> None:
    """In the header and in the compressed data, where decoders themselves can break."""
    data = bundled(name).read_bytes()
    rng = np.random.default_rng(0)
    path, refused = tmp_path / "flipped.dcm", 0
    for _ in range(60):
        broken = bytearray(data)
        for place in rng.integers(132, reach or len(data), 6):
            broken[place] = rng.integers(256)
        path.write_bytes(broken)
        refused += refusal(path)
    assert 0 < refused < 60


def test_a_deflated_bomb_is_refused_before_it_is_inflated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from latentdrift.data.formats.dicom import opening

    path = save(with_pixels(header(), np.zeros((4, 4), "<u2")), tmp_path / "bomb", NATIVE[3])
    data = path.read_bytes()
    start = 144 + struct.unpack("<I", data[140:144])[0]
    packer = zlib.compressobj(9, wbits=-zlib.MAX_WBITS)
    packed = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(64)), packer.flush()])
    path.write_bytes(data[:start] + packed)
    monkeypatch.setattr(opening, "MAX_INFLATED_BYTES", 1 << 22)
    with pytest.raises(DataError, match="decompression bomb"):
        read_dicom([path])


def test_a_compressed_frame_of_another_size_is_refused_before_decoding(tmp_path: Path) -> None:
    source = dcmread(bundled("MR_small_jp2klossless.dcm"))
    source.Rows = source.Columns = 8
    source.save_as(tmp_path / "x")
    with pytest.raises(DataError, match="64 x 64 pixels, the header says 8 x 8"):
        read_dicom([tmp_path / "x"])
    frame = b"\xff\xd8\xff\xe0\x00\x04ab\xff\xc0\x00\x11\x08" + struct.pack(">2H", 65000, 64000) + b"\x01" * 12
    made = with_pixels(header(), np.zeros((4, 4), "u1"), bits=8)
    made.PixelData = encapsulate([frame])
    made["PixelData"].is_undefined_length = True
    with pytest.raises(DataError, match="64000 x 65000"):
        read_dicom([save(made, tmp_path / "y", JPEGBaseline8Bit)])


def test_sizes_of_codestreams_are_those_of_the_images() -> None:
    for name in (
        "MR_small_jp2klossless.dcm",
        "MR_small_jpeg_ls_lossless.dcm",
        "JPGExtended.dcm",
        "SC_rgb_jpeg_gdcm.dcm",
    ):
        source = dcmread(bundled(name))
        frame = get_frame(source.PixelData, 0, number_of_frames=1)
        assert codestream_size(frame) == (source.Rows, source.Columns)
    assert codestream_size(b"\xff\xd8\xff") is codestream_size(b"") is codestream_size(b"RLE" * 99) is None


def test_a_syntax_without_its_package_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders import JPEG2000LosslessDecoder

    assert JPEG2000Lossless == JPEG2000LosslessDecoder.UID
    monkeypatch.setattr(JPEG2000LosslessDecoder, "_available", {})
    monkeypatch.setattr(
        JPEG2000LosslessDecoder, "_unavailable", {"pylibjpeg": ("pylibjpeg>=2.0", "pylibjpeg-openjpeg>=2.0")}
    )
    with pytest.raises(DataError, match=r"JPEG 2000 .*1\.2\.840\.10008\.1\.2\.4\.90.*pylibjpeg-openjpeg"):
        read_dicom([bundled("MR_small_jp2klossless.dcm")])


def test_huge_series_are_refused_by_their_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixels, "MAX_PIXELS", 15)
    with pytest.raises(DataError, match="taken for a bomb"):
        read_dicom([save(with_pixels(header(), np.zeros((4, 4), "<u2")), tmp_path / "x")])


def test_no_files_are_refused() -> None:
    with pytest.raises(DataError, match="no files"):
        read_dicom([])
    with pytest.raises(DataError, match="no such file"):
        read_dicom([Path("nowhere.dcm")])
