"""What must hold for every scheduler under a drift, as functions that take a factory of the scheduler.

Authors of schedulers outside diffusers run them on their own: `check_interface(lambda: MyScheduler(...))` and so on.
Each function raises `ConformanceError` with what is wrong. All of it is deterministic and needs no model.
"""

from __future__ import annotations

import copy
import inspect
import pickle
import tempfile
from collections.abc import Callable
from typing import Any

import torch

from latentdrift.drift.attachment import drift_of, plain, shift_start, with_drift
from latentdrift.drift.exactness import check_gaussian, check_matched, check_paper, check_round_trip
from latentdrift.drift.expectation import (
    DELTA,
    MEAN,
    STD,
    ConformanceError,
    Factory,
    channels,
    check_close,
    expect,
    noise,
)
from latentdrift.drift.gaussian import GaussianNetwork, run
from latentdrift.drift.levels import trajectory
from latentdrift.drift.moments import LatentMoments
from latentdrift.drift.scheduler import CONFIG_KEY
from latentdrift.drift.target import noisy_latents
from latentdrift.drift.value import RULES, LatentDrift

__all__ = [
    "DELTA",
    "MEAN",
    "STD",
    "ConformanceError",
    "channels",
    "check_configuration",
    "check_copies",
    "check_gaussian",
    "check_image_to_image",
    "check_interface",
    "check_matched",
    "check_paper",
    "check_round_trip",
    "check_start",
    "check_zero",
    "noise",
]
METHODS = ("step", "set_timesteps", "scale_model_input", "add_noise", "scale_noise", "get_velocity")


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
        for each, given in ((scheduler, {}), (as_tuple, {"return_dict": False})):
            options: dict[str, Any] = dict(given)
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
    check_close(
        got, run(undrifted, network, noise() + shift, steps), "a drifted start is not a shift of the start", 1e-4
    )
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
