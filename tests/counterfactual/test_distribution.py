"""Distances of distributions against closed forms and an independent implementation; samples under a drift."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm, wasserstein_distance

from latentdrift.counterfactual.distribution import (
    COLUMNS,
    DistributionConfig,
    DistributionScore,
    SampleRenderer,
    marginal_distance,
    mean_distance,
    paired_difference,
)
from latentdrift.counterfactual.search import SearchConfig, search
from latentdrift.drift import LatentDrift, drift_of, remove
from latentdrift.errors import ConfigurationError, EvaluationError, UnknownNameError
from latentdrift.generate import encode_images, generate_images
from latentdrift.models import load_pipeline

PROMPTS = ["a slice, mild demented", "a slice, non demented", "a slice, aged 60"]


def normal(mean: float, deviation: float, count: int = 4000) -> np.ndarray:
    """The middle quantiles of a normal distribution: samples without chance."""
    return norm.ppf((np.arange(count) + 0.5) / count, mean, deviation)[:, None]


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ((0.0, 1.0), (0.7, 1.0), 0.7),
        ((0.3, 0.5), (0.3, 2.0), 1.5 * math.sqrt(2 / math.pi)),
        ((0.2, 1.5), (0.2, 1.5), 0.0),
    ],
)
def test_two_normal_distributions(first: Any, second: Any, wanted: float) -> None:
    assert marginal_distance(normal(*first), normal(*second, 3000)) == pytest.approx(wanted, abs=2e-3)
    assert mean_distance(normal(*first), normal(*second, 3000)) == pytest.approx(abs(first[0] - second[0]), abs=1e-9)


def test_the_mean_over_values_of_scipys_distance() -> None:
    """Other numbers of samples, repeated values, and more values than are compared at a time."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 5, (7, 3, COLUMNS // 2)), rng.normal(size=(5, 3, COLUMNS // 2))
    flat = first.reshape(7, -1), second.reshape(5, -1)
    some = range(0, flat[0].shape[1], 97)
    wanted = [wasserstein_distance(flat[0][:, k], flat[1][:, k]) for k in some]
    columns = [flat[0][:, list(some)], flat[1][:, list(some)]]
    assert marginal_distance(*columns) == pytest.approx(np.mean(wanted), abs=1e-12)
    thirds = [marginal_distance(first[:, k], second[:, k]) for k in range(3)]
    assert marginal_distance(first, second) == pytest.approx(np.mean(thirds), abs=1e-12)
    assert mean_distance(first, second) <= marginal_distance(first, second)


def test_equal_sets_have_no_distance_in_any_order_or_number() -> None:
    values = np.random.default_rng(1).normal(size=(6, 4, 5))
    assert marginal_distance(values, values[::-1]) == 0
    assert marginal_distance(values, np.repeat(values, 3, axis=0)) == pytest.approx(0, abs=1e-15)
    assert mean_distance(values, values) == 0


def test_what_chance_alone_gives() -> None:
    """The figure in the docstring: 1.29 s √(1/N + 1/M)."""
    rng = np.random.default_rng(2)
    found = marginal_distance(3 * rng.normal(size=(200, 2000)), 3 * rng.normal(size=(100, 2000)))
    assert found == pytest.approx(1.29 * 3 * math.sqrt(1 / 200 + 1 / 100), rel=0.03)


def test_the_difference_of_two_distances_and_its_interval() -> None:
    rng = np.random.default_rng(3)
    target, control = rng.normal(size=(80, 30)), rng.normal(size=(60, 30)) + 1
    found = paired_difference(control - 0.9, control, target, resamples=60)
    assert found.value == marginal_distance(control - 0.9, target) - marginal_distance(control, target)
    assert found.low < found.value < found.high < 0
    same = paired_difference(control, control, target, resamples=20)
    assert same == (0, 0, 0)
    shuffled = paired_difference(control[::-1], control, target, resamples=60)
    assert shuffled.low < 0 < shuffled.high


@pytest.fixture(scope="module")
def pipeline(toy_model: Path) -> Any:
    return LatentDrift(0.1).attach(load_pipeline(toy_model))


def test_samples_are_those_of_the_model_under_the_drift(pipeline: Any, toy_model: Path) -> None:
    seeds, settings = [5, 6, 7], {"steps": 3, "guidance": 2.0, "batch_size": 2}
    render = SampleRenderer(pipeline, PROMPTS, seeds, **settings)  # type: ignore[arg-type]
    bare = remove(load_pipeline(toy_model))
    wanted = generate_images(bare, PROMPTS, seeds=seeds, **settings)  # type: ignore[arg-type]
    assert torch.equal(render({"delta": 0.0}).values, wanted)  # type: ignore[arg-type]
    drifted = generate_images(LatentDrift(0.15).attach(bare), PROMPTS, seeds=seeds, **settings)  # type: ignore[arg-type]
    found = render({"delta": 0.15}).values
    assert torch.equal(found, drifted)  # type: ignore[arg-type]
    assert not torch.equal(wanted, drifted)
    assert render.meter.made == 2 * 3 * 3 * 2
    assert drift_of(pipeline) == LatentDrift(0.1)
    lost = render({"delta": 1e30})
    assert lost.values is None
    assert "no image was made" in str(lost.failure)
    with pytest.raises(UnknownNameError, match="'strength'"):
        render({"strength": 0.5})


def test_a_search_finds_the_drift_that_made_the_target(pipeline: Any, toy_model: Path) -> None:
    seeds, config = list(range(6)), DistributionConfig("latents")
    prompts = [PROMPTS[k % 3] for k in seeds]
    render = SampleRenderer(pipeline, prompts, seeds, config=config, steps=3, guidance=1.0)
    wanted = render({"delta": 0.13}).values
    score = DistributionScore(pipeline, torch.zeros(2, 3, 32, 32), config)
    assert np.allclose(score.target, encode_images(pipeline, torch.zeros(2, 3, 32, 32)).double().numpy())
    score.target = score.numbers(wanted)  # type: ignore[arg-type]
    found = search(render, score, config=SearchConfig("grid", points=41, front=("means", "marginals")))
    assert found.best.parameters["delta"] == pytest.approx(0.13)
    assert found.best.objective == found.best.scores["marginals"] == 0
    assert found.control.objective > 1e-3
    assert found.front == (found.best,)


def test_pixels_are_levels(pipeline: Any) -> None:
    dark, light = -torch.ones(3, 3, 8, 8), torch.ones(2, 3, 8, 8)
    score = DistributionScore(pipeline, dark, DistributionConfig("pixels", "means"))
    from latentdrift.counterfactual.rendering import Rendering

    assert score(Rendering({}, light)) == {"objective": 255, "marginals": pytest.approx(255), "means": 255}
    assert math.isnan(score(Rendering({}, light * math.nan))["objective"])


def test_what_cannot_be(pipeline: Any) -> None:
    with pytest.raises(EvaluationError, match="no sample"):
        marginal_distance(np.zeros((0, 3)), np.zeros((2, 3)))
    with pytest.raises(EvaluationError, match="NaN"):
        mean_distance([[1.0], [math.nan]], [[1.0]])
    with pytest.raises(EvaluationError, match="have no distance"):
        marginal_distance(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(EvaluationError, match="give pairs"):
        paired_difference(np.zeros((2, 3)), np.zeros((3, 3)), np.zeros((2, 3)))
    with pytest.raises(UnknownNameError, match="statistic of the distribution 'marginal'"):
        DistributionConfig(statistic="marginal")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="at least two"):
        DistributionScore(pipeline, torch.zeros(1, 3, 32, 32))
