"""What all commands that edit images share: flags, the editor by name, captions, classifiers, and the call itself.

A command whose options are `class MyOptions(ModelOptions, EditingOptions)` does

    options = parse_editing(MyOptions, arguments, "mine", DESCRIPTION)     # .editor is a name, .settings its config
    pipeline, warnings = open_model(options.model, options.device, options.drift)
    words = wordings(card, sources, targets)                               # captions, or instructions, one an image
    judges = open_classifiers(options, pipeline, wish)                     # the guide and the judges, checked
    objective = objective_of(options, judges.guide, targets, images)       # of objectives.py; None without a guide
    result = run_edit(options, pipeline, images, words, mask=mask, objective=objective)

where `sources` and `targets` are attributes, one dict an image, the targets complete: `source | wish`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentdrift.cli.options import parse_options, peek_option
from latentdrift.errors import ConfigurationError, LatentDriftError, UnknownNameError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.counterfactual.wordings import Wordings
    from latentdrift.edit import EditResult
    from latentdrift.edit.request import ImageObjective
    from latentdrift.models.classifier import Classifier

Attributes = Mapping[str, str | float]

AUTO = "auto"
INSTRUCTED = "instruct_pix2pix"
"""The method of models that edit by instruction, and the editor for them."""
USUAL = "prompt_swap"
GUIDED = ("classifier_guided",)
"""Editors that follow an objective, and so need a guide."""


@dataclass(frozen=True, kw_only=True)
class EditingOptions:
    """How images are edited, and which classifiers guide and judge the edits."""

    editor: str = AUTO
    """prompt_swap, sdedit, pix2pix_zero, classifier_guided or instruct_pix2pix; --help after it shows its own settings.
    auto: instruct_pix2pix for a model that edits by instruction, prompt_swap for all others."""
    steps: int = 50
    """DDIM steps each way."""
    guidance: float = 3.0
    """How far beyond the wanted attributes, away from the image's own; 1 is just there."""
    strength: float = 1.0
    """Part of the way to the noise, above 0 and at most 1; less keeps more of the image."""
    mask: Path | None = None
    """Where the edit may act, one for all images: a picture that is white there, or NIfTI or npy that is above 0 there,
    of the model's square view or of the scan's own shape. Outside no pixel changes."""
    seed: int = 0
    """Seed of the first image, for editors that draw noise; each next image has the next seed."""
    guide: Path | None = None
    """Classifier (`latentdrift classifier train --role guide`) that edits are guided by, or reported for."""
    judge: tuple[Path, ...] = ()
    """Classifiers (--role judge) that have no part in making the edits: of what is wanted, and of what should stay."""
    weight: float = 1.0
    """λ of the objective: how much the wanted class counts against similarity."""
    label_loss: Literal["cross-entropy", "hinge"] = "cross-entropy"
    """How the objective asks for the class: cross-entropy always wants more, hinge only a lead of --margin."""
    margin: float = 1.0
    """Lead over the best other class, in logits, at which the hinge is content."""
    similarity: tuple[str, ...] = ("l1",)
    """What the objective keeps alike: l1, l2, ssim or lpips, or weights of several, such as l1=1 ssim=0.5."""


def parse_editing(options: type[Any], arguments: Sequence[str], command: str, description: str) -> Any:
    """Return the options, a subclass of `ModelOptions` and `EditingOptions`, filled from the command line.

    The editor's own settings are flags too; the result's `settings` is its config, and `editor` a registered name.

    Raises:
        UnknownNameError: no such editor; and all that `parse_options` raises.
    """
    from latentdrift.edit.editor import editor as editors

    name = peek_option(arguments, "editor", AUTO)
    if name == AUTO:
        name = editor_for(peek_option(arguments, "model", options.model))
    settings = editors.get(name).config_class
    made = dataclasses.make_dataclass(
        options.__name__,
        [("settings", settings, field(default_factory=settings))],
        bases=(options,),
        frozen=True,
        kw_only=True,
    )
    made.__doc__ = options.__doc__
    return dataclasses.replace(parse_options(made, arguments, command, description), editor=name)


def editor_for(model: str) -> str:
    """Return the editor that a model asks for by how it was trained; the usual one where that is not known."""
    from latentdrift.models.card import read_model_card
    from latentdrift.models.loading import model_folder, saved_adapter

    try:
        folder = saved_adapter(model) or model_folder(model)
        card = None if folder is None else read_model_card(folder)
    except LatentDriftError:
        return USUAL  # opening the model says what is wrong with it
    return INSTRUCTED if card is not None and card.method == INSTRUCTED else USUAL


@dataclass(frozen=True)
class Classifiers:
    """The guide, if any, and the judges."""

    guide: Classifier | None = None
    judges: tuple[Classifier, ...] = ()

    @property
    def all(self) -> tuple[Classifier, ...]:
        """The guide first."""
        return (*(() if self.guide is None else (self.guide,)), *self.judges)

    @property
    def named(self) -> dict[str, Classifier]:
        """All by what their columns begin with: guide, judge_stage, and for a second judge of it judge_stage_2."""
        from latentdrift.evaluate.answers import name_classifiers

        return name_classifiers(self.guide, self.judges)


def open_classifiers(
    options: EditingOptions, pipeline: DiffusionPipeline, wish: Attributes | Sequence[Attributes]
) -> Classifiers:
    """Return the guide and the judges of the flags, on the pipeline's device.

    Args:
        options: the flags.
        pipeline: from `open_model`.
        wish: what is wanted, or several wishes; what only stays need not be named, and is then not compared with the
            classifiers' classes.

    Raises:
        ModelError: a folder that holds no classifier.
        UnknownNameError: a wanted value that a classifier does not tell.
        ConfigurationError: a guide that judges or the other way round, a judge given twice, a guide and a judge that
            were trained on the same images, or an editor that needs a guide of a wanted attribute without one.
    """
    wishes = [wish] if isinstance(wish, Mapping) else list(wish)
    if options.guide is None and options.editor in GUIDED:
        raise ConfigurationError(
            f"The editor {options.editor} follows a classifier; give --guide DIR (`latentdrift classifier train --role "
            "guide` makes one)."
        )
    if options.guide is None and not options.judge:
        return Classifiers()
    from latentdrift.models.classifier import check_apart, load_classifier

    same = [path for path in options.judge if options.guide is not None and path.resolve() == options.guide.resolve()]
    if same:
        raise ConfigurationError(
            f"{same[0]} is --guide and --judge. What guides an edit cannot judge it: train another with --role judge."
        )
    places = [path.resolve() for path in options.judge]
    if len(set(places)) < len(places):
        raise ConfigurationError("--judge has the same classifier twice; give each once.")
    device = pipeline.unet.device
    guide = None if options.guide is None else load_classifier(options.guide, device=device)
    judges = tuple(load_classifier(path, device=device) for path in options.judge)
    found = Classifiers(guide, judges)
    for one in found.all:
        wanted = "guide" if one is guide else "judge"
        if one.role != wanted:
            raise ConfigurationError(
                f"{one.path} was trained as a {one.role}, not as a {wanted}: it saw the images of the other. Give it "
                f"by --{one.role}, or train one with --role {wanted}."
            )
        check_classes(one, wishes)
    if guide is not None:
        for one in judges:
            check_apart(guide, one)
        if options.editor in GUIDED and not all(guide.attribute in one for one in wishes):
            raise ConfigurationError(
                f"The guide {guide.path} tells {guide.attribute}, of which nothing is wanted. Give --target "
                f"{guide.attribute}=VALUE ({', '.join(map(str, guide.classes))}), or a guide of what is wanted."
            )
    return found


def doubts(classifiers: Classifiers) -> list[str]:
    """Return a warning of the classifiers that did not tell their classes apart when they were tested."""
    found = [f"{one.path}: {one.doubt}" for one in classifiers.all if one.doubt is not None]
    return ["What these classifiers say of the edits may be chance. " + "; ".join(found) + "."] if found else []


def check_classes(classifier: Classifier, wishes: Sequence[Attributes]) -> None:
    """Raise UnknownNameError for a wanted value that is none of the classifier's classes."""
    for value in dict.fromkeys(one[classifier.attribute] for one in wishes if classifier.attribute in one):
        try:
            classifier.index(value)
        except UnknownNameError:
            kind = f"class of {classifier.attribute} in {classifier.path}"
            raise UnknownNameError(kind, str(value), map(str, classifier.classes)) from None


def run_edit(
    options: Any,
    pipeline: DiffusionPipeline,
    images: torch.Tensor,
    words: Wordings,
    *,
    placebo: bool = False,
    mask: torch.Tensor | None = None,
    objective: ImageObjective | None = None,
    inversion: Any = None,
    reconstruct: bool = True,
    way_up: Literal["drifted", "plain"] = "drifted",
    progress: Callable[[int], None] | None = None,
) -> EditResult:
    """Return the images (N, 3, H, W) in [-1, 1], edited as the flags say; gray if the model's cohort was.

    Args:
        options: from `parse_editing`.
        pipeline: from `open_model`.
        images: the sources.
        words: from `wordings`.
        placebo: ask for what the images show already, which says what the editor changes when nothing should.
        mask: from `read_mask`, (N, 1, H, W).
        objective: from `objective_of`.
        inversion: of the same images, made before.
        reconstruct: make the reconstruction, too.
        way_up: as of `make_counterfactuals`.
        progress: called with the number of images finished since the last call.

    Raises:
        LatentDriftError: see `make_counterfactuals`.
    """
    from latentdrift.counterfactual import make_counterfactuals
    from latentdrift.edit.gray import gray_edit

    result = make_counterfactuals(
        pipeline,
        images,
        words.before,
        words.kept if placebo else words.after,
        editor=options.editor,
        editor_config=options.settings,
        steps=options.steps,
        guidance=options.guidance,
        strength=options.strength,
        mask=mask,
        seeds=[options.seed + index for index in range(len(images))],
        objective=objective,
        batch_size=options.batch_size,
        reconstruct=reconstruct,
        inversion=inversion,
        way_up=way_up,
        progress=progress,
    )
    return gray_edit(result) if pipeline.latentdrift_card.gray else result
