"""Damaged files, the same ones from the same seed, made from good ones that are made here too."""

from __future__ import annotations

import gzip
import random
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

GENERIC = re.compile(
    r"[A-Z]\w*(Error|Exception|Warning)\b|\bit cannot be read \(|NoneType|<\w+\.|Traceback|object at 0x"
)
"""What a reason in plain words does not have: a class's name, an object's address."""


@dataclass(frozen=True)
class Damaged:
    """One damaged scan.

    Attributes:
        name: path of its file, or of its folder where it has several.
        files: (path, bytes).
        beside: files that lie beside them and are found by their names: the header of a pair.
        invalid: nothing can be right about it, so that it must be refused; others may also be read.
        says: a piece of the reason, where one is certain.
    """

    name: str
    files: tuple[tuple[str, bytes], ...]
    invalid: bool = True
    says: str = ""
    beside: tuple[tuple[str, bytes], ...] = ()

    def write(self, root: Path) -> tuple[Path, ...]:
        """Write all files and return the paths of the scan's own."""
        for name, content in (*self.files, *self.beside):
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return tuple(root / name for name, _ in self.files)


def one(name: str, content: bytes, says: str = "", *, invalid: bool = True) -> Damaged:
    """A scan of one file."""
    return Damaged(name, ((name, content),), invalid, says)


def cuts(name: str, content: bytes, places: Iterable[int], rng: random.Random, randomly: int) -> Iterator[Damaged]:
    """The file cut at places of its structure and at random ones."""
    stem, dot, suffix = name.partition(".")
    chosen = {*places, *(rng.randrange(len(content)) for _ in range(randomly))}
    for place in sorted(chosen):
        yield one(f"{stem}-cut{place:06d}{dot}{suffix}", content[:place])


def flips(
    name: str, content: bytes, reach: tuple[int, int], rng: random.Random, files: int, *, invalid: bool = False
) -> Iterator[Damaged]:
    """The file with one to eight random bytes within `reach` changed."""
    stem, dot, suffix = name.partition(".")
    for number in range(files):
        yield one(f"{stem}-flip{reach[0]}x{number}{dot}{suffix}", flipped(content, rng, *reach), invalid=invalid)


def flipped(content: bytes, rng: random.Random, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes with one to eight of them made others."""
    data = bytearray(content)
    for place in rng.sample(range(start, len(data) if stop is None else stop), rng.randint(1, 8)):
        data[place] ^= rng.randrange(1, 256)
    return bytes(data)


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return the bytes after one to three random changes: cut, shortened, repeated, overwritten, extremes put in."""
    data = bytearray(content)
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice([1, 2, 4, 8, 64, 500]))
        kind = rng.randrange(7)
        if kind == 0:
            del data[at:]
        elif kind == 1:
            del data[at:end]
        elif kind == 2:
            data[at:at] = data[rng.randrange(len(data) + 1) :][:2000]
        elif kind == 3:
            data[at:end] = bytes(end - at)
        elif kind == 4:
            data[at:end] = rng.choice(EXTREMES)
        elif kind == 5:
            data[at:end] = rng.randbytes(end - at)
        elif data:
            data = bytearray(flipped(bytes(data), rng)) if len(data) > 8 else data
    return bytes(data)


EXTREMES = (
    b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80", b"\xff\xff", b"\xff\x7f",
    struct.pack("<f", float("nan")), struct.pack("<f", float("inf")), struct.pack("<d", 1e308), b"-1", b"1e999", b"nan",
    b"\0" * 16, b"9" * 16, b"\xfe\xff\xdd\xe0", b"\xff\xda", b"../../",
)  # fmt: skip
"""What breaks readers: the ends of number types, numbers that are none, marks of other formats."""


def patched(content: bytes, code: str, *places: tuple[int, Iterable[float]]) -> bytes:
    """Return the bytes with numbers of a `struct` code put in at offsets."""
    data = bytearray(content)
    for offset, values in places:
        numbers = list(values)
        struct.pack_into(f"{code[0]}{len(numbers)}{code[1]}", data, offset, *numbers)
    return bytes(data)


def zipped(content: bytes) -> bytes:
    """Return gzip's bytes, the same at any time of day."""
    return gzip.compress(content, 6, mtime=0)


def zeros(count: int, packer: Callable[[], zlib._Compress] = zlib.compressobj) -> bytes:
    """Return `count` zero bytes compressed, without ever having them in memory."""
    packed, block = packer(), bytes(1 << 20)
    parts = [packed.compress(block) for _ in range(count >> 20)] + [packed.compress(bytes(count & (1 << 20) - 1))]
    return b"".join([*parts, packed.flush()])


def head(shape: tuple[int, int, int], top: float = 1000.0) -> np.ndarray:
    """An ellipsoid in noisy air, brighter to the front, float64 from 0 to `top`."""
    grid = np.meshgrid(*(np.linspace(-1, 1, side) for side in shape), indexing="ij")
    radius = sum((axis / 0.8) ** 2 for axis in grid)
    noise = np.random.default_rng(0).uniform(0, 0.02, shape)
    return (np.where(radius < 1, 0.5 + 0.3 * grid[1], 0) + noise) * top
