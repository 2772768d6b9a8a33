"""A learned drift: what its two losses determine, against closed forms on Gaussian data."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler

from latentdrift.drift import LatentDrift, LatentMoments, LearnedDrift, training_target
from latentdrift.drift.gaussian import GaussianNetwork
from latentdrift.errors import DriftError, UnknownNameError
from tests.conftest import build_scheduler

MEAN, BASE, STD = 0.5, 0.1, 0.6
TIMESTEPS = range(0, 1000, 50)


def draw(shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def schedule(prediction_type: str = "epsilon") -> DDPMScheduler:
    return DDPMScheduler.from_config(build_scheduler(prediction_type).config)


def denoising_loss(learned: LearnedDrift, network: GaussianNetwork, plain: Any) -> torch.Tensor:
    """On N(MEAN, STD^2): pairs of opposite samples, on which the expected gradient in delta is met exactly."""
    scheduler = learned.drift.apply(plain)
    half = draw((4, 2, 2, 2), 1).double() * STD
    eps = draw((4, 2, 2, 2), 2).double()
    clean, noise = torch.cat([MEAN + half, MEAN - half]), torch.cat([eps, -eps])
    losses = []
    for t in TIMESTEPS:
        timesteps = torch.full((8,), t)
        predicted = network(scheduler.add_noise(clean, noise, timesteps), t)
        losses.append(F.mse_loss(predicted, training_target(scheduler, clean, noise, timesteps)))
    return torch.stack(losses).mean()


@pytest.mark.parametrize("rule", ["start", "forward"])
@pytest.mark.parametrize("kind", ["scalar", "vector"])
@pytest.mark.parametrize("steps", [10, 25])
def test_descent_on_the_start_reaches_the_automatic_value(kind: str, rule: str, steps: int) -> None:
    latents = draw((6, 4, 8, 8)) + torch.tensor([0.5, -0.2, 0.9, 0.0]).reshape(4, 1, 1)
    automatic = LatentMoments.from_latents(latents, kind).drift_for(build_scheduler(), steps, rule)
    alpha = build_scheduler().alphas_cumprod[{10: 901, 25: 961}[steps]].item()
    learned = LearnedDrift(kind, 4, rule, init=0.3, by="start")
    begun = torch.tensor(learned.values()) - torch.as_tensor(automatic.value)
    optimizer = torch.optim.SGD(learned.parameters(), lr=0.25)
    for step in range(60):
        optimizer.zero_grad()
        learned.start_loss(latents, None, (alpha / (1 - alpha)) ** 0.5).backward()
        optimizer.step()
        if step == 3:  # unit curvature: nearer by the factor 1 - lr a step
            gap = torch.tensor(learned.values()) - torch.as_tensor(automatic.value)
            assert torch.allclose(gap, 0.75**4 * begun, atol=1e-6)
    assert torch.allclose(torch.tensor(learned.values()), torch.as_tensor(automatic.value).reshape(-1), atol=1e-6)
    assert learned.frozen().rule == rule


def test_noise_moves_the_loss_by_a_constant_and_its_own_mean() -> None:
    latents, noise = draw((5, 4, 6, 6)) + 1, draw((5, 4, 6, 6), 3)
    learned = LearnedDrift("vector", 4, init=(0.1, 0.2, 0.3, 0.4))
    delta = learned.value.detach().reshape(4, 1, 1)
    expected = 0.5 * (0.07 * latents + noise - delta).pow(2).mean((0, 2, 3)).sum()
    assert learned.start_loss(latents, noise, 0.07).item() == pytest.approx(expected.item(), rel=1e-5)
    gradients = [
        torch.autograd.grad(learned.start_loss(latents, given, 0.07), learned.value)[0] for given in (noise, None)
    ]
    assert torch.allclose(gradients[0], gradients[1] - noise.mean((0, 2, 3)), atol=1e-6)


@pytest.mark.parametrize("kind", ["scalar", "vector"])
def test_the_gradient_does_not_depend_on_the_size_of_the_latents(kind: str) -> None:
    gradients = []
    for batch, channels, side in ((1, 4, 8), (3, 4, 64), (2, 16, 8)):
        learned = LearnedDrift(kind, channels)
        learned.start_loss(torch.full((batch, channels, side, side), 2.0), None, 0.1).backward()
        gradients.append(learned.value.grad)
        assert torch.allclose(gradients[-1], torch.tensor(-0.2))


def test_half_precision_latents_are_counted_in_full() -> None:
    learned = LearnedDrift("vector", 4)
    latents = draw((2, 4, 8, 8))
    full, half = (learned.start_loss(part, None, 0.07) for part in (latents, latents.half()))
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(full.item(), rel=1e-3)


@pytest.mark.parametrize(
    ("rule", "sign", "drifted"), [("paper", 1.0, False), ("matched", 1.0, False), ("forward", -1.0, True)]
)
@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_a_frozen_network_pulls_delta_by_the_parabola_of_the_docstring(
    rule: str, sign: float, drifted: bool, delta: float
) -> None:
    learned = LearnedDrift("scalar", 2, rule, init=delta)
    network = GaussianNetwork(schedule(), torch.tensor(BASE), STD)
    denoising_loss(learned, network, schedule()).backward()
    alphas = schedule().alphas_cumprod.double()[list(TIMESTEPS)]
    a, b = alphas.sqrt(), (1 - alphas).sqrt()
    total = (a * STD) ** 2 + b**2
    slope = -((a * STD) ** 2) / total if drifted else b**2 / total
    residual = a * b * (MEAN - BASE) / total + slope * sign * delta
    expected = 2 * (residual * slope * sign).mean()
    assert learned.value.grad is not None
    assert learned.value.grad.item() == pytest.approx(expected.item(), rel=1e-4)
    # At 0, descent goes below it, though the gap at the start asks for a positive value.
    assert learned.value.grad.item() > 0


@pytest.mark.parametrize(("rule", "pull"), [("paper", 0.64), ("forward", 0.15)])
def test_where_the_base_knows_the_mean_both_rules_pull_to_zero(rule: str, pull: float) -> None:
    for delta in (0.2, -0.2):
        learned = LearnedDrift("scalar", 2, rule, init=delta)
        network = GaussianNetwork(schedule(), torch.tensor(MEAN), STD)
        denoising_loss(learned, network, schedule()).backward()
        assert learned.value.grad is not None
        # The sum over every 50th timestep is only near the mean over all.
        assert learned.value.grad.item() / (2 * delta) == pytest.approx(pull, abs=0.03)


@pytest.mark.parametrize(("rule", "sign"), [("paper", 1), ("forward", -1)])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("delta", [0.0, 0.3])
def test_a_network_at_its_best_leaves_delta_where_it_is(rule: str, sign: int, prediction: str, delta: float) -> None:
    learned = LearnedDrift("scalar", 2, rule, init=delta)
    plain = schedule(prediction)
    network = GaussianNetwork(
        plain, torch.tensor(MEAN), STD, noise_mean=sign * learned.values()[0], target=learned.drift.target or ""
    )
    loss = denoising_loss(learned, network, plain)
    loss.backward()
    assert learned.value.grad is not None
    assert abs(learned.value.grad.item()) < 1e-6
    elsewhere = LearnedDrift("scalar", 2, rule, init=-0.5)
    best = GaussianNetwork(plain, torch.tensor(MEAN), STD, noise_mean=-sign * 0.5, target=learned.drift.target or "")
    assert denoising_loss(elsewhere, best, plain).item() == pytest.approx(loss.item(), rel=1e-6)


def test_a_value_learned_by_the_start_gets_no_gradient_from_denoising() -> None:
    learned = LearnedDrift("scalar", 2, "forward", init=0.2, by="start")
    network = GaussianNetwork(schedule(), torch.tensor(BASE), STD)
    loss = denoising_loss(learned, network, schedule())
    by_denoising = LearnedDrift("scalar", 2, "forward", init=0.2)
    assert loss.item() == pytest.approx(denoising_loss(by_denoising, network, schedule()).item())
    loss.backward()
    assert learned.value.grad is not None
    assert learned.value.grad.item() == 0
    zero = by_denoising.start_loss(draw((1, 2, 2, 2)), None, 0.1)
    assert zero.item() == 0
    zero.backward()


@pytest.mark.parametrize("by", ["start", "denoising"])
def test_a_scheduler_follows_the_value_even_after_a_validation(by: str) -> None:
    """A validation without gradients must not leave its delta in the scheduler's cache."""
    learned = LearnedDrift("vector", 4, "forward", by=by)
    scheduler = learned.drift.apply(schedule())
    arguments = torch.zeros(2, 4, 3, 3), torch.zeros(2, 4, 3, 3), torch.tensor([100, 500])
    level = (1 - scheduler.alphas_cumprod[arguments[2]]).sqrt().reshape(2, 1, 1, 1)
    for number in (0.0, 0.4, -0.7):
        with torch.no_grad():
            learned.value.fill_(number)
            assert torch.allclose(scheduler.add_noise(*arguments), (-number * level).expand(2, 4, 3, 3))
        noisy = scheduler.add_noise(*arguments)
        assert torch.allclose(noisy, (-number * level).expand(2, 4, 3, 3))
        (gradient,) = torch.autograd.grad(noisy.sum(), learned.value)
        assert torch.allclose(gradient, -9 * level.sum() * (by == "denoising"))


def test_frozen_is_plain_numbers_and_survives_saving() -> None:
    learned = LearnedDrift("vector", 3, "matched", init=(0.5, -0.25, 0.0))
    frozen = learned.frozen()
    assert frozen == LatentDrift((0.5, -0.25, 0.0), "matched")
    assert frozen == LatentDrift.from_dict(frozen.to_dict())
    assert frozen == learned.drift
    assert LearnedDrift("scalar", 3, init=0.5).frozen() == LatentDrift(0.5)
    other = LearnedDrift("vector", 3, "matched")
    other.load_state_dict(learned.state_dict())
    assert other.values() == [0.5, -0.25, 0.0]
    assert [name for name, _ in other.named_parameters()] == ["value"]
    assert "rule 'matched', by 'denoising', [0.5" in repr(other)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"kind": "map"}, UnknownNameError, "no kind of learned drift 'map'"),
        ({"rule": "forwards"}, UnknownNameError, "Did you mean 'forward'"),
        ({"by": "luck"}, UnknownNameError, "no loss of a learned drift 'luck'"),
        ({"by": "denoising"}, DriftError, "leaves the training noise as it is"),
        ({"by": "start", "rule": "paper"}, DriftError, "rule 'paper' sampling starts where training ended"),
        ({"by": "start", "rule": "matched"}, DriftError, "rule start or forward"),
        ({"channels": 0}, DriftError, "at least 1, not 0"),
        ({"init": (0.1, 0.2)}, DriftError, "vector of 4 channels cannot begin at"),
        ({"kind": "scalar", "init": (0.1,)}, DriftError, "give one number"),
        ({"init": float("nan")}, DriftError, "contains nan"),
    ],
)
def test_what_cannot_be_learned(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LearnedDrift(**{"kind": "vector", "channels": 4, **arguments})


def test_a_value_that_diverged_and_latents_that_do_not_fit() -> None:
    learned = LearnedDrift("vector", 4)
    with pytest.raises(DriftError, match="latents have 3"):
        learned.start_loss(draw((1, 3, 4, 4)), None, 0.1)
    with torch.no_grad():
        learned.value[1] = float("inf")
    for look in (lambda: learned.drift, learned.frozen, lambda: learned.start_loss(draw((1, 4, 4, 4)), None, 0.1)):
        with pytest.raises(DriftError, match="contains inf at 1 of 4"):
            look()
