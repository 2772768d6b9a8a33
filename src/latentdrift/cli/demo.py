"""`latentdrift demo`: the whole path on simulated brains, live, ending in one page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

DESCRIPTION = """The whole path on simulated brains, in minutes and without a GPU, ending in one page.

Simulates a cohort, fine-tunes `tiny` on it without drift and with the drift made in training, samples under both and
under the automatic start drift; fine-tunes `tiny-brain` and edits held-out subjects whose true counterfactual is known;
and edits the MNI152 template with `tiny-brain` as it is. A demo that was stopped goes on from where it was."""


OWN = {"cohort/simulation.json": "version"}
"""What tells a former demo, stopped or finished: its cohort comes first."""


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The whole path on simulated brains, live."""

    out: Path = Path("runs/demo")
    """Folder to make, or to go on with."""
    subjects: int = 240
    """Simulated subjects, one slice each."""
    steps: int = 150
    """Fine-tuning steps of each run of `tiny`; `tiny-brain`, which has seen brains, takes half as many."""
    samples: int = 48
    """Images sampled under each drift."""
    edits: int = 24
    """Held-out subjects edited; the first few are shown."""
    seed: int = 0
    """Everything follows from it."""
    quiet: bool = False
    """Show no progress."""
    json: bool = False
    """Print the result as JSON."""

    @property
    def brain_steps(self) -> int:
        """Fine-tuning steps of `tiny-brain`."""
        return max(1, self.steps // 2)


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(DemoOptions, arguments, "demo", DESCRIPTION)
    from latentdrift.cli.demo_page import write_demo_page
    from latentdrift.cli.demo_steps import edit_subjects, edit_template, sample_and_measure, simulate, train
    from latentdrift.cli.whole_folder import check_out

    check_out(options.out, OWN)
    began = time.monotonic()
    with progress(options.quiet) as tell:
        cohort = simulate(options.out / "cohort", options.subjects, options.seed, tell)
        runs = {
            "none": train(cohort, options.out / "without-drift", "none", "start", options.steps, options.seed, tell),
            "forward": train(cohort, options.out / "with-drift", "auto", "forward", options.steps, options.seed, tell),
        }
        measured = sample_and_measure(cohort, runs, options.out / "samples", options.samples, options.seed, tell)
        brain = options.out / "tiny-brain"
        model = train(cohort, brain, "auto", "start", options.brain_steps, options.seed, tell, base="tiny-brain")
        edits = edit_subjects(cohort, model, options.out / "edits", options.edits, options.seed, tell)
        template = edit_template(options.out / "template", tell)
    page = write_demo_page(options, cohort, runs, measured, edits, template, time.monotonic() - began)
    print_result(
        {
            "page": page,
            "pictures": sorted(options.out.glob("*.png")),
            "minutes": f"{(time.monotonic() - began) / 60:.1f}",
        },
        options.json,
    )
    return 0
