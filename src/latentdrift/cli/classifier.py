"""`latentdrift classifier train` and `latentdrift classifier evaluate`."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

if TYPE_CHECKING:
    from latentdrift.data import Cohort
    from latentdrift.models.classifier import Classifier

ACTIONS = {
    "train": "train a guide or a judge on a cohort",
    "evaluate": "measure a classifier on another cohort",
}

USAGE = """usage: latentdrift classifier ACTION [OPTIONS]

Classifiers tell what an image shows. The guide searches and steers counterfactuals, the judge scores them; they share
no subject and no training image, so that the judge does not repeat the guide's mistakes.

actions:
{actions}

`latentdrift classifier ACTION --help` explains one.
"""

FIGURES = {
    "auc": "AUC",
    "accuracy": "accuracy",
    "ece_uncalibrated": "calibration error before",
    "ece": "calibration error",
}


TRAIN_DESCRIPTION = """Train a classifier of one attribute, calibrate it, and measure it on images of neither role.

Two calls with the same --data, --split and --seed, one with --role guide and one with --role judge, give two
classifiers that share no subject and no image. The folder holds model.safetensors and classifier.json."""

EVALUATE_DESCRIPTION = """Measure a classifier on another cohort: AUC, accuracy and calibration, with intervals."""


@dataclass(frozen=True, kw_only=True)
class TrainClassifierOptions:
    """Train a classifier of one attribute."""

    data: Path
    """Folder of images: metadata.csv or .jsonl with file_name and attributes, or class folders."""
    out: Path
    """Folder to make."""
    split: Path | None = None
    """split.csv of a fine-tuning run on --data. Its test and validation images are not trained on, its test part is the
    test; without it, guide and judge get 40 % of the subjects each and the test 20 %."""
    autoencoder: str | None = None
    """A diffusion model (embedded name or folder): train on every image also as its autoencoder gives it back."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


@dataclass(frozen=True, kw_only=True)
class EvaluateClassifierOptions:
    """Measure a classifier on another cohort."""

    classifier: Path
    """Folder that `latentdrift classifier train` made."""
    data: Path
    """Folder of images with the classifier's attribute."""
    split: Path | None = None
    """split.csv of a fine-tuning run on --data: measure on one part of it only."""
    part: str = "test"
    """That part."""
    out: Path | None = None
    """JSON file to write."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    seed: int = 0
    """Seed of the intervals' draws."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    from latentdrift.errors import UnknownNameError

    if not arguments or arguments[0] in ("-h", "--help"):
        actions = "\n".join(f"  {name:<12}{text}" for name, text in ACTIONS.items())
        print(USAGE.format(actions=actions), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    if arguments[0] not in ACTIONS:
        raise UnknownNameError("classifier action", arguments[0], ACTIONS)
    return train(arguments[1:]) if arguments[0] == "train" else evaluate(arguments[1:])


def train(arguments: Sequence[str]) -> int:
    """Run `latentdrift classifier train`."""
    # Torch comes with these settings, so they join the other options only here.
    from latentdrift.models.classifier import ClassifierConfig

    options_class = dataclasses.make_dataclass(
        "TrainClassifierOptions",
        [("settings", ClassifierConfig)],
        bases=(TrainClassifierOptions,),
        frozen=True,
        kw_only=True,
    )
    options: Any = parse_options(options_class, arguments, "classifier train", TRAIN_DESCRIPTION)
    from latentdrift.cli.folders import command_line
    from latentdrift.data import Cohort
    from latentdrift.evaluate.auc import classifier_figures
    from latentdrift.models.classifier import train_classifier
    from latentdrift.report.measuring_pages import write_classifier_page
    from latentdrift.report.run_page import PAGE_FILE

    with progress(options.quiet) as tell:
        classifier = train_classifier(
            Cohort.open(options.data, missing="keep"),
            options.out,
            options.settings,
            split=options.split,
            autoencoder=options.autoencoder,
            measure=lambda *given, **more: classifier_figures(*given, **more).to_dict(),
            device=options.device,
            tell=tell,
        )
    facts = classifier.facts
    told = [] if classifier.doubt is None else [f"{classifier.doubt}; train longer, or on more images"]
    page = write_classifier_page(
        options.out / PAGE_FILE,
        facts,
        facts["test"],
        done=(
            f"A classifier of *{classifier.attribute}* ({', '.join(map(str, classifier.classes))}) was trained on "
            f"{facts['split']['images']['train']} images of {facts['data']['name']}, as {classifier.role}, and "
            "measured on images that neither guide nor judge was trained on."
        ),
        command=command_line("classifier train", arguments),
        options=options,
        classes=classifier.classes,
        warnings=told,
        through=facts["test_through_autoencoder"],
    )
    if options.json:
        print_result({**{name: value for name, value in facts.items() if name != "trained_on"}, "page": page}, True)
        return 0
    counts, through = facts["split"]["images"], facts["test_through_autoencoder"]
    print_result(
        {
            "classifier": options.out,
            "page": page,
            "role": classifier.role,
            **described(classifier),
            "images": ", ".join(f"{name} {count}" for name, count in counts.items()),
            "split": facts["split"]["strategy"],
            "passes": len(facts["history"]),
            **rows(facts["test"]),
            **{f"{name}, through the autoencoder": text for name, text in rows(through).items() if name == "AUC"},
            "notes": facts["split"]["notes"],
            "warnings": told,
        },
        False,
    )
    return 0


def evaluate(arguments: Sequence[str]) -> int:
    """Run `latentdrift classifier evaluate`."""
    options = parse_options(EvaluateClassifierOptions, arguments, "classifier evaluate", EVALUATE_DESCRIPTION)
    from scipy.special import softmax

    from latentdrift.cli.folders import command_line, write_json
    from latentdrift.data import Cohort
    from latentdrift.evaluate.auc import classifier_figures
    from latentdrift.models.classifier import load_classifier
    from latentdrift.models.classifier.classifier import doubt_of
    from latentdrift.models.classifier.images import read_images
    from latentdrift.models.classifier.roles import file_hashes
    from latentdrift.report.measuring_pages import write_classifier_page

    classifier = load_classifier(options.classifier, options.device)
    opened = Cohort.open(options.data, missing="keep")
    cohort, notes = of_classes(opened, classifier, options.split, options.part)
    seen = sum(digest in classifier.trained_on for digest in file_hashes(cohort))
    warnings = []
    if seen:
        warnings.append(
            f"the classifier was trained on {seen} of these {len(cohort)} images: the figures are better than on others"
        )
    with progress(options.quiet) as tell:
        images = read_images(
            cohort,
            classifier.scheme,
            size=classifier.size,
            gray=classifier.gray,
            tell=lambda done, total: tell("images", done, total),
        )
        logits = images.logits(classifier)
    figures = classifier_figures(
        softmax(logits, axis=1),
        images.truth.numpy(),
        images.subjects,
        uncalibrated=softmax(logits * classifier.temperature, axis=1),
        seed=options.seed,
    ).to_dict()
    facts = {
        "classifier": str(options.classifier),
        **described(classifier),
        "data": {"name": opened.name, "images": len(cohort), "content_hash": cohort.content_hash()},
        "part": None if options.split is None else options.part,
        "figures": figures,
        "notes": notes,
        "warnings": warnings,
    }
    doubt = doubt_of(figures)
    if doubt is not None:
        warnings.append(doubt)
    files = {}
    if options.out is not None:
        write_json(options.out, facts)
        # The result is a file, not a folder: the page stands beside it under its name.
        files["page"] = write_classifier_page(
            options.out.with_suffix(".html"),
            {"data": facts["data"], "seed": options.seed},
            figures,
            done=(
                f"The classifier `{options.classifier}` of *{classifier.attribute}* was measured on {len(cohort)} "
                f"images of {opened.name}" + ("." if options.split is None else f", part {options.part}.")
            ),
            command=command_line("classifier evaluate", arguments),
            options=options,
            classes=classifier.classes,
            warnings=[*warnings, *notes],
        )
    if options.json:
        print_result({**facts, **files}, True)
        return 0
    shown = {"classifier": options.classifier, **files, **described(classifier), **rows(figures)}
    print_result({**shown, "notes": notes, "warnings": warnings}, False)
    return 0


def of_classes(cohort: Cohort, classifier: Classifier, split: Path | None, part: str) -> tuple[Cohort, list[str]]:
    """Return the images that are of one of the classifier's classes, and notes on the others.

    Raises:
        UnknownNameError: no image has the attribute, or the split has no such part.
        DataError: the split is of another cohort, or there is no image of any class.
    """
    from latentdrift.data import Cohort
    from latentdrift.errors import DataError, UnknownNameError
    from latentdrift.models.classifier.roles import read_split

    name = classifier.attribute
    if name not in cohort.attribute_names:
        raise UnknownNameError("attribute", name, cohort.attribute_names)
    records = list(cohort)
    if split is not None:
        parts = read_split(split)
        if part not in parts.values():
            raise UnknownNameError("part of the split", part, set(parts.values()))
        records = [record for record in records if parts.get(record.key) == part]
    kept = [record for record in records if classifier.scheme.find(record.attributes.get(name)) is not None]
    if not kept:
        known = ", ".join(map(str, classifier.classes))
        raise DataError(f"No image of {cohort.root} has a {name} among {known}. Give the cohort it is meant for.")
    notes = []
    if len(kept) < len(records):
        notes.append(f"{len(records) - len(kept)} images left out: their {name} is missing or of no class")
    return Cohort(kept, cohort.root, cohort.name, cohort.label), notes


def described(classifier: Classifier) -> dict[str, Any]:
    """Return what a classifier tells apart."""
    return {
        "attribute": classifier.attribute,
        "classes": ", ".join(map(str, classifier.classes)),
        "network": f"{classifier.facts['network']}, {classifier.size} px",
        "temperature": round(classifier.temperature, 4),
    }


def rows(figures: Mapping[str, Any]) -> dict[str, str]:
    """Return figures as words, with their intervals and what they were estimated from."""
    found = {
        title: f"{figures[name]['value']:.3f} [{figures[name]['low']:.3f}, {figures[name]['high']:.3f}]"
        for name, title in FIGURES.items()
        if name in figures
    }
    if found:
        found["tested on"] = (
            f"{figures['images']} images of {figures['subjects']} subjects; 95 % intervals over subjects"
        )
    return found
