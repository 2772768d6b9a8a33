"""One image along values: its frames, a strip and a moving picture."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ConfigurationError
from latentdrift.studio.edits import Attributes, EditSettings, Tell, Wish, editor_of, objective_of, watched
from latentdrift.studio.scans import View
from latentdrift.studio.shelf import Model, drift_under, value_of

if TYPE_CHECKING:
    from latentdrift.counterfactual import LadderResult
    from latentdrift.models.classifier import Classifier

MOST = 16
"""Frames; more would not fit beside one another."""

DELTA = "δ"
AXES = {DELTA: "drift", "guidance": "guidance", "strength": "strength"}
"""What a ladder can go along besides an attribute, by the names that fields show."""

PROPOSED = {DELTA: "-0.2, -0.1, 0, 0.1, 0.2", "guidance": "1, 2, 3, 5", "strength": "0.25, 0.5, 0.75, 1"}


@dataclass(frozen=True, eq=False)
class Ladder:
    """What came of it."""

    result: LadderResult
    labels: tuple[str, ...]
    facts: Mapping[str, Any]

    def write(self, folder: Path) -> list[Path]:
        """Write strip.png and ladder.gif, both marked as synthetic; return their paths."""
        from latentdrift.report.strip import strip_figure, write_gif

        frames, result = list(self.result.frames[0]), self.result
        limit: Any = 0.0
        if result.reconstruction is not None:
            limit = ((result.reconstruction - result.source)[0].abs().mean(0) / 2 + 1 / 255).numpy()
        source = result.source[0]
        strip = strip_figure(
            folder / "strip.png", source, frames, self.labels, name="synthetic", threshold=limit, facts=self.facts
        )
        return [strip, write_gif(folder / "ladder.gif", frames, self.labels, facts=self.facts)]


def proposed_values(axis: str, attributes: Mapping[str, Sequence[str | float]]) -> str:
    """Return values to begin with, as the field shows them."""
    if axis in PROPOSED:
        return PROPOSED[axis]
    values = list(attributes.get(axis, ()))
    if values and all(isinstance(value, int | float) for value in values):
        low, high = (float(end) for end in (min(values), max(values)))
        return ", ".join(f"{round(low + (high - low) * step / 4):g}" for step in range(5))
    return ", ".join(str(value) for value in values[:MOST])


def parse_values(axis: str, text: str, known: Sequence[str | float]) -> list[str | float]:
    """Return the values that a field's text names, with commas between.

    Raises:
        ConfigurationError: none, too many, or one that cannot be.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not 1 <= len(words) <= MOST:
        raise ConfigurationError(f"A ladder here has 1 to {MOST} values with commas between; these are {len(words)}.")
    if axis not in AXES:
        return [value_of(axis, word, known) for word in words]
    try:
        return [float(word) for word in words]
    except ValueError:
        raise ConfigurationError(f"A ladder of {axis} goes along numbers; {text!r} are none.") from None


def make_ladder(
    model: Model,
    view: View,
    wish: Wish,
    settings: EditSettings,
    axis: str,
    values: Sequence[str | float],
    *,
    guide: Classifier | None = None,
    stop: threading.Event | None = None,
    tell: Tell | None = None,
) -> Ladder:
    """Return one image under each value, all from one inversion.

    Raises:
        Cancelled: `stop` was set.
        LatentDriftError: what cannot be, in words.
    """
    from latentdrift.counterfactual.ladder import ladder
    from latentdrift.drift import sampling_under
    from latentdrift.edit.gray import as_gray

    name = editor_of(model, settings.editor)
    if settings.delta and axis != DELTA:
        raise ConfigurationError("A ladder of anything but δ is made at δ = 0. Set δ to 0.")
    wishes = [wish_at(wish, axis, value, model) for value in values]
    drift, _ = drift_under(model, settings.drift)
    spoken = [one.words(model) for one in wishes]
    total = settings.steps * (2 + (len(values) if axis in ("guidance", "strength") else 1))
    images = view.image[None]
    # Along an attribute all frames are one batch, of which each has its own aim.
    aims = wishes[:1] if axis in ("guidance", "strength") else wishes
    objective = objective_of(name, guide, aims, images)
    with sampling_under(model.pipeline, drift), watched(model.pipeline.unet, total, stop, tell):
        result = ladder(
            model.pipeline,
            images,
            dict(wish.source),
            list(values),
            axis=AXES.get(axis, axis),
            target_attributes={name: value for name, value in wish.target.items() if name != axis},
            source_captions=list(spoken[0].before),
            captions=[one.after[0] for one in spoken],
            editor=name,
            steps=settings.steps,
            guidance=settings.guidance,
            strength=settings.strength,
            seeds=[settings.seed],
            objective=objective,
        )
    if model.card is not None and model.card.gray:
        kept = None if result.reconstruction is None else as_gray(result.reconstruction)
        result = dataclasses.replace(result, frames=as_gray(result.frames), reconstruction=kept)
    facts = {
        "model": model.name,
        "model_sha256": model.facts.get("sha256"),
        "drift": "none" if drift is None else str(drift),
        "editor": name,
        "seed": settings.seed,
        "source_sha256": view.sha256,
        "axis": axis,
    }
    return Ladder(result, tuple(f"{value:g}" if isinstance(value, float) else str(value) for value in values), facts)


def wish_at(wish: Wish, axis: str, value: str | float, model: Model) -> Wish:
    """Return the wish of one frame."""
    if axis in AXES:
        return wish
    target: Attributes = {**wish.target, axis: value}
    if model.card is None:
        raise ConfigurationError("This model has no attributes to go along; choose δ, guidance or strength.")
    return dataclasses.replace(wish, target=target)
