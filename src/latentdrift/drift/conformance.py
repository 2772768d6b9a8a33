"""What must hold for every scheduler under a drift, as functions that take a factory of the scheduler.

Authors of schedulers outside diffusers run them on their own: `check_interface(lambda: MyScheduler(...))` and so on. Each
function raises `ConformanceError` with what is wrong. All is deterministic, in small latents and without any model.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import torch

from latentdrift.drift.attachment import drift_of, plain, shift_start, with_drift
from latentdrift.drift.gaussian import GaussianNetwork, Network, run
from latentdrift.drift.levels import trajectory
from latentdrift.drift.moments import LatentMoments
from latentdrift.drift.scheduler import CONFIG_KEY
from latentdrift.drift.target import noisy_latents
from latentdrift.drift.value import RULES, LatentDrift

Factory = Callable[[], Any]
MEAN = torch.tensor([0.03, 0.68, -0.9, 0.32], dtype=torch.float64).reshape(4, 1, 1)
STD = 0.6
DELTA = (0.11, -0.07, 0.2, 0.05)
METHODS = ("step", "set_timesteps", "scale_model_input", "add_noise", "scale_noise", "get_velocity")


class ConformanceError(AssertionError):
    """A scheduler that does not keep a promise of the drift."""


def expect(holds: bool, message: str) -> None:
    """Raise `ConformanceError` unless `holds`."""
    if not holds:
        raise ConformanceError(message)


def noise() -> torch.Tensor:
    """Return latents (2, 4, 4, 4) that are noise and its negative: their mean over the batch is exactly 0."""
    half = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return torch.cat([half, -half])


def channels(values: Sequence[float]) -> torch.Tensor:
    """Return C numbers as (C, 1, 1)."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1)


def check_close(got: torch.Tensor, wanted: torch.Tensor, what: str, tolerance: float = 2e-5) -> None:
    """Expect two tensors to agree to `tolerance`; many schedulers count in float32, at sigmas of 15."""
    worst = (got - wanted).abs().max().item()
    expect(worst <= tolerance, f"{what}: off by {worst:.3g}, more than {tolerance:.3g}")


def check_zero(make: Factory, steps: int = 7) -> None:
    """Delta = 0 is bit for bit the undrifted scheduler: every state of a run, and added noise."""
    network = GaussianNetwork(make(), MEAN, STD)
    wanted: list[torch.Tensor] = []
    run(make(), network, noise(), steps, seen=wanted)
    for rule in RULES:
        for zero in (0.0, (0.0,) * 4, LatentMoments(torch.zeros(4, 4, 4), 5)):
            got: list[torch.Tensor] = []
            scheduler = LatentDrift(zero, rule).apply(make())
            run(scheduler, network, noise(), steps, seen=got)
            same = len(got) == len(wanted) and all(map(torch.equal, got, wanted))
            expect(same, f"delta = {zero} under rule {rule!r} changes the run")
            if hasattr(scheduler, "add_noise"):
                undrifted = make()
                undrifted.set_timesteps(steps)
                arguments = torch.ones(2, 4, 4, 4), torch.ones(2, 4, 4, 4), scheduler.timesteps[:2]
                same = torch.equal(scheduler.add_noise(*arguments), undrifted.add_noise(*arguments))
                expect(same, f"delta = {zero} under rule {rule!r} changes add_noise")


def check_interface(make: Factory) -> None:
    """Signatures, class, compatibles, and both forms of `step`'s output are those of the undrifted scheduler."""
    undrifted = make()
    drifted = LatentDrift(DELTA, "paper").apply(undrifted)
    expect(drift_of(undrifted) is None and CONFIG_KEY not in undrifted.config, "apply changes the original")
    for name in METHODS:
        expect(hasattr(drifted, name) == hasattr(undrifted, name), f"{name} appears or disappears")
        if hasattr(undrifted, name):
            signatures = inspect.signature(getattr(drifted, name)), inspect.signature(getattr(undrifted, name))
            expect(signatures[0] == signatures[1], f"{name} has signature {signatures[0]}, not {signatures[1]}")
    kind = type(undrifted)
    expect(isinstance(drifted, kind), "isinstance is lost")
    for attribute in ("__name__", "__module__", "__qualname__"):
        expect(getattr(type(drifted), attribute) == getattr(kind, attribute), f"the class has another {attribute}")
    expect(set(drifted.compatibles) == set(undrifted.compatibles), "the compatibles differ")
    outputs = []
    for scheduler in (undrifted, drifted):
        as_tuple = copy.deepcopy(scheduler)
        for each, options in ((scheduler, {}), (as_tuple, {"return_dict": False})):
            each.set_timesteps(5)
            first = each.timesteps[0]
            if hasattr(each, "scale_model_input"):
                each.scale_model_input(noise(), first)
            latents = noise() if hasattr(each, "scale_model_input") else shift_start(each, noise())
            if "generator" in inspect.signature(each.step).parameters:
                options = {**options, "generator": torch.Generator().manual_seed(1)}
            outputs.append(each.step(torch.zeros(2, 4, 4, 4).double(), first, latents, **options))
    expect(type(outputs[0]) is type(outputs[2]), "step returns another type of output")
    expect(list(outputs[0].keys()) == list(outputs[2].keys()), "step's output has other fields")
    expect(len(outputs[1]) == len(outputs[3]), "step's tuple has another length")
    expect(torch.equal(outputs[2].prev_sample, outputs[3][0]), "return_dict=False gives another sample")


def check_configuration(make: Factory) -> None:
    """Saving, vanilla loading, `from_config` to and fro, and taking the drift off."""
    undrifted, drift = make(), LatentDrift(DELTA, "matched")
    drifted = drift.apply(undrifted)
    kind = type(undrifted)
    expect(dict(plain(drifted).config) == dict(undrifted.config), "plain(drifted) has another configuration")
    expect(type(plain(drifted)) is kind, "plain(drifted) has another class")
    again = LatentDrift(0.5).apply(drifted)
    expect(type(again) is type(drifted) and drift_of(again) == LatentDrift(0.5), "a second drift is not a replacement")
    with tempfile.TemporaryDirectory() as folder:
        drifted.save_pretrained(folder)
        loaded = kind.from_pretrained(folder)
        expect(type(loaded) is kind and drift_of(loaded) is None, "a vanilla load does not give the plain class")
        expect(drift_of(with_drift(loaded)) == drift, "the drift is lost by saving and loading")
        expect(drift_of(type(drifted).from_pretrained(folder)) == drift, "the drifted class does not restore its drift")
    swapped = kind.from_config(drifted.config)
    expect(type(swapped) is kind, "from_config on the plain class does not give the plain class")
    expect(drift_of(with_drift(swapped)) == drift, "the drift is lost by from_config")
    expect(drift_of(type(drifted).from_config(drifted.config)) == drift, "the drifted class loses it by from_config")


def check_copies(make: Factory, steps: int = 5) -> None:
    """`deepcopy` and `pickle` give schedulers that run alike."""
    network = GaussianNetwork(make(), MEAN, STD)
    drifted = LatentDrift(DELTA).apply(make())
    wanted = run(copy.deepcopy(drifted), network, noise(), steps)
    ways: list[tuple[str, Callable[[Any], Any]]] = [("deepcopy", copy.deepcopy)]
    try:
        pickle.dumps(make())
        ways.append(("pickle", lambda scheduler: pickle.loads(pickle.dumps(scheduler))))
    except (AttributeError, pickle.PicklingError):
        pass  # The undrifted one cannot be pickled either (SASolver holds a lambda).
    for how, copied in ways:
        each = copied(drifted)
        expect(drift_of(each) == drift_of(drifted) and type(each) is type(drifted), f"{how} loses the drift")
        expect(torch.equal(run(each, network, noise(), steps), wanted), f"{how} runs otherwise")


def check_start(make: Factory, steps: int = 6) -> None:
    """Rule `start` is, in every scheduler and bit by bit of noise, an undrifted run from shifted initial latents."""
    network = GaussianNetwork(make(), MEAN, STD)
    states: list[torch.Tensor] = []
    got = run(LatentDrift(DELTA).apply(make()), network, noise(), steps, seen=states)
    undrifted = make()
    undrifted.set_timesteps(steps)
    scale = float(getattr(undrifted, "init_noise_sigma", 1.0))
    shift = trajectory(undrifted).noise[0] * channels(DELTA) / scale
    check_close(got, run(undrifted, network, noise() + shift, steps), "a drifted start is not a shift of the start", 1e-4)
    # Looked for after one call: few-step samplers that draw new noise have all but forgotten their start at the end.
    ordinary: list[torch.Tensor] = []
    run(make(), network, noise(), steps, seen=ordinary)
    expect(bool((states[0] - ordinary[0]).abs().max() > 1e-4), "rule 'start' does nothing")


def check_image_to_image(make: Factory, steps: int = 8) -> None:
    """The start's shift stays away where sampling begins mid-way, and from initial latents made by adding noise."""
    strong = LatentDrift(DELTA).apply(make())
    for begin in (0, 2):
        outcomes = []
        for scheduler in (make(), copy.deepcopy(strong)):
            scheduler.set_timesteps(steps)
            first = begin * getattr(scheduler, "order", 1)
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(first)
            timestep = scheduler.timesteps[first]
            latents = noisy_latents(scheduler, noise(), noise() / 2, timestep.repeat(2))
            if hasattr(scheduler, "scale_model_input"):
                latents = latents + 0 * scheduler.scale_model_input(latents, timestep)
            options = {}
            if "generator" in inspect.signature(scheduler.step).parameters:
                options["generator"] = torch.Generator().manual_seed(1)
            outcomes.append(scheduler.step(noise() / 3, timestep, latents, **options).prev_sample)
        expect(torch.equal(*outcomes), f"the start's shift acts on image-to-image from timestep number {begin}")


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
            check_close(missed, predicted, f"{count} undrifted steps miss the mean otherwise than predicted", 0.05 * gap + 1e-6)

        started = run(LatentDrift(moments).apply(make()), network, noise(), count).mean((0, 2, 3)).reshape(-1, 1, 1)
        check_close(started, signal * MEAN, f"start, {count} steps, does not meet the mean")

        fixed = moments.drift_for(make(), steps=count)
        delta = channels(fixed.value)  # type: ignore[arg-type]
        trained = GaussianNetwork(make(), MEAN, STD, -delta, "drifted")
        forward = run(make(), trained, noise(), count)
        wanted = signal * MEAN - level * delta
        check_close(forward.mean((0, 2, 3)).reshape(-1, 1, 1), wanted, f"forward, {count} steps, does not meet the mean")
        drifted = run(fixed.apply(make()), trained, noise(), count)
        expect(torch.equal(drifted, forward), "rule 'forward' changes a sampling step")


def check_matched(make: Factory, steps: int = 9, tolerance: float = 1e-4) -> None:
    """Rule `matched` on plain-target networks changes nothing, and `forward` on them is `start`. Stochastic ones too.

    Args:
        make: the scheduler's factory.
        steps: number of steps.
        tolerance: greater where the scheduler rounds its timesteps, so that the network is asked at a level slightly off.
    """
    delta = channels(DELTA)
    network = GaussianNetwork(make(), MEAN, STD)
    matched = run(LatentDrift(DELTA, "matched").apply(make()), GaussianNetwork(make(), MEAN, STD, delta), noise(), steps)
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
        make, make_inverse: factories of the sampler and of its inverse.
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
    expect(under <= slack * without + 1e-6, f"the round trip under {drift} errs by {under:.4g}, without drift {without:.4g}")
