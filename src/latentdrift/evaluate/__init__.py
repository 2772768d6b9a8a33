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
from latentdrift.evaluate.pairs import PairFigures, lpips, ms_ssim, pair_figures, psnr, ssim
from latentdrift.evaluate.sets import EvaluationResult, evaluate_sets
from latentdrift.evaluate.tone import corner_background, tint

if TYPE_CHECKING:
    from latentdrift.evaluate.auc import class_auc, classifier_figures
    from latentdrift.evaluate.delong import auc_interval, paired_test
    from latentdrift.evaluate.evidence import EditEvidence, edit_evidence
    from latentdrift.evaluate.extrapolation import Extrapolation, extrapolation_message, frechet_at_infinity
    from latentdrift.evaluate.fairness import (
        GroupFigures,
        auc_by_group,
        demographic_groups,
        equal_parts,
        figure_by_group,
        mean_by_group,
    )
    from latentdrift.evaluate.feature_cache import FeatureCache, default_cache_folder
    from latentdrift.evaluate.interval import ManifoldIntervals, gaussian_interval, manifold_intervals
    from latentdrift.evaluate.manifold import ManifoldFigures, manifold_figures
    from latentdrift.evaluate.mmd import GaussianDistance, cmmd, gaussian_distance
    from latentdrift.evaluate.set_figures import MoreFigures, more_figures
    from latentdrift.evaluate.set_groups import GroupedFigures, GroupLabels, figures_by_group, shared_groups
    from latentdrift.evaluate.set_pairs import Match, PairedFigures, match_pairs, paired_figures
    from latentdrift.evaluate.utility import UtilityConfig, UtilityResult, compare_settings, measure_utility

_HOME = {
    "EditEvidence": "evidence",
    "Extrapolation": "extrapolation",
    "FeatureCache": "feature_cache",
    "GaussianDistance": "mmd",
    "GroupFigures": "fairness",
    "GroupLabels": "set_groups",
    "GroupedFigures": "set_groups",
    "ManifoldFigures": "manifold",
    "ManifoldIntervals": "interval",
    "Match": "set_pairs",
    "MoreFigures": "set_figures",
    "PairedFigures": "set_pairs",
    "UtilityConfig": "utility",
    "UtilityResult": "utility",
    "auc_by_group": "fairness",
    "auc_interval": "delong",
    "class_auc": "auc",
    "classifier_figures": "auc",
    "cmmd": "mmd",
    "compare_settings": "utility",
    "default_cache_folder": "feature_cache",
    "demographic_groups": "fairness",
    "edit_evidence": "evidence",
    "equal_parts": "fairness",
    "extrapolation_message": "extrapolation",
    "figure_by_group": "fairness",
    "figures_by_group": "set_groups",
    "frechet_at_infinity": "extrapolation",
    "gaussian_distance": "mmd",
    "gaussian_interval": "interval",
    "manifold_figures": "manifold",
    "manifold_intervals": "interval",
    "match_pairs": "set_pairs",
    "mean_by_group": "fairness",
    "measure_utility": "utility",
    "more_figures": "set_figures",
    "paired_figures": "set_pairs",
    "paired_test": "delong",
    "shared_groups": "set_groups",
}

__all__ = [
    "EditEvidence",
    "EvaluationResult",
    "Extrapolation",
    "FeatureCache",
    "FeatureExtractor",
    "GaussianDistance",
    "GroupFigures",
    "GroupLabels",
    "GroupedFigures",
    "Interval",
    "KernelDistance",
    "ManifoldFigures",
    "ManifoldIntervals",
    "Match",
    "MoreFigures",
    "PairFigures",
    "PairedFigures",
    "SmallSampleWarning",
    "UtilityConfig",
    "UtilityResult",
    "auc_by_group",
    "auc_interval",
    "class_auc",
    "classifier_figures",
    "cmmd",
    "compare_settings",
    "corner_background",
    "default_cache_folder",
    "demographic_groups",
    "edit_evidence",
    "equal_parts",
    "evaluate_sets",
    "extractor_class",
    "extractor_family",
    "extractor_names",
    "extrapolation_message",
    "feature_extractor",
    "figure_by_group",
    "figures_by_group",
    "frechet_at_infinity",
    "frechet_distance",
    "frechet_interval",
    "gaussian_distance",
    "gaussian_interval",
    "kernel_distance",
    "kernel_interval",
    "load_extractor",
    "lpips",
    "manifold_figures",
    "manifold_intervals",
    "match_pairs",
    "mean_by_group",
    "measure_utility",
    "more_figures",
    "ms_ssim",
    "pair_figures",
    "paired_figures",
    "paired_test",
    "psnr",
    "resolve_extractor",
    "shared_groups",
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
