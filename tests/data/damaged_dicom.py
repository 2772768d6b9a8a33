"""DICOM files, good and damaged: one image, compressed images, frames, and a small CT series."""

from __future__ import annotations

import itertools
import random
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, RLELossless

from tests.data.damage import Damaged, cuts, flips, head, one, zeros
from tests.data.formats import dicom_files
from tests.data.formats.dicom_files import NATIVE, ct_attributes, ct_series, header, mr_attributes, save, with_pixels

SHAPE = (18, 20, 8)
ITEM, FRAGMENTS = b"\xfe\xff\x00\xe0", b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff"


@contextmanager
def counted_uids() -> Iterator[None]:
    """Count UIDs instead of drawing them: files from the same seed are the same."""
    uids = (f"1.2.826.0.1.3680043.8.498.{number}" for number in itertools.count(100_001))
    with mock.patch.object(dicom_files, "generate_uid", side_effect=uids):
        yield


@counted_uids()
def good_dicom(work: Path) -> dict[str, bytes]:
    """Whole files, of one image or of frames. `work` is a folder for files on the way."""
    values = head((40, 44, 10))
    slice_ = np.ascontiguousarray(values[:, :, 5].T)
    made: dict[str, bytes] = {}

    def keep(name: str, dataset: Any, syntax: str = NATIVE[1]) -> None:
        made[name] = save(dataset, work / name, syntax).read_bytes()

    def mr() -> Any:
        return with_pixels(header("MR", **mr_attributes()), slice_.astype("<u2"), bits=12)

    for name, syntax in zip(("implicit", "explicit", "big", "deflated"), NATIVE, strict=True):
        keep(f"{name}.dcm", mr(), syntax)
    ct = header("CT", **ct_attributes(), PixelSpacing=[8, 8], ImagePositionPatient=[-8, -7, 31.5])
    ct.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    keep("ct.dcm", with_pixels(ct, (slice_ / 10 + 1000).astype("<i2")))
    for name, syntax in (("rle", RLELossless), ("jpeg2000", JPEG2000Lossless)):
        packed = dcmread(save(mr(), work / name))
        packed.compress(syntax, generate_instance_uid=False)
        packed.save_as(work / name, enforce_file_format=True)
        made[f"{name}.dcm"] = (work / name).read_bytes()
    xray = header("CR", "1.2.840.10008.5.1.4.1.1.1", WindowCenter=128, WindowWidth=256)
    with_pixels(xray, (slice_ / 4).astype("u1"), bits=8, photometric="MONOCHROME1")
    jpeg = BytesIO()
    Image.fromarray((slice_ / 4).astype("u1")).save(jpeg, "JPEG", quality=95)
    xray.PixelData = encapsulate([jpeg.getvalue()])
    xray["PixelData"].is_undefined_length = True
    keep("jpeg.dcm", xray, JPEGBaseline8Bit)
    keep("loop.dcm", with_pixels(header("XA"), np.ascontiguousarray(values.T).astype("<u2")))
    keep("enhanced.dcm", enhanced(np.ascontiguousarray(values.T).astype("<u2")))
    return made


def enhanced(frames: np.ndarray) -> Any:
    """An enhanced MR volume: frames (N, H, W) one above the other."""
    made = with_pixels(header("MR", "1.2.840.10008.5.1.4.1.1.4.1"), frames, bits=12)
    shared, measures, orientation = header(), header(), header()
    for dataset in (shared, measures, orientation):
        dataset.clear()
    measures.PixelSpacing, measures.SliceThickness = [8, 8], 8
    orientation.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = Sequence([measures]), Sequence([orientation])
    made.SharedFunctionalGroupsSequence = Sequence([shared])
    groups = []
    for number in range(len(frames)):
        position, group = header(), header()
        position.clear(), group.clear()
        position.ImagePositionPatient = [-80, -90, 8 * number - 30]
        group.PlanePositionSequence = Sequence([position])
        groups.append(group)
    made.PerFrameFunctionalGroupsSequence = Sequence(groups)
    return made


@counted_uids()
def good_series(work: Path) -> dict[str, bytes]:
    """A head in a CT series of eight files."""
    affine = np.diag([8.0, 8.0, 12.0, 1.0])
    stored = (head(SHAPE, 80) + np.where(head(SHAPE) > 100, 1024, 0)).astype("<i2")
    return {path.name: path.read_bytes() for path in ct_series(work / "good-series", stored, affine)}


def damaged_dicom(rng: random.Random, work: Path) -> Iterator[Damaged]:
    """Every kind of damage that DICOM files can have."""
    good = good_dicom(work)
    for name, structural, randomly in (
        ("explicit", (0, 1, 100, 131, 132, 140, 200, 340), 8), ("implicit", (), 4), ("deflated", (), 6), ("rle", (), 8),
        ("jpeg2000", (), 8), ("jpeg", (), 8), ("enhanced", (), 6), ("loop", (), 3),
    ):  # fmt: skip
        content = good[f"{name}.dcm"]
        yield from cuts(f"{name}.dcm", content, structural, rng, randomly)
        # A compressed image ends in a mark of eight bytes that nobody needs.
        yield from cuts(f"{name}-end.dcm", content, (len(content) - 9, len(content) - 40), rng, 0)
    for name in ("explicit", "implicit", "big", "rle", "jpeg2000", "jpeg", "enhanced"):
        yield from flips(f"{name}.dcm", good[f"{name}.dcm"], (132, 1200), rng, 4)
        yield from flips(f"{name}.dcm", good[f"{name}.dcm"], (1200, len(good[f"{name}.dcm"])), rng, 3)
    yield from _wrong_headers(good["ct.dcm"], work)
    yield from _wrong_structure(good, work)
    yield from _wrong_codestreams(good)
    yield from _broken_series(good_series(work))


def _wrong_headers(ct: bytes, work: Path) -> Iterator[Damaged]:
    """Entries that contradict each other or say nothing; written as they are, past pydicom's own checks."""
    for name, keyword, value, says in (
        ("rows-0", "Rows", 0, "0 rows"), ("rows-large", "Rows", 65535, "less than"), ("bits-0", "BitsStored", 0, ""),
        ("bits-17", "BitsStored", 17, "BitsStored 17"), ("allocated", "BitsAllocated", 12, "BitsAllocated"),
        ("high", "HighBit", 3, "HighBit"), ("samples", "SamplesPerPixel", 7, "SamplesPerPixel"),
        ("frames", "NumberOfFrames", "2147483647", ""), ("frames-text", "NumberOfFrames", "many", "NumberOfFrames"),
        ("spacing-text", "PixelSpacing", "wide\\deep", "PixelSpacing"), ("slope-0", "RescaleSlope", "0", "Slope"),
        ("spacing-negative", "PixelSpacing", "-8\\8", "PixelSpacing"), ("spacing-0", "PixelSpacing", "0\\0", "PixelS"),
        ("spacing-nan", "PixelSpacing", "nan\\8", "PixelSpacing"), ("spacing-inf", "PixelSpacing", "8\\inf", "PixelS"),
        ("spacing-one", "PixelSpacing", "8", "PixelSpacing"), ("slope-nan", "RescaleSlope", "nan", "RescaleSlope"),
        ("slope-text", "RescaleSlope", "1,0", "RescaleSlope"), ("slope-large", "RescaleSlope", "1e999", "RescaleSlope"),
        ("intercept", "RescaleIntercept", "-inf", "Intercept"), ("colour", "PhotometricInterpretation", "RGB", ""),
    ):  # fmt: skip
        dataset = dcmread(BytesIO(ct))
        vr = dataset[keyword].VR if keyword in dataset else "IS"
        if isinstance(value, str):
            # Text reaches the file through a private element of the same length, whose tag is changed afterwards.
            if keyword in dataset:
                del dataset[keyword]
            raw = value.encode() + b" " * (len(value) % 2)
            block = struct.pack("<HH", *_tag(keyword)) + vr.encode() + struct.pack("<H", len(raw)) + raw
            content = _inserted(save(dataset, work / "edited").read_bytes(), keyword, block)
        else:
            dataset[keyword].value = value
            content = save(dataset, work / "edited").read_bytes()
        yield one(f"head-{name}.dcm", content, says)
    for keyword in ("PixelData", "Rows", "Columns"):
        dataset = dcmread(BytesIO(ct))
        del dataset[keyword]
        yield one(f"without-{keyword}.dcm", save(dataset, work / "edited").read_bytes(), keyword)


def _tag(keyword: str) -> tuple[int, int]:
    from pydicom.tag import Tag

    tag = Tag(keyword)
    return tag.group, tag.element


def _inserted(content: bytes, keyword: str, block: bytes) -> bytes:
    """Return an explicit little-endian file with an element put before the first of a higher tag."""
    place = 144 + struct.unpack("<I", content[140:144])[0]
    while place < len(content):
        tag = struct.unpack("<HH", content[place : place + 4])
        if tag > _tag(keyword):
            break
        long = content[place + 4 : place + 6] in (b"OB", b"OW", b"SQ", b"UN", b"UT")
        length = struct.unpack("<I", content[place + 8 : place + 12]) if long else None
        place += 12 + length[0] if length else 8 + struct.unpack("<H", content[place + 6 : place + 8])[0]
    return content[:place] + block + content[place:]


def _wrong_structure(good: dict[str, bytes], work: Path) -> Iterator[Damaged]:
    """Files whose elements do not follow each other as they must."""
    plain = good["explicit.dcm"]
    yield one("text.dcm", b"this is no image\n" * 50, "no DICOM")
    yield one("picture.dcm", b"\x89PNG\r\n\x1a\n" + bytes(2000), "no DICOM")
    yield one("zeros.dcm", bytes(5000), "no DICOM")
    yield one("magic.dcm", plain[:128] + b"MCID" + plain[132:], "no DICOM")
    yield one("only-preamble.dcm", bytes(128) + b"DICM")
    yield one("noise.dcm", bytes(128) + b"DICM" + random.Random(1).randbytes(4000))
    for number, syntax in enumerate((b"1.2.840.10008.1.2.9\0", b"1.2.840.10008.1.2.5\0", b"9.9\0" + b"9" * 16)):
        yield one(f"syntax{number}.dcm", plain.replace(b"1.2.840.10008.1.2.1\0", syntax, 1))
    place = plain.index(b"\xe0\x7f\x10\x00")
    for number, length in enumerate((0xFFFFFFFE, 0x80000000, 0xFFFFFFFF, 0, 10)):
        content = plain[: place + 8] + struct.pack("<I", length) + plain[place + 12 :]
        # Where too much is claimed, the pixels are there all the same.
        yield one(f"length{number}.dcm", content, invalid=number > 1)
    # Sequences inside sequences, deeper than any reader follows.
    opened = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff" + ITEM + b"\xff\xff\xff\xff"
    yield one("deep.dcm", plain[:place] + opened * 5000)
    packed = zeros(300 << 20, lambda: zlib.compressobj(9, wbits=-zlib.MAX_WBITS))
    deflated = good["deflated.dcm"]
    start = 144 + struct.unpack("<I", deflated[140:144])[0]
    yield one("bomb-deflated.dcm", deflated[:start] + packed, "bomb")
    yield one("other-deflated.dcm", deflated[:start] + b"\xff" * 400)


def _wrong_codestreams(good: dict[str, bytes]) -> Iterator[Damaged]:
    """Compressed images that say of themselves what is not so."""
    rle, wavelet, jpeg = good["rle.dcm"], good["jpeg2000.dcm"], good["jpeg.dcm"]
    at = rle.index(FRAGMENTS) + len(FRAGMENTS)
    at = rle.index(ITEM, at + 8) + 8
    for number, words in enumerate(([15, *[64] * 15], [2**31, 64], [2, 2**31, 2**31], [0, 0], [2, 64, 10])):
        head = struct.pack(f"<{len(words)}I", *words)
        yield one(f"rle-segments{number}.dcm", rle[:at] + head + rle[at + len(head) :])
    siz = wavelet.index(b"\xff\x4f\xff\x51")
    for name, offset, code, numbers, says in (
        ("size", 8, ">4I", (2**31, 2**31, 0, 0), "pixels, the header says"),
        ("offset", 16, ">2I", (2**31, 2**31), ""),
        ("tiles", 24, ">2I", (0, 0), ""),
        ("tile", 24, ">2I", (1, 1), ""),
        ("components", 40, ">H", (16384,), ""),
        ("depth", 42, ">B", (0x7F,), ""),
    ):
        data = bytearray(wavelet)
        struct.pack_into(code, data, siz + offset, *numbers)
        yield one(f"wavelet-{name}.dcm", bytes(data), says, invalid=name != "tile")
    sof = jpeg.index(b"\xff\xc0")
    for number, (rows, columns) in enumerate(((65500, 65500), (0, 0), (45, 40), (44, 65535))):
        data = bytearray(jpeg)
        struct.pack_into(">2H", data, sof + 5, rows, columns)
        yield one(f"jpeg-size{number}.dcm", bytes(data), "the header says")
    yield one("jpeg-empty.dcm", jpeg[: sof - 20] + b"\xff\xd9" + jpeg[-8:])
    for name, packed in (("rle", rle), ("wavelet", wavelet), ("jpeg", jpeg)):
        # The whole image in one piece of zeros, or half of it, the marks around it in place.
        at = packed.index(ITEM, packed.index(FRAGMENTS) + len(FRAGMENTS) + 4)
        length = struct.unpack("<I", packed[at + 4 : at + 8])[0]
        image, end = packed[at + 8 : at + 8 + length], packed[at + 8 + length :]
        yield one(f"{name}-zeros.dcm", packed[: at + 8] + bytes(length) + end)
        half = length // 4 * 2
        yield one(f"{name}-half.dcm", packed[: at + 4] + struct.pack("<I", half) + image[:half] + end)


def _broken_series(good: dict[str, bytes]) -> Iterator[Damaged]:
    """Series of which a file is damaged, missing, there twice, or of somewhere else."""
    names = sorted(good)

    def series(name: str, changed: dict[str, bytes | None], says: str = "") -> Damaged:
        files = {**good, **changed}
        kept = tuple((f"{name}/{file}", content) for file, content in files.items() if content is not None)
        return Damaged(name, kept, says=says)

    def edited(file: str, **values: Any) -> bytes:
        dataset, packed = dcmread(BytesIO(good[file])), BytesIO()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        dataset.save_as(packed)
        return packed.getvalue()

    third, last = names[3], names[-1]
    yield series("series-cut", {third: good[third][:-50]})
    yield series("series-empty", {third: b""}, third)
    yield series("series-text", {third: b"text" * 500}, third)
    yield series("series-gap", {third: None}, "missing")
    yield series("series-twice", {"copy": good[third]}, "more than one slice")
    yield series("series-far", {last: edited(last, ImagePositionPatient=[0, 0, 1e9])})
    yield series("series-tilted", {third: edited(third, ImageOrientationPatient=[1, 0, 0, 0, 0, 1])}, "orientations")
    yield series("series-flat", {third: edited(third, ImageOrientationPatient=[0] * 6)}, "ImageOrientationPatient")
    yield series("series-nowhere", {third: edited(third, ImagePositionPatient=None)}, "where its slice is")
    yield series("series-size", {third: edited(third, Rows=19)}, "unlike")
    yield series("series-mixed", {third: edited(third, SeriesInstanceUID="1.2.3")}, "another series")
    yield series("series-spacing", {third: edited(third, PixelSpacing=[8, 9])}, "pixel distances")
    nan = edited(third, ImagePositionPatient=[0, 0, 12345]).replace(b"12345", b"nan  ", 1)
    yield series("series-nan", {third: nan}, "ImagePositionPatient")
