"""Time spent in stages that follow each other, and in calls inside them, by wrapping what is called."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch


class Stopwatch:
    """Sums wall-clock seconds a stage, and a watched call within each stage.

    Wrapping a call costs about a microsecond. On a GPU the calls return before the work is done, so that there only
    stages that end in a synchronisation mean something.

    Args:
        stage: name of the first stage.
        began: `time.time()` at which the first stage began, now by default.
    """

    def __init__(self, stage: str, began: float | None = None) -> None:
        self.stage, self.since = stage, began if began is not None else time.time()
        self.stages: dict[str, float] = defaultdict(float)
        self.calls: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        self._inside: list[tuple[str, float]] = []

    def enter(self, stage: str) -> None:
        """End the present stage and begin another; a stage may be entered many times."""
        now = time.time()
        self.stages[self.stage] += now - self.since
        self.stage, self.since = stage, now

    def before(self, owner: Any, name: str, stage: str) -> None:
        """Enter a stage whenever `owner.name` is called."""
        self._wrap(owner, name, lambda call: (self.enter(stage), call())[1])

    def after(self, owner: Any, name: str, stage: str) -> None:
        """Enter a stage whenever `owner.name` has returned."""

        def timed(call: Callable[[], Any]) -> Any:
            result = call()
            self.enter(stage)
            return result

        self._wrap(owner, name, timed)

    def watch(self, owner: Any, name: str, label: str) -> None:
        """Add up the seconds in `owner.name` under `label`, without those of other watched calls inside it."""

        def timed(call: Callable[[], Any]) -> Any:
            if any(label == other for other, _ in self._inside):
                return call()
            # Each open call carries what the watched calls inside it have taken so far.
            self._inside.append((label, 0.0))
            stage, began = self.stage, time.perf_counter()
            try:
                return call()
            finally:
                seconds = time.perf_counter() - began
                _, inner = self._inside.pop()
                self.calls[stage][label] += seconds - inner
                if self._inside:
                    outer, taken = self._inside[-1]
                    self._inside[-1] = (outer, taken + seconds)

        self._wrap(owner, name, timed)

    def _wrap(self, owner: Any, name: str, timed: Callable[[Callable[[], Any]], Any]) -> None:
        plain = getattr(owner, name)

        @functools.wraps(plain)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            return timed(lambda: plain(*args, **kwargs))

        # A class method looked up on its class is bound already and must not be bound to the class again.
        bound = isinstance(owner, type) and hasattr(plain, "__self__")
        setattr(owner, name, staticmethod(wrapped) if bound else wrapped)

    def result(self) -> dict[str, Any]:
        """Return seconds by stage and by call, for JSON."""
        self.enter(self.stage)
        return {"stages": dict(self.stages), "calls": {stage: dict(calls) for stage, calls in self.calls.items()}}


def synchronise(device: torch.device) -> None:
    """Wait until the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@contextmanager
def lap(seconds: list[float], processor: list[float], device: torch.device) -> Iterator[None]:
    """Append the wall-clock and the processor seconds of a block; the latter leave out what other programs took."""
    synchronise(device)
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    synchronise(device)
    seconds.append(time.perf_counter() - wall)
    processor.append(time.process_time() - cpu)
