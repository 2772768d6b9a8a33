"""Where the drift acts, how δ is chosen, what else does the same, and when it matters at all."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Column, Figures, Row, benchmark, figure
from latentdrift.errors import UnknownNameError

if TYPE_CHECKING:
    from latentdrift.benchmark.data import BenchmarkData
    from latentdrift.benchmark.workshop import Workshop
    from latentdrift.drift import LatentDrift

GROUPS = ("start", "trained", "paper", "relatives", "steps", "latents")
UNDRIFTED = "no drift"
PLAIN = {"drift": "none", "rule": "", "sampled": "", "steps": "", "side": ""}


@dataclass(frozen=True)
class DriftRulesConfig(BenchmarkConfig):
    """Which of the questions."""

    groups: tuple[str, ...] = GROUPS
    """start: the drift in sampling alone, fixed, automatic or searched. trained: rule forward, and learned drifts.
    paper: Eq. 4 to the letter, and the control that changes nothing. relatives: offset noise, zero terminal SNR,
    trailing timesteps. steps: few and many steps. latents: a quarter of the latent's size."""
    values: tuple[float, ...] = (-0.1, -0.05, 0.05, 0.1)
    """Fixed drifts, the same for every latent pixel: what the paper's grid is about."""
    few: int = 10
    """Steps of the group steps."""
    many: int = 50
    """Steps of the group steps."""
    search_samples: int = 64
    """Images a point of the search for δ, whose criterion is the paper's: the L1 distance to the training images."""
    search_steps: int = 10
    """Denoising steps of the search."""
    search_points: int = 9
    """Values of δ from -0.2 to 0.2."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for group in self.groups:
            if group not in GROUPS:
                raise UnknownNameError("group of rows", group, GROUPS)


@benchmark("drift-rules")
class DriftRules(Benchmark):
    """Rules × values of the drift, its relatives, numbers of steps, and sizes of the latent."""

    config_class = DriftRulesConfig
    config: DriftRulesConfig
    about = (
        "Where the drift acts and how δ is chosen, with basic fine-tuning. *start*: in sampling alone, of a model "
        "trained without; *forward*: in training alone; *paper*: both, as Eq. 4 says, δ at every step or shared among "
        "them; *matched*: both and undone at every step, the control that should change nothing. *auto*: from the "
        "cohort's mean latent, as scalar, vector (one a channel) or map. *searched*: the paper's grid. The control of "
        "a row is the model without drift at the same number of steps and size of the latent."
    )
    columns = (
        Column("FID", "fid"),
        Column("KID × 1000", "kid", scale=1000),
        Column("precision", "precision", digits=2, better="higher"),
        Column("recall", "recall", digits=2, better="higher"),
        Column("coverage", "coverage", digits=2, better="higher"),
        Column("background", "background", better=None),
        Column("δ, mean size", "delta", digits=3, better=None),
        Column("U-Net evaluations of the search", "evaluations", digits=0, better=None),
    )

    def rows(self, data: BenchmarkData) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield the rows of all groups; the ones without drift first."""
        wanted = self.config.groups
        for row in self._all_rows():
            group = row.pop("group")
            if group in wanted or group == "":
                settings: dict[str, Any] = {**PLAIN, **row}
                if row.get("sampled") == "searched":
                    config = self.config
                    settings["search"] = [config.search_samples, config.search_steps, config.search_points]
                yield named(settings), settings

    def _all_rows(self) -> Iterator[dict[str, str]]:
        config = self.config
        yield {"group": ""}
        for value in config.values:
            yield {"group": "start", "sampled": f"{value:+g}"}
        for kind in ("auto-scalar", "auto-vector", "auto-map", "searched"):
            yield {"group": "start", "sampled": kind}
        for kind in ("auto-vector", "auto-map", "learned-vector"):
            yield {"group": "trained", "drift": kind, "rule": "forward"}
        yield {"group": "trained", "drift": "learned-vector", "rule": "start"}
        for drift, rule in (("0.1", "paper"), ("0.1", "paper, shared"), ("auto-map", "matched")):
            yield {"group": "paper", "drift": drift, "rule": rule}
        for drift in ("offset-noise", "zero-terminal-snr"):
            yield {"group": "relatives", "drift": drift}
        yield {"group": "relatives", "sampled": "trailing"}
        for steps in (config.few, config.many):
            for sampled in ("", "auto-map"):
                yield {"group": "steps", "sampled": sampled, "steps": str(steps)}
        for sampled in ("", "auto-map"):
            yield {"group": "latents", "sampled": sampled, "side": "half"}

    def control(self, row: Row) -> Row | None:
        """Return the row without drift at the same number of steps and size."""
        plain = {**row, "trained with": UNDRIFTED, "sampled with": ""}
        return None if row == plain else plain

    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Figures:
        """Train, or take the model that is there; sample under the drift, and measure."""
        from latentdrift.benchmark.measures import set_figures

        base = workshop.base_of_size(self.config.image_size, halved=True) if settings["side"] else None
        rule, _, shared = settings["rule"].partition(", ")
        model = workshop.model(seed, drift=settings["drift"], rule=rule or "start", base=base)
        steps = int(settings["steps"] or self.config.sampling_steps)
        drift: LatentDrift | str | None = "saved"
        figures: Figures = {}
        spacing = "trailing" if settings["sampled"] == "trailing" else None
        if settings["sampled"] and spacing is None:
            drift, figures = self._sampled(settings["sampled"], model, seed, steps, workshop)
        elif shared:
            drift = self._shared(model, workshop)
        about = {name: value for name, value in settings.items() if value}
        made = workshop.sample(model, seed, drift=drift, steps=steps, spacing=spacing, about=about)
        workshop.keep_picture("made", made)
        return {**set_figures(workshop, made), **figures}

    def _sampled(
        self, wish: str, model: Any, seed: int, steps: int, workshop: Workshop
    ) -> tuple[LatentDrift | None, Figures]:
        """Return a drift of rule `start`: fixed, automatic or searched, and its mean size."""
        from latentdrift.benchmark.searched import sampling_drift, searched_delta
        from latentdrift.drift import LatentDrift

        if wish == "searched":
            value, evaluations = searched_delta(workshop, model, seed, self.config)
            found = LatentDrift(value, rule="start") if value else None
            return found, {"delta": figure(abs(value)), "evaluations": figure(evaluations)}
        make = sampling_drift(wish)
        assert make is not None
        drift = make(workshop, model)
        size = float(np.abs(np.asarray(drift.numbers)).mean())
        if drift.automatic:
            size *= gain_of(workshop.open(model), steps)
        return drift, {"delta": figure(size)}

    def _shared(self, model: Any, workshop: Workshop) -> LatentDrift:
        """Return the model's own drift, a share of it at every step."""
        from latentdrift.drift import LatentDrift, drift_of

        own = drift_of(workshop.open(model))
        assert own is not None
        return LatentDrift(own.value, "paper", own.target, "shared")


def gain_of(pipeline: Any, steps: int) -> float:
    """Return what turns the mean latent into the automatic drift at this number of steps."""
    from latentdrift.drift.attachment import plain
    from latentdrift.drift.scheduler import start_gain

    scheduler = copy.deepcopy(plain(pipeline.scheduler))
    scheduler.set_timesteps(steps)
    return float(start_gain(scheduler))


def named(settings: Mapping[str, str]) -> Row:
    """Return what the table calls a row."""
    trained = ", ".join(filter(None, (settings["drift"] if settings["drift"] != "none" else "", settings["rule"])))
    sampled = settings["sampled"] and (
        settings["sampled"] if settings["sampled"] == "trailing" else f"{settings['sampled']}, start"
    )
    return {
        "trained with": trained or UNDRIFTED,
        "sampled with": sampled,
        "steps": settings["steps"],
        "latent": "half as wide" if settings["side"] else "",
    }
