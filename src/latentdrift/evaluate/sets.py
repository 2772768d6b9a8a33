"""Two sets of images in, one result out: distances with their uncertainty, tone, and what to be careful about."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from latentdrift.errors import UnknownNameError
from latentdrift.evaluate.distribution import (
    check_features,
    default_subset_size,
    frechet_of_checked,
    grams,
    kernel_distance,
    small_sample_message,
)
from latentdrift.evaluate.feature_cache import FeatureCache, Shelf
from latentdrift.evaluate.features import FeatureExtractor, Progress, load_extractor
from latentdrift.evaluate.images import ImageSet, common_size, digests, open_images
from latentdrift.evaluate.interval import MOST_IMAGES, frechet_interval, kernel_interval
from latentdrift.evaluate.result import EvaluationResult
from latentdrift.evaluate.set_figures import more_figures, most_resamples
from latentdrift.evaluate.tone import corner_background, tint

if TYPE_CHECKING:
    from latentdrift.evaluate.set_groups import GroupedFigures, GroupLabels

__all__ = ["EvaluationResult", "evaluate_sets"]


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
    figures: Literal["basic", "all"] = "basic",
    groups: Sequence[GroupLabels] = (),
    cache: FeatureCache | str | Path | None = None,
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
        resamples: most that the bootstrap of the Fréchet distance takes (40 of 1,000 images and more), ten times as
            many of the kernel distance; 0: no intervals.
        confidence: coverage of the intervals.
        seed: of subsets and resamples.
        progress: called with (images done, images in all).
        figures: basic, the Fréchet and the kernel distance; or all, the distance at infinite n, precision, recall,
            density, coverage, the Gaussian MMD and the closest pairs as well, which take some seconds.
        groups: by which attributes the figures are given too, from `shared_groups`.
        cache: where features are kept, and looked for; None computes them all.

    Raises:
        EvaluationError: fewer than two images, NaN, different image sizes, or settings that do not fit.
        UnknownNameError: an extractor nobody registered, or another choice of figures.
        ModelError: the extractor's weights are not to be had.
        DataError: files that cannot be read.
    """
    if figures not in ("basic", "all"):
        raise UnknownNameError("choice of figures", figures, ("basic", "all"))
    store = FeatureCache(cache) if isinstance(cache, (str, Path)) else cache
    sets = open_images(real, "real"), open_images(synthetic, "synthetic")
    size = common_size(*sets, size)
    network = load_extractor(extractor, weights=weights, device=device) if isinstance(extractor, str) else extractor
    total, done = len(sets[0]) + len(sets[1]), 0
    passes = []
    for images in sets:
        passes.append(_pass(images, network, size, batch_size, done, total, progress, store))
        done += len(images)
    first, second = passes
    a, b = check_features(first.features, second.features)
    chosen = default_subset_size(min(len(a), len(b))) if subset_size is None else subset_size
    # Shared by the distance and its interval; of larger sets each thins or draws its own.
    products = grams(a, b) if max(len(a), len(b)) <= MOST_IMAGES else None
    kernel = kernel_distance(a, b, subsets=subsets, subset_size=chosen, seed=seed, products=products)
    settings: dict[str, Any] = {"confidence": confidence, "seed": seed}
    few = most_resamples(resamples, min(len(a), len(b)))
    more = None
    if figures == "all":
        more = more_figures(a, b, sets[0].names, sets[1].names, resamples=resamples, **settings)
    by_group: tuple[GroupedFigures, ...] = ()
    if groups:
        # Here, for it brings the classifiers' libraries with it.
        from latentdrift.evaluate.set_groups import figures_by_group

        by_group = tuple(figures_by_group(a, b, labels, resamples=resamples, **settings) for labels in groups)
    warnings = _warnings(*sets, first, second, int(a.shape[1]))
    warnings += [] if more is None else more.notes
    warnings += [note for one in by_group for note in one.notes]
    warnings += dict.fromkeys(first.messages + second.messages)
    fid = frechet_of_checked(a, b)
    kernel_settings = {"resamples": 10 * few, "products": products, **settings}
    return EvaluationResult(
        fid=fid,
        kid=kernel.value,
        kid_std=kernel.std,
        fid_interval=frechet_interval(a, b, resamples=few, value=fid, **settings) if few else None,
        kid_interval=kernel_interval(a, b, **kernel_settings) if resamples else None,
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
        warnings=warnings,
        more=more,
        by_group=by_group,
        from_cache=first.kept + second.kept,
    )


@dataclass
class _Pass:
    """What one pass over a set yields."""

    features: npt.NDArray[np.float32]
    background: float
    tint: float
    digests: list[bytes]
    size: tuple[int, int]
    kept: int
    """Images whose features were kept from an earlier pass."""
    messages: list[str]


def _pass(
    images: ImageSet,
    network: FeatureExtractor,
    size: int | None,
    batch_size: int,
    done: int,
    total: int,
    progress: Progress | None,
    cache: FeatureCache | None,
) -> _Pass:
    features, backgrounds, tints, found, shape = [], [], [], [], (0, 0)
    shelf: Shelf | None = None
    for batch in images.batches(batch_size, size):
        own = digests(batch)
        shape = (int(batch.shape[3]), int(batch.shape[2]))
        if cache is not None and shelf is None:
            shelf = cache.shelf(network, shape)
        if shelf is None:
            features.append(network(batch, batch_size=batch_size))
        else:
            features.append(shelf.features(batch, own, batch_size))
        backgrounds.append(corner_background(batch) * len(batch))
        tints.append(tint(batch))
        found += own
        if progress:
            progress(done + len(found), total)
    if cache is not None and shelf is not None:
        shelf.write(cache)
    kept, messages = (0, []) if shelf is None else (shelf.found, shelf.messages)
    background = sum(backgrounds) / len(found)
    return _Pass(np.concatenate(features), background, max(tints), found, shape, kept, messages)


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
