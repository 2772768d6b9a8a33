"""The flags of the counterfactual objective → what searches and guided editors minimise."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from latentdrift.cli.editing import GUIDED, Attributes, EditingOptions
from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from latentdrift.counterfactual import ObjectiveConfig
    from latentdrift.edit.request import ImageObjective
    from latentdrift.models.classifier import Classifier


def objective_config(options: EditingOptions) -> ObjectiveConfig:
    """Return the objective that the flags describe.

    Raises:
        ConfigurationError: a similarity or a number that cannot be.
    """
    from latentdrift.counterfactual import ObjectiveConfig

    parts: dict[str, float] = {}
    for word in options.similarity:
        name, equals, text = word.partition("=")
        try:
            parts[name] = float(text) if equals else 1.0
        except ValueError:
            parts[name] = math.nan
        if math.isnan(parts[name]):
            raise ConfigurationError(
                f"--similarity {word!r} is not understood; write NAME or NAME=WEIGHT, as ssim=0.5."
            )
    return ObjectiveConfig(
        weight=options.weight, label_loss=options.label_loss, margin=options.margin, similarity=parts
    )


def perceptual_distance(config: ObjectiveConfig, device: Any) -> Callable[..., torch.Tensor] | None:
    """Return the distance behind "lpips", or None where the objective does not ask for it.

    Raises:
        ConfigurationError: the package lpips, or its weights, are not there.
    """
    if "lpips" not in config.parts:
        return None
    import importlib

    try:
        network: Any = importlib.import_module("lpips").LPIPS(net="alex", verbose=False)
    except Exception as error:  # no package, or no network to fetch its weights by
        raise ConfigurationError(
            f"--similarity lpips needs the package lpips and its weights ({error}): pip install lpips, or take ssim."
        ) from error
    found: Callable[..., torch.Tensor] = network.to(device).eval().requires_grad_(False)
    return found


def objective_of(
    options: EditingOptions,
    guide: Classifier | None,
    targets: Sequence[Attributes],
    images: torch.Tensor,
    device: Any = "cpu",
) -> ImageObjective | None:
    """Return what an editor that is guided minimises, of the images (N, 3, H, W); None for all other editors.

    Args:
        options: the flags.
        guide: from `open_classifiers`.
        targets: for each image, what it should show; the guide's attribute must be among it.
        images: the sources.
        device: where the edits are made.

    Raises:
        ConfigurationError, UnknownNameError: see `objective_config`; or a target without the guide's attribute.
    """
    config = objective_config(options)
    if options.editor not in GUIDED or guide is None:
        return None
    from latentdrift.counterfactual.guidance import image_objective

    if not all(guide.attribute in one for one in targets):
        raise ConfigurationError(
            f"The guide {guide.path} tells {guide.attribute}, which is not known of all images: state it by --source, "
            "or leave --placebo out."
        )
    wanted = [guide.index(one[guide.attribute]) for one in targets]
    return image_objective(guide, wanted, images, config, perceptual=perceptual_distance(config, device))
