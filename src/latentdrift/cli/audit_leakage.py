"""`latentdrift audit leakage`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

if TYPE_CHECKING:
    from latentdrift.data import Cohort
    from latentdrift.data.leakage import LeakageReport
    from latentdrift.data.records import Record

DESCRIPTION = """Look for what the parts of a cohort share: subjects, identical files, near-duplicate images.

Give one folder (--data), to be split as `finetune` would, at random, or as a run was (--run); or two (--train, --test).
Near-duplicates are found by perceptual hash and confirmed by the correlation of thumbnails, or by features."""

SPLITS = ("cohort", "random")
HASH, THUMBNAIL = "hash", "thumbnail"
SHEET_PAIRS = 24
COLUMNS_OF_SHEET = 6


@dataclass(frozen=True, kw_only=True)
class LeakageOptions:
    """Look for what the parts of a cohort share."""

    data: Path | None = None
    """Folder of the cohort, to be split."""
    train: Path | None = None
    """Folder of the training images, in place of --data."""
    test: Path | None = None
    """Folder of the test images, in place of --data."""
    run: Path | None = None
    """Run folder of `latentdrift finetune` on --data: the parts as they were there."""
    split: str = "cohort"
    """How --data is split: cohort, as `finetune` does (by subject where known), or random, image by image."""
    fractions: tuple[float, ...] = (0.8, 0.1, 0.1)
    """Shares of train, validation and test, or of train and test."""
    seed: int = 0
    """Seed of the split."""
    features: str = "hash"
    """What is compared: hash; thumbnail, which compares those of all pairs; or a feature extractor by name."""
    radius: int = 10
    """Most bits of 64 in which the hashes of near-duplicates differ."""
    correlation: float = 0.98
    """Least correlation of the thumbnails of near-duplicates; -1 does not ask for it."""
    similarity: float = 0.98
    """Least cosine of the features of near-duplicates, with a feature extractor."""
    weights: Path | None = None
    """File with the extractor's weights."""
    out: Path | None = None
    """Folder for leakage.json and pairs.csv."""
    listed: int = 10_000
    """Most pairs to list for two parts, the closest ones; all are counted."""
    sheet: bool = False
    """Also write the closest pairs as pictures, pairs.png."""
    groups: bool = False
    """Also write groups.csv: near-duplicates of --data in groups, to split by where subjects are not known."""
    device: str = "cpu"
    """Where the extractor runs."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(LeakageOptions, arguments, "audit leakage", DESCRIPTION)
    from latentdrift.cli.folders import write_json, write_table
    from latentdrift.cli.whole_folder import AUDITS, check_out
    from latentdrift.data.leakage import Criterion, find_leakage, near_duplicate_groups
    from latentdrift.errors import ConfigurationError

    if (options.sheet or options.groups) and options.out is None:
        raise ConfigurationError("--sheet and --groups write files: give a folder with --out.")
    if options.groups and options.data is None:
        raise ConfigurationError("--groups are those of one folder: give --data.")
    if options.out is not None:
        check_out(options.out, AUDITS)
    parts, strategy = open_parts(options)
    radius = None if options.features == THUMBNAIL else options.radius
    criterion = Criterion(radius, options.correlation, options.similarity)
    with progress(options.quiet) as tell:
        embed = extractor(options, lambda done, total: tell("features", done, total))
        report = find_leakage(
            parts,
            criterion,
            embed=embed,
            listed=options.listed,
            progress=lambda done, total: tell("images", done, total),
        )
        files: dict[str, Any] = {}
        if options.out is not None:
            settings = {"settings": dataclasses.asdict(options), "parts": {n: len(c) for n, c in parts.items()}}
            facts = {**report.to_dict(), "split": strategy, **settings}
            files["result"] = write_json(options.out / "leakage.json", facts)
            files["pairs"] = write_pairs(report, options.out / "pairs.csv")
        if options.sheet and options.out is not None:
            files["sheet"] = write_sheet(report, options.out / "pairs.png") or "none: there are no pairs"
        if options.groups and options.data is not None and options.out is not None:
            cohort = open_cohort(options.data)
            numbers = near_duplicate_groups(
                cohort, criterion, embed=embed, progress=lambda done, total: tell("groups", done, total)
            )
            rows = [{"file_name": r.key, "group": f"g{n:06d}"} for r, n in zip(cohort, numbers, strict=True)]
            files["groups"] = f"{write_table(options.out / 'groups.csv', rows)}: {len(set(numbers))} groups"
    if options.json:
        print_result({**report.to_dict(), "split": strategy, **files}, True)
        return 0
    blank = [f"{name}: {len(keys)}" for name, keys in report.blank.items() if keys]
    print_result(
        {
            "verdict": report.verdict(),
            "parts": ", ".join(f"{name} {len(cohort)}" for name, cohort in parts.items()),
            "split": strategy,
            "method": report.method,
            "found": [overlap.sentence() for overlap in report.overlaps],
            "blank images": blank,
            **files,
        },
        False,
    )
    return 0


def open_parts(options: LeakageOptions) -> tuple[Mapping[str, Cohort], str]:
    """Return the parts to compare by name, and in words how they were made.

    Raises:
        ConfigurationError: folders that do not go together, or fractions that cannot be.
        DataError: a folder that is no cohort.
    """
    from latentdrift.cli.evaluate import part_of
    from latentdrift.errors import ConfigurationError, UnknownNameError

    if options.split not in SPLITS:
        raise UnknownNameError("way to split", options.split, SPLITS)
    if options.data is None:
        if options.train is None or options.test is None:
            raise ConfigurationError("Give --data, or --train and --test.")
        return {"train": open_cohort(options.train), "test": open_cohort(options.test)}, "two folders"
    if options.train is not None or options.test is not None:
        raise ConfigurationError("Give --data, or --train and --test, not both.")
    cohort = open_cohort(options.data)
    if options.run is not None:
        names = part_names(options.run / "split.csv")
        return {name: part_of(cohort, options.run, name) for name in names}, f"as in {options.run}"
    if len(options.fractions) not in (2, 3):
        raise ConfigurationError("--fractions are two (train, test) or three (train, validation, test).")
    names = ["train", "validation", "test"] if len(options.fractions) == 3 else ["train", "test"]
    shares = dict(zip(names, options.fractions, strict=True))
    split = (
        random_split(cohort, shares, options.seed) if options.split == "random" else cohort.split(shares, options.seed)
    )
    strategy = "at random, image by image" if options.split == "random" else getattr(split, "strategy", "")
    return dict(split), strategy


def open_cohort(folder: Path) -> Cohort:
    """Return the cohort of a folder; values missing in its table do not matter here."""
    from latentdrift.data import Cohort

    return Cohort.open(folder, missing="keep")


def part_names(path: Path) -> list[str]:
    """Return the parts that a run's split has, in order; nothing where there is no such file."""
    import pandas as pd

    from latentdrift.errors import DataError

    if not path.exists():
        raise DataError(f"{path} does not exist: {path.parent} is no run folder of `latentdrift finetune`.")
    return list(dict.fromkeys(pd.read_csv(path, dtype=str)["part"]))


def random_split(cohort: Cohort, fractions: Mapping[str, float], seed: int) -> dict[str, Cohort]:
    """Deal images out at random, whoever they show: what a split by subject is compared with.

    Raises:
        ConfigurationError: fractions that do not add up to 1.
    """
    import numpy as np

    from latentdrift.data import Cohort
    from latentdrift.errors import ConfigurationError

    shares = list(fractions.values())
    if any(not 0 < share <= 1 for share in shares) or abs(sum(shares) - 1) > 1e-6:
        raise ConfigurationError(f"Fractions are above 0 and add up to 1; these do not: {dict(fractions)}.")
    order = np.random.default_rng(seed).permutation(len(cohort))
    ends = np.rint(np.cumsum([0, *shares]) * len(cohort)).astype(int)
    return {
        name: Cohort([cohort[int(i)] for i in np.sort(order[a:b])], cohort.root, cohort.name, cohort.label)
        for name, a, b in zip(fractions, ends, ends[1:], strict=False)
    }


def extractor(options: LeakageOptions, tell: Callable[[int, int], None]) -> Callable[[Sequence[Record]], Any] | None:
    """Return what computes the features of records, or None where looks are compared.

    Raises:
        UnknownNameError: no such extractor.
        ModelError: its weights are not to be had.
    """
    if options.features in (HASH, THUMBNAIL):
        return None
    from latentdrift.errors import UnknownNameError
    from latentdrift.evaluate.features import extractor_class, extractor_names

    try:
        kind = extractor_class(options.features)
    except UnknownNameError:
        known = [HASH, THUMBNAIL, *extractor_names()]
        raise UnknownNameError("kind of features", options.features, known) from None
    from latentdrift.data import ImageTransform

    network = kind(weights=options.weights, device=options.device)
    transform = ImageTransform(size=128)

    def embed(records: Sequence[Record]) -> Any:
        import numpy as np
        import torch

        found = []
        for start in range(0, len(records), 32):
            batch = records[start : start + 32]
            found.append(network(torch.stack([transform.read(record.image) for record in batch])))
            tell(start + len(batch), len(records))
        return np.concatenate(found)

    return embed


def write_pairs(report: LeakageReport, path: Path) -> Path:
    """Write the listed pairs as CSV, the names of the columns alone where there are none; return the file."""
    from latentdrift.cli.folders import write_table
    from latentdrift.data.files import write_text
    from latentdrift.data.leakage_report import PAIR_COLUMNS

    if rows := report.rows():
        return write_table(path, rows)
    write_text(path, ",".join(PAIR_COLUMNS) + "\n")
    return path


def write_sheet(report: LeakageReport, path: Path) -> Path | None:
    """Write the closest pairs, six a row, one above the other; return the file, or None where there are no pairs."""
    from latentdrift.data import ImageTransform
    from latentdrift.report import image_grid

    pairs = sorted(
        (pair for overlap in report.overlaps for pair in overlap.pairs),
        key=lambda pair: (not pair.identical, -pair.correlation, pair.first.key, pair.second.key),
    )[:SHEET_PAIRS]
    if not pairs:
        return None
    transform = ImageTransform(size=128)
    rows = []
    for start in range(0, len(pairs), COLUMNS_OF_SHEET):
        part = pairs[start : start + 6]
        rows += [
            [transform.read(pair.first.image) for pair in part],
            [transform.read(pair.second.image) for pair in part],
        ]
    return image_grid(path, rows, title="The closest pairs, one above the other")
