"""A small document of texts, lists and mappings, from YAML, TOML or lines, that knows in which line each part stood."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentdrift.errors import ConfigurationError

MAX_BYTES = 1_000_000
SUFFIXES = (".yaml", ".yml", ".toml", ".txt")

Path_ = tuple[str, ...]
Content = str | list["Content"] | dict[str, "Content"]


@dataclass(frozen=True)
class Document:
    """Texts in lists and mappings. Every scalar is text as written: no word turns into a number or a truth value.

    Attributes:
        path: the file.
        content: what it holds.
        lines: line of each part, by its keys and positions; empty where the format does not tell.
    """

    path: Path
    content: Content
    lines: dict[Path_, int] = field(default_factory=dict)

    def where(self, path: Path_) -> str:
        """Return "file, line 12 (words.class.CN)" for a part."""
        line = self.lines.get(path)
        place = f"{self.path}, line {line}" if line else str(self.path)
        return f"{place} ({'.'.join(path)})" if path else place

    def mapping(self, path: Path_, content: object) -> dict[str, Content]:
        """Return a part that must be a mapping."""
        if not isinstance(content, dict):
            raise ConfigurationError(f"{self.where(path)} holds no `name: value` lines.")
        return content

    def text(self, path: Path_, content: object) -> str:
        """Return a part that must be a text, not empty."""
        if not isinstance(content, str) or not content.strip():
            raise ConfigurationError(f"{self.where(path)} is no text. Write one, in quotes if it holds : {{ [ or #.")
        return content.strip()

    def texts(self, path: Path_, content: object, *, empty: bool = False) -> tuple[str, ...]:
        """Return a part that must be a list of texts, or one text, and not empty unless `empty`."""
        if isinstance(content, str):
            return (self.text(path, content),)
        if not isinstance(content, list) or not (content or empty):
            raise ConfigurationError(f"{self.where(path)} is no list of texts. Write one text a line after a dash.")
        return tuple(self.text((*path, str(number)), part) for number, part in enumerate(content))


def read_document(path: Path) -> Document:
    """Return what a file holds; of text files the lines, without empty ones and comments.

    Raises:
        ConfigurationError: the file cannot be read, is of another kind, too large, or damaged.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ConfigurationError(f"{path} is no template file: its name ends in none of {', '.join(SUFFIXES)}.")
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigurationError(f"The template file {path} is larger than {MAX_BYTES:,} bytes.")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConfigurationError(f"The template file {path} cannot be read: {reason}.") from error
    if suffix == ".txt":
        return _lines(path, text)
    if suffix == ".toml":
        return _toml(path, text)
    return _yaml(path, text)


def _lines(path: Path, text: str) -> Document:
    kept = [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1)]
    kept = [(number, line) for number, line in kept if line and not line.startswith("#")]
    if not kept:
        raise ConfigurationError(f"The template file {path} holds no wording. Write one a line.")
    lines: dict[Path_, int] = {(str(index),): number for index, (number, _) in enumerate(kept)}
    return Document(path, [line for _, line in kept], lines)


def _toml(path: Path, text: str) -> Document:
    import tomllib

    try:
        found = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"The template file {path} is no TOML: {error}.") from error
    document = Document(path, {})
    return Document(path, _plain(document, (), found))


def _plain(document: Document, path: Path_, value: Any) -> Content:
    if isinstance(value, dict):
        return {name: _plain(document, (*path, name), part) for name, part in value.items()}
    if isinstance(value, list):
        return [_plain(document, (*path, str(number)), part) for number, part in enumerate(value)]
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _yaml(path: Path, text: str) -> Document:
    import yaml

    try:
        # Nodes, not objects: they know their lines, and "NO", 0.5 and 1e3 stay what was written.
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            raise ConfigurationError(f"The template file {path} is empty.")
        lines: dict[Path_, int] = {}
        content = _from_node(path, root, (), lines, set())
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigurationError(f"The template file {path} is no YAML: {error}.") from error
    return Document(path, content, lines)


def _from_node(path: Path, node: Any, here: Path_, lines: dict[Path_, int], seen: set[int]) -> Content:
    import yaml

    lines.setdefault(here, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if id(node) in seen:  # references to references would grow without end
        raise ConfigurationError(
            f"{path}, line {node.start_mark.line + 1}: parts cannot be referred to. Write them out."
        )
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        return [_from_node(path, part, (*here, str(i)), lines, seen) for i, part in enumerate(node.value)]
    found: dict[str, Content] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise ConfigurationError(f"{path}, line {line}: a key is no text.")
        if key.value in found:
            raise ConfigurationError(f"{path}, line {line}: {key.value!r} is there twice. Keep one.")
        lines[(*here, key.value)] = line
        found[key.value] = _from_node(path, value, (*here, key.value), lines, seen)
    return found
