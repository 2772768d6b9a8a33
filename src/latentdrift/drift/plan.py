"""From rule and levels to numbers: how much of delta is added where, in each call of a run."""

from __future__ import annotations

from dataclasses import dataclass

from latentdrift.drift.levels import Trajectory
from latentdrift.drift.value import LatentDrift


@dataclass(frozen=True)
class Plan:
    """Multiples of delta, for each of the n calls of `step` in a run.

    Args:
        seen: added to the state for the network's eyes only (in `scale_model_input`).
        into: added to the state before the undrifted step.
        out: added to the state that the undrifted step returns.
        start: added to the initial latents, wherever they enter.
        carried: added to a state that a corrector computes anew from the last one, and so without `out`.
        gain: a_s / b_s, which turns E[z_0] into delta.
        calls: timestep -> its first call; for schedulers that do not count their steps themselves.
        inverse: whether the run goes from image to noise.
    """

    seen: tuple[float, ...]
    into: tuple[float, ...]
    out: tuple[float, ...]
    start: float
    carried: float
    gain: float
    calls: dict[float, int]
    inverse: bool


def make_plan(drift: LatentDrift, run: Trajectory) -> Plan:
    """Return where and how much `drift` acts in `run`.

    A state of the drifted process is x + b delta_f, x being the plain process. A network that predicts plain noise of
    drifted states is right for x, so `matched` steps in x: for DDIM this gives the weight
    sqrt(1 - abar_prev) - sqrt(abar_prev / abar_t) sqrt(1 - abar_t) a step. The image itself is always x.
    """
    calls = len(run.ends)
    sign = 0 if drift.rule == "paper" else drift.forward_sign
    offset = [sign * level for level in run.noise]
    offset[0 if run.inverse else -1] = 0.0
    # Inversion shows the network a state of one level at the timestep of another: its drift must be the latter's.
    seen = [sign * run.network[call] - offset[call] for call in range(calls)]
    if not drift.changes_coordinates:
        offset = [0.0] * (calls + 1)
    into = [-shift for shift in offset[:-1]]
    out = offset[1:]

    weight = 0.0
    if drift.rule == "paper":
        weight = 1.0 if drift.per_step == "literal" else 1.0 / sum(run.ends)
    start = drift.start_sign * run.noise[-1 if run.inverse else 0]
    if run.inverse:
        # What generation added after a step is taken off before its inverse, and the start's shift at the very end.
        seen = [shift - weight for shift in seen]
        into = [shift - weight for shift in into]
        out[-1] -= start
        start = weight = 0.0
    else:
        out = [shift + weight * ends for shift, ends in zip(out, run.ends, strict=True)]

    first: dict[float, int] = {}
    for call, timestep in enumerate(run.timesteps):
        first.setdefault(timestep, call)
    return Plan(tuple(seen), tuple(into), tuple(out), start, weight, run.gain, first, run.inverse)
