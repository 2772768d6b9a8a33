"""Every command with its flags, as the commands themselves describe them: for shell completion and for checks."""

from __future__ import annotations

import dataclasses
import importlib
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from latentdrift.cli.options import DESCRIBE, OptionsFound, add_help

VARIANTS = ("method", "editor")
"""Flags whose value brings further flags."""

NAMED_FILES = frozenset({"model", "base", "run", "autoencoder"})
"""Flags of text that may name a file or a folder."""


@dataclass(frozen=True)
class Flag:
    """One flag: its spellings, what it takes, and what it is for."""

    names: tuple[str, ...]
    """Such as --from and --start; a switch has --x and --no-x. Empty for an argument without a flag."""
    help: str = ""
    switch: bool = False
    many: bool = False
    """It takes any number of values."""
    files: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Command:
    """One command that can be run: its words after `latentdrift`, and its flags."""

    words: tuple[str, ...]
    flags: tuple[Flag, ...]


def kinds_of(name: str) -> list[str]:
    """Return the words that may follow a command's name before its flags; none for most commands."""
    module = _module(name)
    for where in ("KINDS", "ACTIONS"):
        if hasattr(module, where):
            return list(getattr(module, where))
    return list(module.kind_names()) if hasattr(module, "kind_names") else []


def commands(names: Sequence[str]) -> list[Command]:
    """Return every command below these names, with all flags that any method or editor gives it."""
    known = _known_choices()
    found = []
    for name in names:
        for kind in kinds_of(name) or [""]:
            rest = [kind] if kind else []
            options = describe(name, rest)
            flags = {flag.names: flag for flag in flags_of(options, known)}
            fields = {field.name for field in dataclasses.fields(options)}
            for variant in VARIANTS:
                if variant in fields:
                    for value in known[variant]:
                        more = flags_of(describe(name, [*rest, f"--{variant}", value]), known)
                        flags |= {flag.names: flag for flag in more if flag.names not in flags}
            found.append(Command((name, *rest), tuple(flags.values())))
    return found


def describe(name: str, arguments: Sequence[str]) -> type[Any]:
    """Return the dataclass of a command's options, without running the command."""
    main: Callable[[Sequence[str]], int] = _module(name).main
    try:
        main([*arguments, DESCRIBE])
    except OptionsFound as found:
        return found.options
    raise TypeError(f"latentdrift {name} does not read its flags by `parse_options`.")


def flags_of(options: type[Any], known: dict[str, tuple[str, ...]] | None = None) -> list[Flag]:
    """Return the flags of a dataclass of options, nested ones included, and those that all commands have."""
    add_help(options)
    found = _flags(options, known or {})
    return [
        *found,
        Flag(("--config",), "YAML or TOML file of settings", files=True),
        Flag(("--help", "-h"), "explain the command", switch=True),
    ]


def _flags(options: type[Any], known: dict[str, tuple[str, ...]]) -> list[Flag]:
    hints = typing.get_type_hints(options, include_extras=True)
    found: list[Flag] = []
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        marks: tuple[Any, ...] = ()
        if typing.get_origin(hint) is typing.Annotated:
            hint, *rest = typing.get_args(hint)
            marks = tuple(rest)
        if not field.init or any("Fixed" in str(mark) or "Suppress" in str(mark) for mark in marks):
            continue
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            found += _flags(hint, known)
            continue
        found.append(_flag(field, hint, marks, known))
    return found


def _flag(field: dataclasses.Field[Any], hint: Any, marks: Sequence[Any], known: dict[str, tuple[str, ...]]) -> Flag:
    name = "--" + field.name.replace("_", "-")
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    names = (name, *aliases)
    if any("Positional" in str(mark) for mark in marks):
        names = ()
    text = _first_sentence(str(field.metadata.get("help", "")))
    if hint is bool:
        return Flag((name, "--no-" + name[2:], *aliases), text, switch=True)
    parts = _parts(hint)
    choices = [str(choice) for part in parts if typing.get_origin(part) is Literal for choice in typing.get_args(part)]
    choices += [choice for choice in known.get(field.name, ()) if choice not in choices]
    return Flag(
        names,
        text,
        many=any(_is_several(one) for one in _union(hint)),
        files=Path in parts or field.name in NAMED_FILES,
        choices=tuple(choices),
    )


def _is_several(hint: Any) -> bool:
    origin: Any = typing.get_origin(hint)
    return origin is tuple or origin is list


def _union(hint: Any) -> list[Any]:
    """Return the members of a union, or the type itself."""
    joined = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return list(typing.get_args(hint)) if joined else [hint]


def _parts(hint: Any) -> list[Any]:
    """Return the types of single values within unions, tuples and lists."""
    found: list[Any] = []
    for one in _union(hint):
        if _is_several(one):
            for inner in typing.get_args(one):
                found += [] if inner is ... else _parts(inner)
        else:
            found.append(one)
    return found


def _known_choices() -> dict[str, tuple[str, ...]]:
    """Return the registered names that flags of text take, by the flag's field."""
    from latentdrift.edit.editor import editor
    from latentdrift.evaluate.features import extractor_names
    from latentdrift.finetune.method import finetune_method
    from latentdrift.generate import SAMPLERS
    from latentdrift.models import EMBEDDED

    return {
        "method": tuple(finetune_method.names()),
        "editor": tuple(editor.names()),
        "sampler": tuple(SAMPLERS),
        "extractor": ("default", *extractor_names()),
        "model": tuple(EMBEDDED),
        "base": tuple(EMBEDDED),
        "part": ("train", "validation", "test"),
        "device": ("cpu", "cuda", "mps"),
    }


def _first_sentence(text: str) -> str:
    return text.split(". ")[0].rstrip(".")


def _module(name: str) -> Any:
    return importlib.import_module(f"latentdrift.cli.{name.replace('-', '_')}")
