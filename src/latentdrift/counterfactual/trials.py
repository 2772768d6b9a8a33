"""What a search tried, kept in a file: one line a trial, added as it ends, so that a search can stop at any moment.

A trial's key is the hash of its parameters, its stage and a context, a text of everything else that its scores depend
on (model, sources, steps, seed, objective). So searches share a file without ever confusing their trials.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from latentdrift.errors import ConfigurationError

Parameters = dict[str, float]
Space = Mapping[str, tuple[float, float]]
Render = Callable[[Parameters], Any]
Score = Callable[[Any], float | Mapping[str, float]]

FULL, SCREEN = "full", "screen"
"""Stages: the expensive evaluation and the cheap one that only ranks."""


@dataclass(frozen=True)
class Trial:
    """One evaluation.

    Args:
        parameters: what was rendered.
        scores: "objective" and its parts, lower is better; NaN where an evaluation has no value.
        seconds: how long rendering and scoring took.
    """

    parameters: dict[str, float]
    scores: dict[str, float]
    seconds: float = 0.0

    @property
    def objective(self) -> float:
        """The score that is minimised."""
        return self.scores["objective"]

    @property
    def valid(self) -> bool:
        """Whether the objective is a finite number."""
        return math.isfinite(self.objective)

    def described(self) -> str:
        """Return the parameters as `delta=0.05, guidance=2`."""
        return ", ".join(f"{name}={value:.6g}" for name, value in self.parameters.items())

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; numbers that are not finite as text, which `float` reads."""
        scores = {name: value if math.isfinite(value) else str(value) for name, value in self.scores.items()}
        return {"parameters": self.parameters, "scores": scores, "seconds": round(self.seconds, 3)}

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Trial:
        """Read what `to_dict` wrote.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: it is something else.
        """
        parameters = {str(name): float(value) for name, value in found["parameters"].items()}
        scores = {str(name): float(value) for name, value in found["scores"].items()}
        scores["objective"]  # a trial without one is none
        return cls(parameters, scores, float(found["seconds"]))


class TrialLog:
    """The trials of one context; those of others in the same file are left alone.

    Several processes may add to one file at once: a line is one write at the file's end.

    Args:
        path: the JSON-lines file, made with the first trial; None keeps trials in memory only.
        context: everything beside the parameters that scores depend on, as text.
    """

    def __init__(self, path: Path | str | None, context: str) -> None:
        self.path = None if path is None else Path(path)
        self.context = hashlib.sha256(context.encode()).hexdigest()[:16]
        self.unreadable = 0
        """Lines that are no trials, such as one cut short when a process was killed; their trials are done anew."""
        self._trials: dict[str, tuple[str, Trial]] = {}
        self._read = 0
        if self.path is not None and self.path.is_dir():
            raise ConfigurationError(f"{self.path} is a folder; give the name of a file for the trials.")
        self.refresh()

    def key(self, parameters: Mapping[str, float], stage: str = FULL, extra: str = "") -> str:
        """Return the content hash of a trial: the same for the same numbers in any order."""
        # Adding 0.0 makes minus zero zero: one drift, one key.
        numbers = sorted((name, float(value) + 0.0) for name, value in parameters.items())
        text = json.dumps([self.context, stage, extra, numbers])
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def recall(self, key: str) -> Trial | None:
        """Return the trial of that key, of this or another process, or None."""
        if key not in self._trials:
            self.refresh()
        return self._trials[key][1] if key in self._trials else None

    def trials(self, stage: str = FULL) -> Iterator[Trial]:
        """Yield the context's trials of a stage, in the order in which they ended."""
        return (trial for kind, trial in self._trials.values() if kind == stage)

    def add(self, key: str, trial: Trial, stage: str = FULL) -> None:
        """Write down a trial, on the disk before this returns.

        Raises:
            ConfigurationError: the file cannot be written.
        """
        if self.path is not None:
            line = json.dumps({"key": key, "context": self.context, "stage": stage, **trial.to_dict()}) + "\n"
            try:
                self._append(line.encode())
            except OSError as error:
                raise ConfigurationError(f"Trials cannot be written to {self.path}: {error}. Give another.") from error
        self._trials[key] = (stage, trial)

    def refresh(self) -> None:
        """Read the lines that were added since the last time, by whomever."""
        if self.path is None or not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self._read)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]  # the rest is being written, or was cut short
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                found = json.loads(line)
                if found["context"] == self.context:
                    self._trials[str(found["key"])] = (str(found["stage"]), Trial.from_dict(found))
            except (ValueError, KeyError, TypeError, AttributeError):
                self.unreadable += bool(line.strip())

    def _append(self, line: bytes) -> None:
        assert self.path is not None
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            size = os.fstat(file).st_size
            if size:
                os.lseek(file, size - 1, os.SEEK_SET)
                if os.read(file, 1) != b"\n":
                    line = b"\n" + line  # ends a line that was cut short
            if os.write(file, line) != len(line):
                raise OSError("the disk is full")
            os.fsync(file)
        finally:
            os.close(file)


class Spent(Exception):
    """The last evaluation that was granted has been made."""


class Evaluator:
    """Render and score by parameters, each once, in this or a former call.

    Attributes:
        asked: all trials this call has asked for, by key.
        limit: how many it may ask for; None for no limit.
        made, recalled: how many were evaluated, and how many were known before.
    """

    def __init__(
        self,
        render: Render,
        score: Score,
        space: Space,
        log: TrialLog,
        stage: str,
        extra: str,
        progress: Callable[[Trial], None] | None,
    ) -> None:
        self.render, self.score, self.space, self.log = render, score, space, log
        self.stage, self.extra, self.progress = stage, extra, progress
        self.asked: dict[str, Trial] = {}
        self.limit: int | None = None
        self.made = self.recalled = 0

    def __call__(self, parameters: Mapping[str, float]) -> Trial:
        """Return the trial of these parameters, rounded to nine digits.

        Raises:
            Spent: it would be one more than `limit`.
            ConfigurationError: a score without an objective.
        """
        rounded = {name: rounded_to(parameters[name], *self.space[name]) for name in self.space}
        key = self.log.key(rounded, self.stage, self.extra)
        if key in self.asked:
            return self.asked[key]
        if self.limit is not None and len(self.asked) >= self.limit:
            raise Spent
        trial = self.log.recall(key)
        if trial is None:
            started = time.perf_counter()
            scores = _scores(self.score(self.render(dict(rounded))))
            trial = Trial(rounded, scores, time.perf_counter() - started)
            self.log.add(key, trial, self.stage)
            self.made += 1
        else:
            self.recalled += 1
        self.asked[key] = trial
        if self.progress is not None:
            self.progress(trial)
        return trial

    def value(self, parameters: Mapping[str, float]) -> float:
        """Return the objective, or something worse than all so far where it is not finite."""
        trial = self(parameters)
        if trial.valid:
            return trial.objective
        worst = max((known.objective for known in self.asked.values() if known.valid), default=0.0)
        return worst + max(1.0, abs(worst))

    def known(self) -> list[Trial]:
        """Return all trials of the context within the space, of other calls too, by their parameters."""
        self.log.refresh()
        found = [trial for trial in self.log.trials(self.stage) if inside(trial.parameters, self.space)]
        return sorted(found, key=lambda trial: [trial.parameters[name] for name in self.space])


def _scores(found: float | Mapping[str, float]) -> dict[str, float]:
    scores = dict(found) if isinstance(found, Mapping) else {"objective": found}
    if "objective" not in scores:
        raise ConfigurationError(f"The score has {', '.join(scores) or 'nothing'}, but no 'objective'; add it.")
    return {name: float(value) for name, value in scores.items()}


def rounded_to(value: float, low: float, high: float) -> float:
    """Return the value to nine digits of its range: 0.1 + 0.2 is 0.3, and one trial is not made twice for rounding."""
    rounded = round(float(value), 9 - math.floor(math.log10(high - low))) + 0.0
    return min(max(rounded, low), high) if low <= value <= high else rounded


def inside(parameters: Mapping[str, float], space: Space) -> bool:
    """Return whether parameters are those of the space, and within its ranges."""
    return set(parameters) == set(space) and all(low <= parameters[n] <= high for n, (low, high) in space.items())


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Args:
        best: the trial of the lowest objective; of equals the one with the least drift.
        control: the trial without drift, at the best's other parameters.
        trials: all full trials of this context within the space, by their parameters: the whole curve.
        front: those that no other trial beats in both parts, by the first part.
        front_parts: the names of the two parts.
        screened: the cheap trials that ranked, by their parameters; empty without screening.
        evaluations: expensive evaluations made by this call.
        recalled: expensive evaluations that a former or a parallel call had made.
        screenings: cheap evaluations made by this call.
        warnings: what a reader must know: evaluations without a value, lines that could not be read.
    """

    best: Trial
    control: Trial
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    front_parts: tuple[str, str]
    screened: tuple[Trial, ...]
    evaluations: int
    recalled: int
    screenings: int
    warnings: tuple[str, ...] = ()

    @property
    def gain(self) -> float:
        """The control's objective minus the best's: what the drift is worth; NaN where the control has no value."""
        return self.control.objective - self.best.objective if self.control.valid else math.nan

    @property
    def ranking(self) -> tuple[Trial, ...]:
        """All trials, the best first, those without a value last."""
        return tuple(sorted(self.trials, key=lambda trial: trial.objective if trial.valid else math.inf))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        lists = {name: [trial.to_dict() for trial in getattr(self, name)] for name in ("trials", "front", "screened")}
        counts = {name: getattr(self, name) for name in ("evaluations", "recalled", "screenings")}
        return {
            "best": self.best.to_dict(),
            "control": self.control.to_dict(),
            "gain": self.gain if math.isfinite(self.gain) else None,
            "front_parts": list(self.front_parts),
            **lists,
            **counts,
            "warnings": list(self.warnings),
        }


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the indices of the points that no other beats, by the first coordinate.

    A point is beaten by one that is at most as large in both coordinates and smaller in one. Equal points stay
    together; a point with a NaN is never in the front.
    """
    order = sorted((i for i, pair in enumerate(points) if not any(map(math.isnan, pair))), key=lambda i: points[i])
    front: list[int] = []
    for i in order:
        if not front or points[i][1] < points[front[-1]][1] or points[i] == points[front[-1]]:
            front.append(i)
    return front
