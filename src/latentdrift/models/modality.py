"""Which modality a model was trained on, as far as its card says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from latentdrift.models.card import ModelCard

MODALITIES: Mapping[str, frozenset[str]] = {
    "MRI": frozenset({"MR"}),
    "CT": frozenset({"CT"}),
    "X-ray": frozenset({"CR", "DX", "DR", "RG"}),
}
"""DICOM's codes by the name that captions use."""

_NAMED = {
    "MRI": re.compile(r"\b(?:mri?|t1|t2|flair)\b", re.IGNORECASE),
    "CT": re.compile(r"\bct\b", re.IGNORECASE),
    "X-ray": re.compile(r"\bx-?rays?\b|\bradiographs?\b", re.IGNORECASE),
}


def trained_modalities(card: ModelCard) -> set[str]:
    """Return what the model was trained on, by name, as far as its captions and settings say."""
    told: Mapping[str, Any] = card.notes.get("instructions", {})
    template = card.template if isinstance(card.template, str) else " ".join(map(str, card.template.get("texts", ())))
    values = [str(value) for value in card.attributes.get("modality", ())]
    text = " ".join([template, *values, str(told.get("modality", ""))])
    return {name for name, pattern in _NAMED.items() if pattern.search(text)}


def strange_modality(card: ModelCard, modality: str) -> str | None:
    """Return a warning where an image is of another modality (DICOM's code) than the model knows, else None."""
    trained = trained_modalities(card)
    known = {code for name in trained for code in MODALITIES[name]}
    if not known or modality in known | {"OT", ""}:
        return None
    return f"is of modality {modality}, the model was trained on {' and '.join(sorted(trained))}: do not trust it."
