"""Who is in which role: guide and judge share no subject and no image, and none of the images kept for the test."""

from __future__ import annotations

import csv
import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from latentdrift.data import Cohort, Record
from latentdrift.data.splits import assign, strata
from latentdrift.errors import DataError
from latentdrift.models.classifier.classes import MOST_CLASSES, ClassScheme, words_of
from latentdrift.models.classifier.config import ROLES, ClassifierConfig

SHARES = {"guide": 0.4, "judge": 0.4, "test": 0.2}
HALVES = {"guide": 0.5, "judge": 0.5}
KEPT_BACK = ("test", "validation")
"""Parts of a fine-tuning run's split that no classifier trains on."""

BLOCK = 12
"""Most neighbouring files in a block where subjects are not known."""


@dataclass(frozen=True)
class RoleParts:
    """One role's images, all of them of a class.

    Args:
        train: what the weights are trained on.
        validation: what stops the training and calibrates.
        test: of neither role; figures are those on it.
        strategy: in words, how they were separated.
        notes: what was left out and why.
        hashes: SHA-256 of the files' bytes, of training and validation.
    """

    train: Cohort
    validation: Cohort
    test: Cohort
    strategy: str
    notes: tuple[str, ...]
    hashes: frozenset[str]


def divide(cohort: Cohort, scheme: ClassScheme, config: ClassifierConfig, split: str | Path | None = None) -> RoleParts:
    """Return the images of `config.role`.

    Who is in which role depends on the whole cohort and the seed alone, not on the attribute or classes: a judge of sex
    has no image in common with a guide of stage.

    Args:
        cohort: every image, those of no class too.
        scheme: the attribute and its classes.
        config: role, seed, and the share of validation.
        split: `split.csv` of a fine-tuning run. Its test part is the test here; its test and validation images and
            their subjects are not trained on; its other images are halved.

    Raises:
        DataError: a split of other images, or too few images or subjects of a class in a part.
    """
    records = list(cohort)
    if split is None:
        dealt, strategy = assign(records, labels(cohort, records), SHARES, config.seed, BLOCK)
        back = test = dealt["test"]
        notes: list[str] = []
    else:
        pool, back, test, notes = outside(records, Path(split))
        chosen = [records[i] for i in pool]
        found, strategy = assign(chosen, labels(cohort, chosen), HALVES, config.seed, BLOCK)
        dealt = {role: [pool[i] for i in indices] for role, indices in found.items()}
        strategy += f"; without the test and validation images of {Path(split).name}"
    digests = file_hashes(records)
    taken = {digests[i] for i in back}
    for role in ROLES:
        kept = [i for i in dealt[role] if digests[i] not in taken]
        if role == config.role and len(kept) < len(dealt[role]):
            notes.append(f"{len(dealt[role]) - len(kept)} images left out: the same file is in another part")
        dealt[role], taken = kept, taken | {digests[i] for i in kept}
    own, tested = (
        [i for i in indices if scheme.find(records[i].attributes.get(scheme.attribute)) is not None]
        for indices in (dealt[config.role], test)
    )
    without = len(dealt[config.role]) + len(test) - len(own) - len(tested)
    if without:
        notes.append(f"{without} images left out: their {scheme.attribute} is missing or of no class")
    classes = [scheme.find(records[i].attributes.get(scheme.attribute)) for i in own]
    require(Counter(classes), scheme, f"the {config.role}'s images", least=2)
    shares = {"train": 1 - config.validation, "validation": config.validation}
    parts, _ = assign([records[i] for i in own], classes, shares, config.seed, BLOCK)
    members = {name: [own[i] for i in indices] for name, indices in parts.items()} | {"test": tested}
    cohorts = {}
    for name, indices in members.items():
        counts = Counter(scheme.find(records[i].attributes[scheme.attribute]) for i in indices)
        require(counts, scheme, f"the {config.role}'s {name} part" if name != "test" else "the test part")
        cohorts[name] = Cohort([records[i] for i in indices], cohort.root, cohort.name, cohort.label)
    if len({record.subject or record.key for record in cohorts["test"]}) < 2:
        raise DataError("The test part is of one subject: there is no interval over subjects. Use a larger cohort.")
    return RoleParts(**cohorts, strategy=strategy, notes=tuple(notes), hashes=frozenset(digests[i] for i in own))


def outside(records: Sequence[Record], path: Path) -> tuple[list[int], list[int], list[int], list[str]]:
    """Return the indices that may be trained on, those kept back, and those of the test part; and notes."""
    parts = read_split(path)
    mine = [parts.get(record.key) for record in records]
    if not any(mine):
        raise DataError(f"None of the {len(parts)} images of {path} is in this cohort; give the --data of that run.")
    if "test" not in mine:
        raise DataError(
            f"{path} has no part called test that is in this cohort; parts: {', '.join(set(parts.values()))}."
        )
    back = [i for i, part in enumerate(mine) if part in KEPT_BACK]
    people = {records[i].subject for i in back} - {None}
    free = [i for i, part in enumerate(mine) if part not in (None, *KEPT_BACK)]
    pool = [i for i in free if records[i].subject not in people]
    notes = []
    if len(pool) < len(free):
        notes.append(f"{len(free) - len(pool)} images left out: their subjects are in the run's test or validation")
    if None in mine:
        notes.append(f"{mine.count(None)} images left out: they are not in {path.name}")
    if not pool:
        raise DataError(f"{path} leaves no image to train on: all are of its test and validation parts.")
    return pool, back, [i for i, part in enumerate(mine) if part == "test"], notes


def read_split(path: Path) -> dict[str, str]:
    """Return the part of every file name in a run's `split.csv`.

    Raises:
        DataError: no such file, or one without the columns file_name and part.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return {row["file_name"]: row["part"] for row in csv.DictReader(file)}
    except (OSError, ValueError, KeyError, csv.Error) as error:
        reason = (
            f"it has no column {error}" if isinstance(error, KeyError) else getattr(error, "strerror", None) or error
        )
        raise DataError(
            f"{path} cannot be read as a split: {reason}. Give the split.csv of a run of `latentdrift finetune`."
        ) from error


def labels(cohort: Cohort, records: Sequence[Record]) -> list[object]:
    """Return what the roles are to have in proportion: every attribute of few values, numbers, and words in lists.

    Without subjects it is the class alone: blocks of neighbouring files are cut within one combination of these.
    """
    if all(record.subject is None for record in records):
        name = cohort.class_attribute()
        return [record.attributes.get(name) if name else None for record in records]
    names, listed = [], []
    for name in cohort.attribute_names:
        values = [record.attributes.get(name) for record in cohort]
        if all(isinstance(value, int | float) for value in values) or len(set(values)) <= MOST_CLASSES:
            names.append(name)
            continue
        words = {word for value in values if isinstance(value, str) for word in words_of(value, "|")}
        listed += [(name, word) for word in sorted(words)] if len(words) <= MOST_CLASSES else []
    found = strata(records, names) if names else [()] * len(records)
    # A finding that a value lists among others counts as an attribute of its own, present or not.
    held = [tuple(w in words_of(str(record.attributes.get(n, "")), "|") for n, w in listed) for record in records]
    return [first + second for first, second in zip(found, held, strict=True)]


def require(counts: Counter[int | None], scheme: ClassScheme, where: str, least: int = 1) -> None:
    """Raise DataError unless there are images of every class."""
    few = [str(name) for i, name in enumerate(scheme.classes) if counts[i] < least]
    if few:
        raise DataError(
            f"In {where} there are fewer than {least} images of {scheme.attribute} {', '.join(few)}. Leave the class "
            "out with --classes, or use a larger cohort."
        )


def file_hashes(records: Iterable[Record]) -> list[str]:
    """Return the SHA-256 (hex) of each file's bytes.

    Raises:
        DataError: a file cannot be read.
    """
    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(file_hash, [record.image for record in records]))


def file_hash(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes; DataError where it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror}. Was it moved since the cohort was opened?"
        ) from error
