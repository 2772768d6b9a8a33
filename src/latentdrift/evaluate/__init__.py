"""Image sets and pairs in, figures with their uncertainty out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentdrift.evaluate.distribution import KernelDistance, SmallSampleWarning, frechet_distance, kernel_distance
from latentdrift.evaluate.features import (
    FeatureExtractor,
    extractor_class,
    extractor_family,
    extractor_names,
    feature_extractor,
    load_extractor,
    resolve_extractor,
)
from latentdrift.evaluate.interval import Interval, frechet_interval, kernel_interval
from latentdrift.evaluate.pairs import psnr, ssim
from latentdrift.evaluate.sets import EvaluationResult, evaluate_sets
from latentdrift.evaluate.tone import corner_background, tint

if TYPE_CHECKING:
    from latentdrift.evaluate.auc import class_auc, classifier_figures
    from latentdrift.evaluate.evidence import EditEvidence, edit_evidence
    from latentdrift.evaluate.extrapolation import Extrapolation, extrapolation_message, frechet_at_infinity
    from latentdrift.evaluate.interval import ManifoldIntervals, gaussian_interval, manifold_intervals
    from latentdrift.evaluate.manifold import ManifoldFigures, manifold_figures
    from latentdrift.evaluate.mmd import GaussianDistance, cmmd, gaussian_distance

_HOME = {
    "EditEvidence": "evidence",
    "class_auc": "auc",
    "classifier_figures": "auc",
    "edit_evidence": "evidence",
    "Extrapolation": "extrapolation",
    "GaussianDistance": "mmd",
    "ManifoldFigures": "manifold",
    "ManifoldIntervals": "interval",
    "cmmd": "mmd",
    "extrapolation_message": "extrapolation",
    "frechet_at_infinity": "extrapolation",
    "gaussian_distance": "mmd",
    "gaussian_interval": "interval",
    "manifold_figures": "manifold",
    "manifold_intervals": "interval",
}

__all__ = [
    "EditEvidence",
    "EvaluationResult",
    "Extrapolation",
    "FeatureExtractor",
    "GaussianDistance",
    "Interval",
    "KernelDistance",
    "ManifoldFigures",
    "ManifoldIntervals",
    "SmallSampleWarning",
    "class_auc",
    "classifier_figures",
    "cmmd",
    "corner_background",
    "edit_evidence",
    "evaluate_sets",
    "extractor_class",
    "extractor_family",
    "extractor_names",
    "extrapolation_message",
    "feature_extractor",
    "frechet_at_infinity",
    "frechet_distance",
    "frechet_interval",
    "gaussian_distance",
    "gaussian_interval",
    "kernel_distance",
    "kernel_interval",
    "load_extractor",
    "manifold_figures",
    "manifold_intervals",
    "psnr",
    "resolve_extractor",
    "ssim",
    "tint",
]


def __getattr__(name: str) -> Any:
    # Editors, torch and scikit-learn are imported when these are first used, not for the usual figures of sets.
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
