"""`latentdrift audit KIND`: finds the kind. A further one is one more module, `audit_KIND`, and its line here."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

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
    from latentdrift.errors import UnknownNameError

    if not arguments or arguments[0] in ("-h", "--help"):
        kinds = "\n".join(f"  {name:<12}{text}" for name, text in KINDS.items())
        print(USAGE.format(kinds=kinds), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] not in KINDS:
        raise UnknownNameError("kind of audit", arguments[0], KINDS)
    return int(importlib.import_module(f"latentdrift.cli.audit_{arguments[0]}").main(arguments[1:]) or 0)
