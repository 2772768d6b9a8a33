"""PNG, JPEG and TIFF files, good and damaged."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from tests.data.damage import Damaged, cuts, flips, head, one, zeros

SIGNATURE = b"\x89PNG\r\n\x1a\n"
WIDTH, HEIGHT, STRIPS, COUNTS = 256, 257, 273, 279
"""TIFF's tags."""


def good_pictures() -> dict[str, bytes]:
    """Whole files of 8 and 16 bits and floating point."""
    slice_ = head((28, 24, 8))[:, :, 4]
    eight, sixteen = (slice_ / 4).astype(np.uint8), (slice_ * 60).astype(np.uint16)
    return {
        "eight.png": _saved(eight, "PNG"),
        "sixteen.png": _saved(sixteen, "PNG"),
        "photo.jpg": _saved(eight, "JPEG", quality=95),
        "gray-as-colour.jpg": _saved(np.stack([eight] * 3, 2), "JPEG", quality=95),
        "eight.tif": _saved(eight, "TIFF"),
        "sixteen.tif": _saved(sixteen, "TIFF", compression="tiff_adobe_deflate"),
        "real.tif": _saved((slice_ / 1000).astype(np.float32), "TIFF"),
        "eight.bmp": _saved(eight, "BMP"),
    }


def damaged_pictures(rng: random.Random) -> Iterator[Damaged]:
    """Every kind of damage that picture files can have."""
    good = good_pictures()
    for name, structural, last, randomly in (
        ("eight.png", (0, 1, 8, 16, 29, 33, 41), 20, 8), ("sixteen.png", (), 20, 4), ("photo.jpg", (2, 20, 160), 40, 8),
        ("eight.tif", (4, 8, 9, 12), 0, 6), ("sixteen.tif", (), 0, 6), ("eight.bmp", (2, 14, 54), 0, 4),
    ):  # fmt: skip
        content = good[name]
        yield from cuts(name, content[: len(content) - last], structural, rng, randomly)
    for name, start, invalid in (
        ("eight.png", 33, True), ("sixteen.png", 33, True), ("photo.jpg", 2, False), ("eight.tif", 0, False),
        ("sixteen.tif", 0, False), ("real.tif", 0, False), ("eight.bmp", 2, False),
    ):  # fmt: skip
        # Every chunk of a PNG has a checksum; the last twelve bytes are the mark of its end.
        end = len(good[name]) - (12 if invalid else 0)
        yield from flips(name, good[name], (start, end), rng, 5, invalid=invalid)
    yield from _png_claims(good["eight.png"])
    yield from _jpeg_claims(good["photo.jpg"])
    yield from _tiff_claims(good["eight.tif"], good["real.tif"])
    for name in ("text.png", "text.jpg", "text.tif"):
        yield one(name, b"<html>404 Not Found</html>\n" * 9, "no known image format")
    yield one("postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n", "no known image format")
    yield one("dicom.png", bytes(128) + b"DICM" + bytes(400), "no known image format")
    yield one("colour.png", _saved(np.full((20, 20, 3), (255, 0, 0), np.uint8), "PNG"), "colour")
    yield one("constant.png", _saved(np.full((20, 20), 9, np.uint8), "PNG"), "constant")


def _saved(pixels: np.ndarray, kind: str, **settings: Any) -> bytes:
    packed = BytesIO()
    Image.fromarray(pixels).save(packed, kind, **settings)
    return packed.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a PNG chunk with its checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, data: bytes, *, bits: int = 8, colour: int = 0, more: bytes = b"") -> bytes:
    """Return a PNG file of compressed data."""
    start = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    return SIGNATURE + start + more + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def _png_claims(good: bytes) -> Iterator[Damaged]:
    rows = zlib.compress(bytes(25 * 28))
    for number, (width, height) in enumerate(((2**31 - 1, 2**31 - 1), (65535, 65535), (2**31, 1), (10**8, 1))):
        yield one(f"large{number}.png", png(width, height, rows), "bomb")
    for number, (width, height) in enumerate(((0, 28), (24, 0), (0, 0))):
        yield one(f"nothing{number}.png", png(width, height, rows))
    yield one("taller.png", png(24, 29, rows))
    for number, (bits, colour) in enumerate(((3, 0), (8, 7), (16, 3), (255, 255))):
        yield one(f"kind{number}.png", png(24, 28, rows, bits=bits, colour=colour))
    yield one("no-palette.png", png(24, 28, rows, colour=3), invalid=False)
    yield one("checksum.png", good[:29] + b"\0\0\0\0" + good[33:])
    yield one("no-data.png", SIGNATURE + good[8:33] + chunk(b"IEND", b""))
    yield one("noise.png", png(24, 28, b"\x78\x9c" + b"\xff" * 300))
    text = b"Comment\0\0" + zeros(200 << 20)
    yield one("bomb-text.png", png(24, 28, rows, more=chunk(b"zTXt", text)))
    profile = b"icc\0\0" + zeros(200 << 20)
    yield one("bomb-profile.png", png(24, 28, rows, more=chunk(b"iCCP", profile)))
    yield one("bomb-behind.png", png(24, 28, zeros(200 << 20)), invalid=False)
    # 60 million pixels of nothing, as they are claimed: 60 KB.
    yield one("bomb-true.png", png(10_000, 6_000, zeros(10_001 * 6_000)), "constant")
    yield one("bomb-colour.png", png(8_000, 4_000, zeros(24_001 * 4_000), colour=2), "constant")


def _jpeg_claims(good: bytes) -> Iterator[Damaged]:
    sof = good.index(b"\xff\xc0")
    for number, (height, width) in enumerate(((65500, 65500), (0, 24), (28, 0), (65500, 1200))):
        data = bytearray(good)
        struct.pack_into(">2H", data, sof + 5, height, width)
        # JPEG has no checksum, and its decoder fills up what is missing.
        yield one(f"large{number}.jpg", bytes(data), invalid=number < 3)
    for number, offset in enumerate((4, 9)):
        data = bytearray(good)
        data[sof + offset] = 200
        yield one(f"frame{number}.jpg", bytes(data))
    yield one("marker.jpg", good[:2] + b"\xff\xe1\xff\xff" + good[2:400])
    yield one("no-tables.jpg", good.replace(b"\xff\xdb", b"\xff\xec").replace(b"\xff\xc4", b"\xff\xec"))


def _tiff_claims(good: bytes, real: bytes) -> Iterator[Damaged]:
    for number, value in enumerate((0, 2**32 - 1, 10**6)):
        for name, tag in (("width", WIDTH), ("height", HEIGHT)):
            yield one(f"{name}{number}.tif", _tagged(good, tag, value))
    yield one("strips.tif", _tagged(good, STRIPS, 2**32 - 1))
    yield one("counts.tif", _tagged(good, COUNTS, 3), invalid=False)
    at = _entry(good, STRIPS)
    yield one("many-strips.tif", good[: at + 4] + struct.pack("<I", 2**31) + good[at + 8 :])
    yield one("directory.tif", good[:4] + struct.pack("<I", 2**32 - 1) + good[8:])
    yield one("itself.tif", good[:4] + struct.pack("<I", 4) + good[8:], invalid=False)
    values = _number(real, STRIPS)
    for number, value in enumerate((float("nan"), float("inf"), -7.0, 1e30)):
        data = bytearray(real)
        struct.pack_into("<f", data, values + 400, value)
        yield one(f"value{number}.tif", bytes(data))


def _entry(content: bytes, tag: int) -> int:
    """Return where the entry of a tag begins in the first directory."""
    start = struct.unpack("<I", content[4:8])[0]
    for number in range(struct.unpack("<H", content[start : start + 2])[0]):
        at = start + 2 + 12 * number
        if struct.unpack("<H", content[at : at + 2])[0] == tag:
            return at
    raise AssertionError(f"no tag {tag}")


def _number(content: bytes, tag: int) -> int:
    at = _entry(content, tag)
    return int(struct.unpack("<I" if content[at + 2] == 4 else "<Hxx", content[at + 8 : at + 12])[0])


def _tagged(content: bytes, tag: int, value: int) -> bytes:
    """Return the file with a tag's number replaced."""
    at = _entry(content, tag)
    return content[: at + 2] + struct.pack("<HII", 4, 1, value) + content[at + 12 :]
