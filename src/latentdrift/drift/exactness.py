"""Conformance in numbers: what a network that is exactly right must give under each rule. See `conformance`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from latentdrift.drift.expectation import DELTA, MEAN, STD, Factory, channels, check_close, expect, noise
from latentdrift.drift.gaussian import GaussianNetwork, Network, run
from latentdrift.drift.levels import trajectory
from latentdrift.drift.moments import LatentMoments
from latentdrift.drift.value import LatentDrift


def check_gaussian(
    make: Factory, steps: Sequence[int] = (10, 25, 50, 250), end: tuple[float, float] | None = None
) -> None:
    """The mean of N(m, s^2 I) is missed by what theory says, and met under `start` and `forward`. Deterministic only.

    Args:
        make: the scheduler's factory.
        steps: numbers of sampling steps.
        end: signal and noise level of the finished sample, where they are not those the scheduler tells.
    """
    moments = LatentMoments(tuple(MEAN.flatten().tolist()), 100)
    network = GaussianNetwork(make(), MEAN, STD)
    for count in steps:
        undrifted = make()
        missed = run(undrifted, network, noise(), count).mean((0, 2, 3)).reshape(-1, 1, 1)
        levels = trajectory(undrifted)
        signal, level = end or (levels.signal[-1], levels.noise[-1])
        # The probability flow keeps a state's quantile: a start that lies z deviations off ends z deviations off.
        first, last = (
            (a * a * STD**2 + b * b) ** 0.5 for a, b in ((levels.signal[0], levels.noise[0]), (signal, level))
        )
        predicted = signal * MEAN - last / first * levels.signal[0] * MEAN
        if count >= 250:
            gap = (signal * MEAN - predicted).abs().max().item()
            check_close(missed, predicted, f"{count} undrifted steps miss otherwise than predicted", 0.05 * gap + 1e-6)

        started = run(LatentDrift(moments).apply(make()), network, noise(), count).mean((0, 2, 3)).reshape(-1, 1, 1)
        check_close(started, signal * MEAN, f"start, {count} steps, does not meet the mean")

        fixed = moments.drift_for(make(), steps=count)
        delta = channels(fixed.value)  # type: ignore[arg-type]
        trained = GaussianNetwork(make(), MEAN, STD, -delta, "drifted")
        forward = run(make(), trained, noise(), count)
        wanted = signal * MEAN - level * delta
        check_close(
            forward.mean((0, 2, 3)).reshape(-1, 1, 1), wanted, f"forward, {count} steps, does not meet the mean"
        )
        drifted = run(fixed.apply(make()), trained, noise(), count)
        expect(torch.equal(drifted, forward), "rule 'forward' changes a sampling step")


def check_matched(make: Factory, steps: int = 9, tolerance: float = 1e-4) -> None:
    """Rule `matched` on plain-target networks changes nothing, and `forward` on them is `start`. Stochastic ones too.

    Args:
        make: the scheduler's factory.
        steps: number of steps.
        tolerance: greater where the scheduler rounds its timesteps, so that the network is asked slightly off level.
    """
    delta = channels(DELTA)
    network = GaussianNetwork(make(), MEAN, STD)
    matched = run(
        LatentDrift(DELTA, "matched").apply(make()), GaussianNetwork(make(), MEAN, STD, delta), noise(), steps
    )
    check_close(matched, run(make(), network, noise(), steps), "matched changes the sample", tolerance)
    trained = GaussianNetwork(make(), MEAN, STD, -delta)
    forward = run(LatentDrift(DELTA, "forward", "plain").apply(make()), trained, noise(), steps)
    started = run(LatentDrift(DELTA).apply(make()), network, noise(), steps)
    check_close(forward, started, "forward with a plain target is not start", tolerance)


def check_paper(make: Factory, network: Network, frozen: str, steps: int = 7) -> None:
    """Rule `paper` moves the state by delta at the end of every reverse step, and correctors keep it.

    Args:
        make: the scheduler's factory.
        network: one under which the scheduler's own arithmetic is exact.
        frozen: what it holds constant: "noise" (it predicts eps = 0, so the state only scales with the signal), or
            "image" (it predicts x_0 = MEAN, so the distance to it scales with the noise).
        steps: number of steps.
    """
    delta = channels(DELTA)
    for per_step in ("literal", "shared"):
        scheduler = LatentDrift(DELTA, "paper", per_step=per_step).apply(make())
        states: list[torch.Tensor] = []
        run(scheduler, network, noise(), steps, seen=states)
        levels = trajectory(scheduler)
        weight = 1.0 if per_step == "literal" else 1.0 / sum(levels.ends)
        state = noise() * float(getattr(scheduler, "init_noise_sigma", 1.0)) + levels.noise[0] * delta
        begun = 0
        for call, got in enumerate(states):
            if not levels.ends[call]:
                continue
            end = call + 1
            if frozen == "noise":
                state = state * levels.signal[end] / levels.signal[begun] + weight * delta
            else:
                rest = (state - levels.signal[begun] * MEAN) * levels.noise[end] / levels.noise[begun]
                state = levels.signal[end] * MEAN + rest + weight * delta
            check_close(got, state, f"paper, {per_step}: the state after call {call}", 3e-4)
            begun = end


def check_round_trip(
    make: Factory, make_inverse: Factory, drift: LatentDrift, steps: int = 25, slack: float = 1.001
) -> None:
    """Inversion under a drift undoes generation under the same drift, no worse than without any.

    Args:
        make: the sampler's factory.
        make_inverse: the factory of its inverse.
        drift: rule and value.
        steps: number of steps, there and back.
        slack: factor allowed on the error without drift. Inversion errs in proportion to the distance from the data's
            mean, which a drift other than the automatic one makes larger.
    """
    errors = []
    for each in (None, drift):
        sampler, inverse = make(), make_inverse()
        delta: Any = 0.0
        if each is not None:
            sampler, inverse = each.apply(sampler), each.apply(inverse)
            sampler.set_timesteps(steps)
            delta = each.forward_sign * each.resolve(sampler).double().reshape(-1, 1, 1)
        network = GaussianNetwork(make(), MEAN, STD, delta, "plain" if each is None else str(each.target))
        back = run(inverse, network, run(sampler, network, noise(), steps), steps)
        errors.append((back - noise()).square().mean().sqrt().item())
    without, under = errors
    expect(
        under <= slack * without + 1e-6,
        f"the round trip under {drift} errs by {under:.4g}, without drift {without:.4g}",
    )
