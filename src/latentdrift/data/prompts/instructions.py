"""Editing instructions from source and target attributes, as InstructPix2Pix takes them (Brooks et al., CVPR 2023)."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentdrift.data.prompts.ages import AgeSpec, check_style, number_words, whole_years, with_style
from latentdrift.data.prompts.files import CLASS, STYLES, TemplateFile, shipped
from latentdrift.data.prompts.grammar import Place, parse, render
from latentdrift.data.prompts.words import (
    ABBREVIATIONS,
    SEX_NAMES,
    Term,
    Vocabulary,
    joined,
    sex_words,
    split_value,
    value_words,
)
from latentdrift.data.records import CLASS_NAMES, Value
from latentdrift.errors import ConfigurationError, UnknownNameError

DIFFERENCE = "difference"
"""Age style that says how much older or younger, not which age."""

FINDINGS = ("finding", "findings")


@dataclass(frozen=True)
class _Change:
    """One thing to say: its kind in the template file, and the values of its places by name."""

    kind: str
    values: Mapping[str, Any]


def instruction(
    source: Mapping[str, Value],
    target: Mapping[str, Value],
    *,
    modality: str = "mri",
    style: str = "command",
    age: str = "number",
    attribute: str | None = None,
    key: str | None = None,
    seed: int = 0,
    file: TemplateFile | None = None,
) -> str:
    """Return what to tell a model that edits the source into the target.

    >>> instruction({"age": 72}, {"age": 82}, age="difference-words")
    'make this brain ten years older'
    >>> instruction({"age": 72}, {"age": 82}, style="question", age="decade")
    'what would this brain look like in the eighties?'
    >>> instruction({"findings": "Cardiomegaly"}, {"findings": "Effusion"}, modality="xray")
    'add a pleural effusion and remove the cardiomegaly'

    Args:
        source: attributes of the image; those that `target` does not name are not talked about.
        target: attributes wanted.
        modality: "mri" of the brain, or "xray" of the chest.
        style: "command" or "question".
        age: the new age as "number", "words", "decade", "bin" or "bin5"; or "difference" and "difference-words" for
            "ten years older", which need the source's age.
        attribute: the class; where None, an attribute called diagnosis, stage, label, findings and the like.
        key: the sample's name, which decides the wording; the first where None.
        seed: decides which sample gets which wording.
        file: other wordings (`read_template_file`) than the modality's own.

    Raises:
        UnknownNameError: no such modality or style.
        ConfigurationError: no such age style, or a file without wordings for the change.
        DataError: an age that is no number.
    """
    if style not in STYLES:
        raise UnknownNameError("style of instructions", style, STYLES)
    file = file or shipped(modality)
    relative = age.removesuffix("-words") == DIFFERENCE
    if not relative:
        check_style(age)
    vocabulary = Vocabulary(file.words.get(CLASS, {}))
    changes: list[_Change] = []
    for name, value in target.items():
        before = source.get(name)
        if before == value or (name == "age" and before is not None and float(before) == float(value)):
            continue
        if name == "age":
            changes.append(_age_change(before, value, relative))
        elif name in SEX_NAMES:
            changes.append(_Change("sex", {"sex": sex_words(value) or value_words(value)}))
        elif name == attribute or (attribute is None and name.lower() in (*CLASS_NAMES, *FINDINGS)):
            changes += _class_changes(file, vocabulary, style, before, value)
        else:
            changes.append(_Change("other", {"name": name.replace("_", " "), "value": value_words(value)}))
    said = file.instructions.get(style, {})

    def spoken(change: _Change) -> str:
        text = _choose(said, change.kind, key, seed, style)
        return render(parse(text), lambda place, _: _written(place, change, vocabulary, age, relative))

    pieces = [spoken(change) for change in changes or [_Change("same", {})]]
    if style == "command":
        return joined(pieces)
    return f"{_choose(said, 'start', key, seed, style)} {' and '.join(pieces)}?"


def _age_change(before: Value | None, after: Value, relative: bool) -> _Change:
    if not relative:
        return _Change("age", {"age": after})
    if before is None:
        raise ConfigurationError("How much older is only known with the source's age. Give it, or another age style.")
    years = whole_years(after) - whole_years(before)
    return _Change("older" if years >= 0 else "younger", {"difference": abs(years)})


def _class_changes(
    file: TemplateFile, vocabulary: Vocabulary, style: str, before: Value | None, after: Value
) -> list[_Change]:
    """Return the change of a class; of findings, what comes and what goes."""
    if "add" not in file.instructions.get(style, {}):
        return [_Change(CLASS, {CLASS: after})]
    had, wanted = (_findings(vocabulary, value) for value in (before, after))
    added = [thing for thing in wanted if thing not in had]
    removed = [thing for thing in had if thing not in wanted]
    changes = [_Change("add", {"finding": joined(added)})] if added else []
    if removed:
        definite = [f"the {thing.removeprefix('a ').removeprefix('an ')}" for thing in removed]
        changes.append(_Change("remove", {"the_finding": joined(definite)}))
    if not wanted and not removed:
        changes.append(_Change("normal", {}))
    return changes


def _findings(vocabulary: Vocabulary, value: Value | None) -> list[str]:
    """Return the findings as things, without the one that says there is none."""
    things = []
    for part in split_value(value) if value is not None else []:
        term = vocabulary.find(part) or Term((value_words(part),))
        if not term.nothing:
            things.append(term.thing)
    return things


def _choose(said: Mapping[str, Sequence[str]], kind: str, key: str | None, seed: int, style: str) -> str:
    texts = said.get(kind, ())
    if not texts:
        raise ConfigurationError(f"The template file has no {style} for {kind!r}. Add instructions.{style}.{kind}.")
    if key is None:
        return texts[0]
    return texts[int.from_bytes(hashlib.sha256(f"{seed}:{kind}:{key}".encode()).digest()[:8], "big") % len(texts)]


def _written(place: Place, change: _Change, vocabulary: Vocabulary, age: str, relative: bool) -> str:
    value = change.values.get(place.name)
    if value is None:
        raise ConfigurationError(
            f"An instruction for {change.kind!r} has the place {{{place.name}}}; it can say "
            f"{', '.join('{' + name + '}' for name in change.values) or 'nothing'}."
        )
    if place.name == DIFFERENCE:
        return f"{number_words(value) if age.endswith('words') else value} year{'' if value == 1 else 's'}"
    if place.name == "age":
        spec = AgeSpec.parse(with_style(place.spec, age) or age)
        if spec is None:
            raise ConfigurationError(
                f"An instruction has the place {{age:{place.spec}}}; write {{age:years}} or {{age:at}}."
            )
        return spec.write(value)
    if place.name == CLASS:
        return vocabulary.words(value, 0, ABBREVIATIONS, noun=place.spec == "noun")
    return str(value)
