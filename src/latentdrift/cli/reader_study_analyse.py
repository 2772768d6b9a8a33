"""`latentdrift reader-study analyse`."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

DESCRIPTION = """Put answers and key together: whether readers tell real from synthetic, and how well they agree.

AUC, accuracy, sensitivity and specificity of each reader and of all, with intervals; diagnosis and quality of real and
of synthetic images; Cohen's and Fleiss' kappa; agreement with oneself; time an image. The folder holds results.json,
figures.csv, answers.csv, roc.png and page.html."""

OWN = {"results.json": "together"}
"""What tells a former result."""


@dataclass(frozen=True, kw_only=True)
class AnalyseOptions:
    """Put answers and key together."""

    study: Path
    """Folder that `latentdrift reader-study build` made."""
    out: Path
    """Folder of the results."""
    key: Path | None = None
    """CSV file of the truth; beside --study by default, its name with -key.csv."""
    answers: Path | None = None
    """SQLite file of the answers; answers.sqlite in the folder by default."""
    confidence: float = 0.95
    """Coverage of the intervals."""
    resamples: int = 1000
    """How often images and readers are drawn again."""
    seed: int = 0
    """Seed of the draws."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(AnalyseOptions, arguments, "reader-study analyse", DESCRIPTION)
    from latentdrift.cli.folders import write_json, write_table
    from latentdrift.cli.whole_folder import check_out, whole_folder
    from latentdrift.evaluate.reader_results import analyse_readers
    from latentdrift.report.reader_page import write_reader_page
    from latentdrift.report.roc import roc_figure
    from latentdrift.studio.reader_study.answers import Answers
    from latentdrift.studio.reader_study.study import ANSWERS, read_key, read_study
    from latentdrift.studio.reader_study.unblind import answer_rows, unblind

    check_out(options.out, OWN)
    study = read_study(options.study)
    path = options.key or options.study.resolve().with_name(f"{options.study.resolve().name}-key.csv")
    key = read_key(path, study)
    given = Answers(options.answers or options.study / ANSWERS, reading=True).all()
    answers = unblind(study, key, given)
    counts = {reader.name: sum(one.reader == reader.name for one in given) for reader in study.readers}
    notes = [
        f"{reader.name} has answered {counts[reader.name]} of {len(reader.order)}."
        for reader in study.readers
        if counts[reader.name] < len(reader.order)
    ]
    with progress(options.quiet) as tell:
        tell("analysis", 0, 1)
        results = analyse_readers(
            answers, confidence=options.confidence, resamples=options.resamples, seed=options.seed
        )
        tell("analysis", 1, 1)
    facts = {**results.to_dict(), "notes": notes}
    with whole_folder(options.out, last="results.json", own=OWN) as folder:
        curves = {one.reader: one.curve for one in results.readers if one.curve is not None}
        roc = roc_figure(folder / "roc.png", curves, results.mean_roc) if curves else None
        write_table(folder / "figures.csv", results.records())
        write_table(folder / "answers.csv", answer_rows(key, given))
        write_reader_page(
            folder / "page.html",
            results,
            roc,
            title=study.title,
            command=f"latentdrift reader-study analyse {shlex.join(arguments)}",
            notes=notes,
            settings={
                "seed": options.seed,
                "draws": options.resamples,
                "SHA-256 of the key": hashlib.sha256(path.read_bytes()).hexdigest(),
            },
        )
        write_json(folder / "results.json", facts)
    if options.json:
        print_result({**facts, "page": options.out / "page.html"}, True)
        return 0
    shown = {
        name: f"{one.value:.3f} [{one.interval.low:.3f}, {one.interval.high:.3f}]"
        for name, one in results.together.items()
    }
    print_result({"verdict": results.verdict(), **shown, "page": options.out / "page.html", "notes": notes}, False)
    return 0
