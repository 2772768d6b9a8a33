"""`latentdrift completion SHELL`: prints a script that completes commands, flags, names and files."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

KINDS = {
    "bash": 'eval "$(latentdrift completion bash)", or into a file below ~/.local/share/bash-completion/completions',
    "zsh": "into a file called _latentdrift in a folder of $fpath",
    "fish": "into ~/.config/fish/completions/latentdrift.fish",
    "tcsh": "into a file that ~/.tcshrc sources",
}
"""Shells, and where the script goes."""

USAGE = """usage: latentdrift completion SHELL

Print a script by which a shell completes commands, flags, the names that flags take, and files. The script is static:
make it again after an update, or when another package has added methods, editors or sources.

shells:
{kinds}
"""

DESCRIPTION = """Print the script for this shell. It knows every flag, so it takes some seconds to make."""


@dataclass(frozen=True, kw_only=True)
class CompletionOptions:
    """Print the script for a shell."""

    json: bool = False
    """Print the script within JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    from latentdrift.errors import UnknownNameError

    if not arguments or arguments[0] in ("-h", "--help"):
        listed = "\n".join(f"  {name:<6}{text}" for name, text in KINDS.items())
        print(USAGE.format(kinds=listed), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    shell = arguments[0]
    if shell not in KINDS:
        raise UnknownNameError("shell to complete in", shell, KINDS)
    options = parse_options(CompletionOptions, arguments[1:], f"completion {shell}", DESCRIPTION)
    from latentdrift.cli.__main__ import COMMANDS
    from latentdrift.cli.completion_scripts import SCRIPTS, Grammar
    from latentdrift.cli.tree import commands, kinds_of

    found = []
    with progress(options.quiet) as tell:
        for done, name in enumerate(COMMANDS):
            tell("commands", done, len(COMMANDS))
            found += commands([name])
        tell("commands", len(COMMANDS), len(COMMANDS))
    kinds = {name: tuple(known) for name in COMMANDS if (known := kinds_of(name))}
    script = SCRIPTS[shell](Grammar(dict(COMMANDS), kinds, tuple(found)))
    if options.json:
        print_result({"shell": shell, "script": script}, True)
    else:
        print(script, end="")
    return 0
