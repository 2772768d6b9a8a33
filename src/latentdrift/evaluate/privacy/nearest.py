"""For every image the nearest training image: by pixels, by pixels after a small shift, by SSIM and by features.

Pixels of all training images are compared, and features too; shift and SSIM are tried on the nearest by these two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.pairs import ssim
from latentdrift.evaluate.privacy.looks import Looks

Array = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]
Progress = Callable[[int, int], None]

CHUNK = 4096
"""Training images compared at once."""
ENTRIES = 1 << 22
"""Numbers in a block of differences: 32 MB."""
WINDOW = 11
"""Pixels of the SSIM window."""
SSIM_BATCH = 64
"""Pairs whose SSIM is computed at once."""

UNITS: Mapping[str, str] = {
    "pixel": "RMS difference, gray levels of 255",
    "shifted": "RMS difference after the best shift, gray levels of 255",
    "ssim": "1 - SSIM after the best shift, 0 to 2",
    "feature": "Euclidean distance of features",
}
"""Measures, all of them distances, and their units."""


@dataclass(frozen=True)
class NearestConfig:
    """How neighbours are looked for."""

    candidates: int = 10
    """Nearest training images by pixels, and as many by features, on which shift and SSIM are tried."""
    shift: int = 3
    """Largest shift in pixels, in each direction, that is undone."""
    finalists: int = 3
    """Candidates, the best after the shift, of which SSIM is computed."""

    def __post_init__(self) -> None:
        for name, least in (("candidates", 1), ("shift", 0), ("finalists", 1)):
            if getattr(self, name) < least:
                raise EvaluationError(f"{name} is {getattr(self, name)}; at least {least} is needed.")


class Neighbours(NamedTuple):
    """The k nearest references of each query, the nearest first."""

    index: Indices  # type: ignore[assignment]
    """(N, k)."""
    distance: Array
    """Euclidean, (N, k)."""


class Nearest(NamedTuple):
    """The nearest training image of each image."""

    index: Indices  # type: ignore[assignment]
    """(N,)."""
    distance: Array
    """(N,), in the measure's unit."""


@dataclass(frozen=True)
class Found:
    """The nearest training image of N images by each measure of `UNITS`; feature only where there are features."""

    by: Mapping[str, Nearest]

    def __len__(self) -> int:
        return len(self.by["pixel"].index)


def nearest_neighbours(queries: npt.ArrayLike, references: npt.ArrayLike, k: int) -> Neighbours:
    """Return the k nearest references by Euclidean distance, all of them compared; fewer where there are fewer.

    The distances are computed from differences, so that a copy is at exactly 0. Of references at one distance, the
    first comes first.

    Args:
        queries: (N, d).
        references: (M, d).
        k: at least 1.

    Raises:
        EvaluationError: shapes that do not fit, or k below 1.
    """
    from sklearn.neighbors import NearestNeighbors

    a, b = np.asarray(queries), np.asarray(references)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or not len(a) or not len(b):
        raise EvaluationError(
            f"Queries of shape {a.shape} and references of shape {b.shape} cannot be compared; give (N, d) and (M, d)."
        )
    if k < 1:
        raise EvaluationError(f"{k} nearest neighbours: at least 1 is needed.")
    k = min(k, len(b))
    wanted = a.astype(np.float32)
    indices, distances = [], []
    for start in range(0, len(b), CHUNK):
        part = b[start : start + CHUNK].astype(np.float32)
        search = NearestNeighbors(n_neighbors=min(k, len(part)), algorithm="brute").fit(part)
        found = search.kneighbors(wanted)
        distances.append(found[0])
        indices.append(found[1] + start)
    order = np.argsort(np.concatenate(distances, 1), axis=1, kind="stable")[:, :k]
    index = np.take_along_axis(np.concatenate(indices, 1), order, 1)
    exact = np.empty(index.shape)
    step = max(1, ENTRIES // (k * a.shape[1]))
    for start in range(0, len(a), step):
        rows = slice(start, start + step)
        gap = b[index[rows]].astype(np.float64) - a[rows, None].astype(np.float64)
        exact[rows] = np.sqrt(np.einsum("nkd,nkd->nk", gap, gap))
    order = np.lexsort((index, exact), axis=1)
    return Neighbours(np.take_along_axis(index, order, 1), np.take_along_axis(exact, order, 1))


def nearest_images(
    queries: Looks, training: Looks, config: NearestConfig | None = None, *, progress: Progress | None = None
) -> Found:
    """Return the nearest training image of every image, by each measure.

    SSIM and the shift are those of the inner part of the query, `shift` pixels from its border, against any part of
    that size in the training image.

    Args:
        queries: N images.
        training: what they are compared with.
        config: settings.
        progress: called with (images done, images in all).

    Raises:
        EvaluationError: images of another size, features on one side alone, or images too small for the shift.
    """
    config = config or NearestConfig()
    side = min(queries.pixels.shape[1:])
    if queries.pixels.shape[1:] != training.pixels.shape[1:]:
        raise EvaluationError(
            f"Images of {queries.pixels.shape[1:]} and {training.pixels.shape[1:]} pixels: read both at one size."
        )
    if side < WINDOW + 2 * config.shift:
        raise EvaluationError(
            f"Images of {side} pixels are too small for a shift of {config.shift} and the SSIM window of {WINDOW}."
        )
    if (queries.features is None) != (training.features is None):
        raise EvaluationError("Only one of the sets has features. Use the same extractor for both.")
    by_pixel = nearest_neighbours(queries.flat(), training.flat(), config.candidates)
    level = 1.0 / np.sqrt(queries.flat().shape[1])
    found = {"pixel": Nearest(by_pixel.index[:, 0], by_pixel.distance[:, 0] * level)}
    candidates = by_pixel.index
    if queries.features is not None and training.features is not None:
        by_feature = nearest_neighbours(queries.features, training.features, config.candidates)
        candidates = np.concatenate([candidates, by_feature.index], 1)
    found["shifted"], found["ssim"] = _after_shift(queries, training, candidates, config, progress)
    if queries.features is not None:
        found["feature"] = Nearest(by_feature.index[:, 0], by_feature.distance[:, 0])
    return Found(found)


def _after_shift(
    queries: Looks, training: Looks, candidates: Indices, config: NearestConfig, progress: Progress | None
) -> tuple[Nearest, Nearest]:
    """Return the nearest of the candidates (N, c) after the best shift, by RMS difference and by 1 - SSIM."""
    s, (height, width) = config.shift, queries.pixels.shape[1:]
    count = len(queries)
    shifted = Nearest(np.zeros(count, dtype=np.intp), np.full(count, np.inf))
    alike = Nearest(np.zeros(count, dtype=np.intp), np.full(count, np.inf))
    step = max(1, SSIM_BATCH // config.finalists)
    for start in range(0, count, step):
        pairs: list[tuple[int, int]] = []
        cuts = []
        for row in range(start, min(start + step, count)):
            chosen = np.unique(candidates[row])
            rms, shifts = shifted_rms(queries.pixels[[row] * len(chosen)], training.pixels[chosen], s)
            order = np.argsort(rms, kind="stable")[: config.finalists]
            shifted.index[row], shifted.distance[row] = chosen[order[0]], rms[order[0]]
            for place in order:
                down, right = shifts[place] + s
                pairs.append((row, int(chosen[place])))
                cuts.append(
                    (
                        queries.pixels[row, s : height - s, s : width - s],
                        training.pixels[chosen[place], down : down + height - 2 * s, right : right + width - 2 * s],
                    )
                )
        values = ssim(np.stack([a for a, _ in cuts])[:, None], np.stack([b for _, b in cuts])[:, None])
        for (row, image), value in zip(pairs, values, strict=True):
            if 1.0 - value < alike.distance[row]:
                alike.index[row], alike.distance[row] = image, 1.0 - value
        if progress:
            progress(min(start + step, count), count)
    return shifted, alike


def shifted_rms(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8], shift: int) -> tuple[Array, Indices]:
    """Return the least RMS difference (P,) of pairs over all whole shifts, and that shift (P, 2), down and right.

    Args:
        a: gray images (P, H, W); what lies less than `shift` pixels from the border does not count.
        b: gray images (P, H, W).
        shift: largest shift in pixels.
    """
    height, width = a.shape[1] - 2 * shift, a.shape[2] - 2 * shift
    inner = a[:, shift : shift + height, shift : shift + width].astype(np.float32)
    other = b.astype(np.float32)
    least, best = np.full(len(a), np.inf), np.zeros((len(a), 2), dtype=np.intp)
    # Small shifts first: of equally good ones, the smallest is kept.
    steps = range(-shift, shift + 1)
    for down, right in sorted(((i, j) for i in steps for j in steps), key=lambda ij: ij[0] ** 2 + ij[1] ** 2):
        top, left = down + shift, right + shift
        gap = inner - other[:, top : top + height, left : left + width]
        squares = np.einsum("pij,pij->p", gap, gap).astype(np.float64)
        better = squares < least
        least[better], best[better] = squares[better], (down, right)
    return np.sqrt(least / (height * width)), best
