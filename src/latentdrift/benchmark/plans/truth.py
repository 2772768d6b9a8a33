"""Edits of simulated images, whose true counterfactuals are known: does the drift bring edits nearer to the truth?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Column, Figures, Row, benchmark, estimate, figure
from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    import torch

    from latentdrift.benchmark.data import BenchmarkData
    from latentdrift.benchmark.workshop import Workshop
    from latentdrift.data import Record
    from latentdrift.edit import EditResult

EDITORS: dict[str, dict[str, Any]] = {
    "prompt_swap": {"guidance": 3.0},
    "sdedit": {"guidance": 5.0, "strength": 0.5},
    "pix2pix_zero": {"guidance": 3.0},
}
"""Settings of each, the same with and without drift."""


@dataclass(frozen=True)
class TruthConfig(BenchmarkConfig):
    """Which editors, drifts and images."""

    editors: tuple[str, ...] = tuple(EDITORS)
    """prompt_swap, sdedit, pix2pix_zero."""
    drifts: tuple[str, ...] = ("none", "forward", "start")
    """none; forward: the model is trained under the automatic drift; start: the model without drift is sampled, and
    inverted, under it."""
    edit_steps: int = 20
    """Steps each way."""
    count: int = 64
    """Held-out images of each class that are edited into each other class."""
    judge_network: str = "efficientnet-lite0"
    """Network of the judge."""
    judge_epochs: int = 6
    """Passes over its training images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in (("editors", EDITORS), ("drifts", ("none", "forward", "start"))):
            unknown = [word for word in getattr(self, name) if word not in known]
            if unknown or not getattr(self, name):
                raise ConfigurationError(f"{name} are {getattr(self, name)}; choose from {', '.join(known)}.")


@benchmark("truth")
class Truth(Benchmark):
    """Editors × drift on simulated images: error to the true counterfactual, beside doing nothing."""

    config_class = TruthConfig
    config: TruthConfig
    needs_simulated = True
    about = (
        "Held-out simulated images, edited into other classes and compared with their true counterfactuals, in levels "
        "of 0 to 255. Edits are the source plus what the edit changed in comparison with the reconstruction, so that "
        "the autoencoder's blur is no error. *Against nothing*: error minus that of leaving the image as it is; below "
        "0 the edit is better. *Against average*: minus that of the average change of other people. *Along the truth*: "
        "the part of the true change that the edit makes, 1 all of it; *beside it*: the size of what it changes "
        "otherwise, in units of the true change. *Judged as wanted*: by a classifier of the real classes."
    )
    columns = (
        Column("error", "error", digits=2),
        Column("against nothing", "against_nothing", digits=2),
        Column("against average", "against_average", digits=2),
        Column("along the truth", "along", digits=2, better="higher"),
        Column("beside it", "beside", digits=2),
        Column("judged as wanted, %", "validity", scale=100, digits=0, better="higher"),
        Column("round trip, levels", "round_trip", digits=2),
    )

    def rows(self, data: BenchmarkData) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield every editor under every drift."""
        if not data.simulated:
            raise ConfigurationError(f"The truth of {data.data} is not known; this benchmark takes --data simulated.")
        config = self.config
        about = {"edit_steps": config.edit_steps, "count": config.count}
        about["judge"] = [config.judge_network, config.judge_epochs]  # type: ignore[assignment]
        for editor in config.editors:
            for drift in config.drifts:
                yield {"editor": editor, "drift": drift}, {"editor": editor, "drift": drift, **about}

    def control(self, row: Row) -> Row | None:
        """Return the same editor without drift."""
        return None if row["drift"] == "none" else {**row, "drift": "none"}

    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Figures:
        """Train, edit, and compare with the truth."""
        import torch

        from latentdrift.evaluate.counterfactuals import errors_against_truth, mean_interval

        drift, editor = settings["drift"], settings["editor"]
        model = workshop.model(seed, drift="auto" if drift == "forward" else "none", rule="forward")
        records, targets = self.wishes(workshop)
        result = self.edit(editor, drift, model, records, targets, workshop)
        truth = true_images(workshop, records, targets, result.source.shape[-1])
        edited, subjects = result.composed(), [record.subject or record.key for record in records]
        errors = errors_against_truth(result.source, edited, truth, subjects)
        along, beside = decomposed(result.source, edited, truth)
        judged = self.judged(edited, targets, workshop)
        assert result.reconstruction is not None
        round_trip = (result.reconstruction - result.source).abs().flatten(1).mean(1) * 127.5
        return {
            "error": estimate(errors.edited),
            "nothing": estimate(errors.nothing),
            "average": estimate(errors.average),
            "against_nothing": estimate(errors.against_nothing),
            "against_average": estimate(errors.against_average),
            "along": estimate(mean_interval(along, subjects)),
            "beside": estimate(mean_interval(beside, subjects)),
            "validity": estimate(mean_interval(judged, subjects)),
            "round_trip": estimate(mean_interval(round_trip.numpy(), subjects)),
            "images": figure(len(records)),
            "changed": figure(float((torch.as_tensor(edited) - result.source).abs().mean() * 127.5)),
        }

    def wishes(self, workshop: Workshop) -> tuple[list[Record], list[str]]:
        """Return held-out images and the class each is edited into."""
        parts, records, targets = workshop.parts, [], []
        classes = sorted({str(value) for value in parts.cohort.values(parts.attribute)})
        for source in classes:
            held_out = parts.test.where(**{parts.attribute: source})
            chosen = list(held_out.take(min(self.config.count, len(held_out)), seed=0))
            for target in classes:
                if target != source:
                    records += chosen
                    targets += [target] * len(chosen)
        return records, targets

    def edit(
        self, editor: str, drift: str, model: Any, records: list[Record], targets: list[str], workshop: Workshop
    ) -> EditResult:
        """Return the edits."""
        import torch

        from latentdrift.benchmark.searched import cohort_moments
        from latentdrift.counterfactual import make_counterfactuals
        from latentdrift.data import ImageTransform, PromptTemplate
        from latentdrift.drift import LatentDrift

        pipeline = workshop.open(model)
        if drift == "start":
            LatentDrift(cohort_moments(workshop, model, "map"), rule="start").attach(pipeline)
        card, attribute = pipeline.latentdrift_card, workshop.parts.attribute
        prompts, transform = PromptTemplate.restore(card.template), ImageTransform(size=card.size)
        return make_counterfactuals(
            pipeline,
            torch.stack([transform.read(record.image) for record in records]),
            [prompts.caption(record) for record in records],
            [
                prompts.caption({**record.attributes, attribute: target})
                for record, target in zip(records, targets, strict=True)
            ],
            editor=editor,
            steps=self.config.edit_steps,
            batch_size=self.config.sampling_batch,
            **EDITORS[editor],
        )

    def judged(self, edited: torch.Tensor, targets: list[str], workshop: Workshop) -> Any:
        """Return whether the judge takes each image for its wanted class, (N,) of 0 and 1."""
        import numpy as np

        from latentdrift.benchmark.workshop import digest
        from latentdrift.models.classifier import ClassifierConfig, load_classifier, train_classifier

        parts, config = workshop.parts, self.config
        settings = ClassifierConfig(
            attribute=parts.attribute,
            role="judge",
            network=config.judge_network,
            epochs=config.judge_epochs,
            size=workshop.size,
        )
        folder = workshop.folder / "judges" / digest([settings, parts.facts["content_hash"]])
        with workshop.locked(folder):
            if not folder.exists():
                # Of training people only; one classifier scores all rows, so a seed is not needed.
                train_classifier(parts.train, folder, settings, autoencoder=workshop.base, device=workshop.device)
        judge = load_classifier(folder, workshop.device)
        wanted = np.array([judge.index(target) for target in targets])
        return (judge.probabilities(edited).argmax(1) == wanted).astype(np.float64)


def true_images(workshop: Workshop, records: list[Record], targets: list[str], size: int) -> torch.Tensor:
    """Return the true counterfactuals, read as their sources are: (N, 3, size, size) in [-1, 1]."""
    import torch

    from latentdrift.data import ImageTransform
    from latentdrift.data.edits import TRUTH

    folder, transform = workshop.parts.cohort.root / TRUTH, ImageTransform(size=size)
    wishes = zip(records, targets, strict=True)
    return torch.stack([transform.read(folder / f"{Path(record.key).stem}_{target}.png") for record, target in wishes])


def decomposed(source: torch.Tensor, edited: torch.Tensor, truth: torch.Tensor) -> tuple[Any, Any]:
    """Return the edit's change along the true one and beside it, in units of the true change's length: (N,), (N,).

    With c the edit's change and t the true one: c·t / t·t, and |c - (c·t / t·t) t| / |t|. The perfect edit is 1 and 0.
    Images whose true counterfactual is themselves count as 0 along, and as far beside as the edit is long.
    """
    change, true = ((images - source).double().flatten(1) for images in (edited, truth))
    length = (true * true).sum(1).clamp_min(1e-12)
    along = (change * true).sum(1) / length
    beside = (change - along[:, None] * true).norm(dim=1) / length.sqrt()
    return along.numpy(), beside.numpy()
