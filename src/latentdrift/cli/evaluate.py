"""`latentdrift evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import Tell, print_result, progress
from latentdrift.errors import ConfigurationError, EvaluationError

if TYPE_CHECKING:
    from latentdrift.data import Cohort
    from latentdrift.evaluate import EvaluationResult, FeatureCache
    from latentdrift.evaluate.set_groups import GroupLabels
    from latentdrift.evaluate.set_pairs import Match

DESCRIPTION = """Compare a folder of synthetic images with real ones, with confidence intervals.

Fréchet and kernel distance (FID and KID on Inception features), the Fréchet distance at infinitely many images,
precision, recall, density and coverage, the Gaussian MMD, background and tint; by sex and age where both folders know
them; with --pairs, how alike each image and its source are. --out FOLDER gets JSON, a table and a page."""


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
    figures: Literal["all", "basic"] = "all"
    """basic: distances, background and tint only, without the figures that take some seconds more."""
    groups: tuple[str, ...] = ("auto",)
    """Attributes by which figures are given, too; auto: sex and age where both folders have them; none."""
    age_bins: tuple[float, ...] = (40.0, 60.0, 80.0)
    """Years at which one age group ends and the next begins."""
    pairs: bool = False
    """SSIM, MS-SSIM, PSNR and LPIPS of synthetic images and their sources: named in the column source_file, as
    `latentdrift counterfactual` does, or of the same file name."""
    extractor: str = "default"
    """Feature extractor: inception, efficientnet-lite0, timm:NAME, torchxrayvision, radimagenet, judge:FOLDER of a
    trained classifier, or default, the first of the first two whose weights are at hand."""
    weights: Path | None = None
    """File with the extractor's weights."""
    size: int | None = None
    """Side in pixels at which images are compared; that of the synthetic ones by default."""
    out: Path | None = None
    """Folder for evaluation.json, evaluation.csv, page.html and pictures; or a file that ends in .json."""
    cache: str = "default"
    """Folder in which features are kept by the images' content, so that the same images need the network once; default:
    $LATENTDRIFT_CACHE or ~/.cache/latentdrift; none."""
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
    check_result(options.out)
    from PIL import Image

    from latentdrift.data import Cohort
    from latentdrift.evaluate.set_groups import shared_groups
    from latentdrift.evaluate.set_pairs import match_pairs

    real, synthetic = Cohort.open(options.real, missing="keep"), Cohort.open(options.synthetic, missing="keep")
    if options.run is not None:
        real = part_of(real, options.run, options.part)
    wanted = dict(attribute(word) for word in options.where)
    if wanted:
        real, synthetic = real.where(**wanted), synthetic.where(**wanted)
    groups, notes = shared_groups(real, synthetic, options.groups, options.age_bins)
    matches = match_pairs(real, synthetic) if options.pairs else []
    size = options.size
    if size is None:
        with Image.open(synthetic[0].image) as file:
            size = max(file.size)
    with progress(options.quiet) as tell:
        result = evaluate(options, real, synthetic, size, groups, matches, tell)
    result.warnings.extend(notes)
    files: list[str] = []
    if options.out is not None and options.out.suffix == ".json":
        options.out.parent.mkdir(parents=True, exist_ok=True)
        result.to_json(options.out)
    elif options.out is not None:
        from latentdrift.cli.evaluate_folder import write_folder

        files = write_folder(options, result, real, synthetic, size, matches)
    if options.json:
        print(result.to_json())
        return 0
    print_result(told(result, files), False)
    return 0


def check_result(out: Path | None) -> None:
    """Raise ConfigurationError where the result could not be written, before anything is computed."""
    from latentdrift.cli.whole_folder import check_out

    if out is None:
        return
    if out.suffix == ".json" and out.is_dir():
        raise ConfigurationError(f"{out} is a folder; give --out a .json file, or a folder of another name.")
    if out.suffix != ".json" and out.exists() and not out.is_dir():
        raise ConfigurationError(f"{out} is a file; give --out a folder, or a file that ends in .json.")
    if out.suffix != ".json":
        check_out(out, {"evaluation.json": None})


def open_cache(wish: str) -> FeatureCache | None:
    """Return the cache of features that --cache names.

    Raises:
        EvaluationError: it is a file.
    """
    from latentdrift.evaluate.feature_cache import FeatureCache

    return None if wish == "none" else FeatureCache(None if wish == "default" else wish)


def evaluate(
    options: EvaluateOptions,
    real: Cohort,
    synthetic: Cohort,
    size: int,
    groups: Sequence[GroupLabels],
    matches: Sequence[Match],
    tell: Tell,
) -> EvaluationResult:
    """Return all figures that were asked for."""
    from latentdrift.evaluate import evaluate_sets
    from latentdrift.evaluate.set_pairs import paired_figures

    result = evaluate_sets(
        real,
        synthetic,
        options.extractor,
        size=size,
        weights=options.weights,
        device=options.device,
        seed=options.seed,
        progress=lambda done, total: tell("features", done, total),
        figures=options.figures,
        groups=groups,
        cache=open_cache(options.cache),
    )
    if not matches:
        return result
    try:
        pairs = paired_figures(
            real,
            synthetic,
            matches,
            size=size,
            labels=groups,
            progress=lambda done, total: tell("pairs", done, total),
            device=options.device,
            confidence=result.confidence,
            seed=options.seed,
        )
    except EvaluationError as error:
        # The sets' figures, which took minutes, are not lost for it.
        return replace(result, warnings=[*result.warnings, f"There are no figures of pairs. {error}"])
    return replace(result, pairs=pairs)


def told(result: EvaluationResult, files: Sequence[str]) -> dict[str, Any]:
    """Return what is printed: a line a figure, groups and pairs below, then warnings."""

    def line(row: dict[str, str]) -> str:
        return " ".join(value for name, value in row.items() if name not in ("figure", "group") and value)

    shown: dict[str, Any] = {
        row["figure"]: " ".join(value for name, value in row.items() if name != "figure") for row in result.rows()
    }
    shown |= {f"{row['group']}, {row['figure']}": line(row) for row in result.group_rows()}
    if result.pairs is not None:
        shown["pairs"] = len(result.pairs.names)
        shown |= {f"pairs, {row['figure']}": line(row) + " subjects" for row in result.pair_rows()}
        shown |= {f"{row['group']}, {row['figure']}": line(row) for row in result.pairs.group_rows(result.confidence)}
        shown["notes on pairs"] = [*result.pairs.figures.notes, *result.pairs.notes]
    if result.from_cache:
        shown["features kept from before"] = f"{result.from_cache} of {result.n_real + result.n_synthetic} images"
    return {**shown, "files": list(files), "warnings": list(result.warnings)}


def attribute(word: str) -> tuple[str, str | float]:
    """Return the name and value of NAME=VALUE, numbers as numbers."""
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
