"""Pages of commands that search and measure: `search`, `classifier train`, `classifier evaluate`, `utility`."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.report.intervals import interval_figure
from latentdrift.report.making_pages import STATEMENT, interval_words
from latentdrift.report.page import Picture, Section, Table
from latentdrift.report.run_page import PAGE_FILE, DriftInUse, RunPage, write_run_page

if TYPE_CHECKING:
    from latentdrift.evaluate.utility import UtilityResult

BEST = 20
"""Trials in the table of a search."""
NO_IMAGES = (
    "There are no images on this page, only figures. Synthetic images, and what classifiers say of them, must not be "
    "used for diagnosis, treatment or any other clinical decision."
)
CLASSIFIER_FIGURES = {
    "auc": ("AUC", "area under the ROC curve; 0.5 is chance, 1 no error; the mean over classes, each against all"),
    "accuracy": ("accuracy", "share of images whose most probable class is theirs"),
    "ece": ("calibration error", "how far its probabilities are from the share of right answers; 0 is best"),
    "ece_uncalibrated": ("before calibration", "the same of the probabilities as the network gives them"),
}


def write_search_page(
    folder: str | Path,
    record: Mapping[str, Any],
    told: Mapping[str, Any],
    *,
    command: str,
    options: Any,
    drift: DriftInUse,
    facts: Mapping[str, Any],
) -> Path:
    """Write the page of `search` and return its path.

    Args:
        folder: with search.png and, where there are images, best.png.
        record: what search.json holds.
        told: what is printed, in words.
        command: how to make it again.
        options: `SearchOptions`.
        drift: the best drift.
        facts: seeds and hashes.

    Raises:
        DataError: a picture that cannot be read, or a page that cannot be written.
    """
    folder = Path(folder)
    done = (
        f"The {record['parameter']} of the drift (rule *{record['rule']}*) was searched under which the model "
        f"`{options.model}` does best on {len(record['images'])} real images, criterion *{record['criterion']}*. What "
        f"was minimised: {record['objective']}."
    )
    words = [
        {"": name, "found": "; ".join(value) if isinstance(value, list | tuple) else str(value)}
        for name, value in told.items()
        if name not in ("folder", "files", "warnings", "page") and value
    ]
    caption = (
        "Every trial; dashed: no drift, the control; star: the best. Right: the two aims against each other, and the "
        "trials that no other beats in both (the Pareto front)."
    )
    blocks: list[Any] = [record["note"], Table(words), Picture(folder / "search.png", caption)]
    results = [Section("What was found", blocks)]
    if (folder / "best.png").is_file():
        shown = Picture(folder / "best.png", "Real images, and what is made without drift and under the best.")
        results.append(Section("Images", [shown]))
    trials = sorted(record["trials"], key=objective_of)
    rows = [trial_row(one) for one in trials[:BEST]]
    table = Table(rows, f"The {len(rows)} best of {len(trials)} trials; all are in curve.csv.")
    front = [trial_row(one) for one in record["front"]]
    results.append(Section("Trials", [table, *([Table(front, "The Pareto front.")] if front else [])]))
    page = RunPage(
        "Search of the drift", done, results, command, record["warnings"], options, drift, facts, statement=STATEMENT
    )
    return write_run_page(folder / PAGE_FILE, page)


def trial_row(trial: Mapping[str, Any]) -> dict[str, Any]:
    """Return a trial as a row: parameters, objective, and its parts."""
    scores = trial["scores"]
    return {**trial["parameters"], "objective": scores.get("objective"), **scores}


def objective_of(trial: Mapping[str, Any]) -> float:
    """Return what was minimised; infinity where it is not finite."""
    try:
        value = float(trial["scores"]["objective"])
    except (TypeError, ValueError):
        return math.inf
    return value if math.isfinite(value) else math.inf


def write_classifier_page(
    path: str | Path,
    facts: Mapping[str, Any],
    figures: Mapping[str, Any],
    *,
    done: str,
    command: str,
    options: Any,
    classes: Sequence[Any],
    warnings: Sequence[str] = (),
    through: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page of a classifier that was trained or measured; return its path.

    Args:
        path: file to write.
        facts: those of classifier.json, or of a measurement; "history", "versions", "data" and "seed" are used.
        figures: of `classifier_figures`, as plain values; may be empty.
        done: what was done.
        command: how to make it again.
        options: the command's settings.
        classes: in order.
        warnings: what was warned of.
        through: the figures on images as the autoencoder gives them back.

    Raises:
        DataError: a page that cannot be written.
    """
    blocks: list[Any] = []
    rows = classifier_rows(figures)
    if rows:
        told = f"95 % intervals over {figures['subjects']} subjects; {figures['images']} images."
        blocks.append(Table(rows, told))
        counted = [
            {"class": str(name), "images": count}
            for name, count in zip(classes, figures["images_by_class"], strict=False)
        ]
        blocks.append(Table(counted, "Images on which it was measured."))
    if through:
        blocks.append(Table(classifier_rows(through), "On the same images as the autoencoder gives them back."))
    results = [Section("Figures", blocks or ["It was not measured."])]
    history = facts.get("history")
    if history:
        caption = "Loss of each pass over the training images. The weights of the best validation loss are kept."
        results.append(Section("Training", [Picture(history_picture(history), caption)]))
    told_facts = {"seed": facts.get("seed"), "content hash of the data": facts.get("data", {}).get("content_hash")}
    page = RunPage(
        "Classifier",
        done,
        results,
        command,
        warnings,
        options,
        facts={name: value for name, value in told_facts.items() if value is not None},
        versions=facts.get("versions"),
        statement=NO_IMAGES,
    )
    return write_run_page(path, page)


def classifier_rows(figures: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of a classifier with intervals and meanings."""
    return [
        {
            "figure": title,
            "value": figures[name]["value"],
            "interval": interval_words(figures[name]["low"], figures[name]["high"]),
            "meaning": meaning,
        }
        for name, (title, meaning) in CLASSIFIER_FIGURES.items()
        if name in figures
    ]


def history_picture(history: Sequence[Mapping[str, float]]) -> bytes:
    """Return the losses of all passes as PNG."""
    from latentdrift.report.curves import loss_curve

    passes = list(range(1, len(history) + 1))
    curves = {
        label: (passes, [one[name] for one in history])
        for name, label in (("loss", "training"), ("validation_loss", "validation"))
        if all(name in one for one in history)
    }
    with tempfile.TemporaryDirectory() as folder:
        return loss_curve(Path(folder, "loss.png"), curves, across="pass over the training images").read_bytes()


def write_utility_page(
    folder: str | Path, result: UtilityResult, *, command: str, options: Any, attribute: str
) -> Path:
    """Write the page of `utility` and return its path; arguments and errors as above."""
    folder = Path(folder)
    rows, comparisons = result.rows(), result.comparison_rows()
    done = (
        f"Classifiers of *{attribute}* were trained on real, on synthetic and on mixed images, and all tested on the "
        "same real images of people whom none had seen: what are the synthetic images worth for training?"
    )
    areas = [(str(one.setting), one.auc.value, *one.auc.interval) for one in result.utilities]
    gaps = [(f"{one.first}\nminus {one.second}", one.test.difference.value, *one.test.difference.interval)
            for one in result.comparisons]  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        pictures = [
            Picture(
                interval_figure(Path(place, "auc.png"), areas, "AUC on real test images", mark=0.5).read_bytes(),
                "AUC with its interval; the line is chance.",
            )
        ]
        if gaps:
            drawn = interval_figure(Path(place, "gaps.png"), gaps, "difference of AUC", mark=0.0).read_bytes()
            pictures.append(Picture(drawn, "Differences; an interval across 0 shows no difference."))
    results = [Section("What classifiers learned", [pictures[0], Table(rows)])]
    if comparisons:
        holm = "p, Holm: corrected for all comparisons together."
        results.append(Section("Comparisons", [*pictures[1:], Table(comparisons, holm)]))
    facts = {"confidence": f"{result.facts.get('confidence', 0.95):.0%}"}
    page = RunPage(
        "What synthetic images are worth",
        done,
        results,
        command,
        result.notes,
        options,
        facts=facts,
        versions=result.facts.get("versions"),
        statement=NO_IMAGES,
    )
    return write_run_page(folder / PAGE_FILE, page)
