"""Ageing by instruction: how the age is said, with and without drift, against the real later scan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentdrift.benchmark.paper import AGING
from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Column, Figures, Row, benchmark
from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    from latentdrift.benchmark.data import BenchmarkData
    from latentdrift.benchmark.workshop import Workshop
    from latentdrift.data import EditPair

NOTHING_ROW = {"age as": "nothing done", "drift": ""}


@dataclass(frozen=True)
class AgingConfig(BenchmarkConfig):
    """Which wordings, and which pairs of visits."""

    ages: tuple[str, ...] = ("bin", "words", "number")
    """How instructions say ages: number, words, decade, bin, bin5, difference or difference-words."""
    drifts: tuple[str, ...] = ("none", "auto")
    """Drifts that models are trained under."""
    rule: str = "forward"
    """Where the drift acts."""
    min_years: float = 0.5
    """Least time between two visits."""
    max_years: float = float("inf")
    """Most time between two visits."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.min_years <= self.max_years:
            raise ConfigurationError(f"The years between are {self.min_years} to {self.max_years}; the less first.")


@benchmark("aging")
class Aging(Benchmark):
    """InstructPix2Pix on pairs of visits: wording of the age × drift."""

    config_class = AgingConfig
    config: AgingConfig
    about = (
        "InstructPix2Pix, trained on pairs of visits, edits the first visits of held-out people; figures are against "
        "their later visits. *Nothing done* is the first visit itself, which an edit has to beat. Its Fréchet distance "
        "is that of real scans to real scans."
    )
    columns = (
        Column("FID", "fid"),
        Column("SSIM", "ssim", digits=3, better="higher"),
        Column("LPIPS", "lpips", digits=3),
        Column("PSNR, dB", "psnr", digits=2, better="higher"),
        Column("error, levels of 255", "error", digits=2),
    )

    def rows(self, data: BenchmarkData) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield what doing nothing gives, and every wording under every drift."""
        config = self.config
        # The modality words the instructions, whatever the template is.
        limits = {"min_years": config.min_years, "max_years": config.max_years, "modality": data.modality}
        yield NOTHING_ROW, {"age": "", "drift": "", "rule": "", **limits}
        for age in config.ages:
            for drift in config.drifts:
                rule = config.rule if drift != "none" else ""
                yield {"age as": age, "drift": drift}, {"age": age, "drift": drift, "rule": rule, **limits}

    def control(self, row: Row) -> Row | None:
        """Return the same wording without drift, and doing nothing for that."""
        if row == NOTHING_ROW:
            return None
        return NOTHING_ROW if row["drift"] == "none" else {**row, "drift": "none"}

    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Figures:
        """Train, edit the held-out first visits, and compare with the later ones."""
        import torch

        from latentdrift.data import ImageTransform
        from latentdrift.generate import edit_by_instruction

        config, nothing = self.config, not settings["age"]
        pairs = self.pairs(settings["age"] or "number", workshop)
        pairs = pairs[: config.samples]
        pipeline: Any
        if nothing:
            size = workshop.size
        else:
            options = {"pairs": "visits", "modality": workshop.data.modality, "age": settings["age"]}
            options |= {"min_years": settings["min_years"], "max_years": settings["max_years"]}
            model = workshop.model(
                seed,
                method="instruct_pix2pix",
                drift=settings["drift"],
                rule=settings["rule"] or "forward",
                options=options,
            )
            pipeline = workshop.open(model)
            size = pipeline.latentdrift_card.size
        transform = ImageTransform(size=size)
        before = torch.stack([transform.read(pair.source.image) for pair in pairs])
        after = torch.stack([transform.read(pair.target.image) for pair in pairs])
        edited = before
        if not nothing:
            edited = edit_by_instruction(
                pipeline,
                before,
                [pair.instruction for pair in pairs],
                seeds=[seed * len(pairs) + index for index in range(len(pairs))],
                steps=config.sampling_steps,
                batch_size=config.sampling_batch,
            )
            if pipeline.latentdrift_card.gray:
                edited = edited.mean(1, keepdim=True).expand_as(edited)
        return self.compare(edited, after, pairs, workshop)

    def compare(self, edited: Any, after: Any, pairs: list[EditPair], workshop: Workshop) -> Figures:
        """Return the figures of edits against the later scans."""
        from latentdrift.benchmark.measures import frechet
        from latentdrift.benchmark.plan import estimate
        from latentdrift.evaluate import pair_figures
        from latentdrift.evaluate.counterfactuals import mean_interval, proximity

        real, made = workshop.extractor(after), workshop.extractor(edited)
        subjects = [pair.target.subject or pair.target.key for pair in pairs]
        figures = {"fid": frechet(real, made)}
        found = pair_figures(edited, after, subjects)
        figures |= {name.lower(): estimate(value) for name, value in found.estimates.items()}
        figures["error"] = estimate(mean_interval(proximity(after, edited).l1, subjects))
        return figures

    def pairs(self, age: str, workshop: Workshop) -> list[EditPair]:
        """Return the held-out pairs of visits.

        Raises:
            NoPairsError: no subject has two visits.
        """
        from latentdrift.data import edit_pairs

        return edit_pairs(
            workshop.parts.test,
            kind="visits",
            min_years=self.config.min_years,
            max_years=self.config.max_years,
            modality=workshop.data.modality,
            age=age,
        )

    def published(self, data: BenchmarkData) -> list[tuple[Row, dict[str, float]]]:
        """Return the paper's figures, which had the drift."""
        if data.modality != "mri":
            return []
        names = ("FID", "SSIM", "LPIPS", "PSNR, dB")
        return [
            ({"age as": age, "drift": "auto"}, dict(zip(names, figures, strict=True)))
            for age, figures in AGING.items()
            if age in self.config.ages
        ]
