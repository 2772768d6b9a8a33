"""The paper's counterfactual objective of images alone, as editors and searches ask for it."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

import torch

from latentdrift.counterfactual.objective import ObjectiveConfig, Perceptual, counterfactual_objective
from latentdrift.edit.request import ImageObjective
from latentdrift.errors import ConfigurationError
from latentdrift.generate.checks import check_images


class Guide(Protocol):
    """A classifier that an edit follows."""

    @property
    def classes(self) -> Sequence[object]:
        """Its classes, in the order of its logits."""

    def __call__(self, images: torch.Tensor, /) -> torch.Tensor:
        """Return logits (B, K), differentiable in images (B, 3, H, W) in [-1, 1]."""


def image_objective(
    classifier: Guide,
    wanted: Sequence[int],
    sources: torch.Tensor,
    config: ObjectiveConfig | None = None,
    perceptual: Perceptual | None = None,
) -> ImageObjective:
    """Return λ · ℓ_o(f(x'), y') + ℓ_in(x, x') of any rows of the sources, one value an image, differentiable in x'.

    Args:
        classifier: f, the guide. With λ = 0 it is not asked.
        wanted: y', the number of one of its classes for each source (`classifier.index` gives it).
        sources: x, (N, 3, H, W) in [-1, 1], in the order of the request.
        config: by default cross-entropy and l1 with λ = 1.
        perceptual: the distance behind "lpips", such as `lpips.LPIPS(net="alex")`.

    Raises:
        ConfigurationError: numbers of wanted classes and sources that differ, a class that the classifier has not,
            sources that are no images; "lpips" without `perceptual`, or images too small for SSIM. The objective itself
            raises for rows or shapes that are not the sources'.
    """
    config = config or ObjectiveConfig()
    check_images(sources, 1)
    classes = torch.tensor(class_numbers(classifier, wanted))
    if len(classes) != len(sources):
        raise ConfigurationError(f"{len(sources)} sources and {len(classes)} wanted classes: give one a source.")
    if perceptual is None:
        # What the similarity cannot do shows here and not at the first step of an edit.
        counterfactual_objective(sources[:1], sources[:1], None, None, replace(config, weight=0.0))

    def objective(images: torch.Tensor, rows: slice) -> torch.Tensor:
        known = sources[rows]
        if len(known) != len(images):
            raise ConfigurationError(
                f"{len(images)} images are judged as rows {rows.start} to {rows.stop} of {len(sources)} sources: make "
                "the objective of the images that are edited, in their order."
            )
        known, classified = known.to(images), config.weight > 0
        logits = classifier(images) if classified else None
        asked = classes[rows].to(images.device) if classified else None
        return counterfactual_objective(known, images, logits, asked, config, perceptual=perceptual).total

    return objective


def class_numbers(classifier: Guide, wanted: Sequence[int]) -> list[int]:
    """Return the wanted classes as whole numbers.

    Raises:
        ConfigurationError: one that is none, or that the classifier has not.
    """
    names, numbers = list(classifier.classes), []
    for row, value in enumerate(wanted):
        try:
            number = operator.index(value)
        except TypeError:
            raise ConfigurationError(
                f"wanted[{row}] is {value!r}; give the class's number: classifier.index({value!r})."
            ) from None
        if not 0 <= number < len(names):
            known = ", ".join(f"{place} ({name})" for place, name in enumerate(names))
            raise ConfigurationError(f"wanted[{row}] is {number}, but the classifier has the classes {known}.")
        numbers.append(number)
    return numbers
