"""A real image and a wish → what it would look like, and what that took."""

from latentdrift.counterfactual.edit import CounterfactualResult, make_counterfactuals

__all__ = ["CounterfactualResult", "make_counterfactuals"]
