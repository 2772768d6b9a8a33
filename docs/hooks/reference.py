"""Makes the reference from the code: a page a room, a page a subcommand, and the tables of what is registered."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOMS = (
    "data",
    "drift",
    "models",
    "finetune",
    "generate",
    "edit",
    "counterfactual",
    "evaluate",
    "report",
    "benchmark",
)
"""Rooms with a Python interface, in the order in which an image passes through them."""

MODULES = {
    "counterfactual": ("search", "ladder"),
    "data": ("simulate",),
    "evaluate": ("counterfactuals",),
    "models": ("classifier",),
}
"""Modules whose public names are part of a room's interface, beside what the room itself exports."""

WIDTH = "100"


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the generated pages in the places that mkdocs.yml keeps for them."""
    pages = {name: f"reference/command-line/{slug(name)}.md" for name in commands()}
    put(
        config.nav,
        "generated command line",
        ["reference/command-line/index.md", *({name: page} for name, page in pages.items())],
    )
    guides = [page for section in config.nav or [] for page in section.get("Guides", [])]
    known = set(mentioned(config.nav))
    for page in sorted(Path(config.docs_dir).glob("*.md")):
        if page.name not in known:
            guides.append(page.name)
    for section in config.nav or []:
        if "Guides" in section:
            section["Guides"] = guides
    rooms = [{room: f"reference/python/{room}.md"} for room in (*ROOMS, "errors and registry")]
    put(config.nav, "generated python", ["reference/python/index.md", *(named(room) for room in rooms)])
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    made = {**command_pages(), **python_pages(), "reference/registries.md": registries()}
    for uri, text in made.items():
        files.append(File.generated(config, uri, content=text))
    return files


def mentioned(nav: Any) -> Iterator[str]:
    """Yield all pages that the navigation names."""
    for item in nav if isinstance(nav, list) else [nav]:
        if isinstance(item, dict):
            for value in item.values():
                yield from mentioned(value)
        elif isinstance(item, str):
            yield item


def named(entry: Mapping[str, str]) -> dict[str, str]:
    """Return a line of the navigation with a file name that has no blanks."""
    return {name: page.replace(" ", "-") for name, page in entry.items()}


def put(nav: Any, place: str, entries: list[Any]) -> None:
    """Replace a placeholder of the navigation by entries."""
    for item in nav if isinstance(nav, list) else []:
        for title, value in item.items() if isinstance(item, dict) else ():
            if value == place:
                item[title] = entries
            else:
                put(value, place, entries)


def slug(name: str) -> str:
    """Return a subcommand as a file's name."""
    return name.replace(" ", "-")


# The command line


def commands() -> dict[str, str]:
    """Return every subcommand and what it is for."""
    from latentdrift.cli.__main__ import COMMANDS

    return dict(COMMANDS)


def kinds(name: str) -> dict[str, list[str]]:
    """Return the further words under which a subcommand has help of its own, by heading."""
    from latentdrift.benchmark import benchmark
    from latentdrift.data.source import data_source
    from latentdrift.edit.editor import editor
    from latentdrift.finetune import finetune_method

    fixed: dict[str, Callable[[], list[list[str]]]] = {
        "prepare": lambda: [[source] for source in data_source.names()],
        "benchmark": lambda: [[one] for one in benchmark.names()],
        "finetune": lambda: [["--method", method] for method in finetune_method.names()],
        "counterfactual": lambda: [["--editor", one] for one in editor.names()],
    }
    if name in fixed:
        return {" ".join(words): words for words in fixed[name]()}
    module = importlib.import_module(f"latentdrift.cli.{name.replace('-', '_')}")
    found = getattr(module, "KINDS", None) or getattr(module, "ACTIONS", None) or {}
    return {kind: [kind] for kind in found}


def help_text(words: list[str]) -> str:
    """Return what `latentdrift WORDS --help` prints, without colours, in lines of at most `WIDTH` letters.

    Raises:
        RuntimeError: the command does not answer.
    """
    from latentdrift.cli.__main__ import main

    told = io.StringIO()
    with terminal(), contextlib.redirect_stdout(told):
        status = main([*words, "--help"])
    text = re.sub(r"\x1b\[[0-9;]*m", "", told.getvalue()).strip()
    if status or not text:
        raise RuntimeError(f"latentdrift {' '.join(words)} --help ended with status {status}, and said {text!r}.")
    # Where the package is installed is no part of its documentation.
    text = re.sub(r"(?<=default: )/\S+?(?=[),\s])", "…", text)
    return "\n".join(
        textwrap.fill(line, int(WIDTH)) if len(line) > int(WIDTH) + 5 else line for line in text.splitlines()
    )


@contextlib.contextmanager
def terminal() -> Iterator[None]:
    """Make the parser write for a plain terminal of a fixed width."""
    before = dict(os.environ)
    os.environ.update(COLUMNS=WIDTH, NO_COLOR="1", TERM="dumb")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def command_pages() -> dict[str, str]:
    """Return the pages of the command line."""
    rows = [f"| [`{name}`]({slug(name)}.md) | {cell(text)} |" for name, text in commands().items()]
    pages = {
        "reference/command-line/index.md": "\n".join(
            [
                "# Command line",
                "",
                "Every subcommand as `latentdrift COMMAND --help` explains it. Settings can also stand in a YAML or "
                "TOML file: `--config FILE`; flags win over the file.",
                "",
                "| command | |",
                "|---|---|",
                *rows,
                "",
            ]
        )
    }
    for name, about in commands().items():
        lines = [f"# latentdrift {name}", "", f"{about[:1].upper()}{about[1:]}.", "", *text_block(help_text([name]))]
        for heading, words in kinds(name).items():
            lines += ["", f"## {name} {heading}", "", *text_block(help_text([name, *words]))]
        pages[f"reference/command-line/{slug(name)}.md"] = "\n".join([*lines, ""])
    return pages


def text_block(text: str) -> list[str]:
    """Return text as a fenced block."""
    return ["```text", text, "```"]


# Python


def exported(package: Any) -> dict[str, Any]:
    """Return what a package exports and has defined itself, by name."""
    found = {name: getattr(package, name) for name in package.__all__}
    return {name: value for name, value in found.items() if documented(value, package.__name__)}


def documented(value: Any, package: str) -> bool:
    """Say whether a value is a class or a function of a package."""
    return (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__.startswith(package)


def public(module: Any) -> dict[str, Any]:
    """Return the classes and functions that a module has defined, or that its `__all__` names."""
    if hasattr(module, "__all__"):
        return exported(module)
    return {
        name: value
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (inspect.isclass(value) or inspect.isfunction(value))
        and value.__module__ == module.__name__
    }


def python_pages() -> dict[str, str]:
    """Return the pages of the Python interface."""
    import latentdrift

    places: dict[str, str] = {}
    pages: dict[str, str] = {}
    for room in ROOMS:
        package = importlib.import_module(f"latentdrift.{room}")
        names = exported(package)
        for inner in MODULES.get(room, ()):
            names |= public(importlib.import_module(f"latentdrift.{room}.{inner}"))
        lines = [f"# latentdrift.{room}", "", (inspect.getdoc(package) or "").replace("→", "to"), ""]
        for name in sorted(names, key=lambda name: (not inspect.isclass(names[name]), name.lower())):
            path = f"{names[name].__module__}.{names[name].__qualname__}"
            places.setdefault(name, path)
            lines += [f"::: {path}", ""]
        pages[f"reference/python/{room}.md"] = "\n".join(lines)
    pages["reference/python/errors-and-registry.md"] = (
        "# Errors and the registry\n\n::: latentdrift.errors\n    options:\n      show_root_toc_entry: false\n"
        "      show_root_heading: false\n\n::: latentdrift.registry.Registry\n"
    )
    lines = [
        "# Python",
        "",
        "`import latentdrift` costs nothing: names are imported when they are first used. Shapes are "
        "`(B, C, H, W)`, images between −1 and 1 unless said otherwise.",
        "",
        "| in `latentdrift` | |",
        "|---|---|",
    ]
    for name in latentdrift.__all__:
        value = getattr(latentdrift, name)
        if name.startswith("__"):
            continue
        path = places.get(name, f"{value.__module__}.{value.__qualname__}")
        lines.append(f"| [`{name}`][{path}] | {cell(summary(value))} |")
    lines += ["", "| room | what enters, what leaves |", "|---|---|"]
    for room in ROOMS:
        package = importlib.import_module(f"latentdrift.{room}")
        lines.append(f"| [`{room}`]({room}.md) | {cell(summary(package))} |")
    pages["reference/python/index.md"] = "\n".join([*lines, ""])
    return pages


def summary(value: Any) -> str:
    """Return the first sentence of a docstring, or of its module's where it has none of its own."""
    text = inspect.getdoc(value) if value.__doc__ else None
    if text is None or text.startswith(f"{getattr(value, '__name__', '')}("):
        text = inspect.getdoc(importlib.import_module(value.__module__)) or ""
    return text.split("\n\n")[0].replace("\n", " ")


def cell(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


# What is registered


def registries() -> str:
    """Return the page of names that can be given on the command line."""
    from latentdrift.benchmark import benchmark
    from latentdrift.data.source import data_source
    from latentdrift.edit.editor import editor
    from latentdrift.evaluate import extractor_family, feature_extractor
    from latentdrift.finetune import finetune_method
    from latentdrift.models.classifier import classifier_network

    lines = [
        "# What is registered",
        "",
        "Made from the registries when this site was built. Each row is one file; packages outside add rows by an "
        "entry point in the group `latentdrift.KIND` ([how](../how-to/adding.md)).",
        "",
    ]
    tables = (
        ("Fine-tuning methods", "`--method`", finetune_method),
        ("Editors", "`--editor`", editor),
        ("Data sources", "`latentdrift prepare`", data_source),
        ("Feature extractors", "`--extractor`", feature_extractor),
        ("Families of feature extractors", "`--extractor FAMILY:NAME`", extractor_family),
        ("Classifiers' networks", "`--network`", classifier_network),
        ("Benchmarks", "`latentdrift benchmark`", benchmark),
    )
    for title, flag, registry in tables:
        lines += [f"## {title}", "", f"Entry point group `latentdrift.{registry.kind}`.", ""]
        lines += [f"| {flag} | | settings | file |", "|---|---|---|---|"]
        for name in registry.names():
            item = registry.get(name)
            title_of = getattr(item, "title", None) or summary(item)
            file = item.__module__.replace(".", "/") + ".py"
            lines.append(
                f"| `{name}` | {cell(title_of)} | {settings(item)} | [{file.split('/')[-1]}](../../src/{file}) |"
            )
        lines.append("")
    return "\n".join([*lines, *prompt_sets(), *fixed_names()])


def settings(item: Any) -> str:
    """Return the flags of a plug-in's own configuration."""
    config = getattr(item, "config_class", None)
    if config is None or not dataclasses.is_dataclass(config):
        return ""
    return ", ".join(f"`--{field.name.replace('_', '-')}`" for field in dataclasses.fields(config))


def prompt_sets() -> list[str]:
    """Return the table of prompt sets."""
    from latentdrift.data.prompts.files import MODALITIES
    from latentdrift.data.prompts.sets import PROMPT_SETS, prompt_set

    example = {"diagnosis": "AD", "findings": "Effusion", "age": 74, "sex": "F"}
    lines = [
        "## Prompt sets",
        "",
        "| `--template` | wordings a class | one of them, for a woman of 74 |",
        "|---|---|---|",
    ]
    for modality in MODALITIES:
        attribute = "findings" if modality == "xray" else "diagnosis"
        for name in PROMPT_SETS:
            template = prompt_set(name, modality, attribute)
            alone = {attribute: example[attribute]}
            wordings = {template.caption(alone, key=str(number)) for number in range(1000)}
            lines.append(f"| `{modality}:{name}` | {len(wordings)} | {cell(template.caption(example))} |")
    return [*lines, ""]


def fixed_names() -> list[str]:
    """Return the tables of names that are no plug-ins."""
    from latentdrift.drift.value import RULES
    from latentdrift.generate import SAMPLERS
    from latentdrift.models import EMBEDDED

    return [
        "## Other names",
        "",
        "| | |",
        "|---|---|",
        f"| `--rule` | {', '.join(f'`{name}`' for name in RULES)} ([what they do](../concepts/rules.md)) |",
        f"| `--sampler` | {', '.join(f'`{name}`' for name in SAMPLERS)} |",
        f"| embedded models | {', '.join(f'`{name}`' for name in EMBEDDED)} |",
        "",
    ]
