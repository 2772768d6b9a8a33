"""Models and classifiers by the names that the page's fields show, loaded once and kept."""

from __future__ import annotations

import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError
from latentdrift.studio.workspace import Workspace

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.drift import LatentDrift
    from latentdrift.models import ModelCard
    from latentdrift.models.classifier import Classifier

USUAL = "tiny-brain"
KEPT = 2
"""Pipelines and classifiers in memory, each."""

OWN, NONE = "the model's own", "none"
NUMBERS = re.compile(r"[-+0-9.eE]+(\s*,\s*[-+0-9.eE]+)*")


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded model."""

    name: str
    pipeline: DiffusionPipeline
    card: ModelCard | None
    """None for a plain diffusers folder: captions are then written by hand."""
    size: int
    """Side of its images, pixels."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Name, hash of the weights, base, method and data, for provenance."""

    @property
    def instructed(self) -> bool:
        """Whether it edits by instruction."""
        from latentdrift.generate.instructed import edits_by_instruction

        return bool(edits_by_instruction(self.pipeline))


def attributes_of(card: ModelCard | None) -> dict[str, list[str | float]]:
    """Return the attributes that a model's captions name, with the values of its cohort; none without a card."""
    if card is None:
        return {}
    from latentdrift.counterfactual.wordings import INSTRUCTED
    from latentdrift.data.captions import PromptTemplate

    known = {name: list(values) for name, values in card.attributes.items()}
    used = set(PromptTemplate.restore(card.template).attribute_names)
    told = {name: values for name, values in known.items() if name in used}
    return told if told and card.method != INSTRUCTED else known


class Shelf:
    """What was loaded, the latest last; the least used goes."""

    def __init__(self, workspace: Workspace, device: str | None = None) -> None:
        self.workspace, self.device = workspace, device
        self._models: OrderedDict[str, Model] = OrderedDict()
        self._classifiers: OrderedDict[str, Classifier] = OrderedDict()
        self._lock = threading.RLock()

    def names(self) -> list[str]:
        """Return the embedded models, the usual one first, and those of the workspace."""
        from latentdrift.models import EMBEDDED

        return [USUAL, *(name for name in EMBEDDED if name != USUAL), *self.workspace.models()]

    def place(self, name: str) -> str:
        """Return an embedded model's name as it is, or the folder in the workspace that a name means.

        Raises:
            ConfigurationError: a path outside the workspace, or none.
        """
        from latentdrift.models import EMBEDDED

        return name if name in EMBEDDED else str(self.workspace.existing(name, "model"))

    def card(self, name: str) -> ModelCard | None:
        """Return a model's card without loading the model; None for a plain diffusers folder.

        Raises:
            ConfigurationError: as `place`.
            ModelError: no model there, or a damaged card.
        """
        from latentdrift.models import read_model_card
        from latentdrift.models.loading import model_folder, saved_adapter

        place = self.place(name)
        folder = saved_adapter(place) or model_folder(place)
        return None if folder is None else read_model_card(folder)

    def model(self, name: str) -> Model:
        """Return a model under its own drift.

        Raises:
            ConfigurationError: a path outside the workspace.
            ModelError: no model there, or a damaged one.
        """
        from latentdrift.models import load_pipeline
        from latentdrift.models.identity import model_facts

        with self._lock:
            if name not in self._models:
                place = self.place(name)
                pipeline = load_pipeline(place, device=self.device)
                card = pipeline.latentdrift_card
                size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor if card is None else card.size
                facts = {**model_facts(pipeline, place), "name": name}
                _keep(self._models, name, Model(name, pipeline, card, size, facts))
            self._models.move_to_end(name)
            return self._models[name]

    def classifier(self, name: str, role: str) -> Classifier:
        """Return a classifier of a role, guide or judge.

        Raises:
            ConfigurationError: outside the workspace, or of the other role.
            ModelError: no classifier there, or a damaged one.
        """
        from latentdrift.models.classifier import load_classifier

        with self._lock:
            if name not in self._classifiers:
                _keep(self._classifiers, name, load_classifier(self.workspace.existing(name, role), device=self.device))
            self._classifiers.move_to_end(name)
            found = self._classifiers[name]
        if found.role != role:
            raise ConfigurationError(f"{name} was trained as a {found.role}, not as a {role}. Choose another {role}.")
        return found


def drift_under(model: Model, wish: str) -> tuple[LatentDrift | None, list[str]]:
    """Return the drift that an edit starts from, and what is to be warned about.

    Args:
        model: whose drift is meant by its own.
        wish: `OWN`, `NONE`, a number, or one number a latent channel with commas.

    Raises:
        ConfigurationError: something else. Files are not taken: they could be anybody's.
    """
    from latentdrift.drift import check_drift, drift_of
    from latentdrift.finetune.drifting import choose_drift

    own, text = drift_of(model.pipeline), wish.strip()
    if text in ("", OWN):
        return own, []
    if text == NONE:
        chosen = None
    elif NUMBERS.fullmatch(text):
        chosen = choose_drift(text, rule="start", means=None, scheduler=None, steps=0)
    else:
        raise ConfigurationError(f"The drift {text!r} is not understood: {OWN}, {NONE}, or numbers such as 0.07.")
    message = check_drift(own, chosen)
    return chosen, [] if message is None else [message]


def choices(values: Sequence[str | float]) -> list[str]:
    """Return an attribute's values as a field shows them."""
    return [str(value) for value in values]


def value_of(name: str, text: str, values: Sequence[str | float]) -> str | float:
    """Return the value that a field's text means: of words one of the known, of numbers any.

    Raises:
        ConfigurationError: no such value.
    """
    for value in values:
        if str(value) == text:
            return value
    if not values:
        return text
    try:
        number = float(text)
    except ValueError:
        number = float("nan")
    if not all(isinstance(value, int | float) for value in values) or number != number or abs(number) == float("inf"):
        raise ConfigurationError(f"{name} cannot be {text!r}; the model knows {', '.join(map(str, values))}.")
    return int(number) if number.is_integer() else number


def _keep(shelf: OrderedDict[str, Any], name: str, one: Any) -> None:
    shelf[name] = one
    while len(shelf) > KEPT:
        shelf.popitem(last=False)
