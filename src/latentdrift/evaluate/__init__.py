"""Image sets and pairs in, figures with their uncertainty out."""

from __future__ import annotations

from latentdrift.evaluate.distribution import KernelDistance, SmallSampleWarning, frechet_distance, kernel_distance
from latentdrift.evaluate.features import FeatureExtractor, feature_extractor, load_extractor, resolve_extractor
from latentdrift.evaluate.interval import Interval, frechet_interval, kernel_interval
from latentdrift.evaluate.pairs import psnr, ssim
from latentdrift.evaluate.sets import EvaluationResult, evaluate_sets
from latentdrift.evaluate.tone import corner_background, tint

__all__ = [
    "EvaluationResult",
    "FeatureExtractor",
    "Interval",
    "KernelDistance",
    "SmallSampleWarning",
    "corner_background",
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
