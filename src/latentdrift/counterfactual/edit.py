"""Counterfactuals: images and two captions each, before and after → the edited images, by any editor by its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import torch

from latentdrift.drift import sampling_under
from latentdrift.edit.editor import Editor
from latentdrift.edit.editor import editor as editors
from latentdrift.edit.request import Editing
from latentdrift.edit.result import EditResult
from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.generate.images import Progress
from latentdrift.generate.instructed import edits_by_instruction

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

    from latentdrift.edit.inversion import Inversion
    from latentdrift.edit.request import ImageObjective

AUTO = "auto"
"""In place of an editor's name: `instruct_pix2pix` for a model that edits by instruction, else `prompt_swap`."""


def make_counterfactuals(
    pipeline: DiffusionPipeline,
    images: torch.Tensor,
    source_captions: Sequence[str],
    target_captions: Sequence[str],
    *,
    editor: str = "prompt_swap",
    editor_config: Any = None,
    steps: int = 50,
    guidance: float = 2.0,
    strength: float = 1.0,
    mask: torch.Tensor | None = None,
    seeds: Sequence[int] | None = None,
    objective: ImageObjective | None = None,
    batch_size: int = 16,
    reconstruct: bool = True,
    source_wordings: Sequence[Sequence[str]] | None = None,
    target_wordings: Sequence[Sequence[str]] | None = None,
    inversion: Inversion | None = None,
    way_up: Literal["drifted", "plain"] = "drifted",
    progress: Progress | None = None,
) -> EditResult:
    """Return the images as they would look under other attributes (paper, section on counterfactual generation).

    Args:
        pipeline: from `load_pipeline`, under the drift the model was trained with.
        images: (N, 3, H, W) in [-1, 1], H = W = the model's size.
        source_captions: what the images show, one an image, in the words the model was trained with; for an editor by
            instruction they may be left out, as [].
        target_captions: what they should show, one an image; instructions for an editor by instruction.
        editor: its registered name, or "auto" for the one that suits the model.
        editor_config: the editor's own settings, as its config class or a mapping of some of its fields; its defaults
            otherwise.
        steps: steps of the whole way between image and noise.
        guidance: how far beyond the wanted caption, away from the image's own: the noise prediction is
            source + guidance * (target - source); 1 follows the wanted caption, 0 reconstructs.
        strength: part of the way to the noise, in (0, 1]; less keeps more of the image.
        mask: where the edit may act, (N, 1, H, W), bool or in [0, 1]; where it is 0, no bit of the image changes.
        seeds: one an image, for editors that draw noise; 0, 1, 2 ... by default.
        objective: what an editor by gradient brings down; the others leave it unused.
        batch_size: images at once.
        reconstruct: make the reconstruction too, for the error of the round trip.
        source_wordings: for each image, sentences that say what it shows, for editors that take an edit's direction
            from sets of prompts (pix2pix_zero: from their mean to that of the wanted ones); by default its caption
            alone. Other editors leave them unused.
        target_wordings: for each image, sentences that say what it should show; by default its wanted caption alone.
        inversion: of the same images under the same captions, steps and strength, from an editor's `invert`; it saves
            half of an edit. Editors that draw noise leave it unused.
        way_up: drifted inverts under the pipeline's drift, which the way down undoes: right for the drift a model was
            trained with. plain inverts without, so that a drift under rule `start`, such as a search finds, acts on the
            edit. The reconstruction then has the drift too, and says what it does alone. Without meaning for editors
            that draw noise, and with an inversion.
        progress: called with the number of images finished since the last call.

    Raises:
        ConfigurationError: numbers of images and captions differ, a setting is out of range or unknown, the inversion
            is one of something else, or the editor and the model do not go together.
        DataError: a caption longer than the tokenizer takes.
        LatentDriftError: latents that are no longer finite; no image is made.
    """
    name = ("instruct_pix2pix" if edits_by_instruction(pipeline) else "prompt_swap") if editor == AUTO else editor
    chosen = open_editor(name, editor_config)
    check_suits(pipeline, name, chosen)
    request = Editing(
        pipeline=pipeline,
        images=images,
        source_captions=source_captions,
        target_captions=target_captions,
        steps=steps,
        guidance=guidance,
        strength=strength,
        mask=mask,
        seeds=seeds,
        batch_size=batch_size,
        reconstruct=reconstruct,
        objective=objective,
        source_wordings=source_wordings,
        target_wordings=target_wordings,
    )
    if way_up not in ("drifted", "plain"):
        raise UnknownNameError("way up", str(way_up), ("drifted", "plain"))
    if way_up == "plain" and inversion is None and chosen.starts_from_inversion:
        chosen.check(request)
        with torch.no_grad(), sampling_under(pipeline, None):
            inversion = chosen.invert(request)
    return chosen.edit(request, inversion, progress=progress)


def open_editor(name: str, config: Any = None) -> Editor:
    """Return the editor of a name with its settings.

    Args:
        name: a registered one.
        config: an instance of its config class, a mapping of some of its fields, or None for the defaults.

    Raises:
        ConfigurationError: nobody registered the name, the editor has no such setting, or a value is out of range.
    """
    kind = editors.get(name)
    if isinstance(config, Mapping):
        known = [field.name for field in dataclasses.fields(kind.config_class)]
        for key in config:
            if key not in known:
                raise UnknownNameError(f"setting of the editor {name}", str(key), known)
        try:
            config = kind.config_class(**config)
        except TypeError as error:
            raise ConfigurationError(f"Settings of the editor {name} are of a wrong type: {error}.") from error
    if config is not None and not isinstance(config, kind.config_class):
        raise ConfigurationError(
            f"editor_config is a {type(config).__name__}; the editor {name} takes {kind.config_class.__name__}, or a "
            "mapping of its settings."
        )
    return kind(config)


def check_suits(pipeline: DiffusionPipeline, name: str, chosen: Editor) -> None:
    """Raise ConfigurationError for a model that follows instructions with an editor by captions, or the reverse."""
    instructed = edits_by_instruction(pipeline)
    if instructed and not chosen.by_instruction:
        raise ConfigurationError(
            f"This model edits images by instruction, the editor {name} by captions. Take the editor instruct_pix2pix, "
            "or auto, with instructions as target captions; or call edit_by_instruction."
        )
    if chosen.by_instruction and not instructed:
        raise ConfigurationError(
            f"The editor {name} edits by instruction, but this model was not trained to follow any. Take an editor by "
            "captions, such as prompt_swap, or auto; or train a model with the method instruct_pix2pix."
        )
