"""Feature extractors by name: one file each, under the decorator `feature_extractor`.

Packages outside register a `FeatureExtractor` class by an entry point in the group `latentdrift.feature_extractor`.
"""

from __future__ import annotations

from pathlib import Path

from latentdrift.evaluate.features.base import FeatureExtractor, Progress, feature_extractor, to_bytes

__all__ = ["FeatureExtractor", "Progress", "feature_extractor", "load_extractor", "resolve_extractor", "to_bytes"]

PREFERRED = ("inception", "efficientnet-lite0")
"""What `default` stands for: the first whose weights are on this machine."""


def resolve_extractor(name: str = "default") -> str:
    """Return the registered name that `name` stands for; `default` is the published one where its weights are at hand.

    Raises:
        UnknownNameError: nobody registered that name.
    """
    if name != "default":
        feature_extractor.get(name)
        return name
    return next((known for known in PREFERRED if feature_extractor.get(known).available()), PREFERRED[-1])


def load_extractor(
    name: str = "default", *, weights: str | Path | None = None, device: str = "cpu"
) -> FeatureExtractor:
    """Return a feature extractor, ready to be called.

    Args:
        name: a registered name, or `default`.
        weights: file with the extractor's weights; None looks where the extractor's library keeps them.
        device: torch device to compute on.

    Raises:
        UnknownNameError: nobody registered that name.
        ModelError: the weights are not to be had; the message says how to get them.
    """
    return feature_extractor.get(resolve_extractor(name))(weights=weights, device=device)
