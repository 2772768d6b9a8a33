"""Feature extractors by name: one file each, under the decorator `feature_extractor`.

A family of networks is one file too, under `extractor_family`; its networks are called FAMILY:VARIANT, such as
timm:resnet18. Packages outside register classes by entry points in the groups `latentdrift.feature_extractor` and
`latentdrift.extractor_family`.
"""

from __future__ import annotations

from pathlib import Path

from latentdrift.errors import UnknownNameError
from latentdrift.evaluate.features.base import (
    FamilyExtractor,
    FeatureExtractor,
    Progress,
    extractor_family,
    feature_extractor,
    to_bytes,
)

__all__ = [
    "FamilyExtractor",
    "FeatureExtractor",
    "Progress",
    "extractor_class",
    "extractor_family",
    "extractor_names",
    "feature_extractor",
    "load_extractor",
    "resolve_extractor",
    "to_bytes",
]

PREFERRED = ("inception", "efficientnet-lite0")
"""What `default` stands for: the first whose weights are on this machine."""


def extractor_names() -> list[str]:
    """Return all registered names, and an example of every family, such as timm:resnet18."""
    families = [f"{name}:{extractor_family.get(name).example}" for name in extractor_family.names()]
    return [*feature_extractor.names(), *families]


def extractor_class(name: str = "default") -> type[FeatureExtractor]:
    """Return the class that a name stands for.

    Args:
        name: a registered name; a family and a variant; a family alone, where it prefers a variant; or `default`, the
            published network where its weights are at hand.

    Raises:
        UnknownNameError: nobody registered that name or family.
        ConfigurationError: the family does not say which of its networks is meant.
    """
    if name == "default":
        known = (feature_extractor.get(preferred) for preferred in PREFERRED)
        return next((kind for kind in known if kind.available()), feature_extractor.get(PREFERRED[-1]))
    if name in feature_extractor.names():
        return feature_extractor.get(name)
    family, _, variant = name.partition(":")
    if family in extractor_family.names():
        return extractor_family.get(family).of(family, variant)
    raise UnknownNameError(feature_extractor.kind, name, extractor_names())


def resolve_extractor(name: str = "default") -> str:
    """Return the full name that `name` stands for; arguments and errors as in `extractor_class`."""
    return extractor_class(name).name


def load_extractor(
    name: str = "default", *, weights: str | Path | None = None, device: str = "cpu"
) -> FeatureExtractor:
    """Return a feature extractor, ready to be called.

    Args:
        name: see `extractor_class`.
        weights: file with the extractor's weights; None looks where the extractor's library keeps them.
        device: torch device to compute on.

    Raises:
        UnknownNameError: nobody registered that name, or the family has no such network.
        ConfigurationError: the family does not say which of its networks is meant.
        ModelError: the weights are not to be had; the message says how to get them.
    """
    return extractor_class(name)(weights=weights, device=device)
