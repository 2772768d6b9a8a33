"""Table 1 of the paper: fine-tuning methods with and without drift, distances and what classifiers learn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from latentdrift.benchmark.paper import HALF_AUC, REAL_AUC, TABLE1
from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Column, Figures, Row, benchmark
from latentdrift.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    from latentdrift.benchmark.data import BenchmarkData
    from latentdrift.benchmark.workshop import Workshop
    from latentdrift.data import Cohort

HALF = "basic"
"""The method whose images also join the real ones, as in the paper."""
REAL_ROW = {"method": "real data", "drift": "", "rule": ""}
BLURRED_ROW = {"method": "real data, autoencoded", "drift": "", "rule": ""}


@dataclass(frozen=True)
class Table1Config(BenchmarkConfig):
    """Which methods, and how classifiers are trained."""

    methods: tuple[str, ...] = ("custom_diffusion", "dreambooth", "textual_inversion", "basic")
    """Fine-tuning methods, in the order of the table; lora too."""
    drifts: tuple[str, ...] = ("none", "auto")
    """Drifts that each is trained under; none first, as it is what others are compared with."""
    rules: tuple[str, ...] = ("start", "forward")
    """Where the drift acts; under start, in sampling alone, it drifts the model that was trained without."""
    utility: bool = True
    """Train classifiers on the images and test them on real ones."""
    utility_network: str = "efficientnet-lite0"
    """Their network."""
    utility_epochs: int = 6
    """Passes over their training images."""
    utility_share: float = 1.0
    """Share of the real training subjects that real data have, and that join the images: with few, there is more for
    these to add."""
    utility_repeats: int = 1
    """Classifiers of each kind under every seed: other subjects, other weights at the start; their mean counts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        from latentdrift.finetune import finetune_method

        for method in self.methods:
            if method not in finetune_method.names() or method == "instruct_pix2pix":
                known = [name for name in finetune_method.names() if name != "instruct_pix2pix"]
                raise UnknownNameError("method that makes images from captions", method, known)
        if not 0 < self.utility_share <= 1 or self.utility_repeats < 1:
            raise ConfigurationError(
                f"utility_share is {self.utility_share}, utility_repeats {self.utility_repeats}; give a share above 0, "
                "at most 1, and at least one repeat."
            )
        if not self.methods or not self.drifts or not self.rules:
            raise ConfigurationError("Give at least one of --methods, one of --drifts and one of --rules.")


@benchmark("table1")
class Table1(Benchmark):
    """Methods × drift: Fréchet and kernel distance to held-out images, AUC, coverage, and copies."""

    config_class = Table1Config
    config: Table1Config
    about = (
        "Fine-tuning methods with and without drift (Table 1 of the paper). *AUC*: a classifier trained on the images "
        "alone, tested on held-out real ones; *with real*: trained on the real training images (or the share of their "
        "subjects that was asked for, as are real data alone) and as many of these. "
        "*Real data, autoencoded*: held-out images after the autoencoder alone, nearer than which no model of this "
        "base can come. *Copies*: images nearer to a training image than half of what its neighbours are."
    )
    columns = (
        Column("FID", "fid"),
        Column("KID × 1000", "kid", scale=1000),
        Column("AUC", "auc", digits=3, better="higher"),
        Column("AUC, with real", "auc_half", digits=3, better="higher"),
        Column("precision", "precision", digits=2, better="higher"),
        Column("recall", "recall", digits=2, better="higher"),
        Column("coverage", "coverage", digits=2, better="higher"),
        Column("background", "background", better=None),
        Column("copies, %", "copies", scale=100, digits=1),
    )

    def rows(self, data: BenchmarkData) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield real data, and every method under every drift."""
        config, about = self.config, self._classifier()
        yield REAL_ROW, {"real": True, **about}
        yield BLURRED_ROW, {"autoencoded": True}
        for method in config.methods:
            for drift in config.drifts:
                for rule in config.rules if drift != "none" else ("",):
                    row = {"method": method, "drift": drift, "rule": rule}
                    yield row, {**row, **about}

    def control(self, row: Row) -> Row | None:
        """Return the same method without drift."""
        if row["drift"] in ("", "none"):
            return None
        return {**row, "drift": "none", "rule": ""}

    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Figures:
        """Train, sample, and measure."""
        from latentdrift.benchmark.measures import auc, copy_share, set_figures, utility

        config = self.config
        trained: dict[str, Any] = {
            "network": config.utility_network,
            "epochs": config.utility_epochs,
            "share": config.utility_share,
            "repeats": config.utility_repeats,
        }
        if settings.get("real"):
            if not config.utility:
                return {}
            return {"auc": auc(utility(workshop, None, ("real",), seed, **trained), "real")}
        if settings.get("autoencoded"):
            return autoencoded(workshop)
        made = self._made(settings, seed, workshop)
        workshop.keep_picture("made", made)
        figures = {**set_figures(workshop, made), **copy_share(workshop, made)}
        if config.utility:
            kinds = ("synthetic", "half") if settings["method"] == HALF else ("synthetic",)
            found = utility(workshop, made, kinds, seed, **trained)
            figures["auc"] = auc(found, "synthetic")
            if "half" in kinds:
                figures["auc_half"] = auc(found, "half")
        return figures

    def _made(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Cohort:
        """Return the samples of a row."""
        from latentdrift.benchmark.searched import sampling_drift

        named = {name: settings[name] for name in ("method", "drift", "rule")}
        drift = sampling_drift(settings["drift"]) if settings["rule"] == "start" else None
        if drift is None:
            model = workshop.model(seed, **{name: value for name, value in named.items() if value})
            return workshop.sample(model, seed, about=named)
        model = workshop.model(seed, method=settings["method"])
        return workshop.sample(model, seed, drift=drift(workshop, model), about=named)

    def published(self, data: BenchmarkData) -> list[tuple[Row, dict[str, float]]]:
        """Return the paper's table."""
        known = TABLE1[data.modality]
        found: list[tuple[Row, dict[str, float]]] = [(REAL_ROW, {"AUC": REAL_AUC[data.modality]})]
        for (method, drifted), (fid, kid, area) in known.items():
            for drift in self.config.drifts:
                if (drift != "none") != drifted:
                    continue
                for rule in self.config.rules if drifted else ("",):
                    figures = {"FID": fid, "KID × 1000": 1000 * kid, "AUC": area}
                    if drifted and method == HALF:
                        figures["AUC, with real"] = HALF_AUC[data.modality]
                    found.append(({"method": method, "drift": drift, "rule": rule}, figures))
        return found

    def _classifier(self) -> dict[str, Any]:
        config = self.config
        about: list[Any] = [config.utility_network, config.utility_epochs, "at the size of the images"]
        if (config.utility_share, config.utility_repeats) != (1.0, 1):
            about += [config.utility_share, config.utility_repeats]
        return {"classifier": about if config.utility else None}


def autoencoded(workshop: Workshop) -> Figures:
    """Return the distances of the held-out images after the autoencoder alone: the base's own blur."""
    from latentdrift.benchmark.measures import distances, real_features
    from latentdrift.benchmark.plan import figure
    from latentdrift.benchmark.workshop import read
    from latentdrift.evaluate import corner_background
    from latentdrift.generate import decode_latents, encode_images

    pipeline = workshop.bare(workshop.base)
    size = workshop.size
    images = read(workshop.parts.test, size)
    blurred = decode_latents(pipeline, encode_images(pipeline, images, 16), 16)
    return {
        **distances(real_features(workshop, size), workshop.extractor(blurred)),
        "background": figure(corner_background(blurred)),
    }
