"""`latentdrift evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

if TYPE_CHECKING:
    from latentdrift.data import Cohort

DESCRIPTION = """Compare a folder of images with another: FID, KID, background and tint, with confidence intervals."""


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """Compare a folder of images with another."""

    real: Path
    """Folder of real images."""
    synthetic: Path
    """Folder of synthetic images, such as `latentdrift generate` makes."""
    run: Path | None = None
    """Run folder of `latentdrift finetune` on the real folder: compare with one part of its split only."""
    part: str = "test"
    """Part of the split: test was never trained on."""
    where: tuple[str, ...] = ()
    """Only images with these attributes, in both folders, such as stage=MildDemented."""
    extractor: str = "default"
    """Feature extractor: inception, efficientnet-lite0, timm:NAME, torchxrayvision, radimagenet, judge:FOLDER of a
    trained classifier, or default, the first of the first two whose weights are at hand."""
    weights: Path | None = None
    """File with the extractor's weights."""
    size: int | None = None
    """Side in pixels at which images are compared; that of the synthetic ones by default."""
    out: Path | None = None
    """JSON file to write."""
    device: str = "cpu"
    """Where the extractor runs."""
    seed: int = 0
    """Seed of subsets and resamples."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(EvaluateOptions, arguments, "evaluate", DESCRIPTION)
    from PIL import Image

    from latentdrift.data import Cohort
    from latentdrift.evaluate import evaluate_sets

    real, synthetic = Cohort.open(options.real, missing="keep"), Cohort.open(options.synthetic, missing="keep")
    if options.run is not None:
        real = part_of(real, options.run, options.part)
    wanted = dict(attribute(word) for word in options.where)
    if wanted:
        real, synthetic = real.where(**wanted), synthetic.where(**wanted)
    size = options.size
    if size is None:
        with Image.open(synthetic[0].image) as file:
            size = max(file.size)
    with progress(options.quiet) as tell:
        result = evaluate_sets(
            real,
            synthetic,
            options.extractor,
            size=size,
            weights=options.weights,
            device=options.device,
            seed=options.seed,
            progress=lambda done, total: tell("features", done, total),
        )
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result.to_json(options.out)
    if options.json:
        print(result.to_json())
        return 0
    rows = {row["figure"]: " ".join(value for name, value in row.items() if name != "figure") for row in result.rows()}
    print_result({**rows, "warnings": list(result.warnings)}, False)
    return 0


def attribute(word: str) -> tuple[str, str | float]:
    """Return the name and value of NAME=VALUE, numbers as numbers."""
    from latentdrift.errors import ConfigurationError

    name, equals, text = word.partition("=")
    if not equals:
        raise ConfigurationError(f"--where {word!r} is not understood; write NAME=VALUE, such as stage=MildDemented.")
    try:
        number = float(text)
    except ValueError:
        return name, text
    return name, int(number) if number.is_integer() else number


def part_of(cohort: Cohort, run: Path, part: str) -> Cohort:
    """Return the records of one part of a run's split.

    Raises:
        DataError: no run folder, or one of another cohort.
        UnknownNameError: no such part.
    """
    import pandas as pd

    from latentdrift.data import Cohort
    from latentdrift.errors import DataError, UnknownNameError

    path = run / "split.csv"
    if not path.exists():
        raise DataError(f"{path} does not exist: {run} is no run folder of `latentdrift finetune`.")
    table = pd.read_csv(path, dtype=str)
    if part not in set(table["part"]):
        raise UnknownNameError("part of the split", part, set(table["part"]))
    names = set(table.loc[table["part"] == part, "file_name"])
    records = [record for record in cohort if record.key in names]
    if not records:
        raise DataError(f"None of the {len(names)} images of {path} is in {cohort.root}; give the folder of that run.")
    return Cohort(records, cohort.root, f"{cohort.name}, {part}", cohort.label)
