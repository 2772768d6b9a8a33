"""What `latentdrift search` minimises: the objective of edits, or the distance of samples to images."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.cli.editing import Classifiers
    from latentdrift.cli.selection import Selected
    from latentdrift.cli.wishes import Attributes
    from latentdrift.counterfactual.rendering import DriftParameter, Meter, Rendering
    from latentdrift.models import ModelCard
    from latentdrift.models.classifier import Classifier

CONFIDENCE = 0.95
"""Of all intervals."""


@dataclass(frozen=True)
class Problem:
    """What is searched, and how the outcome is told."""

    render: Callable[[Mapping[str, float]], Rendering]
    cheap: Callable[[Mapping[str, float]], Rendering] | None
    score: Callable[[Rendering], Mapping[str, float]]
    difference: Callable[[Rendering, Rendering], Mapping[str, Any]]
    """The best's and the control's rendering → value, low, high, n of best minus control."""
    facts: Mapping[str, Any]
    """Everything that scores depend on, beside model and images."""
    front: tuple[str, str]
    objective: str


def edit_problem(
    options: Any,
    pipeline: DiffusionPipeline,
    card: ModelCard,
    selected: Sequence[Selected],
    images: torch.Tensor,
    parameter: DriftParameter,
    meter: Meter,
    warnings: list[str],
) -> tuple[Problem, Classifiers]:
    """Return the search for the best edits, and the classifiers."""
    from latentdrift.cli.editing import open_classifiers
    from latentdrift.cli.image_notes import source_digest
    from latentdrift.cli.masks import read_mask
    from latentdrift.cli.objectives import objective_config, objective_of, perceptual_distance
    from latentdrift.cli.selection import unchanged
    from latentdrift.cli.wishes import parse_attributes
    from latentdrift.counterfactual import open_editor
    from latentdrift.counterfactual.rendering import EditRenderer, EditScore
    from latentdrift.counterfactual.wordings import wordings
    from latentdrift.edit import Editing

    sources, targets = targets_of(options, card, selected)
    if not options.target:
        raise ConfigurationError("Nothing is wanted: give --target NAME=VALUE, or --criterion distribution.")
    classifiers = open_classifiers(options, pipeline, parse_attributes(options.target, card, "--target"))
    config, guide = objective_config(options), classifiers.guide
    if guide is None and config.weight:
        raise ConfigurationError(
            "The objective asks a classifier whether the edits show what is wanted: give --guide DIR (`latentdrift "
            "classifier train --role guide` makes one), or --weight 0 for similarity alone."
        )
    wanted = None if guide is None or not config.weight else wanted_classes(guide, targets)
    warnings += known_images(classifiers, [source_digest(one.opened) for one in selected])
    same = unchanged(sources, targets)
    if same:
        warnings.append(f"{same} of {len(sources)} images show what is wanted already.")
    words = wordings(card, sources, targets, [one.key for one in selected])
    device = pipeline.unet.device
    request = Editing(
        pipeline=pipeline,
        images=images,
        source_captions=words.before,
        target_captions=words.after,
        steps=options.steps,
        guidance=options.guidance,
        strength=options.strength,
        mask=None if options.mask is None else read_mask(options.mask, [one.opened for one in selected], card.size),
        seeds=[options.seed + index for index in range(len(images))],
        batch_size=options.batch_size,
        reconstruct=False,
        objective=objective_of(options, guide, targets, images, device),
    )
    editor = open_editor(options.editor, options.settings)
    shared: Any = {"strengths": options.strength_range, "way_up": options.way_up, "meter": meter, "memory": {}}
    render = EditRenderer(editor, request, parameter, **shared)
    cheap = None
    if options.screen_steps is not None:
        cheap = EditRenderer(editor, dataclasses.replace(request, steps=options.screen_steps), parameter, **shared)
    judge = EditScore(
        images,
        None if wanted is None or guide is None else on_device(guide, device),
        wanted,
        config,
        perceptual_distance(config, "cpu"),
        options.batch_size,
    )

    def difference(best: Rendering, control: Rendering) -> dict[str, Any]:
        pair = [judge.objective(one) for one in (best, control)]
        return {} if None in pair else paired(pair[0].total - pair[1].total, selected)  # type: ignore[union-attr]

    facts = {
        "criterion": "edit",
        "captions": [words.before, words.after],
        "editor": [options.editor, dataclasses.asdict(options.settings)],
        "steps": options.steps,
        "fixed": [options.guidance, options.strength],
        "seeds": options.seed,
        "mask": None if request.mask is None else digest(request.mask.numpy().tobytes()),
        "way_up": options.way_up,
        "objective": dataclasses.asdict(config),
        "wanted": wanted,
        "guide": None if guide is None else content_of(guide.path),
    }
    front = ("label", "similarity")
    return Problem(
        render, cheap, judge, difference, facts, front, f"{config.weight:g} x label loss + distance to the source"
    ), classifiers


def distribution_problem(
    options: Any,
    pipeline: DiffusionPipeline,
    card: ModelCard,
    selected: Sequence[Selected],
    images: torch.Tensor,
    parameter: DriftParameter,
    meter: Meter,
    warnings: list[str],
) -> tuple[Problem, Classifiers]:
    """Return the search for the samples nearest to the images, and no classifiers."""
    from latentdrift.cli.editing import Classifiers
    from latentdrift.counterfactual.distribution import (
        DistributionConfig,
        DistributionScore,
        SampleRenderer,
        paired_difference,
    )
    from latentdrift.counterfactual.wordings import wordings

    if options.guide is not None or options.judge or options.target or options.mask is not None:
        raise ConfigurationError("--guide, --judge, --target and --mask belong to --criterion edit; leave them out.")
    if options.samples < 2:
        raise ConfigurationError(f"--samples is {options.samples}; a distribution needs at least 2, better 64 or more.")
    shown = [one.attributes for one in selected]
    captions = wordings(card, shown, shown, [one.key for one in selected]).before
    prompts = [captions[index % len(captions)] for index in range(options.samples)]
    seeds = [options.seed + index for index in range(options.samples)]
    config = DistributionConfig(options.space, options.statistic)
    shared: Any = {"guidance": options.guidance, "batch_size": options.batch_size, "meter": meter, "memory": {}}
    render = SampleRenderer(pipeline, prompts, seeds, parameter, config, options.steps, **shared)
    cheap = None
    if options.screen_steps is not None:
        cheap = SampleRenderer(pipeline, prompts, seeds, parameter, config, options.screen_steps, **shared)
    score = DistributionScore(pipeline, images, config, options.batch_size)
    if len(images) < 30 or options.samples < 30:
        warnings.append(
            f"{len(images)} images and {options.samples} samples say little of distributions; take a hundred or more."
        )

    def difference(best: Rendering, control: Rendering) -> dict[str, Any]:
        first, second = (score.numbers(one.values) for one in (best, control) if one.values is not None)
        found = paired_difference(first, second, score.target, config.statistic, confidence=CONFIDENCE)
        return {**found._asdict(), "n": options.samples, "unit": config.unit, "over": "seeds and images"}

    facts = {
        "criterion": "distribution",
        "captions": prompts,
        "steps": options.steps,
        "fixed": [options.guidance],
        "seeds": options.seed,
        "sampler": [type(pipeline.scheduler).__name__, scheduler_settings(pipeline)],
        "distribution": dataclasses.asdict(config),
    }
    objective = f"L1 distance of {config.statistic}, {config.unit}"
    return Problem(render, cheap, score, difference, facts, ("means", "marginals"), objective), Classifiers()


def targets_of(
    options: Any, card: ModelCard, selected: Sequence[Selected]
) -> tuple[list[Attributes], list[Attributes]]:
    """Return what each image shows and should show."""
    from latentdrift.cli.wishes import parse_attributes

    wish = parse_attributes(options.target, card, "--target")
    sources = [one.attributes for one in selected]
    return sources, [source | wish for source in sources]


def known_images(classifiers: Classifiers, digests: Sequence[str]) -> list[str]:
    """Return what to say of classifiers that were trained on the very images; `digests` are SHA-256 of their files."""
    found = []
    for one in classifiers.all:
        seen = sum(digest in one.trained_on for digest in digests)
        if seen:
            found.append(
                f"The {one.role} {one.path} was trained on {seen} of the {len(digests)} images; what it says of them "
                "is flattered. Take images of the test part of its split."
            )
    return found


def wanted_classes(classifier: Classifier, targets: Sequence[Attributes]) -> list[int]:
    """Return the class that each image should have.

    Raises:
        ConfigurationError: nothing is known or wanted of the classifier's attribute.
    """
    name = classifier.attribute
    if not all(name in target for target in targets):
        known = ", ".join(map(str, classifier.classes))
        raise ConfigurationError(
            f"{classifier.path} tells {name}, of which nothing is wanted: give --target {name}=VALUE ({known})."
        )
    return [classifier.index(target[name]) for target in targets]


def on_device(classifier: Classifier, device: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    """Return the classifier's logits of images on the CPU."""
    return lambda images: classifier(images.to(device))


def paired(differences: torch.Tensor, selected: Sequence[Selected]) -> dict[str, Any]:
    """Return the mean of differences, one an image, and its bootstrap interval over subjects where they are known."""
    from latentdrift.errors import EvaluationError
    from latentdrift.evaluate.counterfactuals import mean_interval

    known = all(one.subject is not None for one in selected)
    subjects = [str(one.subject) for one in selected] if known else None
    over = "subjects" if known else "images"
    try:
        found = mean_interval(differences.double().numpy(), subjects, confidence=CONFIDENCE)
    except EvaluationError:  # one alone has no interval
        return {"value": float(differences.mean()), "low": None, "high": None, "n": 1, "over": over}
    return {"value": found.value, "low": found.interval.low, "high": found.interval.high, "n": found.n, "over": over}


def context_of(
    facts: Mapping[str, Any], pipeline: DiffusionPipeline, parameter: DriftParameter, images: torch.Tensor
) -> str:
    """Return everything that scores depend on as text: the model's and the images' content, and the settings."""
    from latentdrift.models import pipeline_fingerprint

    names = ("unet", "vae", "text_encoder", "text_encoder_2")
    parts = {name: getattr(pipeline, name, None) for name in names}
    unit = parameter.drift(1.0)
    everything = {
        **facts,
        "model": {name: pipeline_fingerprint(part) for name, part in parts.items() if part is not None},
        "scheduler": scheduler_settings(pipeline),
        "drift": None if unit is None else unit.to_dict(),
        "images": digest(images.contiguous().numpy().tobytes()),
    }
    return json.dumps(everything, sort_keys=True, default=str)


def scheduler_settings(pipeline: DiffusionPipeline) -> dict[str, Any]:
    """Return the noise schedule; the drift in it is another matter."""
    from latentdrift.drift import plain

    return {name: value for name, value in plain(pipeline.scheduler).config.items() if not name.startswith("_")}


def digest(content: bytes) -> str:
    """Return the SHA-256 (hex) of bytes."""
    return hashlib.sha256(content).hexdigest()


def content_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file, or of all files of a folder."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
    return digest("".join(digest(one.read_bytes()) for one in files).encode())
