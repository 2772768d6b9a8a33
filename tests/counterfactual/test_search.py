"""The search on functions of one and two numbers: cost against the grid, resuming, NaN, the front, processes."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from latentdrift.counterfactual.search import Screening, SearchConfig, search
from latentdrift.counterfactual.trials import FULL, SearchResult, Trial, TrialLog, pareto_front
from latentdrift.errors import ConfigurationError, EvaluationError, UnknownNameError

Curve = Callable[[float], float]

CURVES: dict[str, Curve] = {
    "quadratic": lambda d: (d - 0.073) ** 2,
    "between coarse points": lambda d: (d - 1 / 30) ** 2,
    "skewed": lambda d: math.exp(9 * (d - 0.04)) - 9 * (d - 0.04),
    "flat side": lambda d: max(0.0, 0.03 - d) ** 2 + 0.2 * max(0.0, d - 0.06) ** 3,
    "at the end": lambda d: -d + 0.5 * d**2,
    "two valleys": lambda d: math.cos(30 * d) + 4 * (d - 0.1) ** 2,
    "well": lambda d: -math.exp(-(((d - 0.11) / 0.05) ** 2)),
}


def of(curve: Curve) -> tuple[Callable, Callable]:
    return (lambda parameters: parameters["delta"]), curve


def grid_of(curve: Curve, points: int = 41) -> tuple[float, float]:
    """Return the grid's best objective and the objective's range on it."""
    values = [curve(d) for d in np.linspace(-0.2, 0.2, points)]
    return min(values), max(values) - min(values)


@pytest.mark.parametrize("name", CURVES)
@pytest.mark.parametrize("method", ["brent", "golden", "optuna"])
def test_as_good_as_the_grid_for_less(method: str, name: str) -> None:
    """Within 1 % of the range of the best of 41, with at most 40 % of the evaluations, counted by the render."""
    if method == "optuna":
        pytest.importorskip("optuna")
    curve, calls = CURVES[name], []

    def render(parameters: dict[str, float]) -> float:
        calls.append(parameters["delta"])
        return parameters["delta"]

    best, spread = grid_of(curve)
    found = search(render, curve, config=SearchConfig(method=method))  # type: ignore[arg-type]
    assert found.best.objective <= best + 0.01 * spread
    assert len(calls) == len(set(calls)) == found.evaluations <= 0.4 * 41
    assert found.control == next(t for t in found.trials if t.parameters["delta"] == 0)
    assert found.gain == pytest.approx(curve(0.0) - found.best.objective)


@pytest.mark.parametrize("method", ["grid", "brent", "golden"])
@pytest.mark.parametrize("name", ["quadratic", "skewed", "flat side", "at the end", "well"])
def test_screening_saves_more(method: str, name: str) -> None:
    """A cheap render that is off by 0.03 and in scale."""
    curve = CURVES[name]
    render, score = of(curve)
    screening = Screening(lambda parameters: parameters["delta"] - 0.03, "8 steps")
    config = SearchConfig(method=method)  # type: ignore[arg-type]
    found = search(render, score, config=config, screening=screening)
    best, spread = grid_of(curve)
    assert found.best.objective <= best + 0.01 * spread
    assert found.evaluations <= 16
    assert found.screenings == len(found.screened) == 11
    assert found.screened[5].objective == pytest.approx(curve(-0.03))


@pytest.mark.parametrize("method", ["grid", "brent", "golden"])
def test_screening_that_points_elsewhere_is_left_downhill(method: str) -> None:
    """The cheap minimum is three coarse steps from the full one."""
    curve = CURVES["quadratic"]
    screening = Screening(lambda parameters: parameters["delta"] + 0.12)
    config = SearchConfig(method=method)  # type: ignore[arg-type]
    found = search(*of(curve), config=config, screening=screening)
    assert min(found.screened, key=lambda t: t.objective).parameters["delta"] == pytest.approx(-0.04)
    best, spread = grid_of(curve)
    assert found.best.objective <= best + 0.01 * spread
    assert found.evaluations < (41 if method == "grid" else 17)


def test_the_papers_grid_is_the_whole_curve() -> None:
    curve = CURVES["skewed"]
    found = search(*of(curve), config=SearchConfig(method="grid"))
    assert [t.parameters["delta"] for t in found.trials] == pytest.approx(np.linspace(-0.2, 0.2, 41))
    assert [t.objective for t in found.trials] == pytest.approx([curve(d) for d in np.linspace(-0.2, 0.2, 41)])
    assert (found.evaluations, found.recalled) == (41, 0)  # the control is a point of the grid
    assert found.best.objective == found.ranking[0].objective == grid_of(curve)[0]
    assert found.best.parameters == {"delta": 0.04}


def test_of_equals_the_least_drift() -> None:
    found = search(*of(lambda d: max(0.0, d - 0.1)), config=SearchConfig(method="grid"))
    assert found.best.parameters == {"delta": 0.0}
    assert found.gain == 0


def test_control_outside_the_range() -> None:
    found = search(*of(lambda d: d**2), {"delta": (0.05, 0.2)}, SearchConfig(method="grid", points=4))
    assert found.control.parameters == {"delta": 0.0}
    assert found.best.parameters == {"delta": 0.05}
    assert found.evaluations == 5
    assert len(found.trials) == 4
    assert found.gain == pytest.approx(-(0.05**2))
    assert "No drift (delta=0) is better" in found.warnings[0]


@pytest.mark.parametrize("method", ["grid", "optuna"])
def test_two_parameters_and_their_control(method: str) -> None:
    """The control keeps the best's guidance, so that it shows the drift alone."""
    if method == "optuna":
        pytest.importorskip("optuna")
    space = {"delta": (-0.2, 0.2), "guidance": (1.0, 5.0)}
    config = SearchConfig(method=method, points=9, evaluations=22)  # type: ignore[arg-type]
    found = search(lambda p: p, lambda p: (10 * p["delta"] - 1) ** 2 + (p["guidance"] - 2) ** 2, space, config)
    assert found.best.objective < 0.05
    assert found.control.parameters == found.best.parameters | {"delta": 0.0}
    assert found.gain == pytest.approx(1.0, abs=0.5)
    assert found.evaluations == (81 if method == "grid" else 22)


def test_a_control_that_wins_is_the_best() -> None:
    """A grid without δ = 0, on an objective that no drift serves best."""
    space = {"delta": (-0.2, 0.2), "guidance": (1.0, 5.0)}
    config = SearchConfig(method="grid", points=4)
    found = search(lambda p: p, lambda p: abs(p["delta"]) + abs(p["guidance"] - 2), space, config)
    assert found.best == found.control
    assert found.best.parameters["delta"] == 0
    assert found.gain == 0
    assert found.evaluations == 17


@pytest.mark.parametrize("method", ["grid", "brent", "golden", "optuna"])
def test_a_stopped_search_goes_on_and_repeats_nothing(method: str, tmp_path: Path) -> None:
    if method == "optuna":
        pytest.importorskip("optuna")
    curve, calls = CURVES["skewed"], []
    log = tmp_path / "deep" / "trials.jsonl"
    config = SearchConfig(method=method, sampler="tpe")  # type: ignore[arg-type]
    screening = Screening(lambda p: calls.append(("cheap", p["delta"])) or p["delta"] + 0.02, "few")
    stop_at = [6]

    def render(parameters: dict[str, float]) -> float:
        if len(calls) >= 11 + stop_at[0]:
            raise RuntimeError("out of memory")
        calls.append(("full", parameters["delta"]))
        return parameters["delta"]

    for stop in (2, 4):
        stop_at[0] = stop
        with pytest.raises(RuntimeError, match="out of memory"):
            search(render, curve, config=config, log=log, context="c", screening=screening)
        assert len(calls) == 11 + stop
    stop_at[0] = 1000
    found = search(render, curve, config=config, log=log, context="c", screening=screening)
    assert max(Counter(calls).values()) == 1
    assert (found.recalled, found.screenings) == (4, 0)
    whole = search(*of(curve), config=config, screening=Screening(lambda p: p["delta"] + 0.02, "few"))
    assert [(t.parameters, t.scores) for t in found.trials] == [(t.parameters, t.scores) for t in whole.trials]
    again = search(render, curve, config=config, log=log, context="c", screening=screening)
    assert (again.evaluations, again.screenings, again.best) == (0, 0, found.best)
    other = search(render, curve, config=config, log=log, context="another model")
    assert other.recalled == 0


def test_optuna_goes_on_from_its_storage(tmp_path: Path) -> None:
    """A study that was stopped, and one whose log was lost, end with the trials that were granted."""
    pytest.importorskip("optuna")
    calls: list[float] = []

    def render(parameters: dict[str, float]) -> float:
        if len(calls) == 9:
            raise KeyboardInterrupt
        calls.append(parameters["delta"])
        return parameters["delta"]

    log, storage = tmp_path / "trials.jsonl", str(tmp_path / "study.journal")
    config = SearchConfig(method="optuna", storage=storage, sampler="tpe", evaluations=14)
    with pytest.raises(KeyboardInterrupt):
        search(render, CURVES["quadratic"], config=config, log=log, context="c")
    calls.append(math.inf)  # so that it does not stop again
    found = search(render, CURVES["quadratic"], config=config, log=log, context="c")
    assert found.recalled == 9
    assert len(calls) - 1 == len(set(calls)) - 1 == len(found.trials) <= 14
    log.unlink()
    lost = search(render, CURVES["quadratic"], config=config, log=log, context="c")
    assert lost.best.parameters == found.best.parameters
    assert lost.evaluations == len(found.trials)


WORKER = """
import sys, time
from latentdrift.counterfactual.search import SearchConfig, search
folder, name = sys.argv[1:]
def render(parameters):
    with open(f"{folder}/calls-{name}.txt", "a") as file:
        file.write(f"{parameters['delta']!r}\\n")
    time.sleep(0.05)
    return parameters["delta"]
config = SearchConfig(method="optuna", sampler="tpe", storage=f"{folder}/study.journal", evaluations=20)
search(render, lambda d: (d - 0.07) ** 2, config=config, log=f"{folder}/trials.jsonl", context="c")
"""


@pytest.mark.slow
def test_processes_share_a_search(tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    command = [sys.executable, "-c", WORKER, str(tmp_path)]
    workers = [subprocess.Popen([*command, name]) for name in "ab"]
    assert [worker.wait(timeout=120) for worker in workers] == [0, 0]
    lines = (tmp_path / "trials.jsonl").read_text().splitlines()
    calls = [(tmp_path / f"calls-{name}.txt").read_text().splitlines() for name in "ab"]
    assert all(json.loads(line)["stage"] == FULL for line in lines)
    assert len(lines) == sum(map(len, calls))
    assert min(map(len, calls)) >= 5  # the work was shared
    assert sum(map(len, calls)) <= 24  # 20, and what both had begun at the start and the end


@pytest.mark.parametrize("method", ["grid", "brent", "golden", "optuna"])
@pytest.mark.parametrize("screened", [False, True])
def test_nan_is_never_the_best_and_is_told(method: str, screened: bool) -> None:
    """Latents that overflow above 0.05, where the parabola would be lowest; the cheap render overflows above 0.11."""
    if method == "optuna":
        pytest.importorskip("optuna")
    screening = Screening(lambda p: p["delta"] - 0.06) if screened else None
    found = search(
        lambda p: p["delta"],
        lambda d: math.nan if d > 0.05 else (d - 0.1) ** 2,
        config=SearchConfig(method=method),  # type: ignore[arg-type]
        screening=screening,
    )
    assert math.isfinite(found.best.objective)
    assert found.best.parameters["delta"] <= 0.05
    assert found.best.objective <= found.control.objective
    missing = [t for t in found.trials if not t.valid]
    assert missing
    assert f"{len(missing)} of {len(found.trials)} evaluations gave no finite objective" in found.warnings[0]
    assert all(math.isnan(t.objective) for t in found.ranking[-len(missing) :])
    assert not set(map(id, missing)) & set(map(id, found.front))


def test_nan_everywhere_is_an_error_that_names_the_range() -> None:
    with pytest.raises(EvaluationError, match="None of 16 .* delta from -0.2 to 0.2"):
        search(*of(lambda d: math.inf))


def test_front_of_label_against_similarity() -> None:
    """Against brute force, on a search whose parts pull in opposite directions."""

    def score(delta: float) -> dict[str, float]:
        parts = {"label": math.cos(25 * delta) - 5 * delta, "similarity": abs(delta)}
        return {"objective": parts["label"] + 3 * parts["similarity"], **parts}

    found = search(lambda p: p["delta"], score, config=SearchConfig(method="grid"))
    pairs = {(t.scores["label"], t.scores["similarity"]) for t in found.trials}
    assert [(t.scores["label"], t.scores["similarity"]) for t in found.front] == sorted(brute(list(pairs)))
    assert 2 < len(found.front) < 41
    assert found.best in found.front
    assert found.control in found.front
    assert not found.warnings
    other = search(lambda p: p["delta"], score, config=SearchConfig(method="grid", front=("missed", "l1")))
    assert other.front == ()
    assert "the scores have label, similarity" in other.warnings[0]


def brute(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    return [p for p in points if not any(q[0] <= p[0] and q[1] <= p[1] and q != p for q in points)]


def test_pareto_front_against_brute_force() -> None:
    draw = np.random.default_rng(0)
    for levels in (4, 1000):  # few levels: many ties and equal points
        for _ in range(50):
            points = [tuple(map(float, row)) for row in draw.integers(0, levels, size=(30, 2))]
            assert [points[i] for i in pareto_front(points)] == sorted(brute(points))  # type: ignore[arg-type]
    assert pareto_front([(math.nan, 0.0), (1.0, 1.0), (0.0, math.nan)]) == [1]
    assert pareto_front([]) == []


def test_log_keeps_what_it_is_given(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    log, late = TrialLog(path, "a"), TrialLog(path, "a")
    trial = Trial({"delta": 0.1}, {"objective": math.nan, "label": math.inf, "l1": 1 / 3}, 1.5)
    key = log.key(trial.parameters)
    log.add(key, trial)
    with path.open("a") as file:
        file.write('{"key": "cut sho')
    log.add(log.key({"delta": 0.2}), Trial({"delta": 0.2}, {"objective": 2.0}))
    with path.open("a") as file:
        file.write("[1]\n" + json.dumps({"key": 1, "context": log.context, "stage": "full"}) + "\n")
    kept = late.recall(key)
    assert kept is not None
    assert repr(kept) == repr(trial)
    assert [t.parameters["delta"] for t in late.trials()] == [0.1, 0.2]
    assert late.unreadable == 3
    assert list(TrialLog(path, "b").trials()) == []
    for line in path.read_text().splitlines()[:1]:
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_keys_are_of_content() -> None:
    log = TrialLog(None, "a")
    assert log.key({"a": 1, "b": 0.0}) == log.key({"b": -0.0, "a": 1.0})
    keys = {
        log.key({"a": 1.0}),
        log.key({"a": 1.0 + 1e-12}),
        log.key({"b": 1.0}),
        log.key({"a": 1.0}, "screen"),
        log.key({"a": 1.0}, "screen", "8 steps"),
        TrialLog(None, "b").key({"a": 1.0}),
    }
    assert len(keys) == 6


def test_result_as_json() -> None:
    found = search(*of(lambda d: math.nan if d > 0.15 else d**2), config=SearchConfig(method="grid"))
    plain = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert Trial.from_dict(plain["best"]) == Trial(found.best.parameters, found.best.scores, plain["best"]["seconds"])
    assert len(plain["trials"]) == 41
    assert isinstance(found, SearchResult)
    assert plain["evaluations"] == 41
    assert math.isnan(float(plain["trials"][-1]["scores"]["objective"]))


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"space": {}}, ConfigurationError, "space is empty"),
        ({"space": {"delta": (0.2, -0.2)}}, ConfigurationError, "range of delta is 0.2 to -0.2"),
        ({"space": {"guidance": (1, 5)}}, ConfigurationError, "control sets delta, the space has guidance"),
        ({"control": {}}, ConfigurationError, "control sets nothing"),
        ({"space": {"delta": (0, 1), "g": (0, 1)}}, ConfigurationError, "one parameter, not 2"),
        ({"log": "x.jsonl"}, ConfigurationError, "without a context"),
        ({"config": {"method": "optuna", "storage": "x"}}, ConfigurationError, "give log too"),
        ({"config": {"method": "brendt"}}, UnknownNameError, "'brent'"),
        ({"config": {"points": 2}}, ConfigurationError, "points is 2"),
        ({"config": {"evaluations": 4}}, ConfigurationError, "evaluations is 4"),
        ({"config": {"tolerance": 0}}, ConfigurationError, "tolerance is 0"),
        (
            {"space": {"delta": (0, 1), "g": (0, 1), "h": (0, 1)}, "config": {"method": "grid"}},
            ConfigurationError,
            "68,921 points",
        ),
    ],
)
def test_what_cannot_be_searched(options: dict, error: type[Exception], says: str) -> None:
    def call() -> None:
        settings = {**options, "config": SearchConfig(**options.get("config", {}))}
        search(lambda p: pytest.fail("rendered before it was checked"), lambda x: 0.0, **settings)

    with pytest.raises(error, match=says):
        call()


def test_a_score_needs_an_objective() -> None:
    with pytest.raises(ConfigurationError, match="label, but no 'objective'"):
        search(lambda p: p, lambda p: {"label": 1.0})
