"""Which images a command edits, and what each of them shows: by `--source`, or by the table of their cohort."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.scans import Opened, ScanOptions, open_images
from latentdrift.cli.wishes import Attributes, known_value, parse_attributes
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

if TYPE_CHECKING:
    from latentdrift.data import Cohort, Record
    from latentdrift.models import ModelCard


@dataclass(frozen=True, kw_only=True)
class SelectionOptions(ScanOptions):
    """Which images, and what they show."""

    image: tuple[Path, ...]
    """Pictures, DICOM or NIfTI files, or folders of them; a folder of DICOM files is one series. Without --source, the
    folder of a cohort, whose table says what each image shows."""
    source: tuple[str, ...] = ()
    """What the images show, such as stage=NonDemented; beside a cohort's table it counts more."""
    label: str | None = None
    """Of a cohort of class folders, what to call the class, as the model does: stage."""
    where: tuple[str, ...] = ()
    """Of a cohort, only images with these attributes, such as stage=NonDemented."""
    split: Path | None = None
    """Of a cohort, only one part of this split: split.csv of a run folder, or the run folder."""
    part: str | None = None
    """Part of the split; test by default, which was never trained on."""
    take: int | None = None
    """Of a cohort, so many images, drawn at random by --seed."""


@dataclass(frozen=True)
class Selected:
    """An image to edit, what it shows, and where it is of a cohort its name there and its subject.

    `attributes` are those that the model knows, `facts` all that are known: judges may look at others.
    """

    opened: Opened
    attributes: Attributes
    facts: Attributes
    key: str | None = None
    subject: str | None = None


def select_images(options: Any, card: ModelCard, scans: bool) -> list[Selected]:
    """Return the images that the flags name.

    Args:
        options: `SelectionOptions` with a `seed`.
        card: of the model.
        scans: as `open_images`.

    Raises:
        DataError: images that are not there or cannot be read, or a cohort that does not say what they show.
        UnknownNameError: attributes, values, or a part of a split that do not exist.
        ConfigurationError: flags that do not go together, or more images than there are.
    """
    given = parse_attributes(options.source, card, "--source")
    choosing = {
        name for name in ("label", "where", "split", "part", "take") if getattr(options, name) not in (None, ())
    }
    if given and not choosing:
        return [Selected(one, given, given) for one in open_images(options.image, options, card, scans)]
    if len(options.image) != 1 or not options.image[0].is_dir():
        why = f"--{sorted(choosing)[0]} chooses images of a cohort" if choosing else "Nothing says what the images show"
        raise ConfigurationError(
            f"{why}: give --image the folder of one cohort, with metadata.csv or class folders, or give --source "
            "NAME=VALUE for all images."
        )
    selected = []
    for record in choose_records(options):
        shown = shown_by(record, card) | given
        if not shown:
            raise DataError(
                f"{record.key} has none of the attributes that the model knows ({', '.join(card.attributes)}). Fill in "
                f"the table of {options.image[0]}, or give --source NAME=VALUE."
            )
        (opened,) = open_images([record.image], options, card, scans)
        facts = dict(record.attributes) | shown
        selected.append(Selected(opened, shown, facts, record.key, record.subject))
    return selected


def choose_records(options: Any) -> Cohort:
    """Return the records of the cohort that the flags leave."""
    from latentdrift.cli.evaluate import attribute, part_of
    from latentdrift.data import Cohort

    if options.part is not None and options.split is None:
        raise ConfigurationError(f"--part {options.part} is a part of a split; give --split RUN/split.csv.")
    cohort = Cohort.open(options.image[0], label=options.label, missing="keep")
    if options.split is not None:
        folder = options.split if options.split.is_dir() else options.split.parent
        if not options.split.is_dir() and options.split.name != "split.csv":
            raise ConfigurationError(f"--split is {options.split}; give split.csv of a run folder, or the run folder.")
        cohort = part_of(cohort, folder, options.part or "test")
    if options.where:
        cohort = cohort.where(**dict(attribute(word) for word in options.where))
    return cohort if options.take is None else cohort.take(options.take, seed=options.seed)


def shown_by(record: Record, card: ModelCard) -> Attributes:
    """Return those of a record's attributes that the model knows, in its own values.

    Raises:
        DataError: a value that the model was not trained with.
    """
    found: Attributes = {}
    for name, values in card.attributes.items():
        value = record.attributes.get(name)
        if value is None:
            continue
        try:
            found[name] = known_value(name, str(value), list(values))
        except UnknownNameError as error:
            raise DataError(f"{record.key}: {error} Choose images by --where, or correct the table.") from error
    return found


def unchanged(sources: Sequence[Attributes], targets: Sequence[Attributes]) -> int:
    """Return of how many images nothing is wanted that they do not show."""
    return sum(dict(source) == dict(target) for source, target in zip(sources, targets, strict=True))
