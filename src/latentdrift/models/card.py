"""What a model must tell about itself to be used rightly: `latentdrift.json`, beside the diffusers files.

It holds how images were brought to the model's size, how captions were written and which values the attributes have,
so that `generate` and `counterfactual` ask for the same things in the same words. Plain diffusers ignores the file.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentdrift.errors import ModelError

CARD_FILE = "latentdrift.json"


@dataclass(frozen=True)
class ModelCard:
    """Facts about a fine-tuned model.

    Args:
        base: name, path or hub id of the model that was fine-tuned.
        method: fine-tuning method.
        steps: optimizer steps.
        size: side of the images in pixels.
        gray: every training image was gray, so images are written with one channel.
        template: caption template, such as "an MRI of a {stage} brain", or what `PromptTemplate.stored` returned.
        attributes: the values each attribute had in training.
        data: facts about the cohort (name, number of images, content hash, terms).
        notes: free facts (terms, seconds, figures).
    """

    base: str
    method: str
    steps: int
    size: int
    gray: bool
    template: str | Mapping[str, Any]
    attributes: Mapping[str, Sequence[str | float]] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


def write_model_card(folder: Path, card: ModelCard) -> Path:
    """Write the card into a model folder, whole or not at all."""
    path = folder / CARD_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n")
    partial.replace(path)
    return path


def read_model_card(folder: Path) -> ModelCard | None:
    """Return the card of a model folder, or None where there is none (a plain diffusers model).

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / CARD_FILE
    if not path.exists():
        return None
    try:
        return ModelCard(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{path} is damaged ({error}). Restore it, or delete it to use plain defaults.") from error
