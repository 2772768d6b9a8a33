"""Frozen dataclasses → flags, with a settings file underneath: flags win over the file, the file over the defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from latentdrift.errors import ConfigurationError, UnknownNameError

T = TypeVar("T")


def parse_options(options: type[T], arguments: Sequence[str], command: str, description: str) -> T:
    """Return `options` filled from the command line.

    `--config FILE` (YAML or TOML) gives settings under the flags' names with underscores. Fields of nested dataclasses
    are flags of their own, without a prefix.

    Raises:
        ConfigurationError: the file is missing or damaged, or holds a value that cannot be.
        UnknownNameError: a setting that does not exist, with the closest that do.
        SystemExit: with status 2 on flags that do not exist or do not parse, 0 after `--help`.
    """
    import tyro

    arguments, file = take_option(arguments, "--config")
    default: Any = None
    given: dict[str, Any] = {}
    if file is not None:
        given = read_settings(Path(file))
        known = {name for name, _ in leaves(options)}
        for name in given:
            if name not in known:
                raise UnknownNameError(f"setting in {file}", name, known)
    prepared = with_defaults(options, given)
    return tyro.cli(
        prepared,
        args=list(arguments),
        prog=f"latentdrift {command}",
        description=description + "\n\nSettings can also stand in a YAML or TOML file: --config FILE.",
        default=tyro.MISSING if default is None else default,
        config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagConversionOff),
    )


def take_option(arguments: Sequence[str], flag: str) -> tuple[list[str], str | None]:
    """Return the arguments without `flag` and its value, and the value."""
    rest, value = [], None
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
    """Return the settings of a YAML or TOML file."""
    try:
        text = path.read_text()
    except OSError as error:
        raise ConfigurationError(f"The settings file {path} cannot be read: {error.strerror}.") from error
    try:
        if path.suffix == ".toml":
            import tomllib

            settings = tomllib.loads(text)
        else:
            import yaml

            settings = yaml.safe_load(text)
    except ValueError as error:
        raise ConfigurationError(f"The settings file {path} is no TOML: {error}.") from error
    except Exception as error:
        raise ConfigurationError(f"The settings file {path} is no YAML: {error}.") from error
    if not isinstance(settings, dict):
        raise ConfigurationError(f"The settings file {path} holds no `name: value` lines.")
    return {str(name).replace("-", "_"): value for name, value in settings.items()}


def leaves(options: type[Any]) -> list[tuple[str, Any]]:
    """Return (name, field) of every flag, those of nested dataclasses included."""
    import typing

    hints = typing.get_type_hints(options)
    found: list[tuple[str, Any]] = []
    for field in dataclasses.fields(options):
        if dataclasses.is_dataclass(hints[field.name]):
            found += leaves(hints[field.name])  # type: ignore[arg-type]
        else:
            found.append((field.name, field))
    return found


def with_defaults(options: type[T], given: dict[str, Any]) -> type[T]:
    """Return `options` with the values of a settings file as its defaults."""
    import typing

    if not given:
        return options
    hints = typing.get_type_hints(options)
    changed: list[Any] = []
    for field in dataclasses.fields(options):  # type: ignore[arg-type]
        hint = hints[field.name]
        if dataclasses.is_dataclass(hint):
            nested = {name: given[name] for name, _ in leaves(hint) if name in given}  # type: ignore[arg-type]
            if nested:
                changed.append((field.name, hint, dataclasses.field(default_factory=lambda h=hint, n=nested: h(**n))))
        elif field.name in given:
            value = as_type(given[field.name], hint)
            changed.append((field.name, hint, dataclasses.field(default=value)))
    made = dataclasses.make_dataclass(options.__name__, changed, bases=(options,), frozen=True, kw_only=True)
    made.__doc__ = options.__doc__
    return made


def as_type(value: Any, hint: Any) -> Any:
    """Return a file's value as the flag's type where the file's format has no such type (paths, tuples)."""
    import typing

    options = typing.get_args(hint)
    if isinstance(value, str) and (hint is Path or Path in options):
        return Path(value)
    if isinstance(value, list):
        return tuple(value)
    if typing.get_origin(hint) is tuple and not isinstance(value, tuple):
        return (value,)
    return str(value) if hint is str else value
