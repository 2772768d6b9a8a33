"""One edit: an image, a wish and settings → the counterfactual, what a judge says of it, and how it was made."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError, LatentDriftError
from latentdrift.studio.scans import View
from latentdrift.studio.shelf import OWN, Model, drift_under

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from latentdrift.counterfactual.wordings import Wordings
    from latentdrift.edit import EditResult, Inversion
    from latentdrift.models.classifier import Classifier

Attributes = Mapping[str, str | float]
Tell = Callable[[int, int], None]
"""Told how many evaluations of the U-Net are done, and how many are expected."""

GUIDED = "classifier_guided"
INVERSIONS_KEPT = 3


class Cancelled(LatentDriftError):
    """Somebody pressed cancel."""


@dataclass(frozen=True)
class Wish:
    """What the image shows and what it should show: by attributes, or in words for a model without a card."""

    source: Attributes = field(default_factory=dict)
    target: Attributes = field(default_factory=dict)
    source_caption: str = ""
    target_caption: str = ""

    def words(self, model: Model) -> Wordings:
        """Return the captions.

        Raises:
            DataError: an attribute that the captions need is not given.
            ConfigurationError: a caption is missing.
        """
        from latentdrift.counterfactual.wordings import Wordings, wordings

        if model.card is not None:
            return wordings(model.card, [self.source], [{**self.source, **self.target}])
        if not self.target_caption.strip():
            raise ConfigurationError("Write what the image should show: this model does not say how to put it.")
        before = (self.source_caption.strip(),)
        return Wordings(before, (self.target_caption.strip(),), before)


@dataclass(frozen=True)
class EditSettings:
    """How the edit is made."""

    editor: str = "auto"
    steps: int = 20
    guidance: float = 3.0
    strength: float = 1.0
    delta: float = 0.0
    """On top of the drift, in standard deviations of the noise; 0 is the model as it is."""
    drift: str = OWN
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Edit:
    """What came of it."""

    view: View
    result: EditResult
    wish: Wish
    settings: EditSettings
    model: Mapping[str, Any]
    drift: Mapping[str, Any]
    judged: Mapping[str, Any] | None
    """The judge's name, attribute, classes, and probabilities (before, after, and of the round trip)."""
    warnings: tuple[str, ...]
    seconds: float
    evaluations: int
    """Of the U-Net; fewer where the inversion was at hand."""

    def label(self) -> str:
        """Return it in a few words."""
        after = ", ".join(f"{name} {value}" for name, value in self.wish.target.items())
        words = after or self.result.target_captions[0]
        told = self.settings
        return f"{words} · {told.editor}, guidance {told.guidance:g}, strength {told.strength:g}, δ {told.delta:g}"

    def limits(self) -> NDArray[np.float32]:
        """Return what the round trip changes by itself and a level more, (H, W) as parts of the range; else 0."""
        import numpy as np

        if self.result.reconstruction is None:
            return np.zeros(self.result.source.shape[-2:], np.float32)
        error = (self.result.reconstruction - self.result.source)[0].abs().mean(0) / 2
        limits: NDArray[np.float32] = (error + 1 / 255).numpy()
        return limits

    def change(self) -> NDArray[np.float32] | None:
        """Return the change of the scan at its own resolution and in its units, (H, W); None without a scan."""
        if self.view.source is None:
            return None
        limits = self.limits() if self.result.reconstruction is not None else 0.0
        return self.view.source.change(self.result.effect[0].mean(0).numpy() / 2, limits)


class Memory:
    """Inversions of the images that were edited last, for the next edit of the same."""

    def __init__(self) -> None:
        self._found: dict[Any, tuple[Any, Inversion]] = {}

    def get(self, key: Any, pipeline: Any) -> Inversion | None:
        """Return the inversion of a key, if it was of this pipeline."""
        owner, inversion = self._found.get(key, (None, None))
        return inversion if owner is pipeline else None

    def put(self, key: Any, pipeline: Any, inversion: Inversion) -> None:
        """Keep an inversion; the oldest goes."""
        self._found.pop(key, None)
        self._found[key] = (pipeline, inversion)
        while len(self._found) > INVERSIONS_KEPT:
            del self._found[next(iter(self._found))]


def make_edit(
    model: Model,
    view: View,
    wish: Wish,
    settings: EditSettings,
    *,
    judge: Classifier | None = None,
    guide: Classifier | None = None,
    memory: Memory | None = None,
    stop: threading.Event | None = None,
    tell: Tell | None = None,
) -> Edit:
    """Return the edit of one image.

    Args:
        model: under its own drift; `settings.drift` and `settings.delta` say what acts.
        view: the image.
        wish: what it shows and should show.
        settings: how.
        judge: says before and after what the image shows.
        guide: what the editor classifier_guided follows.
        memory: inversions of former edits.
        stop: the edit ends at the next step once it is set.
        tell: told of each step.

    Raises:
        Cancelled: `stop` was set.
        LatentDriftError: what cannot be, in words.
    """
    import torch

    from latentdrift.counterfactual.edit import check_suits, open_editor
    from latentdrift.counterfactual.ladder import under_drifts
    from latentdrift.drift import sampling_under
    from latentdrift.edit import Editing
    from latentdrift.edit.gray import gray_edit
    from latentdrift.edit.inversion import reconstruct
    from latentdrift.models.identity import drift_facts

    name = editor_of(model, settings.editor)
    settings = dataclasses.replace(settings, editor=name)
    pipeline, images, words = model.pipeline, view.image[None], wish.words(model)
    editor = open_editor(name)
    check_suits(pipeline, name, editor)
    drift, warnings = drift_under(model, settings.drift)
    check_delta(settings, editor.starts_from_inversion)
    memory = Memory() if memory is None else memory
    request = Editing(
        pipeline=pipeline,
        images=images,
        source_captions=list(words.before),
        target_captions=list(words.after),
        steps=settings.steps,
        guidance=settings.guidance,
        strength=settings.strength,
        seeds=[settings.seed],
        objective=objective_of(name, guide, [wish], images),
    )
    began = time.perf_counter()
    with sampling_under(pipeline, drift), watched(pipeline.unet, expected(request), stop, tell) as made:
        facts = drift_facts(pipeline, settings.drift)
        editor.check(request)
        inversion = None
        if editor.starts_from_inversion:
            image = (view.sha256, str(view.place), words.before)
            key = (model.name, str(drift), name, settings.steps, settings.strength, settings.seed, *image)
            inversion = memory.get(key, pipeline)
            if inversion is None or not torch.equal(inversion.images, images):
                inversion = editor.invert(request)
                memory.put(key, pipeline, inversion)
        if inversion is not None and settings.delta:
            moved = under_drifts(pipeline, inversion, [settings.delta])
            result = editor.edit(dataclasses.replace(request, reconstruct=False), moved)
            with torch.no_grad():
                result = dataclasses.replace(result, reconstruction=reconstruct(pipeline, inversion, 1))
        else:
            result = editor.edit(request, inversion)
    result = gray_edit(result) if model.card is not None and model.card.gray else result
    return Edit(
        view=view,
        result=result,
        wish=wish,
        settings=settings,
        model=model.facts,
        drift={**facts, "delta_on_top": settings.delta},
        judged=None if judge is None else judgement(judge, result),
        warnings=tuple(warnings),
        seconds=time.perf_counter() - began,
        evaluations=made[0],
    )


def editor_of(model: Model, wish: str) -> str:
    """Return the editor's name, of auto the one that suits the model."""
    if wish != "auto":
        return wish
    return "instruct_pix2pix" if model.instructed else "prompt_swap"


def check_delta(settings: EditSettings, from_inversion: bool) -> None:
    """Raise ConfigurationError for a δ that could not act."""
    if settings.delta and not from_inversion:
        raise ConfigurationError(
            f"The editor {settings.editor} draws its noise, which δ does not move. Set δ to 0 and write the drift "
            "under Drift, or take prompt_swap or pix2pix_zero."
        )
    if settings.delta and settings.strength != 1:
        raise ConfigurationError(
            f"δ acts at the noise, which strength {settings.strength:g} does not reach. Set strength to 1, or δ to 0."
        )


def objective_of(editor: str, guide: Classifier | None, wishes: Sequence[Wish], image: Any) -> Any:
    """Return what a guided editor follows for one image (1, 3, H, W) under each wish, None for all other editors.

    Raises:
        ConfigurationError: no guide, or one of something that is not wanted.
    """
    if editor != GUIDED:
        return None
    if guide is None:
        raise ConfigurationError(f"The editor {editor} follows a classifier: choose a guide.")
    wanted = [{**wish.source, **wish.target} for wish in wishes]
    if not all(guide.attribute in one for one in wanted):
        raise ConfigurationError(f"The guide tells {guide.attribute}, of which nothing is wanted. Choose its value.")
    from latentdrift.counterfactual.guidance import image_objective

    classes = [guide.index(one[guide.attribute]) for one in wanted]
    return image_objective(guide, classes, image.expand(len(classes), -1, -1, -1))


def judgement(judge: Classifier, result: EditResult) -> dict[str, Any]:
    """Return what a judge says of source, counterfactual and round trip: probabilities by class."""
    import torch

    rows = {"before": result.source, "after": result.image}
    if result.reconstruction is not None:
        rows["round_trip"] = result.reconstruction
    found = judge.probabilities(torch.cat(list(rows.values())))
    told = {
        name: {str(label): float(value) for label, value in zip(judge.classes, row, strict=True)}
        for name, row in zip(rows, found, strict=True)
    }
    return {"judge": judge.path.name, "attribute": judge.attribute, "doubt": judge.doubt, **told}


def expected(request: Any) -> int:
    """Return how often the U-Net will be asked, about: up, down, and down again for the reconstruction."""
    return 3 * int(request.steps_taken)


@contextmanager
def watched(unet: Any, total: int, stop: threading.Event | None, tell: Tell | None) -> Iterator[list[int]]:
    """Count the calls of a U-Net within the block in the list yielded, tell of each, and end it when asked to."""
    made = [0]

    def called(*_: Any) -> None:
        if stop is not None and stop.is_set():
            raise Cancelled("Cancelled. Nothing was changed.")
        made[0] += 1
        if tell is not None:
            tell(made[0], max(total, made[0]))

    handle = unet.register_forward_pre_hook(called)
    try:
        yield made
    finally:
        handle.remove()
