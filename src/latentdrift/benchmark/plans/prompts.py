"""How captions are worded: one wording a class or 21, without or with age and sex."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentdrift.benchmark.paper import PROMPTS
from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Column, Figures, Row, benchmark
from latentdrift.data.prompts.sets import PROMPT_SETS

if TYPE_CHECKING:
    from latentdrift.benchmark.data import BenchmarkData
    from latentdrift.benchmark.workshop import Workshop


@dataclass(frozen=True)
class PromptsConfig(BenchmarkConfig):
    """Which sets of captions."""

    sets: tuple[str, ...] = PROMPT_SETS
    """Sets by name: simple, diverse, simple+patient, diverse+patient."""
    drifts: tuple[str, ...] = ("none", "auto")
    """Drifts that models are trained under."""
    rule: str = "forward"
    """Where the drift acts."""


@benchmark("prompts")
class Prompts(Benchmark):
    """Sets of captions × drift: distances to held-out images."""

    config_class = PromptsConfig
    config: PromptsConfig
    about = (
        "Captions with one wording a class (simple) or 21 (diverse), without or with the patient's age and sex, with "
        "basic fine-tuning. The control of a set is the same set without drift."
    )
    columns = (
        Column("FID", "fid"),
        Column("KID × 1000", "kid", scale=1000),
        Column("precision", "precision", digits=2, better="higher"),
        Column("recall", "recall", digits=2, better="higher"),
        Column("coverage", "coverage", digits=2, better="higher"),
        Column("background", "background", better=None),
    )

    def rows(self, data: BenchmarkData) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield every set under every drift."""
        for name in self.config.sets:
            for drift in self.config.drifts:
                rule = self.config.rule if drift != "none" else ""
                template = f"{data.modality}:{name}"
                yield {"captions": name, "drift": drift}, {"template": template, "drift": drift, "rule": rule}

    def control(self, row: Row) -> Row | None:
        """Return the same captions without drift."""
        return None if row["drift"] == "none" else {**row, "drift": "none"}

    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Figures:
        """Train, sample, and measure."""
        from latentdrift.benchmark.measures import set_figures

        named = {name: value for name, value in settings.items() if value}
        made = workshop.sample(workshop.model(seed, **named), seed, about=named)
        workshop.keep_picture("made", made)
        return set_figures(workshop, made)

    def published(self, data: BenchmarkData) -> list[tuple[Row, dict[str, float]]]:
        """Return the paper's best set, which had the drift."""
        if data.modality != "mri":
            return []
        return [
            ({"captions": name, "drift": "auto"}, {"FID": fid, "KID × 1000": 1000 * kid})
            for name, (fid, kid) in PROMPTS.items()
        ]
