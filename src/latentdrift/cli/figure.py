"""`latentdrift figure KIND`: finds the kind. A further one is one more module, `figure_KIND`, and its line here."""

from __future__ import annotations

from collections.abc import Sequence

from latentdrift.cli.kinds import run_kind

KINDS = {
    "counterfactuals": "source, counterfactual and signed difference, beside the truth or the later scan (Figure 1)",
    "seeds": "the same noise under drifts from a to b, a strip a prompt (Figure 2)",
    "latents": "mean, deviation and spread of the latents at each step, with and without drift (Figure 3)",
    "methods": "samples of several runs side by side, a row a class (Figure 4)",
}
"""Kinds of figure; each is the module `figure_<kind>` of this package."""

USAGE = """usage: latentdrift figure KIND [OPTIONS]

Draw a figure of the paper (arXiv 2412.20651) from any run. Each is a PNG file and, beside it, a JSON file with its
numbers and the command that made it.

kinds:
{kinds}

`latentdrift figure KIND --help` explains one.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    return run_kind("figure", KINDS, USAGE, arguments)
