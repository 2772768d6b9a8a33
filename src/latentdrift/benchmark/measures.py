"""Figures of a cell: of sets, of what classifiers learn from them, and of copies."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from latentdrift.benchmark.plan import Figures, estimate, figure
from latentdrift.benchmark.workshop import Workshop, digest, read
from latentdrift.data import Cohort

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from latentdrift.evaluate.utility import UtilityResult

COMPARED_AT = 64
"""Side in pixels at which copies are looked for."""


def set_figures(workshop: Workshop, made: Cohort) -> Figures:
    """Return how far images are from the held-out ones: distances, precision to coverage, background and tint."""
    from PIL import Image

    from latentdrift.evaluate import corner_background, tint

    with Image.open(made[0].image) as file:
        size = max(file.size)
    images = read(made, size)
    figures = distances(real_features(workshop, size), workshop.extractor(images))
    return {
        **figures,
        "background": figure(corner_background(images)),
        "background_real": figure(corner_background(read(workshop.parts.test, size))),
        "tint": figure(tint(images)),
    }


def real_features(workshop: Workshop, size: int) -> npt.NDArray[np.float32]:
    """Return the features of the held-out images, (N, d), computed once."""
    key = "features", size
    if key not in workshop.memory:
        workshop.memory[key] = workshop.extractor(read(workshop.parts.test, size))
    found: npt.NDArray[np.float32] = workshop.memory[key]
    return found


def distances(real: npt.ArrayLike, made: npt.ArrayLike) -> Figures:
    """Return the distances of features with their intervals, all seeds fixed."""
    from latentdrift.evaluate import (
        kernel_distance,
        kernel_interval,
        manifold_figures,
        manifold_intervals,
    )

    figures = {
        "fid": frechet(real, made),
        "kid": figure(kernel_distance(real, made).value, kernel_interval(real, made)),
    }
    near, ends = manifold_figures(real, made), manifold_intervals(real, made)
    for name in near._fields:
        figures[name] = figure(getattr(near, name), getattr(ends, name))
    return figures


def frechet(real: npt.ArrayLike, made: npt.ArrayLike) -> dict[str, float]:
    """Return the Fréchet distance of features.

    That few images make it too large is told once, on the page: all rows have as many.
    """
    from latentdrift.evaluate import SmallSampleWarning, frechet_distance, frechet_interval

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SmallSampleWarning)
        value = frechet_distance(real, made)
        return figure(value, frechet_interval(real, made, value=value))


def copy_share(workshop: Workshop, made: Cohort) -> Figures:
    """Return the shares of images that are copies of training images, and of held-out ones that would be called so."""
    from latentdrift.evaluate.privacy.copies import copy_figures
    from latentdrift.evaluate.privacy.looks import read_looks
    from latentdrift.evaluate.privacy.nearest import nearest_images

    def looks(cohort: Cohort) -> Any:
        return read_looks(
            [record.image for record in cohort],
            COMPARED_AT,
            names=[record.key for record in cohort],
            subjects=[record.subject for record in cohort],
        )

    known: dict[str, Any] = workshop.memory.setdefault("looks", {})
    if not known:
        known["train"], known["test"] = looks(workshop.parts.train), looks(workshop.parts.test)
        known["near"] = nearest_images(known["test"], known["train"])
    found = nearest_images(looks(made), known["train"])
    (figures,) = [f for f in copy_figures(found, known["near"], known["train"]) if f.measure == "shifted"]
    return {
        "copies": figure(len(figures.copies) / len(made), figures.interval),
        "copies_held_out": figure(figures.false_alarms / len(workshop.parts.test)),
    }


def utility(
    workshop: Workshop,
    made: Cohort | None,
    kinds: Sequence[str],
    seed: int,
    *,
    network: str,
    epochs: int,
    share: float = 1.0,
    repeats: int = 1,
) -> UtilityResult:
    """Return what classifiers learn from real images, from `made` ones, or from both, tested on held-out real ones.

    Args:
        workshop: with the real images.
        made: synthetic images; None for real ones alone.
        kinds: of training images: real, half, synthetic.
        seed: of the cell.
        network: of the classifiers.
        epochs: of their training.
        share: of the real training subjects, for real and half.
        repeats: classifiers of each kind.
    """
    from latentdrift.evaluate.utility import UtilityConfig, measure_utility
    from latentdrift.models.classifier import ClassifierConfig

    parts = workshop.parts
    classes = tuple(dict.fromkeys(map(str, sorted(parts.cohort.values(parts.attribute), key=str))))
    config = UtilityConfig(
        # No larger than the images that were made: real ones show no more there either.
        classifier=ClassifierConfig(
            attribute=parts.attribute, classes=classes, network=network, epochs=epochs, size=workshop.size
        ),
        kinds=tuple(kinds),
        amounts=(share,),
        seeds=tuple(seed + 1000 * repeat for repeat in range(repeats)),
    )
    folder = workshop.folder / "utility" / digest([len(made or ()), str(made and made.root.name), list(kinds), seed])
    return measure_utility(
        parts.train,
        made if made is not None else parts.train,
        parts.test,
        config,
        folder,
        device=workshop.device,
        tell=workshop.tell,
    )


def auc(found: UtilityResult, kind: str) -> dict[str, float]:
    """Return the area of one kind of training images."""
    (one,) = [utility for utility in found.utilities if utility.setting.kind == kind]
    return estimate(one.auc)
