"""Cohorts of real and synthetic images → the folder of a blinded study, and its key."""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from latentdrift.data import Cohort
from latentdrift.data.files import replacing
from latentdrift.errors import ConfigurationError, DataError
from latentdrift.studio.reader_study.choose import Chosen, choose, classes_of
from latentdrift.studio.reader_study.study import IMAGES, Reader, Study, Truth, write_study

CODE_LETTERS = "abcdefghjkmnpqrstuvwxyz23456789"
"""Without those that look alike."""
CODE_LENGTH = 8
LONG_AGO = 946_684_800
"""Time of change of all image files, seconds: the order in which they were made says nothing either."""


@dataclass(frozen=True, kw_only=True)
class BuildConfig:
    """How a study is built."""

    count: int = 60
    """Images, half of them real."""
    readers: int = 2
    """Readers; each has a code, and an order of the images."""
    repeats: int = 0
    """Images that each reader sees twice, for the agreement with oneself; at most a third of --count."""
    attribute: str | None = None
    """Attribute that is the diagnosis, to be asked for; without it, it is not."""
    classes: tuple[str, ...] = ()
    """Its values to choose from; all that the folders share by default."""
    title: str = "Reader study"
    """What the questionnaire is called."""
    size: int | None = None
    """Side of the images in pixels; that of the smallest image by default, so that nothing is enlarged."""
    seed: int = 0
    """Of the choice of images and their order; the codes of readers are random."""


@dataclass(frozen=True)
class Built:
    """A study, its truth, and what to be careful about."""

    study: Study
    truths: tuple[Truth, ...]
    notes: tuple[str, ...]


def build_study(
    folder: Path,
    real: Cohort,
    arms: Mapping[str, Cohort],
    config: BuildConfig,
    progress: Callable[[int, int], None] | None = None,
) -> Built:
    """Write images and study.json into `folder`, and return the truth, which is not in it.

    All images are encoded anew as PNG of one size, 8 bits, gray if a set is; without text, under random names.

    Args:
        folder: an empty one.
        real: real images.
        arms: sets of synthetic images by name.
        config: how many, for whom, and what is asked.
        progress: called with the number of images written and of all.

    Raises:
        ConfigurationError, UnknownNameError: settings that cannot be.
        DataError: too few images, one that is in two sets, or a folder that cannot be written.
    """
    if config.readers < 1 or not 0 <= config.repeats <= config.count // 3:
        raise ConfigurationError(
            f"--readers {config.readers} with --repeats {config.repeats} of {config.count} images: at least one "
            "reader, and at most a third repeated."
        )
    if config.classes and config.attribute is None:
        raise ConfigurationError("--classes are values of --attribute; give that too.")
    generator = np.random.default_rng(config.seed)
    classes: list[str] = []
    if config.attribute is not None:
        classes = classes_of([real, *arms.values()], config.attribute, config.classes)
    chosen = choose(real, arms, config.count, generator, attribute=config.attribute, classes=classes)
    # Names are given in a random order, and files written in the order of names.
    chosen = [chosen[int(index)] for index in generator.permutation(len(chosen))]
    names = _names(len(chosen), generator)
    size, gray, notes = _looks(chosen, config.size)
    seen: dict[str, Chosen] = {}
    for place, (name, one) in enumerate(sorted(zip(names, chosen, strict=True), key=lambda pair: pair[0])):
        pixels = _pixels(one, size, gray)
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        if digest in seen:
            raise DataError(
                f"{one.record.image} and {seen[digest].record.image} are the same image. Remove one of them, or choose "
                "other folders."
            )
        seen[digest] = one
        _write(folder / IMAGES / f"{name}.png", pixels)
        if progress is not None:
            progress(place + 1, len(chosen))
    readers = tuple(
        Reader(f"reader {index + 1}", _code(), tuple(_order(names, config.repeats, generator)))
        for index in range(config.readers)
    )
    study = Study(config.title, tuple(classes), config.attribute, size, tuple(sorted(names)), readers, folder)
    write_study(folder, study)
    truths = sorted(
        (
            Truth(name, one.arm, one.shown, one.record.subject, str(one.record.image))
            for name, one in zip(names, chosen, strict=True)
        ),
        key=lambda truth: truth.image,
    )
    return Built(study, tuple(truths), tuple(notes))


def _names(count: int, generator: np.random.Generator) -> list[str]:
    """Return different random names of ten letters and digits."""
    found: dict[str, None] = {}
    while len(found) < count:
        found["".join(generator.choice(list(CODE_LETTERS), 10))] = None
    return list(found)


def _code() -> str:
    return "".join(secrets.choice(CODE_LETTERS) for _ in range(CODE_LENGTH))


def _order(names: Sequence[str], repeats: int, generator: np.random.Generator) -> list[str]:
    """Return all names in random order; some of the first third a second time, in the second half."""
    order = [names[int(index)] for index in generator.permutation(len(names))]
    third, half = len(order) // 3, len(order) // 2
    again = [order[int(index)] for index in generator.permutation(third)[:repeats]]
    rest = order[half:] + again
    return order[:half] + [rest[int(index)] for index in generator.permutation(len(rest))]


def _looks(chosen: Sequence[Chosen], size: int | None) -> tuple[int, bool, list[str]]:
    """Return side and grayness for all, and what of the files may still tell the kinds apart."""
    from PIL import Image

    from latentdrift.data.images import is_gray

    sides: list[int] = []
    kinds: dict[bool, set[str]] = {False: set(), True: set()}
    colour: Counter[bool] = Counter()
    for one in chosen:
        with Image.open(one.record.image) as file:
            sides.append(max(file.size))
            kinds[one.synthetic].add(str(file.format))
        colour[one.synthetic] += not is_gray(one.record.image)
    side = min(sides) if size is None else size
    notes = []
    if size is not None and size > min(sides):
        notes.append(f"Images of {min(sides)} pixels are enlarged to {size}, which may tell the kinds apart.")
    if min(sides) < side or max(sides) > side:
        notes.append(f"Images of {min(sides)} to {max(sides)} pixels are shown at {side}.")
    if kinds[False] != kinds[True]:
        real, made = (", ".join(sorted(kinds[kind])) for kind in (False, True))
        notes.append(
            f"Real files are {real}, synthetic ones {made}: traces of the compression are in the pixels and may tell "
            "the kinds apart."
        )
    gray = min(colour[False], colour[True]) == 0
    if gray and max(colour[False], colour[True]):
        notes.append("One kind has colour and the other has none; all are shown in gray.")
    return side, gray, notes


def _pixels(one: Chosen, size: int, gray: bool) -> npt.NDArray[np.uint8]:
    from latentdrift.data import ImageTransform
    from latentdrift.data.images import to_array

    return to_array(ImageTransform(size=size).read(one.record.image), gray=gray)


def _write(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Write a PNG file of header, pixels and end alone: anything more could tell where it comes from."""
    import os

    from PIL import Image

    with replacing(path) as part:
        Image.fromarray(pixels).save(part, format="PNG")
        os.utime(part, (LONG_AGO, LONG_AGO))
