"""A real image and a wish → what it would look like, and what that took."""

from latentdrift.counterfactual.edit import CounterfactualResult, make_counterfactuals
from latentdrift.counterfactual.objective import Objective, ObjectiveConfig, counterfactual_objective, label_loss
from latentdrift.counterfactual.search import Screening, SearchConfig
from latentdrift.counterfactual.trials import SearchResult, Trial

__all__ = [
    "CounterfactualResult",
    "Objective",
    "ObjectiveConfig",
    "Screening",
    "SearchConfig",
    "SearchResult",
    "Trial",
    "counterfactual_objective",
    "label_loss",
    "make_counterfactuals",
]
