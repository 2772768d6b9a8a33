"""The paper's counterfactual objective: L(x, x', y', λ) = λ · ℓ_o(f(x'), y') + ℓ_in(x, x').

ℓ_o asks that the classifier f gives the counterfactual x' the wanted class y'; ℓ_in that x' stays close to the source x
(arXiv 2412.20651, counterfactual objective). With λ = 0 similarity is all that counts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args, get_type_hints

import torch
from torch.nn import functional

from latentdrift.errors import ConfigurationError, UnknownNameError

Perceptual = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Images (B, 3, H, W) in [-1, 1] and others of the same shape → distances with B elements."""

SIMILARITIES = ("l1", "l2", "ssim", "lpips")


@dataclass(frozen=True)
class ObjectiveConfig:
    """What a good counterfactual is."""

    weight: float = 1.0
    """λ: how much the wanted class counts against similarity; 0 for similarity alone."""
    label_loss: Literal["cross-entropy", "hinge"] = "cross-entropy"
    """ℓ_o: cross-entropy always wants more; hinge is content once the wanted class leads by `margin`."""
    margin: float = 1.0
    """Lead over the best other class, in logits, at which the hinge is 0."""
    similarity: str | Mapping[str, float] = "l1"
    """ℓ_in: l1 (mean absolute difference), l2 (mean squared difference), ssim (1 - SSIM), lpips, or weights of several,
    such as {"l1": 1.0, "ssim": 0.5}. Images are in [-1, 1], so l1 goes to 2 and l2 to 4."""

    def __post_init__(self) -> None:
        losses = get_args(get_type_hints(type(self))["label_loss"])
        if self.label_loss not in losses:
            raise UnknownNameError("label loss", self.label_loss, losses)
        for name in ("weight", "margin"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; give a finite number of at least 0.")
        if not isinstance(self.similarity, str):
            # A copy: the caller's own may change later.
            object.__setattr__(self, "similarity", dict(self.similarity))
        for name, share in self.parts.items():
            if name not in SIMILARITIES:
                raise UnknownNameError("similarity", name, SIMILARITIES)
            if not 0 <= share < math.inf:
                raise ConfigurationError(f"The weight of {name} is {share}; give a finite number of at least 0.")
        if not any(self.parts.values()):
            raise ConfigurationError("No part of the similarity has a weight above 0; give one, such as {'l1': 1.0}.")

    @property
    def parts(self) -> dict[str, float]:
        """Names and weights of the parts of ℓ_in."""
        return {self.similarity: 1.0} if isinstance(self.similarity, str) else dict(self.similarity)


@dataclass(frozen=True, eq=False)
class Objective:
    """The objective of a batch and what it is made of, one value an image; lower is better.

    Args:
        total: λ · label + similarity, (B,).
        similarity: weighted sum of the parts, (B,).
        parts: unweighted parts by name, each (B,); "ssim" is 1 - SSIM.
        label: ℓ_o, (B,); None without logits.
        flipped: whether the wanted class has the largest logit, (B,) bool; None without logits.
    """

    total: torch.Tensor
    similarity: torch.Tensor
    parts: dict[str, torch.Tensor]
    label: torch.Tensor | None = None
    flipped: torch.Tensor | None = None

    @property
    def mean(self) -> torch.Tensor:
        """The batch's objective, a tensor without dimensions that gradients flow through."""
        return self.total.mean()

    def scores(self) -> dict[str, float]:
        """Return means over the batch by name, as the search takes them.

        `objective`, `similarity` and every part; with logits also `label` and `missed`, the share of images that did
        not get the wanted class. All are better when lower.
        """
        means = {"objective": self.total, "similarity": self.similarity, **self.parts}
        if self.label is not None and self.flipped is not None:
            means |= {"label": self.label, "missed": (~self.flipped).to(self.label.dtype)}
        return {name: float(values.detach().mean()) for name, values in means.items()}


def counterfactual_objective(
    source: torch.Tensor,
    counterfactual: torch.Tensor,
    logits: torch.Tensor | None,
    wanted: torch.Tensor | None,
    config: ObjectiveConfig | None = None,
    *,
    perceptual: Perceptual | None = None,
) -> Objective:
    """Return the objective of a batch, differentiable in `counterfactual` and `logits`.

    Args:
        source: x, (B, 3, H, W) in [-1, 1].
        counterfactual: x', of the same shape.
        logits: f(x'), (B, K) before the softmax; None with λ = 0 only.
        wanted: y', (B,), whole numbers below K; None where logits are.
        config: by default cross-entropy and l1 with λ = 1.
        perceptual: the distance behind "lpips", such as `lpips.LPIPS(net="alex")`.

    Raises:
        ConfigurationError: shapes that do not fit, a class that is not there, "lpips" without `perceptual`, or images
            too small for the SSIM window of 11 pixels.
    """
    config = config or ObjectiveConfig()
    if source.ndim != 4 or source.shape != counterfactual.shape or not source.numel():
        raise ConfigurationError(
            f"Sources have shape {tuple(source.shape)}, counterfactuals {tuple(counterfactual.shape)}; both must be "
            "(B, 3, H, W) and the same."
        )
    parts = {name: _distance(name, source, counterfactual, perceptual) for name in config.parts}
    similarity = torch.stack([share * parts[name] for name, share in config.parts.items()]).sum(0)
    if logits is None or wanted is None:
        if config.weight:
            raise ConfigurationError(
                f"λ is {config.weight}, but logits or wanted classes are missing; give both, or weight=0."
            )
        return Objective(similarity, similarity, parts)
    label = label_loss(logits, wanted, config)
    if len(label) != len(source):
        raise ConfigurationError(f"There are {len(label)} rows of logits for {len(source)} images; give one an image.")
    # Not 0 · label: a classifier that overflows must not spoil an objective it has no part in.
    total = config.weight * label + similarity if config.weight else similarity
    return Objective(total, similarity, parts, label, logits.detach().argmax(1) == wanted)


def label_loss(logits: torch.Tensor, wanted: torch.Tensor, config: ObjectiveConfig | None = None) -> torch.Tensor:
    """Return ℓ_o(f(x'), y') of every image, (B,).

    The hinge is max(0, margin - logit of the wanted class + largest other logit), which is 0 exactly where the wanted
    class leads by the margin; for two classes it is the usual max(0, 1 - y f) on the difference of the logits.

    Args:
        logits: (B, K) with K of at least 2.
        wanted: (B,) of whole numbers below K.
        config: its `label_loss` and `margin` are used.

    Raises:
        ConfigurationError: shapes that do not fit, or a class that is not there.
    """
    config = config or ObjectiveConfig()
    if logits.ndim != 2 or logits.shape[1] < 2:
        raise ConfigurationError(
            f"Logits have shape {tuple(logits.shape)}; (B, K) with at least two classes is needed. For one logit z of "
            "a yes-or-no classifier give torch.stack([torch.zeros_like(z), z], 1)."
        )
    if wanted.shape != logits.shape[:1] or wanted.is_floating_point():
        raise ConfigurationError(
            f"Wanted classes have shape {tuple(wanted.shape)} and type {wanted.dtype}; "
            f"({len(logits)},) whole numbers are needed."
        )
    outside = (wanted < 0) | (wanted >= logits.shape[1])
    if bool(outside.any()):
        raise ConfigurationError(
            f"Class {int(wanted[outside][0])} is wanted, but the classifier has classes 0 to {logits.shape[1] - 1}."
        )
    wanted = wanted.long()
    if config.label_loss == "cross-entropy":
        return functional.cross_entropy(logits, wanted, reduction="none")
    own = logits.gather(1, wanted[:, None])[:, 0]
    others = logits.scatter(1, wanted[:, None], -math.inf).amax(1)
    return functional.relu(config.margin - own + others)


def _distance(name: str, x: torch.Tensor, y: torch.Tensor, perceptual: Perceptual | None) -> torch.Tensor:
    """Return one part of ℓ_in for every image, (B,)."""
    if name == "l1":
        return (x - y).abs().mean((1, 2, 3))
    if name == "l2":
        return (x - y).square().mean((1, 2, 3))
    if name == "ssim":
        return 1 - _ssim(x, y)
    if perceptual is None:
        raise ConfigurationError(
            "Similarity 'lpips' needs a network with its weights: give perceptual, such as lpips.LPIPS(net='alex'), or "
            "take 'ssim'."
        )
    found = perceptual(x, y)
    if found.numel() != len(x):
        raise ConfigurationError(
            f"perceptual returned shape {tuple(found.shape)} for {len(x)} images; one distance an image is needed."
        )
    return found.reshape(len(x))


def _ssim(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return the SSIM (B,) over the windows that lie inside the image, as `latentdrift.evaluate.ssim` does."""
    from torchmetrics.functional.image import structural_similarity_index_measure

    if min(x.shape[-2:]) < 11:
        raise ConfigurationError(
            f"Images of {x.shape[-1]} x {x.shape[-2]} pixels are smaller than the 11 pixels of the SSIM window; take "
            "'l1'."
        )
    _, local = structural_similarity_index_measure(x, y, data_range=2.0, reduction="none", return_full_image=True)
    return local[..., 5:-5, 5:-5].mean((1, 2, 3))
