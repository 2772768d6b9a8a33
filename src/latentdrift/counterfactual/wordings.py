"""What images show and should show, as the captions, or the instructions, that a model was trained with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from latentdrift.data.captions import PromptTemplate
from latentdrift.data.prompts.instructions import instruction
from latentdrift.errors import DataError
from latentdrift.models.card import ModelCard

Attributes = Mapping[str, str | float]

INSTRUCTED = "instruct_pix2pix"
"""The method of models that edit by instruction."""


@dataclass(frozen=True)
class Wordings:
    """Captions of what images show and of what they should show, one an image; for some models instructions.

    `kept` asks for what the images show already: the target of a placebo edit.
    """

    before: tuple[str, ...]
    after: tuple[str, ...]
    kept: tuple[str, ...]


def wordings(
    card: ModelCard,
    sources: Sequence[Attributes],
    targets: Sequence[Attributes],
    keys: Sequence[str | None] | None = None,
) -> Wordings:
    """Return the captions of attributes in the words the model was trained with.

    Models that edit by instruction get what to do, with ages as number, word or bin as their card says.

    Args:
        card: of the model.
        sources: what each image shows.
        targets: what each should show, all attributes.
        keys: each image's name in its cohort, which decides its wording among several; the first where None.

    Raises:
        DataError: an attribute that the captions need is not given, or cannot be written.
        ConfigurationError: ages as differences, and a source without its age.
    """
    keys = [None] * len(sources) if keys is None else keys
    template = PromptTemplate.restore(card.template)
    if card.method != INSTRUCTED:
        try:
            before = tuple(template.caption(one, key=key) for one, key in zip(sources, keys, strict=True))
            after = tuple(template.caption(one, key=key) for one, key in zip(targets, keys, strict=True))
        except DataError as error:
            raise DataError(f"{error} State what the images show by --source NAME=VALUE.") from error
        return Wordings(before, after, before)
    known: Mapping[str, Any] = card.notes.get("instructions", {})
    told = {name: known[name] for name in ("modality", "style", "age", "attribute") if name in known}

    def shown(one: Attributes, key: str | None) -> str:
        try:
            return template.caption(one, key=key)
        except DataError:
            return ""  # these models do not read it

    rows = list(zip(sources, targets, keys, strict=True))
    return Wordings(
        tuple(shown(source, key) for source, _, key in rows),
        tuple(instruction(source, target, key=key, **told) for source, target, key in rows),
        tuple(instruction(source, source, key=key, **told) for source, _, key in rows),
    )
