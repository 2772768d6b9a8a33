"""`latentdrift simulate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress
from latentdrift.data.simulate.effects import STRENGTH

DESCRIPTION = """Simulate a cohort whose true counterfactuals are known: brain slices or chest radiographs.

The folder is an ordinary cohort, with every subject's parameters in simulation.json and, with --truth, every picture
under the other classes. It shows whether a known change is recovered, and says nothing about patients."""


@dataclass(frozen=True, kw_only=True)
class SimulateOptions:
    """Simulate a cohort whose true counterfactuals are known."""

    out: Path
    """Folder to make."""
    kind: Literal["brain", "chest"] = "brain"
    """Axial T1-weighted slices, or frontal chest radiographs."""
    subjects: int = 60
    """How many; the diagnoses, or the findings, take turns."""
    seed: int = 0
    """Everything follows from it."""
    size: int = 128
    """Side of the pictures in pixels."""
    truth: bool = True
    """Also write every picture under the other diagnoses or findings."""
    visits: int = 1
    """Visits of each subject; brain only."""
    years_between: float = 1.0
    """Years between two visits."""
    strength: float = STRENGTH
    """Factor on the effects of the diagnosis, 1 being the published size; an exaggeration by default. Brain only."""
    age_correlation: float = 0.0
    """Between age and the class, -1 to 1: a confounded cohort."""
    scanners: tuple[str, ...] = ()
    """Scanners drawn from, by name; one and the same by default. Brain only."""
    workers: int = 1
    """Processes; each first prepares the anatomy for a few seconds."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(SimulateOptions, arguments, "simulate", DESCRIPTION)
    from latentdrift.data.simulate import simulate_cohort

    with progress(options.quiet) as tell:
        cohort = simulate_cohort(
            options.out,
            options.subjects,
            options.seed,
            options.size,
            truth=options.truth,
            kind=options.kind,
            visits=options.visits,
            years_between=options.years_between,
            age_correlation=options.age_correlation,
            scanners=options.scanners or None,
            workers=options.workers,
            progress=lambda done, total: tell("subjects", done, total),
            strength=options.strength,
        )
    label = cohort.class_attribute()
    print_result(
        {
            "folder": options.out,
            "images": len(cohort),
            "classes": "" if label is None else ", ".join(f"{n} {value}" for value, n in cohort.counts(label).items()),
            "truth": options.out / "truth" if options.truth else "rendered on demand",
        },
        options.json,
    )
    return 0
