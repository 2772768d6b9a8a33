"""`latentdrift figure methods`: the paper's Figure 4."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.cli.figure_common import FigureOptions, check_out, finish, wrapped
from latentdrift.cli.options import parse_options
from latentdrift.cli.show import counting, print_result, progress

DESCRIPTION = """Draw samples of several runs side by side, a row a class (Figure 4 of the paper).

All runs start from the same noise. Each writes its prompts in its own words; the classes are those of the first run."""


@dataclass(frozen=True, kw_only=True)
class MethodsOptions(FigureOptions):
    """Draw samples of several runs side by side."""

    runs: tuple[str, ...]
    """Run folders of `latentdrift finetune`, or other models."""
    labels: tuple[str, ...] = ()
    """What to call the runs; by default their method, and whether it had a drift."""
    attributes: tuple[str, ...] = ()
    """Classes, such as stage=MildDemented; those not given take all their values."""
    data: Path | None = None
    """Cohort of real images, to stand in the first column: one a class."""
    samples: int = 2
    """Images a run and class."""
    seed: int = 0
    """Seed of the first image; the same for all runs and classes."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 1.5
    """Classifier-free guidance scale; 1 is none."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(MethodsOptions, arguments, "figure methods", DESCRIPTION)
    import torch

    from latentdrift.cli.image_notes import as_gray
    from latentdrift.cli.models import open_model
    from latentdrift.cli.wishes import Attributes, all_combinations, parse_attributes, require_card
    from latentdrift.data import PromptTemplate
    from latentdrift.drift import drift_of
    from latentdrift.errors import ConfigurationError, DataError
    from latentdrift.generate import generate_images
    from latentdrift.report import image_grid

    check_out(options)
    if options.labels and len(options.labels) != len(options.runs):
        raise ConfigurationError(f"{len(options.runs)} runs and {len(options.labels)} labels: give one label a run.")
    if options.samples < 1:
        raise ConfigurationError(f"--samples is {options.samples}; at least 1 is needed.")
    classes: list[Attributes] = []
    rows: list[list[Any]] = []
    columns: list[str] = []
    found: list[dict[str, Any]] = []
    warnings: list[str] = []
    with progress(options.quiet) as tell:
        for number, run in enumerate(options.runs):
            pipeline, said = open_model(run, options.device, "saved")
            warnings += said
            card = require_card(pipeline.latentdrift_card, run, "a model made by `latentdrift finetune`")
            template = PromptTemplate.restore(card.template)
            if not classes:
                fixed = parse_attributes(options.attributes, card, "--attributes")
                classes = all_combinations(card, fixed, template.required_names)
                rows = [[] for _ in classes]
                if options.data is not None:
                    columns.append("real")
                    for row, image in zip(rows, real_images(options.data, classes, card.size), strict=True):
                        row.append(image)
            try:
                prompts = [template.caption(wish) for wish in classes]
            except DataError as error:
                raise ConfigurationError(
                    f"{run} was trained on other attributes than {options.runs[0]}: {error} Draw runs of one cohort."
                ) from error
            many = [prompt for prompt in prompts for _ in range(options.samples)]
            images = generate_images(
                pipeline,
                many,
                seeds=[options.seed + index for _ in prompts for index in range(options.samples)],
                steps=options.steps,
                guidance=options.guidance,
                batch_size=options.batch_size,
                progress=counting(tell, f"{run}", len(many)),
            ).unflatten(0, (len(prompts), options.samples))
            if card.gray:
                images = as_gray(images)
            drift = drift_of(pipeline)
            label = options.labels[number] if options.labels else f"{card.method}, {'drift' if drift else 'no drift'}"
            columns += [wrapped(label, 16), *[""] * (options.samples - 1)]
            for row, made in zip(rows, images, strict=True):
                row += list(made)
            found.append(
                {
                    "run": run,
                    "label": label,
                    "method": card.method,
                    "steps": card.steps,
                    "drift": "none" if drift is None else str(drift),
                    "classes": class_figures(images, classes, prompts),
                    # Of one seed, so it is the class that changes them; 0 says that the prompt is not heeded.
                    "difference_between_classes": None
                    if len(classes) < 2
                    else float(torch.stack([(a - b).abs().mean() for a, b in pairs_of(images)]).mean() * 127.5),
                }
            )
    names = [", ".join(map(str, wish.values())) for wish in classes]
    image_grid(
        options.out,
        rows,
        row_labels=[wrapped(name) for name in names],
        column_labels=columns,
        title="Samples of the same noise",
        note="All images are synthetic but those under real." if options.data else "All images are synthetic.",
    )
    record = finish("methods", arguments, options, {"classes": names, "runs": found}, warnings)
    between = [
        f"{one['label']}: {one['difference_between_classes']:.2f} levels of 255 between classes on the same noise"
        for one in found
        if one["difference_between_classes"] is not None
    ]
    print_result({"figure": options.out, "numbers": record, "runs": between, "warnings": warnings}, options.json)
    return 0


def pairs_of(images: Any) -> list[tuple[Any, Any]]:
    """Return every two classes' images."""
    return [(images[i], images[j]) for i in range(len(images)) for j in range(i)]


def class_figures(images: Any, classes: Sequence[Any], prompts: Sequence[str]) -> list[dict[str, Any]]:
    """Return mean and standard deviation of the pixels of each class, in levels of 0 to 255."""
    return [
        {
            "attributes": dict(wish),
            "prompt": prompt,
            "mean_level": float((made.mean() + 1) * 127.5),
            "std_level": float(made.std() * 127.5),
        }
        for wish, prompt, made in zip(classes, prompts, images, strict=True)
    ]


def real_images(folder: Path, classes: Sequence[Any], size: int) -> list[Any]:
    """Return the first real image of each class, None where there is none; numbers are not asked to agree."""
    from latentdrift.data import Cohort, ImageTransform

    cohort, read = Cohort.open(folder, missing="keep"), ImageTransform(size=size).read
    images = []
    for wish in classes:
        words = {name: value for name, value in wish.items() if isinstance(value, str)}
        match = (record for record in cohort if all(record.attributes.get(n) == v for n, v in words.items()))
        first = next(match, None)
        images.append(None if first is None else read(first.image))
    return images
