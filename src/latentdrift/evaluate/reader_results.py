"""All figures of a reader study in one object: to JSON, to tables, and in a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from latentdrift.evaluate.counterfactuals import Estimate
from latentdrift.evaluate.readers import (
    ReaderAnswers,
    ReaderFigures,
    RocCurve,
    agreement,
    make_draws,
    mean_curve,
    one_reader,
    readers_together,
    self_agreement,
)


@dataclass(frozen=True)
class ReaderResults:
    """What a reader study found.

    Args:
        readers: each reader's figures; those who answered nothing are left out.
        together: means over readers by name, with intervals for other readers and images.
        arms: the same for each set of synthetic images, where there are several.
        agreement: kappas between readers, see `latentdrift.evaluate.readers.agreement`.
        self_agreement: of each reader on images shown twice.
        mean_roc: mean of the readers' curves.
        images: real and synthetic ones.
        confidence: coverage of the intervals.
    """

    readers: tuple[ReaderFigures, ...]
    together: dict[str, Estimate]
    arms: dict[str, dict[str, Estimate]]
    agreement: list[dict[str, Any]]
    self_agreement: list[dict[str, Any]]
    mean_roc: RocCurve | None
    images: tuple[int, int]
    confidence: float

    def verdict(self) -> str:
        """Return in words whether readers told real from synthetic."""
        area = self.together.get("AUC")
        if area is None:
            return "There are too few answers to say whether readers tell real from synthetic."
        told = (
            f"AUC {area.value:.2f}, {self.confidence:.0%} interval {area.interval.low:.2f} to {area.interval.high:.2f}"
            f", of {len(self.readers)} reader(s) with {self.images[0]} real and {self.images[1]} synthetic images"
        )
        if area.interval.low > 0.5:
            return f"Readers told real from synthetic images better than by guessing ({told})."
        if area.interval.high < 0.5:
            return f"Readers took synthetic images for real ones more often than real ones themselves ({told})."
        return (
            f"It was not shown that readers tell real from synthetic images ({told}). That is no proof that they "
            "cannot: the interval says which skill is still possible."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything for JSON."""
        return {
            "verdict": self.verdict(),
            "confidence": self.confidence,
            "images": {"real": self.images[0], "synthetic": self.images[1]},
            "together": _estimates(self.together),
            "sets": {name: _estimates(found) for name, found in self.arms.items()},
            "readers": [
                {
                    "reader": one.reader,
                    "answered": one.answered,
                    **_estimates(one.figures),
                    "median_seconds": {name: _number(value) for name, value in one.seconds.items()},
                    "roc": _curve(one.curve),
                }
                for one in self.readers
            ],
            "mean_roc": _curve(self.mean_roc),
            "agreement": [
                {**row, "estimate": None if row["estimate"] is None else _estimate(row["estimate"])}
                for row in self.agreement
            ],
            "self_agreement": [
                {**row, "same": _estimate(row["same"]), "kappa": _number(row["kappa"])} for row in self.self_agreement
            ],
        }

    def records(self) -> list[dict[str, Any]]:
        """Return a row a figure, for computing: {set, reader, figure, value, low, high, n}."""
        found = [("all", "all", name, one) for name, one in self.together.items()]
        found += [(arm, "all", name, one) for arm, part in self.arms.items() for name, one in part.items()]
        found += [("all", one.reader, name, each) for one in self.readers for name, each in one.figures.items()]
        for row in self.agreement:
            if row["estimate"] is not None:
                found.append(("all", row["readers"], f"{row['statistic']}, {row['question']}", row["estimate"]))
        return [
            {"set": arm, "reader": reader, "figure": name, "value": one.value, **_ends(one), "n": one.n}
            for arm, reader, name, one in found
        ]

    def reader_rows(self) -> list[dict[str, Any]]:
        """Return a row a reader for reading."""
        names = ("AUC", "accuracy", "sensitivity", "specificity", "diagnosis, real", "diagnosis, synthetic")
        rows = []
        for one in self.readers:
            row: dict[str, Any] = {"reader": one.reader, "answered": one.answered}
            row |= {name: _shown(one.figures[name]) for name in names if name in one.figures}
            row |= {
                f"seconds, {name} (median)": None if math.isnan(value) else f"{value:.1f}"
                for name, value in one.seconds.items()
            }
            rows.append(row)
        return rows

    def agreement_rows(self) -> list[dict[str, Any]]:
        """Return a row a kappa for reading."""
        return [
            {
                "question": row["question"],
                "readers": row["readers"],
                "statistic": row["statistic"],
                "value": "all answers alike" if row["estimate"] is None else _shown(row["estimate"]),
                "images": None if row["estimate"] is None else row["estimate"].n,
            }
            for row in self.agreement
        ]

    def self_rows(self) -> list[dict[str, Any]]:
        """Return a row a reader and question for reading."""
        return [
            {
                "reader": row["reader"],
                "question": row["question"],
                "same answer": _shown(row["same"]),
                "kappa": "all answers alike" if math.isnan(row["kappa"]) else f"{row['kappa']:.2f}",
                "images": row["same"].n,
            }
            for row in self.self_agreement
        ]


def analyse_readers(
    answers: ReaderAnswers, *, confidence: float = 0.95, resamples: int = 1000, seed: int = 0
) -> ReaderResults:
    """Return every figure of a study.

    Args:
        answers: of all readers.
        confidence: coverage of the intervals, between 0 and 1.
        resamples: how often images and readers are drawn again.
        seed: of the draws.

    Raises:
        EvaluationError: settings out of range.
    """
    settings: dict[str, Any] = {"confidence": confidence, "resamples": resamples, "seed": seed}
    draws = make_draws(answers, **settings)
    arms = list(dict.fromkeys(arm for arm in answers.arms if arm))
    found = [one_reader(answers, index, confidence) for index in range(len(answers.readers))]
    found = [one for one in found if one.answered]
    curves = [one.curve for one in found if one.curve is not None]
    parts = {arm: answers.only(arm) for arm in arms} if len(arms) > 1 else {}
    made = int(answers.synthetic.sum())
    return ReaderResults(
        tuple(found),
        readers_together(answers, draws),
        {arm: readers_together(part, make_draws(part, **settings)) for arm, part in parts.items()},
        agreement(answers, **settings),
        self_agreement(answers, confidence),
        mean_curve(curves) if curves else None,
        (len(answers.synthetic) - made, made),
        confidence,
    )


def _ends(one: Estimate) -> dict[str, float]:
    return {"low": one.interval.low, "high": one.interval.high}


def _estimate(one: Estimate) -> dict[str, float]:
    return {"value": one.value, **_ends(one), "n": one.n}


def _estimates(found: Mapping[str, Estimate]) -> dict[str, dict[str, float]]:
    return {name: _estimate(one) for name, one in found.items()}


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def _curve(curve: RocCurve | None) -> dict[str, list[float]] | None:
    if curve is None:
        return None
    return {"false_positive": curve.false_positive.tolist(), "true_positive": curve.true_positive.tolist()}


def _shown(one: Estimate) -> str:
    return f"{one.value:.2f} [{one.interval.low:.2f}, {one.interval.high:.2f}]"
