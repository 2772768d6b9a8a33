"""The rules against formulas written out by hand, for DDIM and where the scheduler's family matters."""

from __future__ import annotations

import inspect
import itertools
import warnings
from typing import Any

import pytest
import torch
from diffusers import (
    DDIMInverseScheduler,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    HeunDiscreteScheduler,
)

from latentdrift.drift import (
    DriftWarning,
    LatentDrift,
    LatentMoments,
    drift_of,
    noisy_latents,
    plain,
    remove,
    shift_start,
    training_noise,
    training_target,
)
from latentdrift.drift.conformance import DELTA, MEAN, STD, channels, noise
from latentdrift.drift.gaussian import GaussianNetwork, run
from latentdrift.errors import DriftError

SCHEDULE: dict[str, Any] = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
MOMENTS = LatentMoments(tuple(MEAN.flatten().tolist()), 7)


def ddim(**settings: Any) -> DDIMScheduler:
    return DDIMScheduler(**SCHEDULE, clip_sample=False, steps_offset=1, **settings)


def mean(latents: torch.Tensor) -> torch.Tensor:
    return latents.mean((0, 2, 3)).reshape(-1, 1, 1)


@pytest.mark.parametrize("steps", [10, 25, 50])
def test_undrifted_ddim_misses_the_mean_by_the_recursion_of_its_own_formula(steps: int) -> None:
    scheduler = ddim()
    got = mean(run(scheduler, GaussianNetwork(scheduler, MEAN, STD), noise(), steps))
    alphas = [*scheduler.alphas_cumprod[scheduler.timesteps].double().tolist(), 1.0]
    expected = torch.zeros_like(MEAN)
    for alpha, following in itertools.pairwise(alphas):
        eps = (1 - alpha) ** 0.5 * (expected - alpha**0.5 * MEAN) / (alpha * STD**2 + 1 - alpha)
        clean = (expected - (1 - alpha) ** 0.5 * eps) / alpha**0.5
        expected = following**0.5 * clean + (1 - following) ** 0.5 * eps
    assert torch.allclose(got, expected, atol=1e-6)
    assert (expected - MEAN).abs().max() > 0.03


def test_automatic_value_follows_the_first_timestep() -> None:
    drift = LatentDrift(MOMENTS)
    for steps, first in ((10, 901), (25, 961), (50, 981)):
        drifted = drift.apply(ddim())
        drifted.set_timesteps(steps)
        assert drifted.timesteps[0] == first
        alpha = drifted.alphas_cumprod[first].double()
        expected = (alpha / (1 - alpha)) ** 0.5 * MEAN.flatten()
        assert torch.allclose(drift.resolve(drifted).double(), expected, atol=1e-6)
        assert torch.allclose(drift.resolve(plain(drifted)).double(), expected, atol=1e-6)


def test_matched_ddim_adds_the_weight_of_the_specification() -> None:
    """w_t = sqrt(1 - abar_prev) - sqrt(abar_prev / abar_t) sqrt(1 - abar_t)."""
    delta, output = channels(DELTA), torch.randn(2, 4, 4, 4, generator=torch.Generator().manual_seed(1)).double()
    undrifted = ddim()
    matched = LatentDrift(DELTA, "matched").apply(undrifted)
    for scheduler in (undrifted, matched):
        scheduler.set_timesteps(20)
    for timestep, previous in zip(undrifted.timesteps[1:], [*undrifted.timesteps[2:], None], strict=True):
        alpha = undrifted.alphas_cumprod[timestep].double()
        before = undrifted.alphas_cumprod[previous].double() if previous is not None else torch.tensor(1.0).double()
        weight = (1 - before) ** 0.5 - (before / alpha) ** 0.5 * (1 - alpha) ** 0.5
        expected = undrifted.step(output, timestep, noise()).prev_sample + weight * delta
        assert torch.allclose(matched.step(output, timestep, noise()).prev_sample, expected, atol=1e-6)


def test_matched_with_a_drifted_target_needs_no_step_and_changes_nothing() -> None:
    delta = channels(DELTA)
    trained = GaussianNetwork(ddim(), MEAN, STD, delta, "drifted")
    matched = run(LatentDrift(DELTA, "matched", "drifted").apply(ddim()), trained, noise(), 20)
    assert torch.allclose(matched, run(ddim(), GaussianNetwork(ddim(), MEAN, STD), noise(), 20), atol=1e-5)


def test_a_positive_delta_means_the_same_effective_drift_in_every_rule() -> None:
    plain_net = GaussianNetwork(ddim(), MEAN, STD)
    base = mean(run(ddim(), plain_net, noise(), 25))
    start = mean(run(LatentDrift(0.1).apply(ddim()), plain_net, noise(), 25)) - base
    trained = GaussianNetwork(ddim(), MEAN, STD, torch.tensor(-0.1), "drifted")
    forward = mean(run(LatentDrift(0.1, "forward").apply(ddim()), trained, noise(), 25)) - base
    assert torch.allclose(start, forward, atol=1e-5)
    assert (start > 0.01).all()
    paper_net = GaussianNetwork(ddim(), MEAN, STD, torch.tensor(0.1))
    assert (mean(run(LatentDrift(0.1, "paper").apply(ddim()), paper_net, noise(), 25)) - base > start).all()


def test_paper_to_the_letter_moves_with_the_number_of_steps() -> None:
    moved = {}
    for per_step in ("literal", "shared"):
        for steps in (10, 25, 50):
            network = GaussianNetwork(ddim(), MEAN, STD, torch.tensor(0.1))
            undrifted = mean(run(ddim(), network, noise(), steps))
            drift = LatentDrift(0.1, "paper", per_step=per_step)
            moved[per_step, steps] = (mean(run(drift.apply(ddim()), network, noise(), steps)) - undrifted).mean().item()
    assert moved["literal", 50] > 1.5 * moved["literal", 25] > 2 * moved["literal", 10] > 0
    assert moved["shared", 50] == pytest.approx(moved["shared", 25], rel=0.2)


@pytest.mark.parametrize(
    "make", [ddim, lambda: EulerDiscreteScheduler(**SCHEDULE), lambda: HeunDiscreteScheduler(**SCHEDULE)]
)
@pytest.mark.parametrize(("rule", "sign"), [("start", 0), ("forward", -1), ("paper", 1), ("matched", 1)])
def test_added_noise_is_drifted_inside(make: Any, rule: str, sign: int) -> None:
    undrifted, drifted = make(), LatentDrift(DELTA, rule).apply(make())
    timesteps = undrifted.timesteps[[100, 400]]
    sample, eps = torch.ones(2, 4, 4, 4).double(), noise()
    expected = undrifted.add_noise(sample, eps + sign * channels(DELTA), timesteps)
    assert torch.allclose(drifted.add_noise(sample, eps, timesteps), expected)
    assert torch.allclose(drifted.add_noise(original_samples=sample, noise=eps, timesteps=timesteps), expected)
    assert torch.allclose(training_noise(drifted, eps), eps + sign * channels(DELTA))
    assert training_noise(undrifted, eps) is eps


@pytest.mark.parametrize("target", ["plain", "drifted"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_training_targets(prediction: str, target: str) -> None:
    make = lambda: DDPMScheduler(**SCHEDULE, prediction_type=prediction)  # noqa: E731
    drifted = LatentDrift(DELTA, "forward", target).apply(make())
    sample, eps, timesteps = torch.ones(2, 4, 4, 4).double() / 3, noise(), torch.tensor([10, 700])
    seen = eps - channels(DELTA) if target == "drifted" else eps
    expected = {"epsilon": seen, "sample": sample, "v_prediction": make().get_velocity(sample, seen, timesteps)}[
        prediction
    ]
    assert torch.allclose(training_target(drifted, sample, eps, timesteps), expected)
    assert torch.allclose(drifted.get_velocity(sample, eps, timesteps), make().get_velocity(sample, seen, timesteps))
    undrifted = {"epsilon": eps, "sample": sample, "v_prediction": make().get_velocity(sample, eps, timesteps)}[
        prediction
    ]
    assert torch.allclose(training_target(make(), sample, eps, timesteps), undrifted)


def test_flow_matching_trains_and_starts_under_a_drift() -> None:
    undrifted = FlowMatchEulerDiscreteScheduler()
    drifted = LatentDrift(DELTA, "matched", "drifted").apply(undrifted)
    sample, eps, timesteps = torch.ones(2, 4, 4, 4).double() / 3, noise(), undrifted.timesteps[[200, 900]]
    really = eps + channels(DELTA)
    expected = undrifted.scale_noise(sample, timesteps, really)
    assert torch.allclose(noisy_latents(drifted, sample, eps, timesteps), expected)
    assert torch.allclose(training_target(drifted, sample, eps, timesteps), really - sample)
    # The usual schedule starts at pure noise, where the automatic value is 0 by right; this one does not.
    scheduler = LatentDrift(MOMENTS).apply(undrifted)
    scheduler.set_timesteps(sigmas=[0.9, 0.6, 0.3])
    network = GaussianNetwork(undrifted, MEAN, STD)
    latents = shift_start(scheduler, noise())
    for timestep in scheduler.timesteps:
        latents = scheduler.step(network(latents, timestep), timestep, latents).prev_sample
    assert torch.allclose(mean(latents), MEAN, atol=1e-5)
    assert shift_start(undrifted, latents) is latents


def test_an_edm_network_has_no_target_here() -> None:
    from diffusers import EDMEulerScheduler

    with pytest.raises(DriftError, match="preconditions"):
        training_target(EDMEulerScheduler(), noise(), noise(), torch.tensor([1, 2]))


@pytest.mark.parametrize("rule", ["forward", "paper", "matched"])
def test_unresolved_moments_in_training_name_the_remedy(rule: str) -> None:
    for scheduler in (DDPMScheduler(**SCHEDULE), HeunDiscreteScheduler(**SCHEDULE)):
        drifted = LatentDrift(MOMENTS, rule).apply(scheduler)
        timesteps = scheduler.timesteps[[10, 20]]
        with pytest.raises(DriftError, match=r"drift_for\(scheduler, steps=25"):
            drifted.add_noise(noise(), noise(), timesteps)
        drifted.set_timesteps(25)
        drifted.add_noise(noise(), noise(), drifted.timesteps[[1, 2]])
    fixed = MOMENTS.drift_for(ddim(), steps=25, rule=rule)
    assert not fixed.automatic
    assert fixed.rule == rule


def test_drift_for_knows_steps_and_spacing() -> None:
    values = {
        (steps, spacing): MOMENTS.drift_for(ddim(), steps, spacing=spacing).value[2]  # type: ignore[index]
        for steps, spacing in ((10, None), (50, None), (10, "trailing"))
    }
    assert values[10, None] < values[50, None] < values[10, "trailing"] < 0
    with pytest.raises(DriftError, match="spacing"):
        MOMENTS.drift_for(FlowMatchEulerDiscreteScheduler(), spacing="trailing")


def test_shift_start_by_hand_is_not_added_again() -> None:
    network = GaussianNetwork(ddim(), MEAN, STD)
    wanted = run(LatentDrift(DELTA).apply(ddim()), network, noise(), 10)
    scheduler = LatentDrift(DELTA).apply(ddim())
    with pytest.raises(DriftError, match="set_timesteps"):
        scheduler.shift_start(noise())
    for _ in range(2):  # a new run needs and gets a new shift
        scheduler.set_timesteps(10)
        latents = scheduler.shift_start(noise())
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            for timestep in scheduler.timesteps:
                latents = scheduler.step(network(latents, timestep), timestep, latents).prev_sample
        assert torch.allclose(latents, wanted, atol=1e-12)


def test_a_loop_without_scale_model_input_is_warned_once() -> None:
    scheduler = LatentDrift(DELTA).apply(ddim())
    scheduler.set_timesteps(4)
    with pytest.warns(DriftWarning, match="scale_model_input"):
        scheduler.step(noise(), scheduler.timesteps[0], noise())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for timestep in scheduler.timesteps:
            scheduler.step(noise(), timestep, noise())


def test_a_run_can_be_repeated_without_setting_timesteps_again() -> None:
    scheduler = LatentDrift(DELTA).apply(ddim())
    scheduler.set_timesteps(5)
    ends = []
    for _ in range(2):
        latents = noise()
        for timestep in scheduler.timesteps:
            seen = scheduler.scale_model_input(torch.cat([latents] * 2), timestep)
            latents = scheduler.step(seen[:2] / 2, timestep, latents).prev_sample
        ends.append(latents)
    assert torch.equal(*ends)


def test_inverse_ends_with_undrifted_noise() -> None:
    inverse = DDIMInverseScheduler(**SCHEDULE, clip_sample=False, steps_offset=1)
    drifted = LatentDrift(DELTA).apply(inverse)
    ends = [run(each, GaussianNetwork(ddim(), MEAN, STD), noise(), 10) for each in (inverse, drifted)]
    level = (1 - inverse.alphas_cumprod[901].double()) ** 0.5
    assert torch.allclose(ends[0] - level * channels(DELTA), ends[1], atol=1e-9)


def test_a_foreign_timestep_is_an_error_where_the_rule_needs_its_place() -> None:
    for rule in ("matched", "paper"):
        scheduler = LatentDrift(DELTA, rule).apply(ddim())
        scheduler.set_timesteps(10)
        with pytest.raises(DriftError, match="Timestep 500"):
            scheduler.step(noise(), 500, noise())


def test_wrong_channels_and_sizes_are_named_when_latents_are_seen() -> None:
    for value, message in (((0.1, 0.2, 0.3), "latents have 4"), (torch.zeros(4, 8, 8) + 1, "the latents are")):
        scheduler = LatentDrift(value).apply(ddim())
        scheduler.set_timesteps(3)
        with pytest.raises(DriftError, match=message):
            scheduler.scale_model_input(noise(), scheduler.timesteps[0])
    scheduler = LatentDrift(0.1).apply(ddim())
    scheduler.set_timesteps(3)
    with pytest.raises(DriftError, match="needs the timestep"):
        scheduler.scale_model_input(noise())


def test_a_map_and_half_precision() -> None:
    value = torch.randn(4, 4, 4, generator=torch.Generator().manual_seed(5))
    scheduler = LatentDrift(value).apply(ddim())
    scheduler.set_timesteps(3)
    level = (1 - scheduler.alphas_cumprod[scheduler.timesteps[0]]) ** 0.5
    for dtype, tolerance in ((torch.float64, 1e-7), (torch.float16, 4e-3)):
        latents = noise().to(dtype)
        seen = scheduler.scale_model_input(latents, scheduler.timesteps[0])
        assert seen.dtype == dtype
        assert torch.allclose((seen - latents).double(), (level * value).double().expand(2, -1, -1, -1), atol=tolerance)


def test_a_drift_can_be_learned_through_the_scheduler() -> None:
    value = torch.nn.Parameter(torch.zeros(4))
    scheduler = LatentDrift(value, "forward").apply(ddim())
    scheduler.add_noise(noise(), noise(), torch.tensor([100, 500])).sum().backward()
    assert value.grad is not None
    assert (value.grad < 0).all()


def test_removing_gives_the_undrifted_scheduler() -> None:
    drifted = LatentDrift(DELTA).apply(ddim())
    back = remove(drifted)
    assert type(back) is DDIMScheduler
    assert drift_of(back) is None
    assert drift_of(drifted) is not None
    assert plain(back) is back
    with pytest.raises(DriftError, match="no diffusers scheduler"):
        LatentDrift(0.1).apply(object())
    assert "eta" in inspect.signature(drifted.step).parameters
    assert "rule 'start'" in repr(drifted)
