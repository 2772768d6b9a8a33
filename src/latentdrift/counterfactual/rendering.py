"""What the search renders: a batch of edits under one value of the drift, and what they are worth.

The noise of the images is found once, without drift, and the drift acts on the way down. Under one drift both ways rule
`start` would do nothing at all: what sampling adds at its start, inversion has taken off at its end. The rules that act
at every step (`paper`, `matched`) show the network drifted states, so that their way up has to be drifted too.

Between two renderings only what depends on the changed number is made anew: encoded images, encoded captions and, where
the way up does not depend on the drift, the inversion are kept. `Meter` counts what that spares.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch

from latentdrift.counterfactual.objective import Objective, ObjectiveConfig, Perceptual, counterfactual_objective
from latentdrift.drift import LatentDrift, LatentMoments, sampling_under
from latentdrift.edit import Editing, Editor, Inversion
from latentdrift.errors import ConfigurationError, LatentDriftError, UnknownNameError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Logits: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Images (B, 3, H, W) in [-1, 1] → logits (B, K)."""

INVERSIONS_KEPT = 3


@dataclass(frozen=True)
class DriftParameter:
    """What the searched number means: which drift belongs to it."""

    meaning: Literal["delta", "scale"] = "delta"
    """delta: the same shift of every latent pixel, in standard deviations of the noise, as in the paper; scale:
    multiple of `base`, which keeps a vector's or a map's direction."""
    base: LatentDrift | None = None
    """The drift that 1 is, for scale; for delta its rule alone counts."""
    rule: str | None = None
    """Where the drift acts; by default as the base's, and `start` where the base's changes no sampling step."""

    def __post_init__(self) -> None:
        if self.meaning not in ("delta", "scale"):
            raise UnknownNameError("meaning of the searched number", str(self.meaning), ("delta", "scale"))
        if self.meaning == "scale" and (self.base is None or self.base.is_zero):
            raise ConfigurationError(
                "There is no drift to search multiples of: the model has none. Search delta, a shift of its own."
            )
        unit = self.drift(1.0)
        assert unit is not None
        if unit.rule == "forward" and unit.target == "drifted":
            raise ConfigurationError("Rule 'forward' acts in training and changes no sampling step; search 'start'.")

    @property
    def name(self) -> str:
        """What the search calls it."""
        return self.meaning

    @property
    def acts_at_steps(self) -> bool:
        """Whether the network sees drifted states at every step, so that the way up must be drifted too."""
        return self._place()[0] != "start"

    def drift(self, value: float) -> LatentDrift | None:
        """Return the drift of a value; None for 0.

        Raises:
            DriftError: a value that is not finite.
        """
        if value == 0:
            return None
        numbers: Any = value
        if self.meaning == "scale":
            assert self.base is not None
            numbers = times(self.base.value, value)
        return LatentDrift(numbers, *self._place())

    def _place(self) -> tuple[str, str | None, str]:
        """Return rule, target and per_step."""
        base = self.base
        silent = base is None or (base.rule == "forward" and base.target == "drifted")
        if base is None or (silent and self.rule is None) or self.rule not in (None, base.rule):
            return self.rule or "start", None, "literal"
        return base.rule, base.target, base.per_step


def times(value: Any, factor: float) -> Any:
    """Return a drift's value (number, numbers, map or moments) times a factor."""
    if isinstance(value, LatentMoments):
        return LatentMoments(times(value.mean, factor), value.count)
    if isinstance(value, tuple):
        return tuple(factor * number for number in value)
    return value * factor


class Meter:
    """U-Net evaluations, counted an image: a batch of eight is eight, and with guidance sixteen."""

    def __init__(self) -> None:
        self.made = 0
        """Evaluations that were made."""
        self.spared = 0
        """Evaluations of inversions that were at hand already."""

    @contextmanager
    def watching(self, unet: torch.nn.Module) -> Iterator[None]:
        """Count the evaluations of a U-Net within the block."""

        def count(_: Any, given: tuple[Any, ...], named: Mapping[str, Any]) -> None:
            self.made += len(given[0] if given else named["sample"])

        handle = unet.register_forward_pre_hook(count, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()


@contextmanager
def remembering(pipeline: DiffusionPipeline, memory: dict[Any, Any]) -> Iterator[None]:
    """Let the pipeline encode each image and each caption once; `memory` holds what it made of them."""
    encoders = [getattr(pipeline, name, None) for name in ("text_encoder", "text_encoder_2")]
    places = [(pipeline.vae, "encode"), *((one, "forward") for one in encoders if one is not None)]
    before = [(owner, name, owner.__dict__.get(name)) for owner, name in places]

    def recalled(owner: Any, name: str) -> Callable[..., Any]:
        made = getattr(owner, name)

        def call(given: torch.Tensor, *rest: Any, **named: Any) -> Any:
            content = given.detach().cpu().contiguous().view(torch.uint8).numpy()
            digest = hashlib.sha256(content).digest()  # type: ignore[arg-type]
            key = (id(owner), name, tuple(given.shape), given.dtype, digest, repr(rest), repr(sorted(named.items())))
            if key not in memory:
                memory[key] = made(given, *rest, **named)
            return memory[key]

        return call

    for owner, name, _ in before:
        setattr(owner, name, recalled(owner, name))
    try:
        yield
    finally:
        for owner, name, own in before:
            if own is None:
                delattr(owner, name)
            else:
                setattr(owner, name, own)


@dataclass(frozen=True, eq=False)
class Rendering:
    """What became of parameters."""

    parameters: dict[str, float]
    """As the search gave them."""
    values: torch.Tensor | None
    """Edited images (N, 3, H, W) in [-1, 1], or samples; None where the latents overflowed."""
    failure: str | None = None
    """What went wrong, where something did."""


@dataclass
class EditRenderer:
    """Parameters by name (`delta` or `scale`; `guidance`, `strength`) → the edited images. Call it.

    Raises:
        ConfigurationError: a request the editor refuses; rule `start` with a strength below 1, where it does not act.
    """

    editor: Editor
    """What edits."""
    request: Editing
    """What is to be edited; guidance and strength are those that are not searched."""
    parameter: DriftParameter = field(default_factory=DriftParameter)
    """What the searched number means."""
    way_up: Literal["auto", "plain", "drifted"] = "auto"
    """Whether images are inverted without drift, once, or under the drift of the way down; auto: under it only for
    rules that act at every step."""
    strengths: tuple[float, float] | None = None
    """Smallest and largest strength that will be asked for: the largest is inverted, the others are parts of it."""
    meter: Meter = field(default_factory=Meter)
    """Counts the U-Net evaluations; may be shared."""
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Encoded images and captions; may be shared by renderers of one pipeline."""

    def __post_init__(self) -> None:
        if self.way_up not in ("auto", "plain", "drifted"):
            raise UnknownNameError("way up", str(self.way_up), ("auto", "plain", "drifted"))
        self._ways: dict[Any, Inversion] = {}
        self._cuts: dict[Any, Inversion] = {}
        for strength in {*(self.strengths or ()), self.request.strength}:
            request = replace(self.request, strength=strength)
            self.editor.check(request)
            if self.strengths is None or strength in self.strengths:
                self._check_acting(request)

    def __call__(self, parameters: Mapping[str, float]) -> Rendering:
        """Return the edits; where the latents overflow, none, and the message."""
        known = (self.parameter.name, "guidance", "strength")
        for name in parameters:
            if name not in known:
                raise UnknownNameError("parameter of an edit", name, known)
        drift = self.parameter.drift(parameters.get(self.parameter.name, 0.0))
        settings: dict[str, Any] = {name: parameters[name] for name in ("guidance", "strength") if name in parameters}
        request = replace(self.request, reconstruct=False, **settings)
        if drift is not None:
            self._check_acting(request)
        pipeline = request.pipeline
        try:
            with self.meter.watching(pipeline.unet), remembering(pipeline, self.memory):
                inversion = self._inversion(request, drift)
                with sampling_under(pipeline, drift):
                    images = self.editor.edit(request, inversion).image
        except LatentDriftError as error:
            if type(error) is not LatentDriftError:
                raise  # a request that cannot be; latents that are not finite have no class of their own
            return Rendering(dict(parameters), None, str(error))
        return Rendering(dict(parameters), images)

    def _check_acting(self, request: Editing) -> None:
        if (
            self.editor.starts_from_inversion
            and not self.parameter.acts_at_steps
            and request.steps_taken < request.steps
        ):
            raise ConfigurationError(
                f"Rule 'start' drifts the noise at the end of the way, which strength {request.strength:g} does not "
                f"reach ({request.steps_taken} of {request.steps} steps). Take strength 1, or rule 'paper', which acts "
                "at every step."
            )

    def _inversion(self, request: Editing, drift: LatentDrift | None) -> Inversion | None:
        """Return the noise that the editor starts from, from what was inverted before where it is the same."""
        if not self.editor.starts_from_inversion:
            return None
        drifted = self.way_up == "drifted" or (self.way_up == "auto" and self.parameter.acts_at_steps)
        under = drift if drifted else None
        found = self._ways.pop(under, None)
        if found is None or len(found.trajectory) <= request.steps_taken:
            strongest = max(request.strength, *(self.strengths or (0.0,)))
            with sampling_under(request.pipeline, under):
                found = self.editor.invert(replace(request, strength=strongest))
            self._cuts = {key: cut for key, cut in self._cuts.items() if key[0] != under}
        else:
            self.meter.spared += len(request) * request.steps_taken
        self._ways[under] = found  # the latest last
        while len(self._ways) > INVERSIONS_KEPT:
            gone = next(key for key in self._ways if key is not None)
            del self._ways[gone]
            self._cuts = {key: cut for key, cut in self._cuts.items() if key[0] != gone}
        if found.strength == request.strength:
            return found
        key = (under, request.strength)
        if key not in self._cuts:
            self._cuts[key] = found.up_to(request.strength)
        return self._cuts[key]


@dataclass(frozen=True)
class EditScore:
    """What edits are worth: the paper's objective, its parts and means over the images; lower is better. Call it."""

    sources: torch.Tensor
    """The images that were edited, (N, 3, H, W) in [-1, 1]."""
    classifier: Logits | None = None
    """f: the guide; None with λ = 0 only."""
    wanted: Sequence[int] | None = None
    """The classes y' that the edits should have, N."""
    config: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """λ, ℓ_o and ℓ_in."""
    perceptual: Perceptual | None = None
    """The distance behind lpips."""
    batch_size: int = 64
    """Images at once."""

    def __call__(self, rendering: Rendering) -> dict[str, float]:
        """Return the scores by name; `objective` is NaN where there are no finite images."""
        found = self.objective(rendering)
        return {"objective": math.nan} if found is None else found.scores()

    @torch.no_grad()
    def objective(self, rendering: Rendering) -> Objective | None:
        """Return the objective, one value an image; None where there are no finite images."""
        images = rendering.values
        if images is None or not bool(torch.isfinite(images).all()):
            return None
        logits = wanted = None
        if self.classifier is not None and self.wanted is not None:
            parts = [self.classifier(part).float().cpu() for part in images.split(self.batch_size)]
            logits, wanted = torch.cat(parts), torch.tensor(list(self.wanted))
        # The parts of ℓ_in that are networks want batches, too.
        rows = [slice(start, start + self.batch_size) for start in range(0, len(images), self.batch_size)]
        found = [
            counterfactual_objective(
                self.sources[row],
                images[row],
                None if logits is None else logits[row],
                None if wanted is None else wanted[row],
                self.config,
                perceptual=self.perceptual,
            )
            for row in rows
        ]
        return joined(found)


def joined(parts: Sequence[Objective]) -> Objective:
    """Return the objectives of batches as that of all their images."""

    def together(values: list[Any]) -> Any:
        return None if values[0] is None else torch.cat(values)

    return Objective(
        total=torch.cat([part.total for part in parts]),
        similarity=torch.cat([part.similarity for part in parts]),
        parts={name: torch.cat([part.parts[name] for part in parts]) for name in parts[0].parts},
        label=together([part.label for part in parts]),
        flipped=together([part.flipped for part in parts]),
    )


class Keeper:
    """Scores renderings and keeps the best and the control, so that neither is made twice to be looked at.

    Args:
        render: as the search's.
        score: as the search's.
        control: the parameters that mean no drift.
    """

    def __init__(
        self,
        render: Callable[[Mapping[str, float]], Rendering],
        score: Callable[[Rendering], Mapping[str, float]],
        control: Mapping[str, float],
    ) -> None:
        self.render, self.inner, self.control = render, score, dict(control)
        self.failures: dict[str, str] = {}
        """Messages of renderings that failed, by their parameters in words."""
        self._best: tuple[float, Rendering] | None = None
        self._without: Rendering | None = None

    def score(self, rendering: Rendering) -> dict[str, float]:
        """Return the scores."""
        scores = dict(self.inner(rendering))
        if rendering.failure is not None:
            words = ", ".join(f"{name}={value:.6g}" for name, value in rendering.parameters.items())
            self.failures[words] = rendering.failure
        if self.control.items() <= rendering.parameters.items():
            self._without = rendering
        if math.isfinite(scores["objective"]) and (self._best is None or scores["objective"] < self._best[0]):
            self._best = (scores["objective"], rendering)
        return scores

    def get(self, parameters: Mapping[str, float]) -> Rendering:
        """Return the rendering of parameters, made again where it was not kept."""
        for kept in (self._without, None if self._best is None else self._best[1]):
            if kept is not None and kept.parameters == dict(parameters):
                return kept
        return self.render(parameters)
