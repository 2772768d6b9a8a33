"""The completion scripts of bash, zsh, fish and tcsh: static text, so that completing starts no Python."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from latentdrift.cli.tree import Command, Flag

PROGRAM = "latentdrift"


@dataclass(frozen=True)
class Grammar:
    """All that can be completed.

    Args:
        names: what each command is for, by name.
        kinds: the words that follow a command's name, for those commands that have such.
        commands: every command that can be run, with its flags.
    """

    names: Mapping[str, str]
    kinds: Mapping[str, tuple[str, ...]]
    commands: tuple[Command, ...]


BASH = """# Completion of {program} in bash.
_{program}() {{
    local cur="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}" start=2
    local flag="" values=1 between=0 choices="" files="" flags="" extra="" i word
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=( $(compgen -W "{names} --help --version" -- "$cur") )
        return
    fi
    case "$command" in
{kinds}
    esac
    # The flag that the word belongs to, and how many values it has already; bash splits words at =.
    for (( i = COMP_CWORD - 1; i >= start; i-- )); do
        word="${{COMP_WORDS[i]}}"
        case "$word" in
            --*) flag="$word"; break ;;
            =) ;;
            *) between=$(( between + 1 )) ;;
        esac
    done
    [ "$cur" = "=" ] && cur=""
    case "$command" in
{commands}
    esac
    local takes=""
    [ "$values" = 1 ] && [ "$between" -eq 0 ] && takes=1
    [ "$values" = many ] && [ "${{cur#-}}" = "$cur" ] && takes=1
    if [ -n "$flag" ] && [ -n "$takes" ]; then
        COMPREPLY=( $(compgen -W "$choices" -- "$cur") )
        extra="$files"
    else
        COMPREPLY=( $(compgen -W "$flags" -- "$cur") )
    fi
    if [ -n "$extra" ]; then
        compopt -o filenames 2>/dev/null
        while IFS= read -r word; do
            COMPREPLY+=( "$word" )
        done < <(compgen -f -- "$cur")
    fi
}}
complete -F _{program} {program}
"""


def bash(grammar: Grammar) -> str:
    """Return the script for bash, which works in version 3 too."""
    kinds = []
    for name, known in grammar.kinds.items():
        kinds += [
            f"        {name})",
            "            start=3",
            '            if [ "$COMP_CWORD" -eq 2 ]; then',
            f'                COMPREPLY=( $(compgen -W "{" ".join(known)} --help" -- "$cur") )',
            "                return",
            "            fi",
            '            command="$command ${COMP_WORDS[2]}" ;;',
        ]
    cases = []
    for command in grammar.commands:
        flags = " ".join(name for flag in command.flags for name in flag.names if name.startswith("--"))
        cases += [f"        {shlex.quote(' '.join(command.words))})", f'            flags="{flags}"']
        if any(not flag.names and flag.files for flag in command.flags):
            cases.append("            extra=1")
        cases += ['            case "$flag" in']
        for names, what in _grouped(command.flags):
            cases.append(f"                {'|'.join(names)}) {what} ;;")
        cases += ["            esac ;;"]
    return BASH.format(
        program=PROGRAM, names=" ".join(grammar.names), kinds="\n".join(kinds), commands="\n".join(cases)
    )


def _grouped(flags: Sequence[Flag]) -> list[tuple[list[str], str]]:
    """Return flags that take the same together, with the settings for bash."""
    found: dict[str, list[str]] = {}
    for flag in flags:
        names = [name for name in flag.names if name.startswith("--")]
        parts = ["values=0"] if flag.switch else ["values=many"] if flag.many else []
        parts += [f'choices="{" ".join(flag.choices)}"'] if flag.choices else []
        parts += ["files=1"] if flag.files else []
        if names and parts:
            found.setdefault("; ".join(parts), []).extend(names)
    return [(names, what) for what, names in found.items()]


def zsh(grammar: Grammar) -> str:
    """Return the script for zsh."""
    described = "\n".join(f"        {_quoted(f'{name}:{_plain(text)}')}" for name, text in grammar.names.items())
    kinds = []
    for name, known in grammar.kinds.items():
        kinds += [
            f"        {name})",
            f"            if (( CURRENT == 3 )); then compadd -- {' '.join(known)}; return; fi",
            '            command="$words[2] $words[3]"; shift words; (( CURRENT-- )) ;;',
        ]
    cases = []
    for command in grammar.commands:
        cases.append(f"        {shlex.quote(' '.join(command.words))})\n            _arguments \\")
        cases += [f"                {_quoted(spec)} \\" for flag in command.flags for spec in _zsh_specs(flag)]
        cases.append("                ;;")
    lines = [
        f"#compdef {PROGRAM}",
        f"_{PROGRAM}() {{",
        "    local command=$words[2]",
        "    local -a names",
        f"    names=(\n{described}\n    )",
        "    if (( CURRENT == 2 )); then _describe command names; return; fi",
        "    case $command in",
        *kinds,
        "    esac",
        "    shift words; (( CURRENT-- ))",
        "    case $command in",
        *cases,
        "    esac",
        "}",
        # Loaded by name from $fpath the file is the function's body; sourced, it must be registered.
        f'if [ "$funcstack[1]" = "_{PROGRAM}" ]; then _{PROGRAM} "$@"; else compdef _{PROGRAM} {PROGRAM}; fi',
    ]
    return "\n".join(lines) + "\n"


def _zsh_specs(flag: Flag) -> list[str]:
    takes = ""
    if flag.choices and flag.files:
        takes = f":value:{{ compadd -- {' '.join(flag.choices)}; _files }}"
    elif flag.choices:
        takes = f":value:({' '.join(flag.choices)})"
    elif flag.files:
        takes = ":file:_files"
    elif not flag.switch:
        takes = ":value: "
    if not flag.names:
        return ["*" + takes]
    star = "*" if flag.many else ""
    return [f"{star}{name}[{_plain(flag.help)}]{takes}" for name in flag.names]


def fish(grammar: Grammar) -> str:
    """Return the script for fish."""
    lines = [
        f"function __{PROGRAM}_at",
        "    set -l words (commandline -opc)",
        "    set -l last (math (count $argv) + 1)",
        "    test (count $words) -ge $last; or return 1",
        '    test "$words[2..$last]" = "$argv"',
        "end",
        f"function __{PROGRAM}_next",
        "    set -l words (commandline -opc)",
        "    test (count $words) -eq (math (count $argv) + 1); or return 1",
        '    test (count $argv) -eq 0; or test "$words[2..-1]" = "$argv"',
        "end",
        f"complete -c {PROGRAM} -f",
    ]
    lines += [
        f"complete -c {PROGRAM} -n __{PROGRAM}_next -a {name} -d {_quoted(_plain(text))}"
        for name, text in grammar.names.items()
    ]
    for name, known in grammar.kinds.items():
        lines.append(f"complete -c {PROGRAM} -n '__{PROGRAM}_next {name}' -a '{' '.join(known)}'")
    for command in grammar.commands:
        place = f"complete -c {PROGRAM} -n '__{PROGRAM}_at {' '.join(command.words)}'"
        for flag in command.flags:
            if not flag.names:
                lines.append(f"{place} -F")
                continue
            choices = f" -a '{' '.join(flag.choices)}'" if flag.choices else ""
            takes = "" if flag.switch else (" -r -F" if flag.files else " -x") + choices
            lines += [
                f"{place} -l {name.lstrip('-')}{takes} -d {_quoted(_plain(flag.help))}"
                for name in flag.names
                if name.startswith("--")
            ]
    return "\n".join(lines) + "\n"


def tcsh(grammar: Grammar) -> str:
    """Return the script for tcsh, which cannot tell commands apart: every command is offered the flags of all."""
    flags = {name: flag for command in grammar.commands for flag in command.flags for name in flag.names}
    rules = [f"p/1/({' '.join(grammar.names)})/"]
    rules += [f"n/{name}/({' '.join(known)})/" for name, known in grammar.kinds.items()]
    for name, flag in flags.items():
        if flag.files:
            rules.append(f"n/{name}/f/")
        elif flag.choices:
            rules.append(f"n/{name}/({' '.join(flag.choices)})/")
    rules.append(f"c/--/({' '.join(name[2:] for name in flags if name.startswith('--'))})/")
    return f"complete {PROGRAM} " + " \\\n    ".join(f"'{rule}'" for rule in rules) + "\n"


def _plain(text: str) -> str:
    """Return a description without characters that shells take for their own."""
    table = str.maketrans({"'": "’", "`": "", "[": "(", "]": ")", ":": " -", "\\": "", "\n": " ", "$": ""})
    return text.translate(table).strip()


def _quoted(text: str) -> str:
    return f"'{text}'"


SCRIPTS: Mapping[str, Callable[[Grammar], str]] = {"bash": bash, "zsh": zsh, "fish": fish, "tcsh": tcsh}
