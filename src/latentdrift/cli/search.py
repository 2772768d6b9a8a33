"""`latentdrift search`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentdrift.cli.editing import EditingOptions, parse_editing
from latentdrift.cli.models import ModelOptions
from latentdrift.cli.selection import SelectionOptions
from latentdrift.cli.show import print_result, progress
from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.cli.search_problems import Problem
    from latentdrift.counterfactual import Screening, SearchConfig, Trial
    from latentdrift.counterfactual.rendering import DriftParameter

DESCRIPTION = """Search the drift under which a model does best on real images; optionally guidance and strength, too.

--criterion edit: the images are edited towards --target, and what is minimised is λ times the guide's loss of the
wanted class plus the distance to the source, the mean over all images. The images are inverted without drift; δ acts on
the way down. --judge says what the best and no drift are worth to classifiers that had no part in the search.

--criterion distribution: images are sampled under the captions of the given ones, and what is minimised is the L1
distance between the distributions of the two, pixel by pixel (the paper's criterion).

The folder holds search.json, curve.csv, search.png (the whole curve, the front of label loss and similarity, no drift)
and best.png. Every trial is kept in trials.jsonl: the same command again, stopped or finished, makes none twice, and
with --method optuna --storage FILE several processes with the same --out share one search. The best is chosen on these
very images: its gain is flattered, so look at it on others."""

OWN = {"search.json": "trials", "trials.jsonl": None}
"""What tells a former search, stopped or finished."""

RANGES: Mapping[str, tuple[float, float]] = {"delta": (-0.2, 0.2), "scale": (0.0, 2.0)}


@dataclass(frozen=True, kw_only=True)
class SearchOptions(ModelOptions, EditingOptions, SelectionOptions):
    """Search the drift, and what else edits depend on."""

    out: Path
    """Folder to make, or of a search to go on with."""
    target: tuple[str, ...] = ()
    """What the images should show, such as stage=MildDemented; for criterion edit."""
    criterion: Literal["edit", "distribution"] = "edit"
    """edit: the objective of the edits; distribution: distance of samples to the images."""
    parameter: Literal["delta", "scale", "auto"] = "delta"
    """What is searched. delta: the same shift of all latent pixels, in standard deviations of the noise; scale:
    multiples of the model's own drift; auto: multiples of the drift that matches the mean latent of the images."""
    rule: str | None = None
    """Where the drift acts: start, paper or matched; by default as the model's own, and start where it has none."""
    way_up: Literal["auto", "plain", "drifted"] = "auto"
    """Inversion without drift, or under that of the way down; auto: under it only for rules that act at every step."""
    low: float | None = None
    """Smallest value searched: -0.2 for delta, 0 for scale and auto by default."""
    high: float | None = None
    """Largest value searched: 0.2 for delta, 2 for scale and auto by default."""
    guidance_range: tuple[float, float] | None = None
    """Search guidance as well, from the first to the second; needs --method optuna or grid."""
    strength_range: tuple[float, float] | None = None
    """Search strength as well, likewise; below 1 it needs a --rule that acts at every step."""
    method: Literal["grid", "brent", "golden", "optuna"] = "brent"
    """grid evaluates everything; brent and golden close in on the best of a coarse grid, in one parameter; optuna
    models the objective, in any number."""
    points: int = 41
    """Grid points a parameter."""
    evaluations: int = 16
    """Most evaluations of brent, golden and optuna; no drift and recalled ones are among them."""
    tolerance: float = 0.005
    """brent and golden stop when the best is known to this part of the range."""
    sampler: Literal["tpe", "gp"] = "gp"
    """optuna's model: gp for few evaluations, tpe for many or for several processes."""
    storage: str | None = None
    """optuna's storage, a database URL or the name of a journal file, to share a search between processes."""
    search_seed: int = 0
    """Seed of optuna's samplers."""
    front: tuple[str, str] | None = None
    """Two scores of the Pareto front; label and similarity by default, for criterion distribution means and
    marginals."""
    screen_steps: int | None = None
    """Rank a coarse grid by renderings with so few steps first."""
    screen_points: int = 11
    """Points a parameter of that coarse grid."""
    samples: int = 64
    """Criterion distribution: samples a trial, seeded from --seed on; their captions are the images' in turn."""
    space: Literal["pixels", "latents"] = "pixels"
    """Criterion distribution: what is compared, pixels (levels of 255) or numbers of the latents."""
    statistic: Literal["marginals", "means"] = "marginals"
    """Criterion distribution: L1 between the distribution functions of each pixel, or between the mean images."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options: Any = parse_editing(SearchOptions, arguments, "search", DESCRIPTION)
    import torch

    from latentdrift.cli.editing import doubts
    from latentdrift.cli.folders import command_line
    from latentdrift.cli.image_notes import prepare_image
    from latentdrift.cli.models import open_model
    from latentdrift.cli.search_folder import (
        at_the_end,
        failures,
        flat,
        judgement,
        plain_numbers,
        told,
        write_outcome,
    )
    from latentdrift.cli.search_problems import CONFIDENCE, context_of, distribution_problem, edit_problem
    from latentdrift.cli.selection import select_images
    from latentdrift.cli.whole_folder import check_out
    from latentdrift.cli.wishes import require_card
    from latentdrift.counterfactual.rendering import Keeper, Meter
    from latentdrift.counterfactual.search import search
    from latentdrift.data.provenance.manifest import Origin
    from latentdrift.models.identity import model_facts
    from latentdrift.report.making_pages import drift_in_use
    from latentdrift.report.measuring_pages import write_search_page

    check_out(options.out, OWN, options.image, storage_files(options.storage))
    pipeline, warnings = open_model(options.model, options.device, options.drift)
    card = require_card(pipeline.latentdrift_card, options.model, "a model made by `latentdrift finetune`")
    selected = select_images(options, card, scans=False)
    prepared = [prepare_image(one.opened, card) for one in selected]
    images = torch.stack([image for image, _, _ in prepared])
    warnings += [text for _, _, found in prepared for text in found]
    parameter, meter = drift_parameter(options, pipeline, images), Meter()
    make = edit_problem if options.criterion == "edit" else distribution_problem
    problem, classifiers = make(options, pipeline, card, selected, images, parameter, meter, warnings)
    space = searched_space(options, parameter.name)
    config = search_config(options, problem.front)
    keeper = Keeper(problem.render, problem.score, {parameter.name: 0.0})
    total = config.points ** len(space) if config.method == "grid" else config.evaluations
    with progress(options.quiet) as tell:
        done = 0

        def tried(_: Trial) -> None:
            nonlocal done
            done += 1
            tell("trials", done, max(done, total))

        result = search(
            problem.render,
            keeper.score,
            space,
            config,
            log=options.out / "trials.jsonl",
            context=context_of(problem.facts, pipeline, parameter, images),
            screening=screening_of(options, problem),
            control={parameter.name: 0.0},
            progress=tried,
        )
    searching = meter.made
    best, control = keeper.get(result.best.parameters), keeper.get(result.control.parameters)
    compared: Mapping[str, Any] = {}
    if best.values is not None and control.values is not None:
        compared = problem.difference(best, control)
    warnings += [*result.warnings, *failures(keeper), *flat(options, result, parameter), *at_the_end(result, space)]
    warnings += doubts(classifiers)
    judged = judgement(classifiers, options, card, selected, images, best, control, warnings)
    best_drift = parameter.drift(result.best.parameters[parameter.name])
    record = {
        "settings": dataclasses.asdict(options),
        "criterion": options.criterion,
        "objective": problem.objective,
        "parameter": parameter.name,
        "rule": unit_rule(parameter),
        "images": [str(one.opened.file) for one in selected],
        **result.to_dict(),
        "difference": compared or None,
        "confidence": CONFIDENCE,
        "judges": judged,
        "unet_evaluations": {
            "search": searching,
            "looking_at_the_best": meter.made - searching,
            "spared_inversions": meter.spared,
            "unit": "one image once through the U-Net; a guided step counts two an image",
        },
        "note": "The best was chosen on these very images, so that its gain is flattered: look at it on others.",
        "warnings": warnings,
    }
    origin = Origin(model_facts(pipeline, options.model), {"used": str(best_drift or "none")})
    write_outcome(options, record, result, problem, parameter, images, best, control, card.gray, origin.marks())
    words = told(options, result, record)
    page = write_search_page(
        options.out,
        plain_numbers(record),
        words,
        command=command_line("search", arguments),
        options=options,
        drift=dataclasses.replace(drift_in_use(pipeline, options.steps), drift=best_drift),
        facts={"seed": options.seed, "SHA-256 of the model's weights": origin.model["sha256"]},
    )
    print_result({**words, "page": page}, options.json)
    return 0


def storage_files(storage: str | None) -> list[Path]:
    """Return the files of a storage, which may be in --out before the first process has written a trial."""
    if storage is None:
        return []
    # Of a database in a file, such as sqlite:///study.db, the name comes after three strokes.
    return [Path(storage.rpartition(":///")[2] + end) for end in ("", ".lock", "-journal")]


def drift_parameter(options: Any, pipeline: DiffusionPipeline, images: torch.Tensor) -> DriftParameter:
    """Return what the searched number means by the flags."""
    from latentdrift.counterfactual.rendering import DriftParameter
    from latentdrift.drift import LatentDrift, LatentMoments, drift_of
    from latentdrift.generate import encode_images

    own = drift_of(pipeline)
    if options.parameter != "auto":
        return DriftParameter(options.parameter, own, options.rule)
    moments = LatentMoments.from_latents(encode_images(pipeline, images, options.batch_size), kind="map")
    return DriftParameter("scale", LatentDrift(moments), options.rule or unit_rule(DriftParameter("delta", own)))


def unit_rule(parameter: DriftParameter) -> str:
    """Return the rule under which the searched drift acts."""
    drift = parameter.drift(1.0)
    assert drift is not None
    return drift.rule


def searched_space(options: Any, name: str) -> dict[str, tuple[float, float]]:
    """Return the lowest and the highest value of each parameter."""
    low, high = RANGES[name]
    space = {name: (low if options.low is None else options.low, high if options.high is None else options.high)}
    if options.guidance_range is not None:
        space["guidance"] = options.guidance_range
    if options.strength_range is not None:
        if options.criterion != "edit":
            raise ConfigurationError("--strength-range belongs to --criterion edit: samples start from noise alone.")
        space["strength"] = options.strength_range
    return space


def search_config(options: Any, front: tuple[str, str]) -> SearchConfig:
    """Return how the flags want parameters searched."""
    from latentdrift.counterfactual import SearchConfig

    same = ("method", "points", "evaluations", "tolerance", "sampler", "storage")
    settings = {name: getattr(options, name) for name in same}
    return SearchConfig(**settings, seed=options.search_seed, front=options.front or front)


def screening_of(options: Any, problem: Problem) -> Screening | None:
    """Return the cheap ranking that comes first; None without --screen-steps."""
    from latentdrift.counterfactual import Screening

    if problem.cheap is None:
        return None
    if not 1 <= options.screen_steps < options.steps:
        raise ConfigurationError(
            f"--screen-steps is {options.screen_steps}; give 1 to {options.steps - 1}, fewer than --steps."
        )
    return Screening(problem.cheap, f"{options.screen_steps} steps", options.screen_points)
