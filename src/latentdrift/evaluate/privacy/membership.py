"""Whether one can tell who was in the training: membership inference, as an area under the ROC curve.

An area of a half is guessing, and 1 tells every member from everybody else. Members are the training images, the others
held-out images of the same cohort. Stronger attacks than these exist, such as SecMI (Duan et al. 2023, arXiv
2302.01316) and likelihood ratios of shadow models (Carlini et al. 2023, arXiv 2301.13188, section 5.2): a half here
does not rule them out.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.auc import weighted_area
from latentdrift.evaluate.counterfactuals import Estimate
from latentdrift.evaluate.delong import auc_interval
from latentdrift.evaluate.privacy.looks import Looks
from latentdrift.evaluate.privacy.nearest import nearest_neighbours

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Membership:
    """One attack."""

    attack: str
    """What it looks at."""
    auc: Estimate
    """Area under the ROC curve, its interval over subjects, and the number of these."""
    members: int
    """Training images."""
    held_out: int
    """Other images."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Areas of the parts that the attack is made of, such as single timesteps."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values."""
        low, high = self.auc.interval
        counts = {"members": self.members, "held_out": self.held_out, "subjects": self.auc.n}
        found = {"attack": self.attack, "auc": self.auc.value, "low": low, "high": high, **counts}
        return {**found, "parts": dict(self.parts)} if self.parts else found


def membership_auc(
    members: npt.ArrayLike,
    held_out: npt.ArrayLike,
    member_subjects: Sequence[Hashable] | None = None,
    held_out_subjects: Sequence[Hashable] | None = None,
    *,
    confidence: float = 0.95,
) -> Estimate:
    """Return how well a score tells members from others, with its interval over subjects, as `delong.auc_interval`.

    It is the share of pairs of a member and another image in which the member's score is higher; ties count half.

    Args:
        members: scores of training images, (M,), higher for what the attack takes for a member.
        held_out: scores of other images, (H,).
        member_subjects: whose images they are, M; None for an image a subject.
        held_out_subjects: the same, H.
        confidence: coverage, between 0 and 1.

    Raises:
        EvaluationError: scores that are not finite, fewer than two subjects on a side, or a confidence out of range.
    """
    inside, outside = np.asarray(members, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    for name, values in (("members", inside), ("held-out images", outside)):
        if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
            raise EvaluationError(f"The scores of the {name} have shape {values.shape} or NaN; give one an image.")
    subjects: list[Hashable] = []
    for side, given, count in (("in", member_subjects, len(inside)), ("out", held_out_subjects, len(outside))):
        if given is not None and len(given) != count:
            raise EvaluationError(f"{len(given)} subjects for {count} images; give one an image.")
        subjects += [(side, i) for i in range(count)] if given is None else list(given)
    for name, people in (("members", subjects[: len(inside)]), ("held-out images", subjects[len(inside) :])):
        if len(set(people)) < 2:
            raise EvaluationError(f"The {name} are of one subject; an interval over subjects needs two on each side.")
    member = np.arange(len(subjects)) < len(inside)
    return auc_interval(np.concatenate([inside, outside]), member.astype(np.int64), subjects, confidence=confidence)


def distance_attack(
    members: Looks, held_out: Looks, synthetic: Looks, measure: str = "pixel", **settings: Any
) -> Membership:
    """Return the attack that takes for a member what a synthetic image is near to.

    Chen et al. 2020, "GAN-Leaks" (arXiv 1909.03935, full black-box attack). It needs the images alone. Duan et al. (see
    above) find it weak on diffusion models that do not overfit.

    Args:
        members: training images.
        held_out: other images.
        synthetic: of the model.
        measure: pixel or feature.
        settings: confidence of `membership_auc`.

    Raises:
        EvaluationError: see `membership_auc`; or no features where they are wanted.
    """
    if measure not in ("pixel", "feature"):
        raise EvaluationError(f"Distances are of pixel or feature, not {measure!r}.")
    scores = []
    for real in (members, held_out):
        vectors = [real.flat(), synthetic.flat()] if measure == "pixel" else [real.features, synthetic.features]
        if vectors[0] is None or vectors[1] is None:
            raise EvaluationError("There are no features to compare. Read the images with an extractor.")
        scores.append(-nearest_neighbours(vectors[0], vectors[1], 1).distance[:, 0])
    auc = membership_auc(scores[0], scores[1], members.people(), held_out.people(), **settings)
    return Membership(f"{measure} distance to the nearest synthetic image", auc, len(members), len(held_out))


def loss_attack(
    members: npt.ArrayLike,
    held_out: npt.ArrayLike,
    timesteps: Sequence[int],
    member_subjects: Sequence[Hashable] | None = None,
    held_out_subjects: Sequence[Hashable] | None = None,
    **settings: Any,
) -> Membership:
    """Return the attack that takes for a member what the model denoises well.

    The loss threshold of Yeom et al. 2018 (arXiv 1709.01604), on diffusion models by Matsumoto et al. 2023 (arXiv
    2302.03262). The losses of each timestep are brought to one mean and deviation over all images, so that no timestep
    outweighs the others, and averaged.

    Args:
        members: losses of training images, (M, T), see `losses.denoising_losses`.
        held_out: losses of other images, (H, T).
        timesteps: T of them.
        member_subjects: see `membership_auc`.
        held_out_subjects: the same.
        settings: confidence of `membership_auc`.

    Raises:
        EvaluationError: see `membership_auc`; or losses that do not fit the timesteps.
    """
    inside, outside = np.asarray(members, dtype=np.float64), np.asarray(held_out, dtype=np.float64)
    if any(part.ndim != 2 or part.shape[1] != len(timesteps) or not len(part) for part in (inside, outside)):
        raise EvaluationError(
            f"Losses of shapes {inside.shape} and {outside.shape} for {len(timesteps)} timesteps; give (M, T), (H, T)."
        )
    both = np.concatenate([inside, outside])
    deviation = both.std(axis=0)
    scores = -((both - both.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0))
    mean = scores.mean(axis=1)
    count = len(inside)
    auc = membership_auc(mean[:count], mean[count:], member_subjects, held_out_subjects, **settings)
    member, ones = np.arange(len(both)) < count, np.ones(len(both))
    parts = {
        f"timestep {t}": weighted_area(np.unique(column, return_inverse=True)[1], member, ones)
        for t, column in zip(timesteps, scores.T, strict=True)
    }
    return Membership("denoising loss of the model", auc, count, len(outside), parts)
