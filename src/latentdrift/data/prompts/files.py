"""Template files: wordings, words for classes and instructions, as YAML, TOML or plain text.

    extends: mri                        # optional: what this file leaves out is taken from a shipped file
    attribute: diagnosis                # the class; {class} in the wordings stands for it
    wordings:                           # or, under each class's name, wordings of its own
      - "an MRI of a(n) {class} brain[, {sex}][, {age:years}]"
    words:                              # by attribute, "class" for the class
      class:
        CN: [cognitively normal, healthy]
        AD: {words: [Alzheimer's disease], noun: Alzheimer's disease, also: [Dementia]}
    instructions: ...                   # see the shipped files

A text file holds one wording a line; lines that start with # are comments.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from latentdrift.data.prompts.documents import Document, read_document
from latentdrift.data.prompts.grammar import parse
from latentdrift.data.prompts.words import Term
from latentdrift.errors import ConfigurationError, UnknownNameError

MODALITIES = ("mri", "xray")
CLASS = "class"
KEYS = ("attribute", "extends", "instructions", "words", "wordings")
TERM_KEYS = ("also", "noun", "nothing", "words")
STYLES = ("command", "question")
CHANGES = ("add", "age", "class", "normal", "older", "other", "remove", "same", "sex", "start", "younger")
YES = frozenset({"yes", "true", "no", "false"})

Instructions = Mapping[str, Mapping[str, Sequence[str]]]


@dataclass(frozen=True)
class TemplateFile:
    """What a template file says.

    Attributes:
        wordings: templates for every class, in order; the first is the simple one.
        class_wordings: templates of their own for some classes.
        words: terms by attribute and value; under "class" those of the class.
        instructions: by style and kind of change, templates of editing instructions.
        attribute: the attribute that is the class, if the file says so.
    """

    wordings: tuple[str, ...] = ()
    class_wordings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    words: Mapping[str, Mapping[str, Term]] = field(default_factory=dict)
    instructions: Instructions = field(default_factory=dict)
    attribute: str | None = None


def read_template_file(path: str | Path) -> TemplateFile:
    """Read a template file.

    Raises:
        ConfigurationError: the file cannot be read or says something else; the message names the file, the line (of
            YAML and text) and the key.
        UnknownNameError: a key, modality, style or change that does not exist, with close matches.
    """
    path = Path(path)
    document = read_document(path)
    if isinstance(document.content, list):
        return TemplateFile(wordings=_texts(document, (), document.content))
    return _read(document)


@functools.cache
def shipped(modality: str) -> TemplateFile:
    """Return the file of a modality that comes with the package.

    Raises:
        UnknownNameError: no such modality.
    """
    if modality not in MODALITIES:
        raise UnknownNameError("modality of prompts", modality, MODALITIES)
    with resources.as_file(resources.files("latentdrift.data.prompts") / "wordings" / f"{modality}.yaml") as path:
        return read_template_file(path)


def _read(document: Document) -> TemplateFile:
    content = document.mapping((), document.content)
    _check_keys(document, (), content, KEYS, "key")
    base = TemplateFile()
    if "extends" in content:
        modality = document.text(("extends",), content["extends"])
        if modality not in MODALITIES:
            raise UnknownNameError(f"file to extend, in {document.where(('extends',))}, called", modality, MODALITIES)
        base = shipped(modality)
    attribute = base.attribute
    if "attribute" in content:
        attribute = document.text(("attribute",), content["attribute"])
        if not attribute.isidentifier():
            raise ConfigurationError(f"{document.where(('attribute',))}: {attribute!r} is no attribute's name.")
    wordings, own = base.wordings, base.class_wordings
    given = content.get("wordings")
    if isinstance(given, dict):
        own = {name: _texts(document, ("wordings", name), texts) for name, texts in given.items()}
    elif given is not None:
        wordings, own = _texts(document, ("wordings",), given), {}
    words = {name: dict(terms) for name, terms in base.words.items()}
    for name, terms in document.mapping(("words",), content.get("words", {})).items():
        words.setdefault(name, {}).update(_terms(document, ("words", name), terms))
    said = {style: dict(changes) for style, changes in base.instructions.items()}
    for style, changes in _instructions(document, content).items():
        said.setdefault(style, {}).update(changes)
    if not wordings and not own and not words and not said:
        raise ConfigurationError(f"{document.path} holds no wordings, words or instructions. Give one of them.")
    return TemplateFile(wordings, own, words, said, attribute)


def _terms(document: Document, path: tuple[str, ...], given: object) -> dict[str, Term]:
    terms: dict[str, Term] = {}
    for code, entry in document.mapping(path, given).items():
        here = (*path, code)
        facts = entry if isinstance(entry, dict) else {"words": entry}
        _check_keys(document, here, facts, TERM_KEYS, "key")
        if "words" not in facts:
            raise ConfigurationError(f"{document.where(here)} has no words. List how the class is named.")
        nothing = document.text((*here, "nothing"), facts.get("nothing", "no")).lower()
        if nothing not in YES:
            raise ConfigurationError(f"{document.where((*here, 'nothing'))} is {nothing!r}; write yes or no.")
        noun = document.text((*here, "noun"), facts["noun"]) if "noun" in facts else None
        term = Term(document.texts((*here, "words"), facts["words"]), noun, nothing in ("yes", "true"))
        for name in (code, *document.texts((*here, "also"), facts.get("also", []), empty=True)):
            terms[name] = term
    return terms


def _instructions(document: Document, content: Mapping[str, object]) -> dict[str, dict[str, tuple[str, ...]]]:
    given = document.mapping(("instructions",), content.get("instructions", {}))
    _check_keys(document, ("instructions",), given, STYLES, "style of instructions")
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for style, changes in given.items():
        known = document.mapping(("instructions", style), changes)
        _check_keys(document, ("instructions", style), known, CHANGES, "change")
        found[style] = {
            change: _texts(document, ("instructions", style, change), texts) for change, texts in known.items()
        }
    return found


def _texts(document: Document, path: tuple[str, ...], given: object) -> tuple[str, ...]:
    """Return templates, each shown to be one, no two alike."""
    texts = document.texts(path, given)
    seen: dict[str, int] = {}
    for number, text in enumerate(texts):
        here = (*path, str(number))
        try:
            parse(text)
        except ConfigurationError as error:
            raise ConfigurationError(f"{document.where(here)}: {error}") from error
        if text in seen:
            raise ConfigurationError(f"{document.where(here)}: {text!r} is there twice. Remove one.")
        seen[text] = number
    return texts


def _check_keys(
    document: Document, path: tuple[str, ...], given: Mapping[str, object], known: Sequence[str], kind: str
) -> None:
    for name in given:
        if name not in known:
            raise UnknownNameError(f"{kind}, in {document.where((*path, name))}, called", name, known)
