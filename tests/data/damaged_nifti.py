"""NIfTI files, good and damaged."""

from __future__ import annotations

import gzip
import random
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import nibabel
import numpy as np

from tests.data.damage import Damaged, cuts, flips, head, one, patched, zeros, zipped

SHAPE = (16, 18, 14)
AFFINE = np.array([[-4.0, 0, 0, 30], [0, 4.0, 0, -34], [0, 0, 5.0, -33], [0, 0, 0, 1]])
NAN, INF = float("nan"), float("inf")

HEADER, VOXELS = 348, 352
DIM, TYPE, PIXDIM, OFFSET, SLOPE, QFORM, QUATERN, SFORM, ROWS, MAGIC = 40, 70, 76, 108, 112, 252, 256, 254, 280, 344
"""Bytes of the entries of a NIfTI-1 header."""


def nifti(values: Any, kind: Any = nibabel.Nifti1Image) -> bytes:
    """Return the bytes of an uncompressed single file."""
    return bytes(kind(values, AFFINE, dtype=values.dtype).to_bytes())


def pair() -> tuple[bytes, bytes]:
    """Return the bytes of a .hdr and its .img."""
    files = nibabel.Nifti1Pair.make_file_map({"header": BytesIO(), "image": BytesIO()})
    nibabel.Nifti1Pair(head(SHAPE).astype(np.int16), AFFINE).to_file_map(files)
    return files["header"].fileobj.getvalue(), files["image"].fileobj.getvalue()


def good_nifti() -> dict[str, bytes]:
    """Whole files of several types and both versions; those of a pair side by side."""
    values = head(SHAPE)
    header, image = pair()
    return {
        "int16.nii": nifti(values.astype(np.int16)),
        "uint8.nii.gz": zipped(nifti((values / 4).astype(np.uint8))),
        "float32.nii": nifti(values.astype(np.float32)),
        "float64.nii.gz": zipped(nifti(values, nibabel.Nifti2Image)),
        "uint16.nii.gz": zipped(nifti(np.stack([values, values / 2], 3).astype(np.uint16))),
        "pair.img": image,
        "pair.hdr": header,
    }


def damaged_nifti(rng: random.Random) -> Iterator[Damaged]:
    """Every kind of damage that a NIfTI file can have."""
    good = good_nifti()
    plain, real, packed = good["int16.nii"], good["float32.nii"], good["uint8.nii.gz"]
    yield from cuts("plain.nii", plain, (0, 1, 4, 100, 347, 348, 351, 352, len(plain) - 1), rng, 12)
    yield from cuts("packed.nii.gz", packed, (0, 1, 2, 9, 10, 18, len(packed) - 8, len(packed) - 1), rng, 12)
    yield from cuts("second.nii.gz", good["float64.nii.gz"], (11, len(good["float64.nii.gz"]) - 4), rng, 4)
    yield from flips("plain.nii", plain, (0, HEADER), rng, 16)
    yield from flips("plain.nii", plain, (VOXELS, len(plain)), rng, 4)
    yield from flips("packed.nii.gz", packed, (10, len(packed)), rng, 14, invalid=True)
    yield from _claims(plain, real)
    yield from _wrong_voxels(real)
    yield from _wrong_containers(plain, packed)
    yield from _broken_pairs(good["pair.hdr"], good["pair.img"])


def _claims(plain: bytes, real: bytes) -> Iterator[Damaged]:
    """Headers that cannot be true."""
    for number, count in enumerate((0, -1, 8, 32767)):
        yield one(f"axes{number}.nii", patched(plain, "<h", (DIM, [count])), "dim[0]")
    for number, sides in enumerate(([0, 18, 14], [-16, 18, 14], [16, 18, -32768])):
        yield one(f"sides{number}.nii", patched(plain, "<h", (DIM + 2, sides)), "the shape")
    for number, sides in enumerate(([32767] * 3, [32767, 18, 14], [16, 18, 15], [16, 18, 14, 9])):
        large = patched(plain, "<h", (DIM, [len(sides), *sides]))
        yield one(f"large{number}.nii", large)
        # Of many volumes only the wanted one is read, and that is there.
        yield one(f"large{number}.nii.gz", zipped(large), invalid=len(sides) == 3)
    second = nifti(head(SHAPE).astype(np.int16), nibabel.Nifti2Image)
    for number, side in enumerate((2**31, 2**62, -(2**63), 0)):
        yield one(f"second{number}.nii", patched(second, "<q", (24, [side])))
    for code, says in ((0, "data type"), (1, "single bits"), (32, "complex"), (128, "colours"), (9999, "data type")):
        yield one(f"type{code}.nii", patched(plain, "<h", (TYPE, [code])), says)
    for number, step in enumerate((0.0, -1.0, NAN, INF, 1e30, 1e-30)):
        yield one(f"spacing{number}.nii", patched(plain, "<f", (PIXDIM + 4, [step])), "distance of voxels")
    for number, offset in enumerate((NAN, INF, -352.0, 353.5, 1e30, 100.0, 4000.0)):
        yield one(f"offset{number}.nii", patched(plain, "<f", (OFFSET, [offset])))
    yield one("intercept.nii", patched(plain, "<f", (SLOPE, [2, NAN])), "scl_inter")
    yield one("slope.nii", patched(real, "<f", (SLOPE, [3e38, 0])), "not finite")
    yield one("slope-nan.nii", patched(plain, "<f", (SLOPE, [NAN, 0])), invalid=False)
    for number, rows in enumerate(([NAN] * 12, [0] * 12, [INF] * 12, [1e30] * 12, [1, 1, 1, 0] * 3)):
        broken = patched(patched(plain, "<f", (ROWS, rows)), "<h", (QFORM, [0, 1]))
        yield one(f"sform{number}.nii", broken, "affine")
    for number, numbers in enumerate(([NAN] * 3, [5.0, 5.0, 5.0], [INF, 0, 0])):
        broken = patched(patched(plain, "<f", (QUATERN, numbers)), "<h", (QFORM, [1, 0]))
        yield one(f"qform{number}.nii", broken)


def _wrong_voxels(real: bytes) -> Iterator[Damaged]:
    count = int(np.prod(SHAPE))
    for name, value, says in (("nan", NAN, "not finite"), ("inf", -INF, "not finite"), ("constant", 7.0, "constant")):
        yield one(f"all-{name}.nii", patched(real, "<f", (VOXELS, [value] * count)), says)
    yield one("half-nan.nii", patched(real, "<f", (VOXELS, [NAN] * (count // 2 + 1))), "not finite")
    yield one("some-nan.nii", patched(real, "<f", (VOXELS, [NAN] * 9)), invalid=False)
    yield one("one-large.nii", patched(real, "<f", (VOXELS, [3e38])), invalid=False)


def _wrong_containers(plain: bytes, packed: bytes) -> Iterator[Damaged]:
    """Wrong magic, another format's bytes, bytes after the end, and compressed bombs."""
    for number, magic in enumerate((b"\0\0\0\0", b"ni1\0", b"n+2\0", b"\xff\xd8\xff\xe0")):
        yield one(f"magic{number}.nii", plain[:MAGIC] + magic + plain[HEADER:], "magic")
    for number, size in enumerate((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\x5d\x01\0\0")):
        yield one(f"size{number}.nii", size + plain[4:], "no NIfTI file")
    yield one("picture.nii", b"\x89PNG\r\n\x1a\n" + bytes(3000), "no NIfTI file")
    yield one("text.nii.gz", b"<html>404 Not Found</html>\n" * 40, "no NIfTI file")
    yield one("header-of-gzip.nii.gz", b"\x1f\x8b\x08\xff" + bytes(200))
    yield one("method.nii.gz", b"\x1f\x8b\x63" + packed[3:])
    yield one("checksum.nii.gz", packed[:-8] + b"abcd" + packed[-4:])
    yield one("length.nii.gz", packed[:-4] + b"\xff\xff\xff\xff")
    yield one("twice.nii.gz", zipped(packed), "no NIfTI file")
    yield one("more.nii", plain + b"more" * 1000, "more than")
    yield one("more.nii.gz", zipped(gzip.decompress(packed) + b"more" * 1000), "goes on")
    # 300 MB of zeros behind the volume, in 300 KB: one byte too many ends it.
    yield one("bomb-behind.nii.gz", packed + _member(300 << 20), "goes on")
    # A header of 2 GB before 60 KB that could hold 60 MB.
    huge = patched(plain, "<h", (DIM, [3, 1000, 1000, 1000]))[:VOXELS]
    yield one("bomb-claim.nii.gz", zipped(huge) + _member(60 << 20))
    # One that keeps its word: 384 x 384 x 384 voxels of nothing in 57 KB.
    true = patched(patched(plain, "<h", (DIM, [3, 384, 384, 384])), "<h", (TYPE, [2, 8]))[:VOXELS]
    yield one("bomb-true.nii.gz", zipped(true) + _member(384**3), "constant")


def _member(count: int) -> bytes:
    """Return zeros as a gzip stream."""
    return zeros(count, lambda: zlib.compressobj(9, zlib.DEFLATED, 31))


def _broken_pairs(header: bytes, image: bytes) -> Iterator[Damaged]:
    def made(stem: str, header: bytes | None, image: bytes | None, says: str = "") -> Damaged:
        named = ((f"{stem}.img", image), (f"{stem}.hdr", header))
        files = tuple((name, content) for name, content in named if content is not None)
        return Damaged(files[0][0], files[:1], says=says, beside=files[1:])

    yield made("lonely", None, image, "belong together")
    yield made("headless", header, None, "belong together")
    yield made("no-voxels", header, b"", "empty")
    yield made("no-header", b"", image, "empty")
    yield made("few-voxels", header, image[:-100], "cut short")
    yield made("short-header", header[:300], image)
    yield made("text-header", b"text" * 100, image)
    yield made("dims", patched(header, "<h", (DIM, [3, 30000, 30000, 2])), image)
    yield made("analyze", header[:MAGIC] + b"\0\0\0\0", image[:100])
