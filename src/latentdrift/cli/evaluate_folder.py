"""The folder that `latentdrift evaluate --out FOLDER` leaves: evaluation.json, evaluation.csv, page.html, pictures."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentdrift.data import Cohort
    from latentdrift.evaluate import EvaluationResult
    from latentdrift.evaluate.set_pairs import Match

SHOWN = 8
"""Images of each set in a row, of two rows."""
PAIRS_SHOWN = 6
PREFIX = "evaluation-"
"""Of the pictures' names: older ones of that name are deleted where the new result has none."""


def write_folder(
    options: Any,
    result: EvaluationResult,
    real: Cohort,
    synthetic: Cohort,
    size: int,
    matches: Sequence[Match] = (),
) -> list[str]:
    """Write all files, whole or not at all, and return their names.

    Args:
        options: `EvaluateOptions`.
        result: what was found.
        real: the images compared.
        synthetic: the same.
        size: side in pixels at which they were compared.
        matches: synthetic images and their sources.

    Raises:
        DataError: the folder cannot be written.
    """
    from latentdrift.cli.folders import write_table
    from latentdrift.cli.whole_folder import whole_folder
    from latentdrift.report.evaluation_page import write_evaluation_page

    with whole_folder(options.out, last="evaluation.json", stale=f"{PREFIX}*.png") as folder:
        write_table(folder / "evaluation.csv", result.records())
        pictures = {
            "samples": write_samples(folder / f"{PREFIX}samples.png", real, synthetic, size, options.seed),
            "closest": write_closest(folder / f"{PREFIX}closest.png", result, real, synthetic, size),
            "pairs": write_pairs(folder / f"{PREFIX}pairs.png", synthetic, matches, size),
        }
        write_evaluation_page(
            folder / "page.html",
            result,
            {name: path for name, path in pictures.items() if path is not None},
            command=shlex.join(["latentdrift", "evaluate", *option_words(options)]),
            names=(real.name, synthetic.name),
        )
        result.to_json(folder / "evaluation.json")
        names = sorted(path.name for path in folder.iterdir())
    return [str(options.out / name) for name in names]


def option_words(options: Any) -> list[str]:
    """Return the flags that differ from their defaults, to repeat the evaluation with."""
    words: list[str] = []
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if field.name in ("json", "quiet") or value == field.default:
            continue
        flag = "--" + field.name.replace("_", "-")
        if value is True:
            words.append(flag)
        else:
            words += [flag, *map(str, value if isinstance(value, tuple) else [value])]
    return words


def write_samples(path: Path, real: Cohort, synthetic: Cohort, size: int, seed: int) -> Path:
    """Write images of both sets, drawn at random."""
    from latentdrift.data import ImageTransform
    from latentdrift.report import image_grid

    read, rows, labels = ImageTransform(size=size).read, [], []
    for name, cohort in (("real", real), ("synthetic", synthetic)):
        images = [read(record.image) for record in cohort.take(min(2 * SHOWN, len(cohort)), seed=seed)]
        for start in range(0, len(images), SHOWN):
            rows.append(images[start : start + SHOWN])
            labels.append("" if start else name)
    return image_grid(path, rows, row_labels=labels, inches=1.1)


def write_closest(path: Path, result: EvaluationResult, real: Cohort, synthetic: Cohort, size: int) -> Path | None:
    """Write the synthetic images nearest to a real one beside it, where they are known."""
    from latentdrift.data import ImageTransform
    from latentdrift.report.pairs_sheet import LikePair, pairs_sheet

    if result.more is None or not result.more.closest:
        return None
    read = ImageTransform(size=size).read
    files = [{file_name(cohort, record): record.image for record in cohort} for cohort in (synthetic, real)]
    pairs = [
        LikePair(
            read(files[0][one.synthetic]),
            read(files[1][one.real]),
            f"{shortened(one.synthetic)}\n{shortened(one.real)}\ndistance {one.distance:.3g}",
        )
        for one in result.more.closest
    ]
    return pairs_sheet(path, pairs, names=("synthetic", "real"))


def write_pairs(path: Path, synthetic: Cohort, matches: Sequence[Match], size: int) -> Path | None:
    """Write the first synthetic images beside their sources."""
    from latentdrift.data import ImageTransform
    from latentdrift.report.pairs_sheet import LikePair, pairs_sheet

    if not matches:
        return None
    read = ImageTransform(size=size).read
    pairs = [
        LikePair(read(synthetic[one.synthetic].image), read(one.file), shortened(synthetic[one.synthetic].key))
        for one in matches[:PAIRS_SHOWN]
    ]
    return pairs_sheet(path, pairs, names=("synthetic", "source"))


def file_name(cohort: Cohort, record: Any) -> str:
    """Return what an evaluation calls an image."""
    file = record.image
    return str(file.relative_to(cohort.root)) if file.is_relative_to(cohort.root) else str(file)


def shortened(name: str, most: int = 28) -> str:
    """Return a name of at most so many letters, its end kept."""
    return name if len(name) <= most else "…" + name[1 - most :]
