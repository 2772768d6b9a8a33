"""Frozen dataclasses → flags, with a settings file underneath: flags win over the file, the file over the defaults."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from latentdrift.errors import ConfigurationError, UnknownNameError

T = TypeVar("T")

DESCRIBE = "--latentdrift-describe"
"""The last argument that asks a command for its options in place of running it; see `latentdrift.cli.tree`."""


LARGEST_SEED = 2**63 - 1
"""Beyond it generators of random numbers, which take each next image's seed as well, would overflow."""


class OptionsFound(Exception):
    """The answer of a command that was asked for its options."""

    def __init__(self, options: type[Any]) -> None:
        super().__init__(options.__name__)
        self.options = options


def parse_options(options: type[T], arguments: Sequence[str], command: str, description: str) -> T:
    """Return `options` filled from the command line.

    `--config FILE` (YAML or TOML) gives settings under the flags' names. Fields of nested dataclasses are flags of
    their own, without a prefix.

    Raises:
        ConfigurationError: the file is missing or damaged, the settings cannot be, or a seed is below 0.
        UnknownNameError: a setting that does not exist, with the closest that do.
        SystemExit: with status 2 on flags that do not exist or do not parse, 0 after `--help`.
    """
    if arguments and arguments[-1] == DESCRIBE:
        raise OptionsFound(options)
    import tyro

    add_help(options)
    rest, file = take_option(arguments, "--config")
    given = as_flags(read_settings(Path(file)), leaves(options), file) if file is not None else []
    parsed = tyro.cli(
        options,
        args=[*given, *rest],
        prog=f"latentdrift {command}",
        description=description + "\n\nSettings can also stand in a YAML or TOML file: --config FILE.",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    check_seeds(parsed)
    return parsed


def check_seeds(options: Any) -> None:
    """Refuse seeds that no generator takes, in nested dataclasses as well.

    Raises:
        ConfigurationError: a field called seed or seeds, or whose name ends so, holds one below 0 or too large.
    """
    for field in dataclasses.fields(options):
        value = getattr(options, field.name)
        if dataclasses.is_dataclass(value):
            check_seeds(value)
        elif field.name.split("_")[-1] in ("seed", "seeds"):
            for seed in value if isinstance(value, list | tuple) else (value,):
                if isinstance(seed, int) and not 0 <= seed <= LARGEST_SEED:
                    flag = "--" + field.name.replace("_", "-")
                    raise ConfigurationError(f"{flag} is {seed}; give a whole number from 0 to {LARGEST_SEED}.")


def add_help(options: type[Any]) -> None:
    """Put what stands under each field into its metadata, as one paragraph; tyro would keep the source's line breaks.

    Fields of nested dataclasses as well.
    """
    import docstring_parser

    found: dict[str, str] = {}
    for base in reversed(options.__mro__[:-1]):
        params = docstring_parser.parse_from_object(base).params
        found |= {param.arg_name: param.description for param in params if param.description}
    hints = typing.get_type_hints(options)
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint) and isinstance(hint, type):
            add_help(hint)
        elif field.name in found and "help" not in field.metadata:
            field.metadata = MappingProxyType({**field.metadata, "help": " ".join(found[field.name].split())})


def peek_option(arguments: Sequence[str], name: str, default: str) -> str:
    """Return the value of one flag before all are parsed: from the command line, else the settings file."""
    _, value = take_option(arguments, f"--{name}")
    _, file = take_option(arguments, "--config")
    if value is None and file is not None:
        value = read_settings(Path(file)).get(name)
    return default if value is None else str(value)


def take_option(arguments: Sequence[str], flag: str) -> tuple[list[str], str | None]:
    """Return the arguments without `flag` and its value, and the value."""
    rest: list[str] = []
    value: str | None = None
    it = iter(arguments)
    for argument in it:
        if argument == flag:
            value = next(it, None)
            if value is None:
                raise ConfigurationError(f"{flag} needs a value.")
        elif argument.startswith(flag + "="):
            value = argument[len(flag) + 1 :]
        else:
            rest.append(argument)
    return rest, value


def read_settings(path: Path) -> dict[str, Any]:
    """Return the settings of a YAML or TOML file, by names with underscores.

    Raises:
        ConfigurationError: no such file, or one that holds something else.
    """
    kind = "TOML" if path.suffix == ".toml" else "YAML"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"The settings file {path} cannot be read: {reason}.") from error
    try:
        if kind == "TOML":
            import tomllib

            settings: Any = tomllib.loads(text)
        else:
            import yaml

            settings = yaml.safe_load(text)
    except Exception as error:
        raise ConfigurationError(f"The settings file {path} is no {kind}: {error}.") from error
    if not isinstance(settings, dict):
        raise ConfigurationError(f"The settings file {path} holds no `name: value` lines.")
    return {str(name).replace("-", "_"): value for name, value in settings.items()}


def leaves(options: type[Any]) -> dict[str, Any]:
    """Return the type of every flag, by the field's name; those of nested dataclasses included."""
    hints = typing.get_type_hints(options)
    found: dict[str, Any] = {}
    for field in dataclasses.fields(options):
        hint = hints[field.name]
        found |= leaves(hint) if dataclasses.is_dataclass(hint) and isinstance(hint, type) else {field.name: hint}
    return found


def as_flags(settings: Mapping[str, Any], known: Mapping[str, Any], file: str) -> list[str]:
    """Return the settings of a file as words of the command line, so that both are read and checked alike.

    Raises:
        UnknownNameError: a setting that is no flag.
        ConfigurationError: a setting that is a table.
    """
    flags: list[str] = []
    for name, value in settings.items():
        if name not in known:
            raise UnknownNameError(f"setting in {file} called", name, known)
        flag = "--" + name.replace("_", "-")
        if isinstance(value, Mapping):
            raise ConfigurationError(f"{name} in {file} is a table; write one `name: value` line a setting.")
        if isinstance(value, bool):
            if known[name] is bool:
                flags.append(flag if value else "--no-" + flag[2:])
                continue
            value = "yes" if value else "no"  # YAML reads the words yes and no as booleans
        if isinstance(value, list):
            flags += [flag, *map(str, value)]
        elif typing.get_origin(known[name]) is tuple:
            flags += [flag, str(value)]
        else:
            flags.append(f"{flag}={value}")
    return flags
