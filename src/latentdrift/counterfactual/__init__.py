"""A real image and a wish → what it would look like, and what that took.

The functions `ladder` and `search` are in the modules of their names, which they would hide here.
"""

from latentdrift.counterfactual.distribution import DistributionConfig, DistributionScore, SampleRenderer
from latentdrift.counterfactual.edit import AUTO, make_counterfactuals, open_editor
from latentdrift.counterfactual.guidance import image_objective
from latentdrift.counterfactual.ladder import LadderResult, drift_samples
from latentdrift.counterfactual.objective import Objective, ObjectiveConfig, counterfactual_objective, label_loss
from latentdrift.counterfactual.rendering import DriftParameter, EditRenderer, EditScore
from latentdrift.counterfactual.search import Screening, SearchConfig
from latentdrift.counterfactual.steadiness import Monotonicity, Smoothness, monotonicity, smoothness
from latentdrift.counterfactual.trials import SearchResult, Trial

__all__ = [
    "AUTO",
    "DistributionConfig",
    "DistributionScore",
    "DriftParameter",
    "EditRenderer",
    "EditScore",
    "LadderResult",
    "Monotonicity",
    "Objective",
    "ObjectiveConfig",
    "SampleRenderer",
    "Screening",
    "SearchConfig",
    "SearchResult",
    "Smoothness",
    "Trial",
    "counterfactual_objective",
    "drift_samples",
    "image_objective",
    "label_loss",
    "make_counterfactuals",
    "monotonicity",
    "open_editor",
    "smoothness",
]
