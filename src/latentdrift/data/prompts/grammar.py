"""The text of a prompt template as a tree.

{name} or {name:spec}   a value
[, {age:years}]         an optional part, left out where a value directly in it is missing; parts may be nested
a(n)                    "a" or "an", after the word that follows
{{ }} [[ ]]             braces and brackets themselves
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from latentdrift.errors import ConfigurationError

_PIECE = re.compile(r"\{\{|\}\}|\[\[|\]\]|\{(?P<place>[^{}]*)\}|[\[\]{}]|[^\[\]{}]+")
_ARTICLE = re.compile(r"\b([Aa])\(n\)(?=\s)")
_MARKS = {"a": "\ue000", "A": "\ue001"}
"""Private characters that stand for the article until the word after it is known: a value may hold "a(n)" itself."""

_ESCAPED = {"{": "{{", "}": "}}", "[": "[[", "]": "]]", "\ue000": "a(n)", "\ue001": "A(n)"}
_AN_ACRONYM = frozenset("AEFHILMNORSX")
_A_WORD = re.compile(r"(?:uni(?!m|n)|us[aeiu]|eu|ut[ei]|one\b|once\b|ub|ur[aeio])", re.IGNORECASE)
_AN_WORD = re.compile(r"(?:[aeiou]|hour|hon[eo]|heir)", re.IGNORECASE)
_AN_NUMBER = re.compile(r"(?:8|1[18](?!\d)|1[18](?=\d{3}(?!\d)))")


@dataclass(frozen=True)
class Place:
    """A value to be filled in, and how it is written."""

    name: str
    spec: str = ""


@dataclass(frozen=True)
class Optional:
    """A part that is left out where a value directly in it is missing."""

    parts: tuple[Part, ...]


Part = str | Place | Optional


class MissingValueError(Exception):
    """A place has no value. Ends the optional part around it; callers turn it into an error where there is none."""


def parse(text: str) -> tuple[Part, ...]:
    """Return the parts of a template.

    Raises:
        ConfigurationError: braces or brackets that are wrong, a place without a name, an optional part without a place.
    """
    stack: list[list[Part]] = [[]]
    for match in _PIECE.finditer(text):
        piece = match.group()
        if match["place"] is not None:
            stack[-1].append(_place(text, match["place"]))
        elif piece == "[":
            stack.append([])
        elif piece == "]" or (piece == "]]" and len(stack) > 2):
            for _ in piece:
                if len(stack) == 1:
                    raise _malformed(text, "']' closes nothing", "Write a bracket as ]].")
                own = stack.pop()
                stack[-1].append(_optional(text, own))
        elif piece in "{}":
            raise _malformed(text, f"a single {piece!r}", "Write a brace as {{ or }}.")
        else:
            literal = piece[0] if piece in ("{{", "}}", "[[", "]]") else piece
            stack[-1].append(_ARTICLE.sub(lambda found: _MARKS[found[1]], literal))
    if len(stack) > 1:
        raise _malformed(text, "'[' is not closed", "Write a bracket as [[.")
    return tuple(stack[0])


def unparse(parts: Sequence[Part]) -> str:
    """Return the text that `parse` makes these parts of."""
    pieces = []
    for part in parts:
        if isinstance(part, Place):
            pieces.append(f"{{{part.name}:{part.spec}}}" if part.spec else f"{{{part.name}}}")
        elif isinstance(part, Optional):
            pieces.append(f"[{unparse(part.parts)}]")
        else:
            pieces.append("".join(_ESCAPED.get(letter, letter) for letter in part))
    return "".join(pieces)


def places(parts: Sequence[Part], *, optional: bool = True) -> Iterator[Place]:
    """Yield the places in order, those in optional parts only if `optional`."""
    for part in parts:
        if isinstance(part, Place):
            yield part
        elif isinstance(part, Optional) and optional:
            yield from places(part.parts)


def without_optional(parts: Sequence[Part]) -> tuple[Part, ...]:
    """Return the parts that stand in every caption."""
    return tuple(part for part in parts if not isinstance(part, Optional))


def replace_places(parts: Sequence[Part], change: Callable[[Place], Sequence[Part]]) -> tuple[Part, ...]:
    """Return the parts with every place replaced by others, in optional parts too."""
    found: list[Part] = []
    for part in parts:
        if isinstance(part, Place):
            found += change(part)
        else:
            found.append(Optional(replace_places(part.parts, change)) if isinstance(part, Optional) else part)
    return tuple(found)


def render(parts: Sequence[Part], write: Callable[[Place, bool], str]) -> str:
    """Return the finished text.

    Args:
        parts: a parsed template.
        write: returns the words of a place, told whether it stands in an optional part; there it raises
            `MissingValueError` for a value that is not known.
    """
    return _resolve_articles(_fill(parts, write, False))


def article(following: str) -> str:
    """Return "a" or "an" before a text, by its sound as far as spelling tells.

    >>> [article(word) for word in ("MRI", "Alzheimer's", "healthy", "unimpaired", "X-ray", "80", "18", "180")]
    ['an', 'an', 'a', 'an', 'an', 'an', 'an', 'a']
    """
    word = re.split(r"[^\w']", following.lstrip("\"'([ "), maxsplit=1)[0]
    if word[:1].isdigit():
        return "an" if _AN_NUMBER.match(word) else "a"
    if len(word) == 1 and word.isalpha() and word.lower() not in ("a", "i"):
        return "an" if word.upper() in _AN_ACRONYM else "a"
    if len(word) > 1 and word[:2].isupper():
        return "an" if word[0] in _AN_ACRONYM else "a"
    return "an" if _AN_WORD.match(word) and not _A_WORD.match(word) else "a"


def _fill(parts: Sequence[Part], write: Callable[[Place, bool], str], optional: bool) -> str:
    pieces = []
    for part in parts:
        if isinstance(part, Place):
            pieces.append(write(part, optional))
        elif isinstance(part, Optional):
            try:
                pieces.append(_fill(part.parts, write, True))
            except MissingValueError:
                continue
        else:
            pieces.append(part)
    return "".join(pieces)


def _resolve_articles(text: str) -> str:
    for small, mark in _MARKS.items():
        while (at := text.find(mark)) >= 0:
            found = article(text[at + 1 :])
            text = text[:at] + (found if small == "a" else found.capitalize()) + text[at + 1 :]
    return text


def _place(text: str, inside: str) -> Place:
    name, _, spec = inside.partition(":")
    if not name.isidentifier():
        raise ConfigurationError(f"The prompt template {text!r} has the place {name!r}; write {{age}}, {{stage}} ...")
    return Place(name, spec)


def _optional(text: str, parts: list[Part]) -> Optional:
    if not any(isinstance(part, Place) for part in parts):
        raise _malformed(
            text, f"the optional part [{unparse(parts)}] holds no {{place}}", "Write brackets as [[ and ]]."
        )
    return Optional(tuple(parts))


def _malformed(text: str, reason: str, remedy: str) -> ConfigurationError:
    return ConfigurationError(f"The prompt template {text!r} is malformed: {reason}. {remedy}")
