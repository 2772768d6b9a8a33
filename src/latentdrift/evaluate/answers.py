"""What classifiers answer to edits and to placebos, and the figures of that with their intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate.counterfactuals import Array, Estimate, mean_interval, wilson

if TYPE_CHECKING:
    import torch

    from latentdrift.edit import EditResult
    from latentdrift.models.classifier import Classifier

Attributes = Mapping[str, Any]
"""Of one image: the name of each attribute and its value."""
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Sample:
    """Whose images they are, and how figures of them get their intervals."""

    subjects: tuple[Hashable, ...]
    confidence: float
    resamples: int
    seed: int

    def mean(self, values: npt.ArrayLike, members: Flags | None = None) -> dict[str, Any]:
        """Return the mean of values (N,) over the images that are members."""
        data, subjects = self._of(values, members)
        count = len(set(subjects))
        if count < 2:
            return {"value": float(data.mean()), "low": None, "high": None, "n": count}
        return _figure(
            mean_interval(data, subjects, confidence=self.confidence, resamples=self.resamples, seed=self.seed)
        )

    def share(self, hits: Flags, members: Flags | None = None) -> dict[str, Any]:
        """Return the share of hits (N,) among the members."""
        data, subjects = self._of(hits, members)
        count = len(set(subjects))
        if count == len(data):
            return _figure(wilson(int(data.sum()), count, self.confidence))
        if data.min() == data.max():
            # A bootstrap of equal values knows no doubt. Subjects are as many trials as are certainly independent.
            return _figure(wilson(int(data[0]) * count, count, self.confidence))
        return self.mean(hits, members)

    def difference(self, first: Flags, second: Flags, members: Flags | None = None) -> dict[str, Any]:
        """Return the share of hits in the first (N,) minus that in the second, image by image."""
        gaps = first.astype(np.float64) - second.astype(np.float64)
        data, subjects = self._of(gaps, members)
        if data.min() < data.max():
            return self.mean(gaps, members)
        # Again no doubt for a bootstrap. None of n pairs differs from the others, so that at most Wilson's upper end of
        # 0 of n would, each by what is left on the scale from -1 to 1.
        value, count = float(data[0]), len(set(subjects))
        doubt = wilson(0, count, self.confidence).interval.high * (1 + abs(value))
        return {"value": value, "low": max(-1.0, value - doubt), "high": min(1.0, value + doubt), "n": count}

    def _of(self, values: npt.ArrayLike, members: Flags | None) -> tuple[Array, list[Hashable]]:
        kept = np.arange(len(self.subjects)) if members is None else np.flatnonzero(members)
        return np.asarray(values, dtype=np.float64)[kept], [self.subjects[i] for i in kept]


@dataclass(frozen=True)
class Answers:
    """What one classifier says; probabilities are (N, K), the rest (N,)."""

    name: str
    attribute: str
    classes: tuple[str | float, ...]
    before: Array
    after: Array
    placebo: Array | None
    own: npt.NDArray[np.int64]
    """The source's class; the classifier's answer where it was not stated."""
    wanted: npt.NDArray[np.int64]
    """The class that was asked for; the own one where nothing was asked."""
    asked: Flags
    stated: Flags

    @classmethod
    def of(
        cls,
        name: str,
        classifier: Classifier,
        result: EditResult,
        sham: torch.Tensor | None,
        targets: Sequence[Attributes],
        sources: Sequence[Attributes],
        batch_size: int,
    ) -> Answers:
        """Ask a classifier."""
        attribute = classifier.attribute
        shape = (len(result.image), len(classifier.classes))

        def ask(images: torch.Tensor) -> Array:
            found = np.asarray(classifier.probabilities(images, batch_size=batch_size), dtype=np.float64)
            if found.shape != shape or not np.isfinite(found).all():
                raise EvaluationError(f"{name} answers with shape {found.shape}, or NaN; {shape} is needed.")
            return found

        before = ask(result.source)
        own, wanted, asked, stated = [], [], [], []
        for shown, target, guess in zip(sources, targets, before.argmax(1), strict=True):
            value, wish = shown.get(attribute), target.get(attribute)
            known = _index(classifier, value)
            # A number that stays in its bin is no wish that this classifier could see.
            goal = None if wish is None or wish == value else classifier.index(wish)
            own.append(int(guess) if known is None else known)
            asked.append(goal is not None and goal != known)
            wanted.append(own[-1] if goal is None else goal)
            stated.append(known is not None)
        return cls(
            name=name,
            attribute=attribute,
            classes=tuple(classifier.classes),
            before=before,
            after=ask(result.image),
            placebo=None if sham is None else ask(sham),
            own=np.array(own),
            wanted=np.array(wanted),
            asked=np.array(asked),
            stated=np.array(stated),
        )

    def stages(self) -> dict[str, Array]:
        """Return the probabilities before, after, and of the placebo where there is one."""
        found = {"before": self.before, "after": self.after}
        return found if self.placebo is None else found | {"placebo": self.placebo}

    def wished(self) -> tuple[Array, Array, Array | None]:
        """Return the wanted class's probability before, after, and in the placebo."""
        pick = np.arange(len(self.wanted)), self.wanted
        return self.before[pick], self.after[pick], None if self.placebo is None else self.placebo[pick]

    def hits(self) -> tuple[Flags, Flags, Flags | None]:
        """Return which images are taken for the wanted class before, after, and in the placebo."""
        before, after = (found.argmax(1) == self.wanted for found in (self.before, self.after))
        return before, after, None if self.placebo is None else self.placebo.argmax(1) == self.wanted

    def row(self, i: int) -> dict[str, Any]:
        """Return an image's columns."""
        row: dict[str, Any] = {"wanted": self.classes[self.wanted[i]], "source": self.classes[self.own[i]]}
        for kind, classes in (("wanted", self.wanted), ("source", self.own)):
            row |= {f"{kind}_{stage}": float(found[i, classes[i]]) for stage, found in self.stages().items()}
        before, after, placebo = self.hits()
        flags = {"already": before, "flipped": after}
        if placebo is not None:
            flags["placebo_flipped"] = placebo
        row |= {name: bool(flag[i]) if self.asked[i] else None for name, flag in flags.items()}
        return {f"{self.name}_{name}": value for name, value in row.items()}

    def figures(self, sample: Sample) -> dict[str, Any]:
        """Return the figures over the images that were asked to change; none if none was."""
        if not self.asked.any():
            return {}
        already, after, placebo = self.hits()
        figures = validity_figures(sample, self.asked, after, placebo)
        if (turnable := self.asked & ~already).any():
            figures["turned"] = sample.share(after, turnable)
        first, last, sham = self.wished()
        figures["gain"] = sample.mean(last - first, self.asked)
        if sham is not None:
            figures["placebo_gain"] = sample.mean(sham - first, self.asked)
            figures["gain_above_placebo"] = sample.mean(last - sham, self.asked)
        return figures

    def leakage(self, sample: Sample) -> list[dict[str, Any]]:
        """Return what the edits did to this attribute, where it was to change and where not."""
        rows = []
        for asked in (True, False):
            members = self.asked == asked
            present = [int(number) for number in np.unique(self.wanted[members])]
            groups: list[tuple[str | float, Flags]] = [("all", members)] if len(present) > 1 else []
            groups += [(self.classes[number], members & (self.wanted == number)) for number in present]
            rows += [self._leak(sample, asked, label, group) for label, group in groups]
        return rows

    def _leak(self, sample: Sample, asked: bool, label: str | float, group: Flags) -> dict[str, Any]:
        first, last, sham = self.wished()
        guess = self.before.argmax(1)
        figures = {
            "change": sample.mean(last - first, group),
            "other_class": sample.share(self.after.argmax(1) != guess, group),
        }
        if self.placebo is not None and sham is not None:
            figures["placebo_change"] = sample.mean(sham - first, group)
            figures["placebo_other_class"] = sample.share(self.placebo.argmax(1) != guess, group)
        row: dict[str, Any] = {
            "judge": self.name,
            "attribute": self.attribute,
            "wanted": asked,
            "class": label,
            "images": int(group.sum()),
            "n": figures["change"]["n"],
            "stated": int((group & self.stated).sum()),
            "before": float(first[group].mean()),
            "after": float(last[group].mean()),
        }
        for name, figure in figures.items():
            row |= {name: figure["value"], f"{name}_low": figure["low"], f"{name}_high": figure["high"]}
        return row


def _figure(estimate: Estimate) -> dict[str, Any]:
    (low, high) = estimate.interval
    return {"value": estimate.value, "low": low, "high": high, "n": estimate.n}


def validity_figures(sample: Sample, members: Flags, after: Flags, placebo: Flags | None) -> dict[str, Any]:
    """Return the share of wanted answers, and, by images, what is left of it after the placebo's."""
    figures = {"validity": sample.share(after, members)}
    if placebo is not None:
        figures["placebo_flip_rate"] = sample.share(placebo, members)
        figures["validity_above_placebo"] = sample.difference(after, placebo, members)
    return figures


def joint_answers(answers: Sequence[Answers]) -> tuple[Flags, Flags, Flags | None] | None:
    """Return which images have two wanted attributes or more that judges look at, and which have all of them.

    (N,) each, after the edit and in the placebo; None if there is no such image.
    """
    judged = [answer for answer in answers if answer.name != "guide"]
    if len({answer.attribute for answer in judged if answer.asked.any()}) < 2:
        return None
    # Two judges of one attribute are one wish.
    wishes = [{answer.attribute for answer in judged if answer.asked[i]} for i in range(len(judged[0].asked))]
    members = np.array([len(wish) > 1 for wish in wishes])
    if not members.any():
        return None
    found = [(~answer.asked, *answer.hits()) for answer in judged]
    after = np.all([spared | hit for spared, _, hit, _ in found], axis=0)
    shams = [spared | hit for spared, _, _, hit in found if hit is not None]
    return members, after, np.all(shams, axis=0) if shams else None


def name_classifiers(guide: Classifier | None, judges: Sequence[Classifier]) -> dict[str, Classifier]:
    """Return the classifiers by the beginning of their columns; a second judge of an attribute has a number."""
    names: dict[str, Classifier] = {} if guide is None else {"guide": guide}
    seen: Counter[str] = Counter()
    for judge in judges:
        seen[judge.attribute] += 1
        number = seen[judge.attribute]
        names[f"judge_{judge.attribute}" + (f"_{number}" if number > 1 else "")] = judge
    return names


def _index(classifier: Classifier, value: Any) -> int | None:
    """Return a stated value's class; None for none, and for one that the classifier does not know."""
    if value is None:
        return None
    try:
        return classifier.index(value)
    except UnknownNameError:
        return None


def unanswered(answers: Sequence[Answers], targets: Sequence[Attributes], sources: Sequence[Attributes]) -> list[str]:
    """Return warnings about wishes that no judge looks at, and answers that stand in for what was not stated."""
    changed = {
        name: None
        for shown, target in zip(sources, targets, strict=True)
        for name, value in target.items()
        if value is not None and value != shown.get(name)
    }
    judged = {answer.attribute for answer in answers if answer.name != "guide"}
    warnings = [f"No judge looks at {name}, which was asked to change." for name in changed if name not in judged]
    for answer in answers:
        if not answer.asked.any() and answer.attribute in changed:
            warnings.append(
                f"{answer.name} sees no wish: every wanted {answer.attribute} is in the source's own class."
            )
        elif not answer.asked.any() and answer.name == "guide":
            warnings.append(f"The guide looks at {answer.attribute}, which was not asked to change in any image.")
        missing = int((~answer.stated).sum())
        if missing:
            warnings.append(
                f"{missing} of {len(answer.stated)} sources have no {answer.attribute} that {answer.name} knows: its "
                "own answer stands in for it."
            )
    return warnings
