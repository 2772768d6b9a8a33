"""What an image looks like in few numbers, to find the same or nearly the same image among many.

The perceptual hash is the sign pattern of the lowest 8 x 8 frequencies of a 32 x 32 thumbnail's cosine transform,
against their median (pHash: Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.images import read_array
from latentdrift.data.records import Record
from latentdrift.errors import DataError

SIDE = 64
"""Side of a thumbnail in pixels."""

HASH_SIDE = 32
HASH_BITS = 64
FLAT = 1 / 255
"""Standard deviation of a thumbnail, as a fraction of the full range, below which an image shows nothing."""

TILE = 4096
"""Images a side of the blocks in which all pairs are compared: 64 MB of distances at a time."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Fingerprints:
    """The looks of N images, in order.

    Attributes:
        digests: SHA-256 of each file.
        hashes: (N, 64) float32, 1 or -1: bits of the perceptual hash.
        thumbnails: (N, 4096) float32 of mean 0 and norm 1, so that a product of two is their correlation; 0 if blank.
        blank: (N,) bool: constant, or nearly; their hash means nothing.
    """

    digests: tuple[str, ...]
    hashes: NDArray[np.float32]
    thumbnails: NDArray[np.float32]
    blank: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.digests)


def take_fingerprints(records: Sequence[Record], *, workers: int = 4, progress: Progress | None = None) -> Fingerprints:
    """Read every image once and return the fingerprints.

    Raises:
        DataError: an image cannot be read; the message names it.
    """
    thumbnails = np.empty((len(records), SIDE, SIDE), dtype=np.float32)
    digests = []
    with ThreadPoolExecutor(workers) as pool:
        for index, (digest, small) in enumerate(pool.map(_look, records)):
            digests.append(digest)
            thumbnails[index] = small
            if progress and (index + 1) % 50 == 0:
                progress(index + 1, len(records))
    if progress:
        progress(len(records), len(records))
    flat = thumbnails.reshape(len(records), -1)
    blank = flat.std(axis=1) < FLAT
    return Fingerprints(tuple(digests), perceptual_hash(thumbnails), _standardised(flat, blank), blank)


def thumbnail(pixels: NDArray[np.float32], side: int = SIDE) -> NDArray[np.float32]:
    """Return (side, side) means over areas of an image (H, W) or (H, W, 3); colour is averaged, shape is not kept."""
    from PIL import Image

    gray = pixels.mean(axis=2, dtype=np.float32) if pixels.ndim == 3 else pixels
    small = Image.fromarray(np.ascontiguousarray(gray), mode="F").resize((side, side), Image.Resampling.BOX)
    return np.asarray(small, dtype=np.float32)


def perceptual_hash(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the hashes, (N, 64) of 1 and -1, of thumbnails (N, S, S), S a multiple of 32.

    The mean's own coefficient counts for the pattern but not for the median, which it would shift in bright images.
    """
    from scipy.fft import dctn

    count, side = len(thumbnails), thumbnails.shape[-1]
    step = side // HASH_SIDE
    small = thumbnails.reshape(count, HASH_SIDE, step, HASH_SIDE, step).mean(axis=(2, 4))
    low = dctn(small, axes=(1, 2), norm="ortho")[:, :8, :8].reshape(count, HASH_BITS)
    return np.where(low > np.median(low[:, 1:], axis=1, keepdims=True), 1, -1).astype(np.float32)


def hash_text(bits: NDArray[np.float32]) -> str:
    """Return a hash as 16 hexadecimal digits."""
    return np.packbits(bits > 0).tobytes().hex()


def pairs_within(
    first: NDArray[np.float32], second: NDArray[np.float32], radius: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield rows of `first` and of `second` whose hashes differ in at most `radius` bits, block by block, complete.

    All pairs are compared, as products of matrices: with bits of ±1 the distance is (64 - a·b) / 2. That costs under a
    second for 10,000 times 10,000, and unlike buckets of equal bits it costs no more where the images are all alike,
    as brain slices are.
    """
    yield from pairs_above(first, second, HASH_BITS - 2 * radius - 0.5)


def pairs_above(
    first: NDArray[np.float32], second: NDArray[np.float32], product: float
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Yield rows of `first` and of `second` whose product is at least `product`, block by block, complete."""
    for top in range(0, len(first), TILE):
        for left in range(0, len(second), TILE):
            near = first[top : top + TILE] @ second[left : left + TILE].T >= product
            rows, columns = np.nonzero(near)
            if len(rows):
                yield rows + top, columns + left


def row_products(
    first: NDArray[np.float32], rows: NDArray[np.intp], second: NDArray[np.float32], columns: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Return the products of the pairs of rows, (len(rows),), without the memory for all of them at once."""
    found = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), TILE):
        part = slice(start, start + TILE)
        found[part] = np.einsum("ij,ij->i", first[rows[part]], second[columns[part]])
    return found


def unit_rows(features: NDArray[np.floating], names: Sequence[str]) -> NDArray[np.float32]:
    """Return feature vectors (N, d) with their mean over N taken off and norm 1, so that products are cosines.

    Without the mean, what all images of one kind share would make every cosine near 1.

    Raises:
        DataError: another number of vectors than names, or values that are not finite.
    """
    values = np.asarray(features, dtype=np.float32)
    if values.ndim != 2 or len(values) != len(names):
        raise DataError(f"{len(names)} images have features of the shape {values.shape}; one row an image is expected.")
    if not np.isfinite(values).all():
        first = names[int(np.argmax(~np.isfinite(values).all(axis=1)))]
        raise DataError(f"The features hold NaN or infinite values, first those of {first}.")
    centred = values - values.mean(axis=0)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)


def _look(record: Record) -> tuple[str, NDArray[np.float32]]:
    try:
        with record.image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{record.image} cannot be read: {error.strerror}. Was it moved?") from error
    return digest, thumbnail(read_array(record.image))


def _standardised(flat: NDArray[np.float32], blank: NDArray[np.bool_]) -> NDArray[np.float32]:
    flat = flat - flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-12)
    flat[blank] = 0
    return flat
