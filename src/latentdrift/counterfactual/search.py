"""The search for δ, and for whatever else an edit depends on: two callables in, the best parameters and the curve out.

`render` makes something of parameters, `score` says how bad it is; a batch of sources at once is their business. So the
search knows neither models nor images. The paper's own search is the grid (δ in [-0.2, 0.2]); the others reach the same
objective with fewer evaluations.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import numpy as np

from latentdrift.counterfactual.trials import (
    FULL,
    SCREEN,
    Evaluator,
    Parameters,
    Render,
    Score,
    SearchResult,
    Space,
    Spent,
    Trial,
    TrialLog,
    inside,
    pareto_front,
    rounded_to,
)
from latentdrift.errors import ConfigurationError, EvaluationError, UnknownNameError

DELTA_SPACE: Space = {"delta": (-0.2, 0.2)}
"""The paper's range."""

LARGEST_GRID = 10_000


@dataclass(frozen=True)
class SearchConfig:
    """How parameters are searched."""

    method: Literal["grid", "brent", "golden", "optuna"] = "brent"
    """grid evaluates everything (the paper's); brent and golden bracket the best of a coarse grid and close in, in one
    dimension; optuna models the objective, in any number of dimensions."""
    points: int = 41
    """Grid points a parameter."""
    evaluations: int = 16
    """Most expensive evaluations of brent, golden and optuna, the control and recalled ones among them."""
    tolerance: float = 0.005
    """brent and golden stop when the best is known to this part of the range."""
    sampler: Literal["tpe", "gp"] = "gp"
    """optuna's model: gp (Gaussian process) for few evaluations, tpe for many or for several processes."""
    storage: str | None = None
    """optuna's storage, a database URL or the name of a journal file. Processes that share it and the trial log share
    one search and its evaluations."""
    seed: int = 0
    """Of optuna's samplers."""
    front: tuple[str, str] = ("label", "similarity")
    """The two scores of the Pareto front."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for name in ("method", "sampler"):
            if getattr(self, name) not in get_args(hints[name]):
                raise UnknownNameError(f"search {name}", str(getattr(self, name)), get_args(hints[name]))
        if self.points < 3:
            raise ConfigurationError(f"points is {self.points}; a grid needs at least 3 points a parameter.")
        if self.evaluations < 5:
            raise ConfigurationError(f"evaluations is {self.evaluations}; a search needs at least 5.")
        if not 0 < self.tolerance < 0.5:
            raise ConfigurationError(f"tolerance is {self.tolerance}; give a part of the range, such as 0.005.")


@dataclass(frozen=True)
class Screening:
    """A cheap render, such as one with few steps, that ranks a coarse grid before the full one refines.

    Args:
        render: as the full one.
        context: what makes it another, such as "8 steps"; trials are kept apart by it.
        points: coarse grid points a parameter.
    """

    render: Render
    context: str = ""
    points: int = 11

    def __post_init__(self) -> None:
        if self.points < 3:
            raise ConfigurationError(f"Screening has {self.points} points a parameter; it needs at least 3.")


def search(
    render: Render,
    score: Score,
    space: Space = DELTA_SPACE,
    config: SearchConfig | None = None,
    *,
    log: Path | str | None = None,
    context: str = "",
    screening: Screening | None = None,
    control: Mapping[str, float] | None = None,
    progress: Callable[[Trial], None] | None = None,
) -> SearchResult:
    """Return the parameters of the lowest objective (paper, choice of δ), with every trial on the way.

    A call that was stopped, by an exception too, goes on where it was when called again with the same `log`.

    Args:
        render: parameters by name → anything that `score` takes. It must be repeatable: same parameters, same result.
        score: what was rendered → the objective, or a dict with "objective" and its parts; lower is better. NaN says
            that there is none, as where latents overflow.
        space: lowest and highest value of each parameter.
        config: by default Brent's method with at most 16 evaluations.
        log: JSON-lines file that keeps the trials; None for in memory.
        context: text of everything else that scores depend on (model, sources, steps, seed, objective). Needed with a
            log, or trials of another model would be taken for this one's.
        screening: ranks with a cheap render first.
        control: the parameters that mean no drift, by default {"delta": 0}; others keep the best's values. It is always
            evaluated.
        progress: called with every trial, evaluated or recalled.

    Raises:
        ConfigurationError: a space, control or score that cannot be, a log without a context, or optuna missing.
        EvaluationError: no evaluation gave a finite objective.
    """
    config = config or SearchConfig()
    control = {"delta": 0.0} if control is None else dict(control)
    _check(space, control, config, log, context)
    trials = TrialLog(log, context)
    full = Evaluator(render, score, space, trials, FULL, "", progress)
    ranked: list[Trial] = []
    cheap = None
    if screening is not None:
        cheap = Evaluator(screening.render, score, space, trials, SCREEN, screening.context, progress)
        screened = [cheap(parameters) for parameters in _lattice(space, screening.points)]
        ranked = sorted((trial for trial in screened if trial.valid), key=lambda trial: trial.objective)
    whole = set(control) == set(space)
    if config.method != "grid":
        # Where other parameters come in, the control is known only after the best; its evaluation is set aside.
        full.limit = config.evaluations - (not whole)
    if whole:
        full(control)
    first = control if whole and inside(control, space) else None
    steps = _steps(space, screening.points if screening is not None else config.points)
    try:
        if config.method == "grid":
            _grid(full, _lattice(space, config.points), ranked, steps)
        elif config.method == "optuna":
            _optuna(full, config, ranked, first)
        else:
            _close_in(full, config, ranked, screening.points if screening and ranked else 0)
    except Spent:
        pass
    full.limit = None
    best, without = _best_and_control(full, control)
    return _result(full, cheap, best, without, config)


def _grid(evaluate: Evaluator, points: list[Parameters], ranked: Sequence[Trial], steps: Parameters) -> None:
    """Evaluate all points; with a ranking those within one coarse step of the best, moving on while that improves."""
    if not ranked:
        for point in points:
            evaluate(point)
        return
    for start in ranked:
        centre, distance = start.parameters, 1.0
        while distance > 1 - 1e-6:
            distances = [max(abs(point[name] - centre[name]) / steps[name] for name in steps) for point in points]
            near = [(far, point) for far, point in zip(distances, points, strict=True) if far < 1 + 1e-6]
            # Of equals the nearest, so that a plateau is not walked along.
            distance, centre = min(near, key=lambda pair: (evaluate.value(pair[1]), pair[0]))
        if evaluate(centre).valid:  # else the cheap render had values where the full one has none
            return


def _close_in(evaluate: Evaluator, config: SearchConfig, ranked: Sequence[Trial], coarse: int) -> None:
    """Bracket the minimum between neighbours of a coarse grid, then close in on it, in one dimension."""
    from scipy.optimize import minimize_scalar

    ((name, (low, high)),) = evaluate.space.items()
    grid = np.linspace(low, high, coarse or max(3, (config.evaluations - 1) // 2)).tolist()

    def objective(x: float) -> float:
        # Mirrored at the ends: an end that beats its neighbour is then a minimum with a bracket like any other.
        x = 2 * low - x if x < low else 2 * high - x if x > high else x
        return evaluate.value({name: float(np.clip(x, low, high))})

    if ranked:
        starts = [int(np.abs(np.array(grid) - trial.parameters[name]).argmin()) for trial in ranked]
        # The cheap render may have a value where the full one has none.
        at = next((i for i in starts if evaluate({name: grid[i]}).valid), starts[0])
    else:
        at = int(np.argmin([objective(x) for x in grid]))
    while True:  # downhill: the cheap render's minimum need not be the full one's
        near = [i for i in (at, at - 1, at + 1) if 0 <= i < len(grid)]
        best = min(near, key=lambda i: objective(grid[i]))
        if best == at:
            break
        at = best
    width, step = high - low, grid[1] - grid[0]
    bracket = (grid[at] - step, grid[at], grid[at] + step)
    left, middle, right = (objective(x) for x in bracket)
    if config.method == "golden" and left > middle < right:
        # Its tolerance is relative to x, so it is told of a range that ends far from 0.
        inner = tuple(1 + (x - low) / width for x in bracket)
        minimize_scalar(
            lambda u: objective(low + (u - 1) * width), bracket=inner, method="golden", tol=config.tolerance
        )
        return
    ends = (max(bracket[0], low), min(bracket[2], high))
    minimize_scalar(objective, bounds=ends, method="bounded", options={"xatol": config.tolerance * width})


def _optuna(evaluate: Evaluator, config: SearchConfig, ranked: Sequence[Trial], control: Parameters | None) -> None:
    """Ask optuna for one trial after the other, until the study has as many as were granted."""
    try:
        import optuna
    except ImportError as error:
        raise ConfigurationError("Method 'optuna' needs the package optuna: pip install optuna.") from error
    from optuna.trial import TrialState

    first = [] if control is None else [dict(control)]
    first += [trial.parameters for trial in ranked[:3]] or _spread(evaluate.space, config)
    loud = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        ends = {f"{end} {name}": x for name, pair in evaluate.space.items() for end, x in zip("ab", pair, strict=True)}
        study = optuna.create_study(
            study_name=f"latentdrift-{evaluate.log.key(ends, 'study')}",
            storage=_storage(config.storage),
            load_if_exists=True,
        )
        former = study.get_trials(deepcopy=False)
        for trial in former:
            if trial.state == TrialState.COMPLETE:
                evaluate(trial.params)  # recalled, unless the log was lost
        kept = [trial for trial in former if trial.state != TrialState.FAIL]
        taken = [trial.params or trial.system_attrs.get("fixed_params") for trial in kept]
        for parameters in first:
            if parameters not in taken:
                study.enqueue_trial(parameters)
        # A call that goes on must not draw what the stopped one drew.
        options = {"seed": config.seed + 1009 * len(former), "n_startup_trials": len(first)}
        samplers = {"tpe": optuna.samplers.TPESampler, "gp": optuna.samplers.GPSampler}
        study.sampler = samplers[config.sampler](**options)
        while len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))) < (evaluate.limit or 0):
            asked = study.ask()
            try:
                parameters = {name: asked.suggest_float(name, *pair) for name, pair in evaluate.space.items()}
                value = evaluate.value(parameters)
            except BaseException:
                study.tell(asked, state=TrialState.FAIL)
                raise
            study.tell(asked, value)
    finally:
        optuna.logging.set_verbosity(loud)


def _spread(space: Space, config: SearchConfig) -> list[Parameters]:
    """Return parameters that cover the space evenly: what a model of the objective starts from."""
    count = max(3, (config.evaluations - 1) // 2)
    if len(space) == 1:
        return _lattice(space, count)
    from scipy.stats import qmc

    drawn = qmc.Halton(len(space), rng=config.seed).random(count)
    return [
        {
            name: rounded_to(low + (high - low) * x, low, high)
            for (name, (low, high)), x in zip(space.items(), row, strict=True)
        }
        for row in drawn.tolist()
    ]


def _storage(storage: str | None) -> Any:
    if storage is None or "://" in storage:
        return storage
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    Path(storage).parent.mkdir(parents=True, exist_ok=True)
    return JournalStorage(JournalFileBackend(storage))


def _best_and_control(evaluate: Evaluator, control: Parameters) -> tuple[Trial, Trial]:
    """Return the best trial, and the one with its parameters but without drift."""

    def rank(trial: Trial) -> tuple[float, float]:
        widths = {name: high - low for name, (low, high) in evaluate.space.items()}
        drift = sum(abs(trial.parameters[name] - value) / widths[name] for name, value in control.items())
        return trial.objective, drift

    while True:
        valid = [trial for trial in evaluate.known() if trial.valid]
        if not valid:
            ranges = ", ".join(f"{name} from {low:g} to {high:g}" for name, (low, high) in evaluate.space.items())
            raise EvaluationError(
                f"None of {len(evaluate.asked)} evaluations gave a finite objective; search a smaller range than "
                f"{ranges}, or look at what the model makes at one of them."
            )
        best = min(valid, key=rank)
        without = evaluate(best.parameters | control)
        better = without.valid and inside(without.parameters, evaluate.space) and rank(without) < rank(best)
        if not better:
            return best, without


def _result(
    full: Evaluator, cheap: Evaluator | None, best: Trial, control: Trial, config: SearchConfig
) -> SearchResult:
    trials = full.known()
    warnings = []
    told = {tuple(sorted(trial.parameters.items())): trial for trial in [*trials, control]}.values()
    missing = [trial for trial in told if not trial.valid]
    if missing:
        shown = "; ".join(trial.described() for trial in missing[:5]) + ("; ..." if len(missing) > 5 else "")
        warnings.append(f"{len(missing)} of {len(told)} evaluations gave no finite objective, at {shown}.")
    if cheap is not None and not any(trial.valid for trial in cheap.asked.values()):
        warnings.append("No cheap render gave a finite objective, so screening ranked nothing.")
    if control.valid and control.objective < best.objective:
        warnings.append(f"No drift ({control.described()}) is better than everything in the range.")
    if full.log.unreadable:
        warnings.append(f"{full.log.unreadable} line(s) of {full.log.path} are no trials and were left out.")
    rows = [trial for trial in trials if trial.valid and set(config.front) <= set(trial.scores)]
    if not rows and len(best.scores) > 1:
        parts = ", ".join(name for name in best.scores if name != "objective")
        warnings.append(f"No Pareto front of {' and '.join(config.front)}: the scores have {parts}.")
    first, second = config.front
    front = pareto_front([(trial.scores[first], trial.scores[second]) for trial in rows])
    screened = [] if cheap is None else list(cheap.asked.values())
    return SearchResult(
        best=best,
        control=control,
        trials=tuple(trials),
        front=tuple(rows[i] for i in front),
        front_parts=config.front,
        screened=tuple(sorted(screened, key=lambda trial: [trial.parameters[name] for name in full.space])),
        evaluations=full.made,
        recalled=full.recalled,
        screenings=0 if cheap is None else cheap.made,
        warnings=tuple(warnings),
    )


def _check(
    space: Space, control: Mapping[str, float], config: SearchConfig, log: Path | str | None, context: str
) -> None:
    if not space:
        raise ConfigurationError("The space is empty; give ranges by name, such as {'delta': (-0.2, 0.2)}.")
    for name, (low, high) in space.items():
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ConfigurationError(f"The range of {name} is {low} to {high}; give two finite numbers, lowest first.")
    strange = sorted(set(control) - set(space))
    if strange or not control:
        raise ConfigurationError(
            f"The control sets {', '.join(strange) or 'nothing'}, the space has {', '.join(space)}. Say by control "
            "what means no drift, such as {'delta': 0.0}."
        )
    if not all(map(math.isfinite, control.values())):
        raise ConfigurationError(f"The control is {dict(control)}; give finite numbers.")
    if config.method in ("brent", "golden") and len(space) > 1:
        raise ConfigurationError(
            f"Method {config.method!r} searches one parameter, not {len(space)} ({', '.join(space)}); take 'optuna' or "
            "'grid'."
        )
    if log is not None and not context:
        raise ConfigurationError(
            f"Trials are kept in {log} without a context; give as text what else the scores depend on (model, sources, "
            "steps, seed, objective)."
        )
    if config.storage is not None and log is None:
        raise ConfigurationError(
            f"storage is {config.storage!r}, but scores are kept in the trial log: give log too, the same to all."
        )


def _lattice(space: Space, points: int) -> list[Parameters]:
    if points ** len(space) > LARGEST_GRID:
        raise ConfigurationError(
            f"A grid of {points} points in {len(space)} parameters has {points ** len(space):,} points, more than "
            f"{LARGEST_GRID:,}; take fewer points, or optuna."
        )
    axes = [[rounded_to(x, *ends) for x in np.linspace(*ends, points).tolist()] for ends in space.values()]
    return [dict(zip(space, values, strict=True)) for values in itertools.product(*axes)]


def _steps(space: Space, points: int) -> Parameters:
    return {name: (high - low) / (points - 1) for name, (low, high) in space.items()}
