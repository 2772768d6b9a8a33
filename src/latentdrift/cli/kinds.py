"""Commands that are several: `latentdrift audit KIND`, `latentdrift figure KIND`."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence


def run_kind(command: str, kinds: Mapping[str, str], usage: str, arguments: Sequence[str]) -> int:
    """Run the module `<command>_<kind>` of this package; return its exit status.

    Args:
        command: the subcommand.
        kinds: what each kind is, by name.
        usage: its help, with `{kinds}` where they are listed.
        arguments: the kind, and its own flags.

    Raises:
        UnknownNameError: there is no such kind.
    """
    from latentdrift.errors import UnknownNameError

    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, kinds)) + 2
        listed = "\n".join(f"  {name:<{width}}{text}" for name, text in kinds.items())
        print(usage.format(kinds=listed), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] not in kinds:
        raise UnknownNameError(f"kind of {command}", arguments[0], kinds)
    return int(importlib.import_module(f"latentdrift.cli.{command}_{arguments[0]}").main(arguments[1:]) or 0)
