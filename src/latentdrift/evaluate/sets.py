"""Two sets of images in, one result out: distances with their uncertainty, tone, and what to be careful about."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.distribution import (
    check_features,
    default_subset_size,
    frechet_of_checked,
    kernel_distance,
    small_sample_message,
)
from latentdrift.evaluate.features import FeatureExtractor, Progress, load_extractor
from latentdrift.evaluate.images import ImageSet, common_size, digests, open_images
from latentdrift.evaluate.interval import Interval, frechet_interval, kernel_interval
from latentdrift.evaluate.tone import corner_background, tint


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate_sets` found. Distances carry the published names only on Inception features: see `extractor`."""

    fid: float
    """Fréchet distance of the features."""
    kid: float
    """Kernel distance: mean of the unbiased squared MMD over subsets."""
    kid_std: float
    """Its standard deviation over subsets."""
    fid_interval: Interval | None
    """Bootstrap interval of `fid` for sets of this size; None if not asked for."""
    kid_interval: Interval | None
    """Bootstrap interval of the kernel distance of the whole sets."""
    confidence: float
    """Coverage of the intervals."""
    n_real: int
    n_synthetic: int
    extractor: str
    """Name of the feature extractor that was used, also where `default` was asked for."""
    feature_dim: int
    image_size: tuple[int, int]
    """Width and height at which images were compared."""
    background_real: float
    """Mean of the corners, 0..255."""
    background_synthetic: float
    tint_real: float
    """Largest deviation of a channel from gray, in levels of 255."""
    tint_synthetic: float
    subsets: int
    subset_size: int
    seed: int
    warnings: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values."""
        return asdict(self)

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the result as JSON, and write it to `path` if given (whole or not at all).

        Raises:
            EvaluationError: the file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        if path is not None:
            target = Path(path)
            part = target.with_name(f".{target.name}.{os.getpid()}.part")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(text, encoding="utf-8")
                part.replace(target)
            except OSError as error:
                raise EvaluationError(
                    f"{target} cannot be written ({error}). Free space, or choose another."
                ) from error
            finally:
                with suppress(OSError):
                    part.unlink()
        return text

    def rows(self) -> list[dict[str, str]]:
        """Return the table of the result: figure, value, interval."""
        published = self.extractor == "inception"

        def row(name: str, value: str, interval: Interval | None = None, scale: float = 1.0, digits: int = 2) -> None:
            ends = "" if interval is None else " to ".join(f"{end * scale:.{digits}f}" for end in interval)
            table.append({"figure": name, "value": value, f"{self.confidence:.0%} interval": ends})

        table: list[dict[str, str]] = []
        row("FID" if published else f"Fréchet distance ({self.extractor})", f"{self.fid:.2f}", self.fid_interval)
        kernel = "KID x 1000" if published else f"kernel distance x 1000 ({self.extractor})"
        row(kernel, f"{self.kid * 1000:.2f} ± {self.kid_std * 1000:.2f}", self.kid_interval, 1000.0)
        row("background, synthetic (0 to 255)", f"{self.background_synthetic:.2f}")
        row("background, real", f"{self.background_real:.2f}")
        row("tint, synthetic (levels of 255)", f"{self.tint_synthetic:.2f}")
        row("tint, real", f"{self.tint_real:.2f}")
        row("images, synthetic", str(self.n_synthetic))
        row("images, real", str(self.n_real))
        return table


def evaluate_sets(
    real: Any,
    synthetic: Any,
    extractor: str | FeatureExtractor = "default",
    *,
    size: int | None = None,
    weights: str | Path | None = None,
    device: str = "cpu",
    batch_size: int = 32,
    subsets: int = 100,
    subset_size: int | None = None,
    resamples: int = 100,
    confidence: float = 0.95,
    seed: int = 0,
    progress: Progress | None = None,
) -> EvaluationResult:
    """Return how far synthetic images are from real ones.

    Args:
        real: tensor or array (B, 3, H, W), uint8 or float in [-1, 1]; a list of images; a folder; a `Cohort`; or a list
            of image files.
        synthetic: the same.
        extractor: name of a feature extractor, or one that is loaded already. `default` is Inception where its weights
            are at hand, otherwise EfficientNet-Lite0; the result says which.
        size: side in pixels at which files are read; None requires all images to be of one size.
        weights: file with the extractor's weights.
        device: torch device of the extractor.
        batch_size: images read and computed at once.
        subsets: of the kernel distance.
        subset_size: of the kernel distance; None takes half of the smaller set, at most 1000.
        resamples: of the bootstrap of the Fréchet distance, ten times as many of the kernel distance; 0: no intervals.
        confidence: coverage of the intervals.
        seed: of subsets and resamples.
        progress: called with (images done, images in all).

    Raises:
        EvaluationError: fewer than two images, NaN, different image sizes, or settings that do not fit.
        UnknownNameError: an extractor nobody registered.
        ModelError: the extractor's weights are not to be had.
        DataError: files that cannot be read.
    """
    sets = open_images(real, "real"), open_images(synthetic, "synthetic")
    size = common_size(*sets, size)
    network = load_extractor(extractor, weights=weights, device=device) if isinstance(extractor, str) else extractor
    total, done = len(sets[0]) + len(sets[1]), 0
    passes = []
    for images in sets:
        passes.append(_pass(images, network, size, batch_size, done, total, progress))
        done += len(images)
    first, second = passes
    a, b = check_features(first.features, second.features)
    chosen = default_subset_size(min(len(a), len(b))) if subset_size is None else subset_size
    kernel = kernel_distance(a, b, subsets=subsets, subset_size=chosen, seed=seed)
    settings: dict[str, Any] = {"confidence": confidence, "seed": seed}
    return EvaluationResult(
        fid=frechet_of_checked(a, b),
        kid=kernel.value,
        kid_std=kernel.std,
        fid_interval=frechet_interval(a, b, resamples=resamples, **settings) if resamples else None,
        kid_interval=kernel_interval(a, b, resamples=10 * resamples, **settings) if resamples else None,
        confidence=confidence,
        n_real=len(a),
        n_synthetic=len(b),
        extractor=network.name,
        feature_dim=int(a.shape[1]),
        image_size=first.size,
        background_real=first.background,
        background_synthetic=second.background,
        tint_real=first.tint,
        tint_synthetic=second.tint,
        subsets=subsets,
        subset_size=chosen,
        seed=seed,
        warnings=_warnings(*sets, first, second, int(a.shape[1])),
    )


@dataclass
class _Pass:
    """What one pass over a set yields."""

    features: npt.NDArray[np.float32]
    background: float
    tint: float
    digests: list[bytes]
    size: tuple[int, int]


def _pass(
    images: ImageSet,
    network: FeatureExtractor,
    size: int | None,
    batch_size: int,
    done: int,
    total: int,
    progress: Progress | None,
) -> _Pass:
    features, backgrounds, tints, found, shape = [], [], [], [], (0, 0)
    for batch in images.batches(batch_size, size):
        features.append(network(batch, batch_size=batch_size))
        backgrounds.append(corner_background(batch) * len(batch))
        tints.append(tint(batch))
        found += digests(batch)
        shape = (int(batch.shape[3]), int(batch.shape[2]))
        if progress:
            progress(done + len(found), total)
    return _Pass(np.concatenate(features), sum(backgrounds) / len(found), max(tints), found, shape)


def _warnings(real: ImageSet, synthetic: ImageSet, first: _Pass, second: _Pass, dim: int) -> list[str]:
    found = []
    small = small_sample_message(len(real), len(synthetic), dim)
    if small:
        found.append(small)
    where = defaultdict(list)
    for name, digest in zip(real.names, first.digests, strict=True):
        where[digest].append(name)
    copies = [
        f"{name} = {where[digest][0]}"
        for name, digest in zip(synthetic.names, second.digests, strict=True)
        if digest in where
    ]
    if copies:
        found.append(
            f"{len(copies)} synthetic image(s) are exact copies of real ones: {_some(copies)}. The distances are too "
            "small by that; look for a leak between the sets."
        )
    for images, seen in ((real, first), (synthetic, second)):
        repeated = len(images) - len(set(seen.digests))
        if repeated:
            found.append(f"{repeated} of the {len(images)} {images.role} images repeat another one pixel by pixel.")
    return found


def _some(items: Sequence[str], shown: int = 3) -> str:
    return ", ".join(items[:shown]) + (f" and {len(items) - shown} more" if len(items) > shown else "")
