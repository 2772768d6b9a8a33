"""Image sets and pairs in, figures with their uncertainty out."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentdrift.evaluate.distribution import KernelDistance, SmallSampleWarning, frechet_distance, kernel_distance
from latentdrift.evaluate.features import FeatureExtractor, feature_extractor, load_extractor, resolve_extractor
from latentdrift.evaluate.interval import Interval, frechet_interval, kernel_interval
from latentdrift.evaluate.pairs import psnr, ssim
from latentdrift.evaluate.sets import EvaluationResult, evaluate_sets
from latentdrift.evaluate.tone import corner_background, tint

if TYPE_CHECKING:
    from latentdrift.evaluate.auc import class_auc, classifier_figures
    from latentdrift.evaluate.evidence import EditEvidence, edit_evidence

_HOME = {
    "EditEvidence": "evidence",
    "class_auc": "auc",
    "classifier_figures": "auc",
    "edit_evidence": "evidence",
}

__all__ = [
    "EditEvidence",
    "EvaluationResult",
    "FeatureExtractor",
    "Interval",
    "KernelDistance",
    "SmallSampleWarning",
    "class_auc",
    "classifier_figures",
    "corner_background",
    "edit_evidence",
    "evaluate_sets",
    "feature_extractor",
    "frechet_distance",
    "frechet_interval",
    "kernel_distance",
    "kernel_interval",
    "load_extractor",
    "psnr",
    "resolve_extractor",
    "ssim",
    "tint",
]


def __getattr__(name: str) -> Any:
    # Editors, torch and scikit-learn are imported when these are first used, not for figures of sets.
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
