"""`latentdrift utility`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

DESCRIPTION = """Measure what synthetic images are worth for training.

Classifiers are trained on real, on synthetic, and on half-and-half images, and tested on real ones: AUC with intervals
and paired tests, with the amount of real data as an axis (--amounts).

Every classifier is kept in --out: a second call goes on where the first stopped, and trains only what is new."""


@dataclass(frozen=True, kw_only=True)
class UtilityOptions:
    """Measure what synthetic images are worth for training."""

    real: Path
    """Folder of real images with the attribute; with --run the folder of that run, else images to train on."""
    synthetic: Path
    """Folder of synthetic images with the attribute, such as `latentdrift generate` makes."""
    out: Path
    """Folder of the study: utility.json, two tables, and a file for each classifier."""
    run: Path | None = None
    """Run folder of `latentdrift finetune` on --real: train on its training part, test on its test part."""
    test: Path | None = None
    """Folder of real test images, in place of --run."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    # Torch comes with these settings, so they join the other options only here.
    from latentdrift.evaluate.utility import UtilityConfig

    options_class = dataclasses.make_dataclass(
        "UtilityOptions", [("settings", UtilityConfig)], bases=(UtilityOptions,), frozen=True, kw_only=True
    )
    options: Any = parse_options(options_class, arguments, "utility", DESCRIPTION)
    from latentdrift.cli.evaluate import part_of
    from latentdrift.cli.folders import command_line, write_table
    from latentdrift.cli.whole_folder import check_out
    from latentdrift.data import Cohort
    from latentdrift.errors import ConfigurationError
    from latentdrift.evaluate.utility import CELLS, RESULT_FILE, measure_utility
    from latentdrift.report.measuring_pages import write_utility_page

    if (options.run is None) == (options.test is None):
        raise ConfigurationError("Say what is tested on: either --run, a run on --real, or --test, a folder.")
    classifier = options.settings.classifier
    if classifier.seed or classifier.role != "guide":
        raise ConfigurationError("--seed and --role are those of one classifier; here --seeds gives the seeds of all.")
    check_out(options.out, {RESULT_FILE: None, CELLS: None})
    real = Cohort.open(options.real, missing="keep")
    if options.test is not None:
        test = Cohort.open(options.test, missing="keep")
    else:
        real, test = (part_of(real, options.run, part) for part in ("train", "test"))
    synthetic = Cohort.open(options.synthetic, missing="keep")
    with progress(options.quiet) as tell:
        result = measure_utility(real, synthetic, test, options.settings, options.out, device=options.device, tell=tell)
    write_table(options.out / "utility.csv", result.rows())
    write_table(options.out / "comparisons.csv", result.comparison_rows())
    page = write_utility_page(
        options.out,
        result,
        command=command_line("utility", arguments),
        options=options,
        attribute=options.settings.classifier.attribute,
    )
    if options.json:
        print_result({**result.to_dict(), "page": page}, True)
        return 0
    shown = {f"AUC, {row.pop('trained on')}": described(row) for row in result.rows()}
    for row in result.comparison_rows():
        shown[f"{row.pop('trained on')} minus {row.pop('against')}"] = described(row)
    print_result({**shown, "notes": list(result.notes), "study": options.out, "page": page}, False)
    return 0


def described(row: dict[str, str]) -> str:
    """Return a row of a table as a line: the value, its interval, and what else there is by name."""
    (_, value), (_, interval), *rest = sorted(row.items(), key=lambda cell: _order(cell[0]))
    return f"{value} [{interval}]" + "".join(f", {name} {text}" for name, text in rest)


def _order(name: str) -> int:
    return 0 if "AUC" in name else 1 if name.endswith("interval") else 2
