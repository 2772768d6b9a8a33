"""What the figures of a privacy audit say, in words and as tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.evaluate.privacy.copies import CopyFigures
from latentdrift.evaluate.privacy.looks import Looks
from latentdrift.evaluate.privacy.membership import Membership
from latentdrift.evaluate.privacy.nearest import Found
from latentdrift.evaluate.privacy.shares import MeasureFigures

CONFIDENCE = 0.95
NAMES: Mapping[str, str] = {
    "pixel": "pixels",
    "shifted": "pixels after a shift",
    "ssim": "SSIM after a shift",
    "feature": "features",
}
"""Measures in words."""


def verdict(
    figures: Sequence[MeasureFigures], copies: Sequence[CopyFigures], attacks: Sequence[Membership]
) -> list[str]:
    """Return the verdict and then every finding in words."""
    copied, signs = [], []
    for one in copies:
        count, total = len(one.copies), len(one.ratios)
        text = (
            f"copies by {NAMES[one.measure]}: {count} of {total} synthetic images "
            f"({CONFIDENCE:.0%} interval {one.interval.low:.1%} to {one.interval.high:.1%}), of {one.subjects} "
            f"subjects; {one.false_alarms} of {len(one.held_out_ratios)} held-out images pass for copies"
        )
        copied.append(text)
        if one.beyond_chance:
            signs.append(f"{one.beyond_chance} copies by {NAMES[one.measure]}")
    # All shares are tests of one question: Bonferroni.
    limit = (1 - CONFIDENCE) / sum(len(one.shares) for one in figures)
    near = [one for one in figures if any(share.p_value < limit for share in one.shares)]
    if near:
        signs.append(f"synthetic images nearer to the training than held-out ones by {listed(near)}")
    nearer = [
        f"nearer by {NAMES[one.measure]} than percentile {share.percentile:g} of held-out images: {share.value:.1%} "
        f"of the synthetic ones ({share.interval.low:.1%} to {share.interval.high:.1%}), {share.expected:.1%} expected,"
        f" p = {share.p_value:.2g}"
        for one in figures
        for share in one.shares
    ]
    told_apart = []
    for attack in attacks:
        low, high = attack.auc.interval
        told_apart.append(f"membership by {attack.attack}: AUC {attack.auc.value:.3f} ({low:.3f} to {high:.3f})")
        if low > 0.5:
            signs.append(f"membership by {attack.attack} (AUC {attack.auc.value:.2f})")
    first = (
        "memory of training images: " + "; ".join(signs) + "."
        if signs
        else ("no sign of memory in these images and by these attacks, which is no proof of privacy.")
    )
    return [first, *copied, *nearer, *told_apart]


def listed(figures: Sequence[MeasureFigures]) -> str:
    """Return the measures in words."""
    return ", ".join(NAMES[one.measure] for one in figures)


def baseline_warnings(others: Looks, distances: npt.ArrayLike, figures: Sequence[MeasureFigures]) -> list[str]:
    """Return what makes the held-out images a poor baseline."""
    found = []
    same = int((np.asarray(distances) == 0).sum())
    if same:
        found.append(
            f"{same} held-out image(s) are the same as a training image, pixel by pixel: the split leaks, and what is "
            "near by chance is not known. See `latentdrift audit leakage`."
        )
    least = min(share.percentile for share in figures[0].shares)
    if len(others) < 100 / least:
        found.append(
            f"{len(others)} held-out images: their percentile {least:g} is the smallest of their distances, and the "
            f"share expected below it {figures[0].shares[0].expected:.1%}. Hold out {100 / least:.0f} for a sharp one."
        )
    return found


def figure_rows(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the table of figures, one a row."""
    rows: list[dict[str, Any]] = []
    for one in record["nearest"]:
        for share in one["shares"]:
            name = f"nearer than percentile {share['percentile']:g} of held-out images, {NAMES[one['measure']]}"
            compared = {"by chance": share["expected"], "p": share["p_value"]}
            rows.append(
                {"figure": name, "value": share["value"], "low": share["low"], "high": share["high"], **compared}
            )
    for one in record["copies"]:
        chance = one["held_out_copies"] / one["held_out"]
        ends = {"low": one["low"], "high": one["high"], "by chance": chance, "p": None}
        rows.append({"figure": f"share of copies, {NAMES[one['measure']]}", "value": one["share"], **ends})
    for one in record["membership"]:
        ends = {"low": one["low"], "high": one["high"], "by chance": 0.5, "p": None}
        rows.append({"figure": f"membership AUC, {one['attack']}", "value": one["auc"], **ends})
    return rows


def image_rows(synthetic: Looks, training: Looks, found: Found, copies: Sequence[CopyFigures]) -> list[dict[str, Any]]:
    """Return the table of synthetic images: the nearest training image by each measure, ratios, whether a copy."""
    people, rows = training.subjects, []
    for i in range(len(synthetic)):
        row: dict[str, Any] = {"file_name": synthetic.name(i)}
        for measure, nearest in found.by.items():
            place = int(nearest.index[i])
            row[f"{measure}_nearest"] = training.name(place)
            row[f"{measure}_subject"] = people[place] if people else None
            row[f"{measure}_distance"] = round(float(nearest.distance[i]), 6)
        for one in copies:
            row[f"{one.measure}_ratio"] = round(float(one.ratios[i]), 6)
        row["copy"] = any(one.ratios[i] < one.factor for one in copies)
        rows.append(row)
    return rows
