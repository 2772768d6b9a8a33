"""What an evaluation of two sets found, as a table, as records and as JSON."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.interval import Interval
from latentdrift.evaluate.lines import Line
from latentdrift.evaluate.set_figures import MoreFigures

if TYPE_CHECKING:
    # These know cohorts and classifiers, which the usual figures do not need.
    from latentdrift.evaluate.set_groups import GroupedFigures
    from latentdrift.evaluate.set_pairs import PairedFigures

ADDED = ("more", "by_group", "pairs", "from_cache")
"""Fields that JSON has under other names, and only where they were asked for."""


@dataclass(frozen=True)
class EvaluationResult:
    """What `evaluate_sets` found. Distances carry the published names only on Inception features: see `extractor`."""

    fid: float
    """Fréchet distance of the features."""
    kid: float
    """Kernel distance: mean of the unbiased squared MMD over subsets."""
    kid_std: float
    """Its standard deviation over subsets."""
    fid_interval: Interval | None
    """Bootstrap interval of `fid` for sets of this size; None if not asked for."""
    kid_interval: Interval | None
    """Bootstrap interval of the kernel distance of the whole sets."""
    confidence: float
    """Coverage of the intervals."""
    n_real: int
    n_synthetic: int
    extractor: str
    """Name of the feature extractor that was used, also where `default` was asked for."""
    feature_dim: int
    image_size: tuple[int, int]
    """Width and height at which images were compared."""
    background_real: float
    """Mean of the corners, 0..255."""
    background_synthetic: float
    tint_real: float
    """Largest deviation of a channel from gray, in levels of 255."""
    tint_synthetic: float
    subsets: int
    subset_size: int
    seed: int
    warnings: list[str] = field(default_factory=list)
    more: MoreFigures | None = None
    """Infinite n, precision and recall, density and coverage, the Gaussian MMD; None if not asked for."""
    by_group: tuple[GroupedFigures, ...] = ()
    """The figures by each attribute that was asked for."""
    pairs: PairedFigures | None = field(default=None, compare=False)
    """Similarity of synthetic images and their sources; None if not asked for."""
    from_cache: int = field(default=0, compare=False)
    """Images whose features were kept from an earlier evaluation."""

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as plain values; figures that were not asked for are left out."""
        # Not `asdict` of the whole: it copies what is added, and does not know its names in JSON.
        plain = EvaluationResult(**{f.name: getattr(self, f.name) for f in fields(self) if f.name not in ADDED})
        found = {name: value for name, value in asdict(plain).items() if name not in ADDED}
        if self.more is not None:
            found |= self.more.to_dict()
        if self.by_group:
            found["groups"] = {one.attribute: one.to_dict() for one in self.by_group}
        if self.pairs is not None:
            found["pairs"] = self.pairs.to_dict()
        return found

    def to_json(self, path: str | Path | None = None) -> str:
        """Return the result as JSON, and write it to `path` if given (whole or not at all).

        Raises:
            EvaluationError: the file cannot be written.
        """
        text = json.dumps(self.to_dict(), indent=2) + "\n"
        if path is not None:
            target = Path(path)
            part = target.with_name(f".{target.name}.{os.getpid()}.part")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                part.write_text(text, encoding="utf-8")
                part.replace(target)
            except OSError as error:
                raise EvaluationError(
                    f"{target} cannot be written ({error}). Free space, or choose another."
                ) from error
            finally:
                with suppress(OSError):
                    part.unlink()
        return text

    def lines(self) -> list[Line]:
        """Return the figures of the whole sets."""
        frechet, kernel = names_of(self.extractor)
        return [
            Line(frechet, self.fid, self.fid_interval),
            Line(kernel, self.kid, self.kid_interval, self.kid_std, scale=1000.0),
            *([] if self.more is None else self.more.lines(frechet)),
            Line("background, synthetic (0 to 255)", self.background_synthetic),
            Line("background, real", self.background_real),
            Line("tint, synthetic (levels of 255)", self.tint_synthetic),
            Line("tint, real", self.tint_real),
            Line("images, synthetic", self.n_synthetic, digits=0),
            Line("images, real", self.n_real, digits=0),
        ]

    def rows(self) -> list[dict[str, str]]:
        """Return the table of the whole sets: figure, value, interval."""
        return [line.shown(self.confidence) for line in self.lines()]

    def group_rows(self, attribute: str | None = None) -> list[dict[str, str]]:
        """Return the table by groups, of one attribute or of all: group, figure, value, interval, images."""
        return [
            {"group": line.group, **line.shown(self.confidence), "images": line.images}
            for one in self.by_group
            if attribute in (None, one.attribute)
            for line in one.lines(*names_of(self.extractor))
        ]

    def pair_rows(self) -> list[dict[str, str]]:
        """Return the table of pairs: figure, value, interval, subjects."""
        return [] if self.pairs is None else self.pairs.figures.rows(self.confidence)

    def records(self) -> list[dict[str, Any]]:
        """Return every figure as numbers: group, figure, value, low, high, images."""
        names = names_of(self.extractor)
        found = [*self.lines(), *(line for one in self.by_group for line in one.lines(*names))]
        if self.pairs is not None:
            found += self.pairs.lines()
        return [line.record() for line in found]


def names_of(extractor: str) -> tuple[str, str]:
    """Return what the Fréchet and the kernel distance are called on an extractor's features."""
    if extractor == "inception":
        return "FID", "KID x 1000"
    return f"Fréchet distance ({extractor})", f"kernel distance x 1000 ({extractor})"
