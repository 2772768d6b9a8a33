"""`latentdrift ladder`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from latentdrift.cli.editing import EditingOptions, parse_editing
from latentdrift.cli.models import ModelOptions
from latentdrift.cli.scans import ScanOptions
from latentdrift.cli.show import counting, print_result, progress
from latentdrift.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    from latentdrift.models import ModelCard

DESCRIPTION = """Show one image under values from a to b: ages, stages, drifts, guidance scales or strengths.

The image is inverted once, under the model's own drift; every frame starts from that noise. The folder holds the
frames, strip.png (source, frames, what was added in green and removed in red), ladder.gif, and result.json.

A ladder of drifts lies on top of the model's own: 0 is the model as it is; --drift none makes it the only one. With
--later, real scans of the same person at other values stand below the synthetic ones, with the error of the synthetic
image and that of the unchanged source."""

Value = str | float

OWN = {"result.json": "axis"}
"""What tells a former ladder; a counterfactual's file of that name has no axis."""


@dataclass(frozen=True, kw_only=True)
class LadderOptions(ModelOptions, EditingOptions, ScanOptions):
    """Show one image under values from a to b."""

    image: Path
    """Picture, DICOM or NIfTI file, or a folder with one DICOM series."""
    source: tuple[str, ...]
    """What the image shows, such as stage=NonDemented age=62."""
    out: Path
    """Folder to make, or of a former ladder to replace; not one that holds the image or a later scan."""
    attribute: str | None = None
    """Attribute to go along."""
    axis: str | None = None
    """guidance or strength, to go along in place of an attribute."""
    start: Annotated[float | None, tyro.conf.arg(aliases=("--from",))] = None
    """First value, of a number."""
    end: Annotated[float | None, tyro.conf.arg(aliases=("--to",))] = None
    """Last value, of a number."""
    count: int = 7
    """Frames from first to last value."""
    values: tuple[str, ...] = ()
    """The values themselves, in place of --from, --to and --count; for words in their order."""
    drift_from: float | None = None
    """First drift, in standard deviations of the noise: the same noise under each drift."""
    drift_to: float | None = None
    """Last drift."""
    target: tuple[str, ...] = ()
    """What else should change, alike in all frames, such as stage=MildDemented."""
    later: tuple[str, ...] = ()
    """The person's real scans at other values, FILE=VALUE each."""
    composed: bool = False
    """Show the source plus what the edit changed, which has the details that the round trip loses."""
    gallery: Path | None = None
    """Cohort of other images, to see whether the source is still a frame's nearest neighbour."""
    extractor: str = "default"
    """Features that say how near images are: default, inception, efficientnet-lite0, or none."""
    weights: Path | None = None
    """File with the extractor's weights."""
    milliseconds: int = 400
    """Each frame of the GIF is shown."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options: Any = parse_editing(LadderOptions, arguments, "ladder", DESCRIPTION)
    axis = axis_of(options)
    import torch

    from latentdrift.cli.counterfactual_folder import origin_of
    from latentdrift.cli.editing import doubts, open_classifiers
    from latentdrift.cli.folders import command_line
    from latentdrift.cli.image_notes import prepare_image, source_digest
    from latentdrift.cli.ladder_folder import FRAMES, in_gray, measure, sentences, write_ladder
    from latentdrift.cli.masks import read_mask
    from latentdrift.cli.models import open_model
    from latentdrift.cli.objectives import objective_of
    from latentdrift.cli.scans import open_images
    from latentdrift.cli.whole_folder import check_out, whole_folder
    from latentdrift.cli.wishes import parse_attributes, require_card
    from latentdrift.counterfactual.ladder import ladder
    from latentdrift.counterfactual.wordings import wordings
    from latentdrift.report.run_page import PAGE_FILE

    check_out(options.out, OWN, [options.image])
    pipeline, warnings = open_model(options.model, options.device, options.drift)
    card = require_card(pipeline.latentdrift_card, options.model, "a model made by `latentdrift finetune`")
    source = parse_attributes(options.source, card, "--source")
    wish = parse_attributes(options.target, card, "--target")
    later = later_scans(options, card, axis)
    check_out(options.out, OWN, later)
    values = ladder_values(options, card, axis, list(later.values()))
    opened = open_images([options.image, *later], options, card, scans=False)
    if len(opened) != 1 + len(later):
        raise ConfigurationError(
            f"{options.image}, or a file of --later, is a folder of several images: name the file."
        )
    prepared = [prepare_image(one, card) for one in opened]
    warnings += [text for _, _, found in prepared for text in found]
    image = prepared[0][0]
    real = {value: seen for value, (seen, _, _) in zip(later.values(), prepared[1:], strict=True)}
    wishes = [wish | ({axis: value} if options.attribute else {}) for value in values]
    targets = [source | one for one in wishes]
    words = wordings(card, [source] * len(values), targets)
    classifiers = open_classifiers(options, pipeline, wishes[-1])
    warnings += doubts(classifiers)
    digest = source_digest(opened[0])
    warnings += [
        f"The {one.role} {one.path} was trained on {options.image}: what it says of it is no independent witness."
        for one in classifiers.all
        if digest in one.trained_on
    ]
    # Guidance and strength are edits of one image each; everything else is one batch of all frames.
    batch = len(values) if options.axis is None else 1
    repeated = torch.stack([image] * batch)
    device = pipeline.unet.device
    with progress(options.quiet) as tell:
        result = ladder(
            pipeline,
            image,
            source,
            values,
            axis=axis,
            target_attributes=wish,
            source_captions=words.before[:1],
            captions=words.after,
            editor=options.editor,
            editor_config=options.settings,
            steps=options.steps,
            guidance=options.guidance,
            strength=options.strength,
            mask=None if options.mask is None else read_mask(options.mask, opened[:1], card.size),
            seeds=[options.seed],
            objective=objective_of(options, classifiers.guide, targets[:batch], repeated, device),
            batch_size=options.batch_size,
            progress=counting(tell, "frames", len(values)),
        )
    if card.gray:
        result = in_gray(result)
    frames = result.composed()[0] if options.composed else result.frames[0]
    rows, figures = measure(options, result, frames, source, wishes[-1], real, classifiers)
    with whole_folder(options.out, stale=FRAMES, own=OWN) as folder:
        origin = origin_of(options, pipeline, command_line("ladder", arguments))
        given: dict[str, Any] = {"classifiers": classifiers, "warnings": warnings, "origin": origin, "digest": digest}
        write_ladder(folder, options, result, frames, real, rows, figures, pipeline, **given)
    names = {"strip": "strip.png", "gif": "ladder.gif", "page": PAGE_FILE}
    files = {"folder": options.out, **{what: options.out / name for what, name in names.items()}}
    notes = {"done to the image": prepared[0][1]}
    print_result({**files, **sentences(figures, rows), **notes, "warnings": warnings}, options.json)
    return 0


def axis_of(options: LadderOptions) -> str:
    """Return what the ladder goes along.

    Raises:
        ConfigurationError: nothing is given, two things, or something that would change nothing.
        UnknownNameError: an axis that does not exist.
    """
    drifts = options.drift_from is not None or options.drift_to is not None
    given = [options.attribute is not None, options.axis is not None, drifts]
    if sum(given) != 1:
        raise ConfigurationError(
            "Say what the ladder goes along: --attribute age --from 60 --to 90; --attribute stage --values A B; "
            "--drift-from -0.1 --drift-to 0.1; --axis guidance --from 1 --to 6; --axis strength --from 0.2 --to 1."
        )
    if options.axis is not None and options.axis not in ("guidance", "strength"):
        raise UnknownNameError("axis of a ladder", options.axis, ("guidance", "strength"))
    if options.axis is not None and not options.target:
        raise ConfigurationError(f"A ladder of {options.axis} changes nothing by itself: give --target NAME=VALUE.")
    if options.later and options.attribute is None:
        raise ConfigurationError("--later are scans at other values of an attribute: give --attribute.")
    return options.attribute or options.axis or "drift"


def later_scans(options: LadderOptions, card: ModelCard, axis: str) -> dict[Path, Value]:
    """Return the files of --later and their values.

    Raises:
        ConfigurationError: a word that is no FILE=VALUE, or two scans of one value.
    """
    found: dict[Path, Value] = {}
    for word in options.later:
        file, equals, text = word.rpartition("=")
        if not equals or not file or not text:
            raise ConfigurationError(f"--later {word!r} is not understood; write FILE=VALUE, such as scan2.png=74.")
        value = one_value(axis, text, card)
        if value in found.values():
            raise ConfigurationError(f"--later has two scans at {axis} {value}; give one a value.")
        found[Path(file)] = value
    return found


def one_value(axis: str, text: str, card: ModelCard) -> Value:
    """Return a value of the attribute `axis` as the model knows it."""
    from latentdrift.cli.wishes import parse_attributes

    return parse_attributes([f"{axis}={text}"], card, "--values")[axis]


def ladder_values(options: LadderOptions, card: ModelCard, axis: str, later: Sequence[Value]) -> list[Value]:
    """Return the values in order; those of later scans are put among numbers.

    Raises:
        ConfigurationError: ends without each other, a count below 2, or a later scan of a word not in the ladder.
        UnknownNameError: an attribute or a value that the model does not know.
    """
    if options.attribute is not None and axis not in card.attributes:
        raise UnknownNameError("attribute of this model", axis, card.attributes)
    texts = options.values or evenly(options, card.attributes, axis)
    if options.values and any(end is not None for end in ends_of(options, axis)):
        raise ConfigurationError("Give --values, or the first and the last value, not both.")
    if options.attribute is None:
        try:
            return [float(text) for text in texts]
        except ValueError:
            raise ConfigurationError(f"A ladder of {axis} goes along numbers, not {' '.join(texts)}.") from None
    values = list(dict.fromkeys(one_value(axis, text, card) for text in texts))
    missing = [value for value in later if value not in values]
    if not missing:
        return values
    if any(isinstance(value, str) for value in (*values, *missing)):
        raise ConfigurationError(
            f"--later has a scan at {axis} {missing[0]}, which is not among --values; add it there."
        )
    falling = len(values) > 1 and float(values[0]) > float(values[-1])
    return sorted([*values, *missing], key=float, reverse=falling)


def ends_of(options: LadderOptions, axis: str) -> tuple[float | None, float | None]:
    """Return the first and the last value, where they are given."""
    return (options.drift_from, options.drift_to) if axis == "drift" else (options.start, options.end)


def evenly(options: LadderOptions, known: Mapping[str, Sequence[Value]], axis: str) -> list[str]:
    """Return --count values from first to last; whole ones where the model has only seen such.

    Raises:
        ConfigurationError: an end that is not given or no number, or fewer than two values.
    """
    import numpy as np

    low, high = ends_of(options, axis)
    names = "--drift-from and --drift-to" if axis == "drift" else "--from and --to, or --values"
    if low is None or high is None:
        raise ConfigurationError(f"A ladder of {axis} needs {names}.")
    if options.count < 2 or not (math.isfinite(low) and math.isfinite(high)) or low == high:
        raise ConfigurationError(
            f"From {low} to {high} in {options.count} frames is no ladder; give different ends and --count 2 or more."
        )
    numbers = np.linspace(low, high, options.count)
    seen = known.get(axis, ()) if options.attribute else ()
    if seen and all(isinstance(value, int) for value in seen):
        numbers = np.rint(numbers)
    # Zero is written as such: what linspace leaves of it would be a drift.
    return [f"{number if abs(number) > 1e-9 else 0.0:.6g}" for number in numbers]
