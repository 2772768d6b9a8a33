"""Drifted schedulers: a subclass of the wrapped scheduler's class, made when it is needed.

The class carries the name and module of the one it wraps, so that pipelines write it to model_index.json as what it is
without the drift, and vanilla diffusers loads the folder. Each method keeps the explicit signature of the wrapped one,
because pipelines inspect it for `eta`, `generator`, `timesteps` and `sigmas`.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch

from latentdrift.drift.levels import trajectory
from latentdrift.drift.state import DriftState, add
from latentdrift.drift.value import LatentDrift
from latentdrift.errors import DriftError

# diffusers drops config keys with a leading underscore without a warning when it builds a scheduler, but keeps them in
# the configuration, also in that of another class made by from_config.
CONFIG_KEY = "_latent_drift"
STATE = "_drift_state"


class DriftedScheduler:
    """Mixin of every drifted scheduler; `LatentDrift.apply` makes them."""

    _plain_class: type

    @property
    def drift(self) -> LatentDrift:
        """The drift that acts here."""
        return self.__dict__[STATE].drift

    def shift_start(self, latents: torch.Tensor) -> torch.Tensor:
        """Return the initial latents (B, C, h, w), scaled by `init_noise_sigma` as ever, with the start's shift.

        For own loops that call no `scale_model_input`, as flow matching has none. `scale_model_input` and `step` then
        add no shift of their own in this run. Inversion ends with noise, so its schedulers return it as it is.

        Raises:
            DriftError: `set_timesteps` was not called (flow matching starts at its largest sigma without it).
        """
        state: DriftState = self.__dict__[STATE]
        if state.silent:
            return latents
        if not state.ready and hasattr(self, "scale_model_input"):
            raise DriftError("The first timestep is not known: call set_timesteps before shift_start.")
        plan = state.plan(self)
        state.started = True
        return add(latents, state.delta(latents, plan.gain), plan.start)

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """As in diffusers; drifted if the configuration holds a drift."""
        from latentdrift.drift.attachment import with_drift

        made = cls._plain_class.from_config(config, return_unused_kwargs, **kwargs)  # type: ignore[attr-defined]
        return (with_drift(made[0]), made[1]) if return_unused_kwargs else with_drift(made)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (self._plain_class, dict(self.__dict__))

    def __repr__(self) -> str:
        bare = _rebuild_plain(self._plain_class, self.__dict__)
        return f"{bare!r}\nwith {self.drift}"


def drifted_copy(scheduler: Any, drift: LatentDrift) -> Any:
    """Return a copy of `scheduler` with `drift` in place of any it had.

    Raises:
        DriftError: it is no scheduler of diffusers' kind.
    """
    if not (callable(getattr(scheduler, "step", None)) and hasattr(scheduler, "register_to_config")):
        raise DriftError(f"{type(scheduler).__name__} is no diffusers scheduler: it has no step or no configuration.")
    old: DriftState | None = scheduler.__dict__.get(STATE)
    plain_class = getattr(scheduler, "_plain_class", type(scheduler))
    attributes = copy.deepcopy({name: value for name, value in scheduler.__dict__.items() if name != STATE})
    steps = attributes.get("num_inference_steps")
    # The constructors of some schedulers set all training timesteps, which says nothing about sampling.
    ready = old.ready if old else steps is not None and steps != scheduler.config.get("num_train_timesteps")
    drifted = _rebuild(plain_class, {**attributes, STATE: DriftState(drift, ready)})
    drifted.register_to_config(**{CONFIG_KEY: drift.to_dict()})
    return drifted


def start_gain(scheduler: Any) -> float:
    """Return a_s / b_s of the first timestep that `scheduler` was set to.

    Raises:
        DriftError: `set_timesteps` was not called.
    """
    state: DriftState | None = scheduler.__dict__.get(STATE)
    if not (state.ready if state else getattr(scheduler, "num_inference_steps", None)):
        raise DriftError("The sampler's first timestep is not known: call scheduler.set_timesteps(steps) first.")
    return trajectory(scheduler).gain


def _rebuild(plain_class: type, attributes: dict[str, Any]) -> Any:
    made: Any = object.__new__(_drifted_class(plain_class))
    made.__dict__.update(attributes)
    return made


def _rebuild_plain(plain_class: type, attributes: dict[str, Any]) -> Any:
    made: Any = object.__new__(plain_class)
    made.__dict__.update({name: value for name, value in attributes.items() if name != STATE})
    config = made._internal_dict
    made._internal_dict = type(config)({key: value for key, value in config.items() if key != CONFIG_KEY})
    return made


@functools.cache
def _drifted_class(base: type) -> type:
    """Return the drifted subclass of a scheduler class; one for each, so that types of equal schedulers are equal."""
    members: dict[str, Any] = {
        "__module__": base.__module__,
        "__doc__": base.__doc__,
        "__qualname__": base.__qualname__,
        "_plain_class": base,
    }
    for names, wrap in _WRAPPERS.items():
        for name in names:
            method = getattr(base, name, None)
            if method is not None:
                wrapped = functools.wraps(method)(wrap(method))
                wrapped.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]
                members[name] = wrapped
    return type(base.__name__, (DriftedScheduler, base), members)


Method = Callable[..., Any]


def _drifted_set_timesteps(plain: Method) -> Method:
    def set_timesteps(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = plain(self, *args, **kwargs)
        state: DriftState | None = self.__dict__.get(STATE)
        if state is not None:
            state.new_run(self)
        return result

    return set_timesteps


def _drifted_scale_model_input(plain: Method) -> Method:
    def scale_model_input(self: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        state: DriftState | None = self.__dict__.get(STATE)
        if state is None or state.silent:
            return plain(self, sample, *args, **kwargs)
        plan = state.plan(self)
        timestep = args[0] if args else kwargs.get("timestep")
        call = state.call(self, plan, timestep)
        if call is None and timestep is None:
            raise DriftError("scale_model_input needs the timestep, to know where in the run the drift stands.")
        if call is not None and call < len(plan.seen):
            shift = plan.seen[call]
            if state.waiting(plan, call):
                state.seen, shift = True, shift + plan.start
            sample = add(sample, state.delta(sample, plan.gain), shift) if shift else sample
        return plain(self, sample, *args, **kwargs)

    return scale_model_input


def _drifted_step(plain: Method) -> Method:
    def step(self: Any, model_output: Any, timestep: Any, sample: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        state: DriftState | None = self.__dict__.get(STATE)
        if state is None or state.silent:
            return plain(self, model_output, timestep, sample, *args, **kwargs)
        plan = state.plan(self)
        call = state.call(self, plan, timestep)
        if call is None or call >= len(plan.into):
            if state.drift.changes_coordinates or state.drift.rule == "paper":
                raise DriftError(
                    f"Timestep {timestep} is none of those that set_timesteps set: {state.drift} cannot act."
                )
            return plain(self, model_output, timestep, sample, *args, **kwargs)
        into, out = plan.into[call], plan.out[call]
        if state.waiting(plan, call):
            into += plan.start
            state.warn_if_unseen()
        if call == 0 and not hasattr(self, "scale_model_input"):
            state.started = False
        delta = state.delta(sample, plan.gain) if into or out else None
        result = plain(self, model_output, timestep, add(sample, delta, into), *args, **kwargs)
        if out == 0:
            return result
        if isinstance(result, tuple):
            return (add(result[0], delta, out), *result[1:])
        result.prev_sample = add(result.prev_sample, delta, out)
        return result

    return step


def _drifted_corrector(plain: Method) -> Method:
    """A corrector makes a state anew from the last one, so that a per-step drift added to its output would be lost."""

    def corrector(self: Any, *args: Any, **kwargs: Any) -> Any:
        corrected = plain(self, *args, **kwargs)
        state: DriftState | None = self.__dict__.get(STATE)
        if state is None or state.silent:
            return corrected
        plan = state.plan(self)
        return add(corrected, state.delta(corrected, plan.gain), plan.carried) if plan.carried else corrected

    return corrector


def _drifted_noising(plain: Method) -> Method:
    names = list(inspect.signature(plain).parameters)
    place = names.index("noise") - 1

    def noising(self: Any, *args: Any, **kwargs: Any) -> Any:
        state: DriftState | None = self.__dict__.get(STATE)
        if state is None:
            return plain(self, *args, **kwargs)
        state.noised = True
        if len(args) > place:
            args = (*args[:place], state.training_noise(self, args[place]), *args[place + 1 :])
        elif kwargs.get("noise") is not None:
            kwargs["noise"] = state.training_noise(self, kwargs["noise"])
        return plain(self, *args, **kwargs)

    return noising


def _drifted_get_velocity(plain: Method) -> Method:
    def get_velocity(self: Any, sample: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        state: DriftState | None = self.__dict__.get(STATE)
        if state is not None and state.drift.target == "drifted":
            noise = state.training_noise(self, noise)
        return plain(self, sample, noise, timesteps)

    return get_velocity


_WRAPPERS: dict[tuple[str, ...], Callable[[Method], Method]] = {
    ("set_timesteps",): _drifted_set_timesteps,
    ("scale_model_input",): _drifted_scale_model_input,
    ("step",): _drifted_step,
    ("multistep_uni_c_bh_update", "stochastic_adams_moulton_update"): _drifted_corrector,
    ("add_noise", "scale_noise"): _drifted_noising,
    ("get_velocity",): _drifted_get_velocity,
}
