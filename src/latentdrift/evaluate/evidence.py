"""The evidence for edits: what two independent classifiers say of them, and how much of the images they left alone.

The guide may have chosen or steered the edits, so that its answer is no test of them; a judge has never shared a
training image with it. What the judge says of a placebo, an edit that asks for what an image shows already, is the
method's own doing and is set against what it says of the edit. Judges of the attributes that nobody asked to change
show what else moved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentdrift.edit.mask import confine
from latentdrift.errors import DataError, EvaluationError
from latentdrift.evaluate.answers import (
    Answers,
    Attributes,
    Sample,
    joint_answers,
    name_classifiers,
    unanswered,
    validity_figures,
)
from latentdrift.evaluate.counterfactuals import Array, proximity, sparsity
from latentdrift.evaluate.pairs import psnr, ssim
from latentdrift.models.classifier import check_apart

if TYPE_CHECKING:
    import torch

    from latentdrift.edit import EditResult
    from latentdrift.models.classifier import Classifier

Perceptual = Callable[["torch.Tensor", "torch.Tensor"], "torch.Tensor"]
"""Two batches of images (B, 3, H, W) in [-1, 1] → a distance each."""

ROUNDING = 0.5
"""Levels of 0 to 255 by which 8-bit images are rounded at most; a smaller change is none."""
NO_PLACEBO = (
    "No placebo says what the method changes when nothing should: give one (--placebo of the command), or, with an "
    "editor by captions, edit with reconstruct=True."
)
WITHOUT_ROUND_TRIP = 8.0
"""Levels of 0 to 255 above which a pixel counts as changed where no reconstruction tells the method's own error."""


@dataclass(frozen=True)
class EditEvidence:
    """What can be said for and against a batch of edits, in plain values for JSON and CSV.

    Columns that a classifier fills begin with "guide" or "judge_" and its attribute. Probabilities and shares are in
    [0, 1], l1 in levels of 0 to 255, psnr in dB. What cannot be known is None.
    """

    rows: list[dict[str, Any]]
    """One an image. `..._wanted_before` is the probability of the wanted class in the source, `..._wanted_after` in the
    edit, `..._wanted_placebo` in the placebo, `..._source_...` of the source's own class; `..._already` says that the
    source was taken for the wanted class, `..._flipped` that the edit is. Flags are None where nothing was asked."""
    summary: dict[str, Any]
    """By name a figure: value, low and high of its interval, and n, the number of subjects it rests on. `..._validity`:
    share of edits taken for the wanted class; `..._turned`: the same of those images whose source was not; `..._gain`:
    change of the wanted class's probability; `..._placebo_flip_rate` and `..._placebo_gain`: validity and gain of the
    placebo; `..._above_placebo`: the difference on the same images. `joint_...`: all wanted attributes at once.
    Besides, "placebo" says what it was and "warnings" is a list of texts."""
    leakage: list[dict[str, Any]]
    """For each judge a row for the images whose attribute was wanted otherwise ("wanted": true; of the wanted class)
    and one for those where it should have stayed (false; of the source's own class), of "all" classes and of each: mean
    probability before and after, their change, the placebo's change, and the share of images that were then taken for
    another class than before, with intervals. "stated" counts the images whose own class was stated; for the others it
    is the judge's answer, which regresses to the mean."""


def edit_evidence(
    result: EditResult,
    *,
    targets: Sequence[Attributes],
    sources: Sequence[Attributes],
    guide: Classifier | None = None,
    judges: Sequence[Classifier] = (),
    subjects: Sequence[Hashable] | None = None,
    placebo: EditResult | None = None,
    source_files: Sequence[Path] | None = None,
    perceptual: Perceptual | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    batch_size: int = 64,
) -> EditEvidence:
    """Return what classifiers and figures of similarity say of edits.

    Shares have Wilson intervals where every image is a subject of its own; all else has bootstraps over subjects, on
    the same draws. One subject alone has no interval.

    Args:
        result: N edits, of any editor.
        targets: for each image the attributes that were wanted; those not named were to stay.
        sources: for each image the attributes that it has.
        guide: the classifier that chose or steered the edits, if there was one.
        judges: classifiers apart from it, of attributes that were to change and of others.
        subjects: whose image it is, N; None for an image a subject.
        placebo: edits of the same images by the same settings that ask for what they show; the result's own
            reconstruction, within the mask, if not given.
        source_files: for each image its file, or folder of files, to see whether a classifier was trained on it.
        perceptual: a distance such as `lpips.LPIPS(net="alex")`; without, there is no "lpips".
        confidence: of all intervals.
        resamples: of the bootstraps.
        seed: of the bootstraps.
        batch_size: images at once.

    Raises:
        ConfigurationError: guide and judge were trained on the same images.
        UnknownNameError: an attribute was wanted at a value that the classifier of it does not know.
        DataError: a source file that cannot be read.
        EvaluationError: numbers that differ, a placebo of other images, or images without answer.
    """
    count = len(result.image)
    for what, given in (("targets", targets), ("sources", sources), ("subjects", subjects), ("files", source_files)):
        if given is not None and len(given) != count:
            raise EvaluationError(f"There are {len(given)} {what} for {count} images; give one an image.")
    if guide is not None:
        for judge in judges:
            check_apart(guide, judge)
    sham, kind = _placebo_images(result, placebo)
    classifiers = name_classifiers(guide, judges)
    answers = [Answers.of(name, one, result, sham, targets, sources, batch_size) for name, one in classifiers.items()]
    sample = Sample(tuple(range(count) if subjects is None else subjects), confidence, resamples, seed)
    figures = _similarity(result, perceptual, batch_size)
    joint = joint_answers(answers)

    summary: dict[str, Any] = {}
    for answer in answers:
        summary |= {f"{answer.name}_{name}": figure for name, figure in answer.figures(sample).items()}
    if joint is not None:
        summary |= {f"joint_{name}": figure for name, figure in validity_figures(sample, *joint).items()}
    # Equal images have no finite ratio, so that psnr has no mean.
    summary |= {name: sample.mean(values) for name, values in figures.items() if name != "psnr"}
    summary["placebo"] = kind
    summary["warnings"] = [
        *_seen_in_training(source_files, classifiers),
        *unanswered(answers, targets, sources),
        *([NO_PLACEBO] if sham is None else []),
    ]
    rows = []
    for i in range(count):
        row: dict[str, Any] = {"image": i} | ({} if subjects is None else {"subject": subjects[i]})
        row |= {name: float(values[i]) if np.isfinite(values[i]) else None for name, values in figures.items()}
        for answer in answers:
            row |= answer.row(i)
        if joint is not None:
            members, after, _ = joint
            row["joint_flipped"] = bool(after[i]) if members[i] else None
        rows.append(row)
    leakage = [row for answer in answers if answer.name != "guide" for row in answer.leakage(sample)]
    return EditEvidence(rows, summary, leakage)


def _placebo_images(result: EditResult, placebo: EditResult | None) -> tuple[torch.Tensor | None, str | None]:
    """Return images (N, 3, H, W) in which nothing was to change, and what they are."""
    if placebo is None:
        if result.reconstruction is None:
            return None, None
        return confine(result.reconstruction, result.source, result.mask), "reconstruction"
    if placebo.source.shape != result.source.shape or not bool((placebo.source == result.source).all()):
        raise EvaluationError("The placebo was made from other images than the edits; edit the same ones.")
    return placebo.image, "edit"


def _similarity(result: EditResult, perceptual: Perceptual | None, batch_size: int) -> dict[str, Array]:
    """Return by name how far edits are from their sources, and reconstructions, (N,) each."""
    import torch

    parts: dict[str, list[npt.ArrayLike]] = {}
    for start in range(0, len(result.image), batch_size):
        part = slice(start, start + batch_size)
        source, image = result.source[part], result.image[part]
        limit: npt.ArrayLike = WITHOUT_ROUND_TRIP
        if result.reconstruction is not None:
            error = (result.reconstruction[part].double() - source.double()) * 127.5
            limit = error.abs().amax(1).numpy() + ROUNDING
        found: dict[str, npt.ArrayLike] = {
            "changed_l1": proximity(source, image).l1,
            "psnr": psnr(source, image),
            "ssim": ssim(source, image),
            "sparsity": sparsity(source, image, limit),
        }
        if perceptual is not None:
            with torch.no_grad():
                found["lpips"] = perceptual(source, image).double().cpu().reshape(len(image)).numpy()
        for name, values in found.items():
            parts.setdefault(name, []).append(values)
    figures = {name: np.concatenate(values) for name, values in parts.items()}
    figures["effect_l1"] = result.effect.abs().mean((1, 2, 3)).double().numpy() * 127.5
    for name in ("round_trip_l1", "round_trip_psnr"):
        values = getattr(result, name)
        if values is not None:
            figures[name] = values.double().numpy()
    return figures


def _seen_in_training(files: Sequence[Path] | None, classifiers: Mapping[str, Classifier]) -> list[str]:
    """Return a warning for each classifier that was trained on sources."""
    if files is None:
        return []
    known = {path: _digests(path) for path in {Path(file) for file in files}}
    warnings = []
    for name, classifier in classifiers.items():
        count = sum(not known[Path(file)].isdisjoint(classifier.trained_on) for file in files)
        if count:
            warnings.append(
                f"{name} was trained on {count} of the {len(files)} source images, which makes its answers surer than "
                "they should be: edit images that it has not seen."
            )
    return warnings


def _digests(path: Path) -> frozenset[str]:
    """Return the SHA-256 of a file's bytes, or of each file's in a folder."""
    try:
        files = sorted(one for one in path.rglob("*") if one.is_file()) if path.is_dir() else [path]
        return frozenset(hashlib.sha256(file.read_bytes()).hexdigest() for file in files)
    except OSError as error:
        raise DataError(f"{path} cannot be read to compare it with training images: {error}.") from error
