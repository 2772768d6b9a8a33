"""The paper's criterion for δ: the L1 distance between the model's distribution and the target's, by Monte Carlo.

The paper (arXiv 2412.20651, choice of δ) takes argmin over δ of ||D_θ - D_GT||_1 from generated samples and existing
samples of D_GT, and leaves open what of the distributions is compared: densities over images cannot be estimated from
a few hundred samples. Here it is the distribution functions of single values, of a pixel or of a number of the latent:

    marginals = 1/d Σ_j ∫ |F_j(x) - G_j(x)| dx        means = 1/d Σ_j |E_F[x_j] - E_G[x_j]|

F_j and G_j are the empirical distribution functions of value j over the generated and the existing samples, and the
integral is their L1 distance, which in one dimension is the Wasserstein distance of order 1: for N(m, s²) and N(n, s²)
it is |m - n|, for equal means and deviations s and r it is |s - r| √(2/π). `means` is the part of it that a shift
explains, and never larger. What several pixels do together plays no part in either.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args, get_type_hints

import numpy as np
import numpy.typing as npt
import torch

from latentdrift.counterfactual.rendering import DriftParameter, Meter, Rendering, remembering
from latentdrift.drift import sampling_under
from latentdrift.errors import ConfigurationError, EvaluationError, LatentDriftError, UnknownNameError
from latentdrift.generate import encode_images, generate_images

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Array = npt.NDArray[np.float64]

COLUMNS = 4096
"""Values that are compared at a time."""


@dataclass(frozen=True)
class DistributionConfig:
    """How two distributions are compared."""

    space: Literal["pixels", "latents"] = "pixels"
    """pixels: of the images, in levels of 0 to 255; latents: of the scaled latents, in their own unit, where the
    autoencoder's blur has no part."""
    statistic: Literal["marginals", "means"] = "marginals"
    """marginals: L1 distance of the distribution functions, averaged over pixels; means: of the mean images alone."""

    def __post_init__(self) -> None:
        for name in ("space", "statistic"):
            known = get_args(get_type_hints(type(self))[name])
            if getattr(self, name) not in known:
                raise UnknownNameError(f"{name} of the distribution", str(getattr(self, name)), known)

    @property
    def unit(self) -> str:
        """Of the distances."""
        return "levels of 255" if self.space == "pixels" else "latent units"


class Difference(NamedTuple):
    """One distance minus another, with its bootstrap interval."""

    value: float
    low: float
    high: float


def marginal_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the mean over values of the L1 distance of their distribution functions; see the module.

    Exact for the samples given, whatever their numbers. Two finite sets of one distribution differ too: of a normal one
    of deviation s by about 1.29 s √(1/N + 1/M). Compare distances from equal numbers of samples only.

    Args:
        first: (N, ...), N samples.
        second: (M, ...), of the same shape but for M.

    Raises:
        EvaluationError: no sample, values that are not finite, or shapes that differ.
    """
    a, b = _samples(first, second)
    n, m = len(a), len(b)
    # Quantile functions are steps at multiples of 1/N and 1/M; in whole numbers, so that equal places are equal.
    edges = np.unique(np.concatenate([np.arange(n + 1) * m, np.arange(m + 1) * n]))
    widths, left = np.diff(edges) / (n * m), edges[:-1]
    total = 0.0
    for columns in _columns(a.shape[1]):
        x, y = np.sort(a[:, columns], axis=0), np.sort(b[:, columns], axis=0)
        total += float((widths @ np.abs(x[left // m] - y[left // n])).sum())
    return total / a.shape[1]


def mean_distance(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """Return the mean absolute difference of the two means; arguments and errors as `marginal_distance`."""
    a, b = _samples(first, second)
    return float(np.abs(a.mean(0) - b.mean(0)).mean())


STATISTICS = {"marginals": marginal_distance, "means": mean_distance}


def paired_difference(
    best: npt.ArrayLike,
    control: npt.ArrayLike,
    target: npt.ArrayLike,
    statistic: str = "marginals",
    *,
    confidence: float = 0.95,
    resamples: int = 200,
    values: int = 1024,
    seed: int = 0,
) -> Difference:
    """Return the best's distance to the target minus the control's, with a bootstrap interval.

    Samples of one seed stay together: the same seeds are drawn for both, and the target's samples anew. Below 0 the
    best is nearer. Drawing again adds chance, which makes the nearer of two sets look farther than it is more than it
    does the other; so the quantiles are taken about the draws' own mean, and put around the difference found.

    Args:
        best: (N, ...) samples at the best parameters.
        control: (N, ...) samples of the same seeds without drift.
        target: (M, ...) samples of D_GT.
        statistic: "marginals" or "means".
        confidence: of the interval.
        resamples: of the bootstrap.
        values: the interval is taken over at most so many evenly spaced pixels or numbers of the latent.
        seed: of the draws.

    Raises:
        EvaluationError: as `marginal_distance`, or numbers of samples that differ.
    """
    distance = STATISTICS[statistic]
    value = distance(best, target) - distance(control, target)
    (a, b), (c, _) = _samples(best, target), _samples(control, target)
    if len(a) != len(c):
        raise EvaluationError(f"There are {len(a)} samples at the best and {len(c)} without drift; give pairs.")
    chosen = np.unique(np.linspace(0, a.shape[1] - 1, min(values, a.shape[1])).astype(int))
    a, b, c = a[:, chosen], b[:, chosen], c[:, chosen]
    rng, found = np.random.default_rng(seed), []
    for _ in range(resamples):
        own, theirs = rng.integers(len(a), size=len(a)), rng.integers(len(b), size=len(b))
        found.append(distance(a[own], b[theirs]) - distance(c[own], b[theirs]))
    tail = (1 - confidence) / 2
    low, high = value + np.quantile(found, [tail, 1 - tail]) - np.mean(found)
    return Difference(value, float(low), float(high))


@dataclass
class SampleRenderer:
    """Parameters by name (`delta` or `scale`; `guidance`) → samples of the model, always of the same seeds. Call it."""

    pipeline: DiffusionPipeline
    """From `load_pipeline`; its sampler is used."""
    prompts: Sequence[str]
    """One a sample."""
    seeds: Sequence[int]
    """One a sample."""
    parameter: DriftParameter = field(default_factory=DriftParameter)
    """What the searched number means."""
    config: DistributionConfig = field(default_factory=DistributionConfig)
    """Images or latents."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 1.5
    """Classifier-free guidance scale where it is not searched; 1 is none."""
    batch_size: int = 16
    """Samples at once."""
    meter: Meter = field(default_factory=Meter)
    """Counts the U-Net evaluations; may be shared."""
    memory: dict[Any, Any] = field(default_factory=dict, repr=False)
    """Encoded captions; may be shared."""

    def __call__(self, parameters: Mapping[str, float]) -> Rendering:
        """Return images (N, 3, H, W) in [-1, 1] or scaled latents (N, C, h, w); none where the latents overflow."""
        known = (self.parameter.name, "guidance")
        for name in parameters:
            if name not in known:
                raise UnknownNameError("parameter of a sample", name, known)
        drift = self.parameter.drift(parameters.get(self.parameter.name, 0.0))
        ends: list[torch.Tensor] = []
        last: list[torch.Tensor] = []

        def step(_: int, latents: torch.Tensor) -> None:
            last[:] = [latents]

        def finished(_: int) -> None:
            ends.append(last[0].float().cpu())

        pipeline = self.pipeline
        try:
            with (
                self.meter.watching(pipeline.unet),
                remembering(pipeline, self.memory),
                sampling_under(pipeline, drift),
            ):
                images = generate_images(
                    pipeline,
                    self.prompts,
                    seeds=self.seeds,
                    steps=self.steps,
                    guidance=parameters.get("guidance", self.guidance),
                    batch_size=self.batch_size,
                    on_step=step,
                    progress=finished,
                )
        except LatentDriftError as error:
            if type(error) is not LatentDriftError:
                raise
            return Rendering(dict(parameters), None, str(error))
        return Rendering(dict(parameters), images if self.config.space == "pixels" else torch.cat(ends))


class DistributionScore:
    """The distance of samples to those of D_GT, in the config's unit; lower is better. Call it.

    Args:
        pipeline: its autoencoder makes latents of the images where those are compared.
        images: existing samples of D_GT, (M, 3, H, W) in [-1, 1].
        config: what is compared.
        batch_size: images encoded at once.

    Raises:
        ConfigurationError: fewer than two images.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        images: torch.Tensor,
        config: DistributionConfig | None = None,
        batch_size: int = 16,
    ) -> None:
        self.config = config or DistributionConfig()
        if len(images) < 2:
            raise ConfigurationError(f"{len(images)} image(s) are no distribution; give at least two, better hundreds.")
        latents = self.config.space == "latents"
        self.target = self.numbers(encode_images(pipeline, images, batch_size) if latents else images)

    def numbers(self, values: torch.Tensor) -> Array:
        """Return values (N, ...) in the config's unit."""
        found: Array = values.detach().double().cpu().numpy()
        return (found + 1) * 127.5 if self.config.space == "pixels" else found

    def __call__(self, rendering: Rendering) -> dict[str, float]:
        """Return `objective` and both statistics; NaN where there are no finite samples."""
        if rendering.values is None or not bool(torch.isfinite(rendering.values).all()):
            return {"objective": math.nan}
        made = self.numbers(rendering.values)
        scores = {name: distance(made, self.target) for name, distance in STATISTICS.items()}
        return {"objective": scores[self.config.statistic], **scores}


def _samples(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[Array, Array]:
    found = []
    for name, values in (("first", first), ("second", second)):
        array = np.asarray(values, dtype=np.float64)
        if array.ndim < 1 or not array.size:
            raise EvaluationError(f"The {name} set has shape {array.shape}: there is no sample in it.")
        if not np.isfinite(array).all():
            raise EvaluationError(f"The {name} set has NaN or infinite values.")
        found.append(array)
    if found[0].shape[1:] != found[1].shape[1:]:
        raise EvaluationError(f"Samples of shapes {found[0].shape[1:]} and {found[1].shape[1:]} have no distance.")
    return found[0].reshape(len(found[0]), -1), found[1].reshape(len(found[1]), -1)


def _columns(count: int) -> Iterator[slice]:
    return (slice(start, start + COLUMNS) for start in range(0, count, COLUMNS))
