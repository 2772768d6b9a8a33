"""What a benchmark is: rows under several seeds, how one cell is measured, and the columns of its table.

A benchmark is one file in `plans/`, under `@benchmark(NAME)`: a frozen config whose fields are flags of the command,
and a class. A cell is one row under one seed; its key is the hash of all that its figures depend on, so a cell that
was measured once is never measured again, whoever asks for it.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_type_hints

from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.registry import Registry

if TYPE_CHECKING:
    from latentdrift.benchmark.data import BenchmarkData
    from latentdrift.benchmark.workshop import Workshop

FORMAT = 2
"""Part of a cell's key; raised where the same settings would give other figures."""

LEAST_SAMPLES = 12
"""Coverage takes five neighbours, and its interval halves of the images."""

Row = dict[str, str]
"""What the table calls a row: name of a heading → entry."""
Figures = dict[str, dict[str, float]]
"""Name of a figure → its `value`, and where there is an interval its `low` and `high`."""


@dataclass(frozen=True)
class BenchmarkConfig:
    """How long models are trained, and how they are sampled: the same for every row."""

    base: str = "tiny"
    """What is fine-tuned: tiny, tiny-brain, a diffusers folder, a run folder or a hub id."""
    image_size: int | None = None
    """Height and width of all images, pixels; by default the base's own. Half of it trains and samples about four
    times as fast."""
    steps: int = 400
    """Optimizer steps of every fine-tuning."""
    batch_size: int = 16
    """Images a step."""
    learning_rate: float | None = None
    """Highest learning rate; by default each method's own for tiny."""
    mixed_precision: Literal["no", "fp16", "bf16"] = "no"
    """Number format of training's forward pass."""
    samples: int = 256
    """Images drawn from every model; their captions are those of held-out images."""
    sampling_steps: int = 25
    """Denoising steps."""
    guidance: float = 1.5
    """Classifier-free guidance scale; 1 is none."""
    sampling_batch: int = 32
    """Images sampled at once."""
    extractor: str = "default"
    """Feature extractor of the distances: inception (the published figures), efficientnet-lite0, or another by name."""
    seeds: tuple[int, ...] = (0, 1)
    """One training and one set of noises each."""

    def __post_init__(self) -> None:
        leasts = {"steps": 1, "batch_size": 1, "samples": LEAST_SAMPLES, "sampling_steps": 1, "sampling_batch": 1}
        for name, least in leasts.items():
            if getattr(self, name) < least:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least {least}.")
        if self.image_size is not None and self.image_size < 1:
            raise ConfigurationError(f"image_size is {self.image_size}; it must be at least 1.")
        if not self.seeds or min(self.seeds) < 0 or len(set(self.seeds)) < len(self.seeds):
            raise ConfigurationError(f"seeds are {self.seeds}; give at least one, none twice, each 0 or more.")
        if self.mixed_precision not in get_args(get_type_hints(BenchmarkConfig)["mixed_precision"]):
            raise UnknownNameError("mixed_precision", self.mixed_precision, ("no", "fp16", "bf16"))

    def common(self) -> dict[str, Any]:
        """Return what every cell's figures depend on."""
        names = [field.name for field in dataclasses.fields(BenchmarkConfig) if field.name != "seeds"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Args:
        name: its heading, with the unit.
        figure: the figure shown.
        scale: what it is multiplied with.
        digits: after the point.
        better: whether lower or higher figures are better; None where neither is.
    """

    name: str
    figure: str
    scale: float = 1.0
    digits: int = 1
    better: Literal["lower", "higher"] | None = "lower"


def in_words(row: Row) -> str:
    """Return a row as a label, as "no drift, 50 steps": a number says what it counts."""
    return ", ".join(f"{entry} {head}" if entry.isdigit() else entry for head, entry in row.items() if entry)


@dataclass(frozen=True)
class Cell:
    """One row under one seed.

    Args:
        row: what the table calls it.
        settings: everything of this row that its figures depend on, plain values.
        seed: of training and sampling.
    """

    row: Row
    settings: Mapping[str, Any]
    seed: int


class Benchmark(ABC):
    """A question, as rows and columns."""

    config_class: ClassVar[type[BenchmarkConfig]] = BenchmarkConfig
    columns: ClassVar[tuple[Column, ...]] = ()
    about: ClassVar[str] = ""
    """What the table shows and how to read it, light Markdown."""
    needs_simulated: ClassVar[bool] = False
    """Whether only a simulated cohort will do."""
    name: str = ""

    def __init__(self, config: BenchmarkConfig) -> None:
        self.config = config

    @abstractmethod
    def rows(self, data: BenchmarkData) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Yield every row and its settings, in the order of the table.

        Raises:
            ConfigurationError: data that this benchmark cannot use.
        """

    @abstractmethod
    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Figures:
        """Return a cell's figures; may leave pictures by `workshop.keep_picture`."""

    def control(self, row: Row) -> Row | None:
        """Return the row that a row is compared with, seed by seed; None for none."""
        return None

    def published(self, data: BenchmarkData) -> list[tuple[Row, dict[str, float]]]:
        """Return the paper's figures by row, under the names of columns."""
        return []

    @functools.cached_property
    def network(self) -> str:
        """The full name of the feature extractor on this machine."""
        from latentdrift.evaluate import resolve_extractor

        return resolve_extractor(self.config.extractor)

    def cells(self, data: BenchmarkData) -> list[Cell]:
        """Return all cells; the first seed of every row comes before the second of any."""
        rows = list(self.rows(data))
        return [Cell(row, settings, seed) for seed in self.config.seeds for row, settings in rows]

    def key(self, cell: Cell, data: Mapping[str, Any]) -> str:
        """Return the hash of all that a cell's figures depend on: 16 hexadecimal digits."""
        # What `default` stands for changes when weights arrive, and is another network on another machine.
        common = {**self.config.common(), "extractor": self.network}
        about = [FORMAT, self.name, common, dict(data), dict(cell.settings), cell.seed]
        text = json.dumps(about, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


benchmark: Registry[type[Benchmark]] = Registry("benchmark", "latentdrift.benchmark.plans")
"""Benchmarks by name."""


def open_benchmark(name: str, config: BenchmarkConfig | None = None) -> Benchmark:
    """Return the benchmark called `name`.

    Raises:
        UnknownNameError: there is none.
        ConfigurationError: settings of another benchmark.
    """
    kind = benchmark.get(name)
    config = config or kind.config_class()
    if not isinstance(config, kind.config_class):
        raise ConfigurationError(
            f"{type(config).__name__} are no settings of {name!r}; give {kind.config_class.__name__}."
        )
    made = kind(config)
    made.name = name
    return made


def figure(value: Any, interval: Any = None) -> dict[str, float]:
    """Return a figure as cells keep it; `interval` is a pair of its ends, or None."""
    ends = {} if interval is None else {"low": float(interval[0]), "high": float(interval[1])}
    return {"value": float(value), **ends}


def estimate(found: Any) -> dict[str, float]:
    """Return an `Estimate` of `evaluate.counterfactuals` as cells keep it."""
    return figure(found.value, found.interval)
