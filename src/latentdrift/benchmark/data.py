"""What a benchmark runs on: a cohort, its class, and its parts, divided by subject once for all seeds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentdrift.data import Cohort
from latentdrift.data.simulate import simulate_cohort
from latentdrift.errors import ConfigurationError, DataError

SIMULATED = "simulated"
FRACTIONS = {"train": 0.7, "test": 0.3}
"""A third is held out: a distance to a few dozen images would say little."""


@dataclass(frozen=True)
class BenchmarkData:
    """The images of a benchmark."""

    data: str = SIMULATED
    """Cohort: a folder of images with metadata, or the word simulated."""
    attribute: str | None = None
    """The class, such as stage; by default the cohort's own. Of several findings, Effusion|Pneumonia, the one among
    --classes counts."""
    classes: tuple[str, ...] = ()
    """Classes that are kept; all by default."""
    template: str | None = None
    """Caption template; by default "an MRI of a {stage} brain" or "a radiograph of a {stage} chest"."""
    modality: Literal["mri", "xray"] = "mri"
    """What captions and instructions talk about: a brain or a chest."""
    title: str | None = None
    """What to call the data in tables and file names; by default the cohort's name."""
    images: int = 0
    """Images drawn from the cohort; 0 takes all."""
    subjects: int = 600
    """Simulated subjects."""

    def __post_init__(self) -> None:
        if self.images < 0 or self.subjects < 10:
            raise ConfigurationError(f"images is {self.images}, subjects {self.subjects}; 0 or more, and 10 or more.")
        if len(self.classes) == 1:
            raise ConfigurationError(f"One class alone, {self.classes[0]}, is nothing to tell apart; give two or more.")

    @property
    def simulated(self) -> bool:
        """Whether the true counterfactuals are known because the cohort is made here."""
        return self.data == SIMULATED


@dataclass(frozen=True, eq=False)
class Parts:
    """An opened cohort, and its parts."""

    cohort: Cohort
    train: Cohort
    test: Cohort
    attribute: str
    template: str

    @functools.cached_property
    def facts(self) -> dict[str, Any]:
        """What every cell depends on, and a page tells."""
        return {
            "name": self.cohort.name,
            "content_hash": self.cohort.content_hash(),
            "attribute": self.attribute,
            "template": self.template,
            "train": len(self.train),
            "test": len(self.test),
            "classes": {
                str(name): count for name, count in sorted(self.cohort.counts(self.attribute).items(), key=str)
            },
        }

    @functools.cached_property
    def subjects(self) -> list[str]:
        """Whose image each of the test part is."""
        return [record.subject or record.key for record in self.test]


def open_parts(data: BenchmarkData, folder: Path) -> Parts:
    """Return the images, divided by subject; a simulated cohort is made in `folder` if it is not there yet.

    Raises:
        ConfigurationError: no class.
        DataError: images that cannot be used, or too few.
    """
    if data.simulated:
        place = folder / f"simulated-{data.modality}-{data.subjects}"
        kind = "chest" if data.modality == "xray" else "brain"
        if not (place / "simulation.json").exists():
            # Two visits: what a benchmark of ageing learns from; a simulated chest has one. The truth: what edits are
            # measured against.
            visits: dict[str, Any] = {} if kind == "chest" else {"visits": 2, "years_between": 5.0}
            simulate_cohort(place, data.subjects, seed=11, truth=True, kind=kind, **visits)
        cohort = Cohort.open(place, missing="keep", label=data.attribute)
    else:
        cohort = Cohort.open(data.data, missing="keep", label=data.attribute)
    attribute = cohort.class_attribute()
    if attribute is None:
        raise ConfigurationError(
            f"{cohort.root} has no attribute that is a class ({', '.join(sorted(cohort.attribute_names))}). Name it: "
            "--attribute."
        )
    cohort = labelled(cohort, attribute, data.classes)
    if 0 < data.images < len(cohort):
        cohort = cohort.take(data.images, seed=0)
    cohort = Cohort(list(cohort), cohort.root, data.title or cohort.name, attribute)
    parts = cohort.split(FRACTIONS, seed=0)
    # The class stands where the embedded text encoder tells words apart: before the noun, not at the sentence's end.
    before, noun = ("a radiograph of a", "chest") if data.modality == "xray" else ("an MRI of a", "brain")
    template = data.template or f"{before} {{{attribute}}} {noun}"
    return Parts(cohort, parts["train"], parts["test"], attribute, template)


def labelled(cohort: Cohort, attribute: str, values: tuple[str, ...]) -> Cohort:
    """Return the images of exactly one of the classes, all classes if none are named.

    Raises:
        DataError: a class without an image.
    """
    records = []
    for record in cohort:
        value = record.attributes.get(attribute)
        words = str(value).split("|")
        found = [word for word in words if word in values] if values else [value] if value is not None else []
        if len(found) == 1:
            records.append(dataclasses.replace(record, attributes={**record.attributes, attribute: found[0]}))
    there = {str(record.attributes[attribute]) for record in records}
    missing = [value for value in values if value not in there]
    if missing or not records:
        known = ", ".join(sorted({str(record.attributes.get(attribute)) for record in cohort})[:12])
        raise DataError(f"No image of {cohort.root} has {attribute} {', '.join(missing)}; there are {known}.")
    return Cohort(records, cohort.root, cohort.name, attribute)


def described(settings: Mapping[str, Any]) -> str:
    """Return settings as a short text for a folder's name: letters, digits and hyphens."""
    words = "-".join(str(value) for value in settings.values() if value not in (None, ""))
    return "".join(sign if sign.isalnum() or sign in "-+." else "-" for sign in words)[:60].strip("-")
