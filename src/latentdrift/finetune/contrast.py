"""Does the text encoder tell the classes apart? If not, no training can, and it is better to know before."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from latentdrift.data import Cohort, PromptTemplate
from latentdrift.models import encode_prompts

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

LOW_CONTRAST = 0.15
"""Relative distance below which a caption's classes are taken for badly told apart. With `tiny`, stages at the end of a
sentence are at 0.05 to 0.14 and edits between them did not convince a judge; before the noun they are at 0.8 to 1.5."""

MOST_CLASSES = 20


class LowContrastWarning(UserWarning):
    """The text encoder gives captions of different classes almost the same states."""


def caption_contrast(pipeline: DiffusionPipeline, captions: list[str]) -> float:
    """Return the smallest distance between two captions' text states, divided by the norm of the states.

    0 means that two captions are one and the same to the U-Net. Norms are over all tokens.

    Raises:
        DataError: a caption longer than the tokenizer takes.
    """
    states = encode_prompts(pipeline, captions).hidden.float().flatten(1)
    norm = states.norm(dim=1).mean()
    pairs = itertools.combinations(states, 2)
    return min((float((a - b).norm() / norm) for a, b in pairs), default=float("inf"))


def low_contrast(pipeline: DiffusionPipeline, cohort: Cohort, prompts: PromptTemplate) -> str | None:
    """Return what to warn of, or None where the captions of the cohort's classes are well apart."""
    name = cohort.class_attribute()
    if name is None or name not in prompts.attribute_names:
        return None
    values = sorted(set(cohort.values(name)), key=str)
    if not 2 <= len(values) <= MOST_CLASSES:
        return None
    # The same sample in every class: nothing but the class differs.
    captions = list(dict.fromkeys(prompts.caption({**cohort[0].attributes, name: value}) for value in values))
    if len(captions) < 2:
        return f"The template gives every {name} the same caption, {captions[0]!r}: it cannot be learned or edited."
    contrast = caption_contrast(pipeline, captions)
    if contrast >= LOW_CONTRAST:
        return None
    return (
        f"The text encoder hardly tells the values of {name!r} apart: two of their captions, such as {captions[0]!r} "
        f"and {captions[1]!r}, differ by {contrast:.0%} of their states. Training will be slow to learn the "
        f"difference, and edits will be weak. Put it before the noun, for example "
        f"--template 'an MRI of a {{{name}}} brain'."
    )
