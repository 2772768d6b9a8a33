"""`latentdrift audit KIND`: finds the kind. A further one is one more module, `audit_KIND`, and its line here."""

from __future__ import annotations

from collections.abc import Sequence

from latentdrift.cli.kinds import run_kind

KINDS = {
    "leakage": "subjects and near-duplicate images shared by the parts of a cohort",
    "privacy": "copies of training images among synthetic ones, and whether one can tell who was in the training",
}
"""Kinds of audit; each is the module `audit_<kind>` of this package."""

USAGE = """usage: latentdrift audit KIND [OPTIONS]

Check a cohort or a model. An audit that ends well has status 0, whatever it found; its verdict is in words.

kinds:
{kinds}

`latentdrift audit KIND --help` explains one.
"""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    return run_kind("audit", KINDS, USAGE, arguments)
