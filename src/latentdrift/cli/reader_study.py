"""`latentdrift reader-study KIND`: finds the kind; each is the module `reader_study_<kind>` of this package."""

from __future__ import annotations

from collections.abc import Sequence

from latentdrift.cli.kinds import run_kind

KINDS = {
    "build": "choose images, make them alike, shuffle them for each reader, and keep the key apart",
    "serve": "ask readers in their browsers, and keep every answer at once",
    "analyse": "real or synthetic, diagnosis, quality and agreement, with intervals, on one page",
}
"""Steps of a study; each is the module `reader_study_<kind>` of this package."""

USAGE = """usage: latentdrift reader-study STEP [OPTIONS]

Ask clinicians, blinded, whether images are real or synthetic, what they show, and how good they are.

steps:
{kinds}

`latentdrift reader-study STEP --help` explains one.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    return run_kind("reader_study", KINDS, USAGE, arguments)
