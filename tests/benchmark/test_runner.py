"""Cells are measured once, survive interruption and failure, and are shared between processes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from filelock import FileLock

from latentdrift.benchmark import benchmark, open_benchmark
from latentdrift.benchmark.data import BenchmarkData, labelled, open_parts
from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Cell, Figures, Row, figure
from latentdrift.benchmark.plans.drift_rules import DriftRulesConfig
from latentdrift.benchmark.runner import cell_file, finished, measure_cell, problems, run_cells
from latentdrift.benchmark.workshop import Workshop
from latentdrift.data import Cohort
from latentdrift.errors import ConfigurationError, DataError, EvaluationError, UnknownNameError


class Counted(Benchmark):
    """Rows by name; those called bad fail until they are mended."""

    name = "counted"

    def __init__(self, config: BenchmarkConfig, names: tuple[str, ...] = ("a", "b"), bad: tuple[str, ...] = ()) -> None:
        super().__init__(config)
        self.names, self.bad, self.measured = names, bad, list[tuple[str, int]]()

    def rows(self, data: BenchmarkData) -> Iterator[tuple[Row, dict[str, Any]]]:
        for name in self.names:
            yield {"row": name}, {"row": name}

    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Figures:
        name = settings["row"]
        self.measured.append((name, seed))
        if name in self.bad:
            raise EvaluationError(f"{name} cannot be measured.")
        return {"fid": figure(10.0 * (seed + 1), (9.0, 11.0))}


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    made = Workshop(BenchmarkData(), BenchmarkConfig(), tmp_path)
    made.__dict__["parts"] = SimpleNamespace(facts={"content_hash": "1"})
    return made


def test_every_seed_once_and_first_seeds_first(workshop: Workshop) -> None:
    plan = Counted(BenchmarkConfig(seeds=(3, 5)))
    found = run_cells(plan, workshop)
    assert plan.measured == [("a", 3), ("b", 3), ("a", 5), ("b", 5)]
    assert [one.figures["fid"]["value"] for one in found] == [40.0, 40.0, 60.0, 60.0]
    again = Counted(BenchmarkConfig(seeds=(3, 5)))
    assert run_cells(again, workshop) == found
    assert again.measured == []


def test_more_seeds_and_rows_measure_only_what_is_new(workshop: Workshop) -> None:
    run_cells(Counted(BenchmarkConfig(seeds=(0,))), workshop)
    more = Counted(BenchmarkConfig(seeds=(0, 1)), ("a", "c"))
    run_cells(more, workshop)
    assert more.measured == [("c", 0), ("a", 1), ("c", 1)]


@pytest.mark.parametrize("changed", [{"steps": 401}, {"guidance": 2.0}, {"samples": 100}])
def test_other_settings_are_other_cells(workshop: Workshop, changed: dict[str, Any]) -> None:
    run_cells(Counted(BenchmarkConfig(seeds=(0,))), workshop)
    other = Counted(BenchmarkConfig(seeds=(0,), **changed))
    run_cells(other, workshop)
    assert len(other.measured) == 2


def test_other_data_are_other_cells(workshop: Workshop) -> None:
    plan, cell = Counted(BenchmarkConfig()), Cell({"row": "a"}, {"row": "a"}, 0)
    assert plan.key(cell, {"content_hash": "1"}) != plan.key(cell, {"content_hash": "2"})


def test_a_cell_that_fails_stops_no_other_and_is_tried_again(workshop: Workshop) -> None:
    config = BenchmarkConfig(seeds=(0,))
    found = run_cells(Counted(config, bad=("a",)), workshop)
    assert problems(found) == ["a, seed 0: EvaluationError: a cannot be measured."]
    assert [one.cell.row["row"] for one in finished(found)] == ["b"]
    mended = Counted(config)
    assert not problems(run_cells(mended, workshop))
    assert mended.measured == [("a", 0)]


def test_a_damaged_cell_is_measured_again(workshop: Workshop) -> None:
    plan = Counted(BenchmarkConfig(seeds=(0,)), ("a",))
    run_cells(plan, workshop)
    cell_file(plan, workshop, plan.cells(workshop.data)[0]).write_text('{"figures": {')
    run_cells(plan, workshop)
    assert plan.measured == [("a", 0), ("a", 0)]


def test_a_cell_in_other_hands_is_left_to_them(workshop: Workshop) -> None:
    plan = Counted(BenchmarkConfig(seeds=(0,)), ("a",))
    (cell,) = plan.cells(workshop.data)
    path = cell_file(plan, workshop, cell)
    path.parent.mkdir(parents=True)
    with FileLock(path.with_suffix(".lock")):
        assert measure_cell(plan, workshop, cell, wait=False) is False
    assert plan.measured == []
    assert measure_cell(plan, workshop, cell, wait=False) is True
    assert json.loads(path.read_text())["figures"] == {"fid": {"value": 10.0, "low": 9.0, "high": 11.0}}


class Needing(Counted):
    """The row a needs a model that another process makes until the row b is measured."""

    cohort: Path
    lock: FileLock

    def measure(self, settings: Mapping[str, Any], seed: int, workshop: Workshop) -> Figures:
        if settings["row"] == "a":
            workshop.keep_picture("before", Cohort.open(self.cohort))
            with workshop.locked(workshop.folder / "models" / "one"):
                pass
        else:
            self.lock.release()
        return super().measure(settings, seed, workshop)


def test_what_needs_a_model_in_other_hands_is_put_off(workshop: Workshop, toy_cohort: Path) -> None:
    plan = Needing(BenchmarkConfig(seeds=(0,)))
    plan.cohort = Path(shutil.copytree(toy_cohort, workshop.folder / "cohort"))
    (workshop.folder / "locks").mkdir()
    plan.lock = FileLock(workshop.folder / "locks" / "one.lock")
    plan.lock.acquire()
    found = run_cells(plan, workshop)
    assert plan.measured == [("b", 0), ("a", 0)]
    assert [(one.cell.row["row"], one.problem) for one in found] == [("a", None), ("b", None)]
    assert [len(one.pictures) for one in found] == [6, 0]  # those of the first try at a are not b's


def test_names_and_settings() -> None:
    assert benchmark.names() == ["aging", "drift-rules", "prompts", "table1", "truth"]
    with pytest.raises(UnknownNameError, match="Did you mean 'table1'"):
        open_benchmark("table2")
    with pytest.raises(ConfigurationError, match="no settings of 'table1'"):
        open_benchmark("table1", BenchmarkConfig())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"seeds": ()}, "at least one"), ({"seeds": (1, 1)}, "none twice"), ({"steps": 0}, "at least 1")],
)
def test_settings_that_cannot_be(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        BenchmarkConfig(**wrong)


def test_truth_needs_simulated_images() -> None:
    with pytest.raises(ConfigurationError, match="The truth of scans is not known"):
        open_benchmark("truth").cells(BenchmarkData(data="scans"))


def test_one_class_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="One class alone, Pneumonia"):
        BenchmarkData(classes=("Pneumonia",))


def test_of_several_findings_the_one_that_counts(toy_cohort: Path) -> None:
    cohort = Cohort.open(toy_cohort)
    stages = sorted({str(value) for value in cohort.values("stage")})
    with pytest.raises(DataError, match="No image of .* has stage Severe; there are"):
        labelled(cohort, "stage", (stages[0], "Severe"))
    assert {record.attributes["stage"] for record in labelled(cohort, "stage", (stages[0],))} == {stages[0]}


def test_parts_share_no_subject(tmp_path: Path) -> None:
    parts = open_parts(BenchmarkData(subjects=12), tmp_path)
    people = [{record.subject for record in part} for part in (parts.train, parts.test)]
    assert not people[0] & people[1]
    assert all(people)
    assert len(parts.train) + len(parts.test) == len(parts.cohort)
    assert parts.attribute == "diagnosis"
    assert parts.template == "an MRI of a {diagnosis} brain"
    # The same folder is taken again, not made anew.
    assert open_parts(BenchmarkData(subjects=12), tmp_path).facts == parts.facts


def test_default_stands_for_another_network_in_another_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = set()
    for meaning in ("efficientnet-lite0", "inception"):
        monkeypatch.setattr("latentdrift.evaluate.resolve_extractor", lambda name, meaning=meaning: meaning)
        plan = Counted(BenchmarkConfig())
        keys.add(plan.key(Cell({"row": "a"}, {"row": "a"}, 0), {"content_hash": "1"}))
    assert len(keys) == 2
    named = Counted(BenchmarkConfig(extractor="inception"))
    assert named.key(Cell({"row": "a"}, {"row": "a"}, 0), {"content_hash": "1"}) in keys


def test_a_search_of_other_settings_is_another_cell() -> None:
    def keys(**settings: Any) -> dict[str, str]:
        plan = open_benchmark("drift-rules", DriftRulesConfig(groups=("start",), seeds=(0,), **settings))
        return {cell.row["sampled with"]: plan.key(cell, {}) for cell in plan.cells(BenchmarkData())}

    first, second = keys(), keys(search_points=41)
    assert {name for name in first if first[name] != second[name]} == {"searched, start"}


def test_another_modality_words_other_instructions() -> None:
    keys = {
        open_benchmark("aging").key(open_benchmark("aging").cells(BenchmarkData(modality=modality))[1], {})
        for modality in ("mri", "xray")
    }
    assert len(keys) == 2
