from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latentdrift.data import Cohort, ImageTransform
from latentdrift.data.simulate import (
    DIAGNOSES,
    FINDINGS,
    SimulatedChest,
    SimulatedSubject,
    render,
    render_chest,
    simulate_cohort,
    simulated_subject,
    true_counterfactual,
)
from latentdrift.data.simulate.cohort import VERSION
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

PEOPLE = [SimulatedSubject.draw(index, seed=5) for index in range(6)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "cohort"
    simulate_cohort(path, subjects=6, seed=5, size=64, truth=True)
    return path


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("simulated") / "visits"
    scanners = ("standard-1.5T", "sharp-3T")
    simulate_cohort(path, subjects=6, seed=5, size=32, truth=False, visits=3, years_between=1.5, scanners=scanners)
    return path


def hashes(cohort: Cohort) -> list[str]:
    return [record.content_hash() for record in cohort]


def test_cohort_is_an_ordinary_folder_and_the_truth_is_exact(folder: Path) -> None:
    cohort = Cohort.open(folder)
    assert len(cohort) == 6
    assert cohort.attribute_names == ("age", "sex", "diagnosis")
    assert cohort.counts("diagnosis") == {"AD": 2, "CN": 2, "MCI": 2}
    assert cohort.class_attribute() == "diagnosis"
    assert cohort.is_gray()
    for record in cohort:
        own = str(record.attributes["diagnosis"])
        with Image.open(record.image) as image:
            assert image.info["SyntheticData"] == "YES"
            assert image.info["Diagnosis"] == own
            np.testing.assert_allclose(
                np.asarray(image) / 255, true_counterfactual(folder, record, own), atol=0.51 / 255
            )
        others = {path.stem.split("_")[1]: path for path in (folder / "truth").glob(f"{record.subject}_*.png")}
        assert set(others) == set(DIAGNOSES) - {own}
        for diagnosis, path in others.items():
            found = (ImageTransform(64).read(path)[0].numpy() + 1) / 2
            np.testing.assert_allclose(found, true_counterfactual(folder, record, diagnosis), atol=0.51 / 255)


def test_a_chest_cohort_is_one_too(tmp_path: Path) -> None:
    cohort = simulate_cohort(tmp_path / "chest", subjects=8, seed=2, size=64, kind="chest", bedside=0.5)
    assert cohort.attribute_names == ("age", "sex", "view", "finding")
    assert cohort.counts("finding") == dict.fromkeys(FINDINGS, 2)
    assert set(cohort.values("view")) == {"AP", "PA"}
    assert len(list((tmp_path / "chest/truth").iterdir())) == 8 * 3
    for index, record in enumerate(cohort):
        person, size = simulated_subject(tmp_path / "chest", record)
        assert (person, size) == (SimulatedChest.draw(index, 2, bedside=0.5), 64)
        found = true_counterfactual(tmp_path / "chest", record, "Effusion", sex="F", side="left")
        np.testing.assert_array_equal(found, render_chest(person, "Effusion", size=64, sex="F", side="left"))
        own = true_counterfactual(tmp_path / "chest", record)
        with Image.open(record.image) as image:
            np.testing.assert_allclose(np.asarray(image) / 255, own, atol=0.51 / 255)
        for wrong in ({"scanner": "sharp-3T"}, {"lesion_load": 3}):
            with pytest.raises(UnknownNameError, match="attribute of a simulated chest"):
                true_counterfactual(tmp_path / "chest", record, **wrong)
    with pytest.raises(ConfigurationError, match="given twice"):
        true_counterfactual(tmp_path / "chest", cohort[0], "Effusion", finding="Pneumonia")


def test_visits_are_sessions_of_the_same_subject(visits: Path) -> None:
    cohort = Cohort.open(visits)
    assert len(cohort) == 18
    assert cohort.attribute_names == ("age", "sex", "diagnosis", "scanner")
    assert len(set(cohort.values("scanner"))) == 2
    by_subject: dict[str, list] = {}
    for record in cohort:
        by_subject.setdefault(str(record.subject), []).append(record)
    for index, records in enumerate(by_subject.values()):
        assert [record.session for record in records] == ["visit-1", "visit-2", "visit-3"]
        ages = [float(record.attributes["age"]) for record in records]
        assert ages == [ages[0], ages[0] + 1.5, ages[0] + 3]
        people = [simulated_subject(visits, record)[0] for record in records]
        assert {person.seed for person in people} == {PEOPLE[index].seed}
        assert len({record.attributes["scanner"] for record in records}) == 1
        for record, person in zip(records, people, strict=True):
            assert person.age == record.attributes["age"]
            assert person.diagnosis == record.attributes["diagnosis"]
            with Image.open(record.image) as image:
                np.testing.assert_allclose(
                    np.asarray(image) / 255, true_counterfactual(visits, record), atol=0.51 / 255
                )


def test_counterfactuals_of_every_attribute(visits: Path) -> None:
    record = Cohort.open(visits)[4]
    person, size = simulated_subject(visits, record)
    changes = {
        "diagnosis": "CN" if person.diagnosis == "AD" else "AD",
        "age": 88.0,
        "sex": "M" if person.sex == "F" else "F",
        "scanner": "shaded-3T",
        "lesion_load": 40.0,
        "noise": 0.1,
        "bias": 4.0,
        "height": 2.0,
    }
    own = true_counterfactual(visits, record)
    np.testing.assert_array_equal(own, render(person, size=size))
    for name, value in changes.items():
        found = true_counterfactual(visits, record, **{name: value})
        np.testing.assert_array_equal(found, render(person, size=size, **{name: value}))
        assert (found != own).any(), name
    np.testing.assert_array_equal(
        true_counterfactual(visits, record, "AD", age=88.0), render(person, "AD", 88.0, size=size)
    )


def test_same_seed_same_cohort(folder: Path, tmp_path: Path) -> None:
    again = simulate_cohort(tmp_path / "again", subjects=4, seed=5, size=64)
    assert hashes(again) == hashes(Cohort.open(folder))[:4]
    other = simulate_cohort(tmp_path / "other", subjects=1, seed=6, size=64)
    assert other[0].content_hash() != again[0].content_hash()


def test_more_visits_begin_with_the_same_ones(visits: Path, tmp_path: Path) -> None:
    scanners = ("standard-1.5T", "sharp-3T")
    fewer = simulate_cohort(
        tmp_path / "fewer", 2, seed=5, size=32, truth=False, visits=2, years_between=1.5, scanners=scanners
    )
    longer = Cohort.open(visits)
    assert hashes(fewer) == hashes(longer)[0:2] + hashes(longer)[3:5]


@pytest.mark.parametrize("kind", [pytest.param("brain", marks=pytest.mark.slow), "chest"])
def test_other_processes_write_the_same_bytes(kind: str, tmp_path: Path) -> None:
    counts: list[tuple[int, int]] = []
    for workers in (1, 2):
        simulate_cohort(
            tmp_path / str(workers), 3, seed=9, size=32, kind=kind, workers=workers,
            progress=lambda *done: counts.append(done),
        )  # fmt: skip
    assert counts == [(0, 3), (1, 3), (2, 3), (3, 3)] * 2
    files = [path.relative_to(tmp_path / "1") for path in sorted((tmp_path / "1").rglob("*")) if path.is_file()]
    assert len(files) == 2 + 3 * (3 if kind == "brain" else 4)
    for file in files:
        assert (tmp_path / "1" / file).read_bytes() == (tmp_path / "2" / file).read_bytes(), file


@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_simulation_leaves_nothing(workers: int, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        simulate_cohort(tmp_path / "cohort", subjects=3, size=32, kind="chest", progress=stop, workers=workers)
    assert list(tmp_path.iterdir()) == []


def test_unwanted_cohorts(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used/notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(DataError, match="used exists and is not empty"):
        simulate_cohort(tmp_path / "used", subjects=1)
    refused: list[tuple[dict, str]] = [
        ({"subjects": 0}, "at least 1 subject"),
        ({"workers": 0}, "at least 1 process"),
        ({"visits": 0}, "at least 1 visit"),
        ({"visits": 20}, "more than 10 years"),
        ({"kind": "knee"}, "kind of simulated cohort"),
        ({"scanners": ("sharp",)}, "scanner"),
        ({"scanners": ()}, "scanners is empty"),
        ({"strength": 9}, "strength"),
        ({"age_correlation": 3}, "age_correlation"),
        ({"bedside": 0.5}, "brain cohort has no such setting"),
        ({"kind": "chest", "visits": 2}, "chest cohort has no such setting"),
        ({"kind": "chest", "strength": 1.0}, "chest cohort has no such setting"),
        ({"size": 8}, "size"),
    ]
    for settings, message in refused:
        with pytest.raises(ConfigurationError, match=message):
            simulate_cohort(tmp_path / "none", **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["used"]


def test_truth_of_what_was_not_simulated(folder: Path, tmp_path: Path) -> None:
    record = Cohort.open(folder)[0]
    assert simulated_subject(folder, record) == (PEOPLE[0], 64)
    assert simulated_subject(folder, replace(record, session=None)) == (PEOPLE[0], 64)
    with pytest.raises(DataError, match="only simulated cohorts"):
        true_counterfactual(tmp_path, record, "AD")
    with pytest.raises(DataError, match="no subject 'somebody'"):
        true_counterfactual(folder, replace(record, subject="somebody"), "AD")
    with pytest.raises(DataError, match="no session 'visit-7'"):
        true_counterfactual(folder, replace(record, session="visit-7"), "AD")
    write: Callable[[str], int] = lambda text: (tmp_path / "simulation.json").write_text(text, encoding="utf-8")  # noqa: E731
    for text, message in [
        ("{", "cannot be read"),
        ('{"version": 1}', "version 1"),
        ("[]", "cannot be read"),
        (json.dumps({"version": VERSION, "kind": "knee", "size": 64, "subjects": {}}), "cannot be read"),
        (json.dumps({"version": VERSION, "kind": "brain", "size": 64, "subjects": []}), "cannot be read"),
    ]:
        write(text)
        with pytest.raises(DataError, match=message):
            true_counterfactual(tmp_path, record, "AD")
    for parameters in ({"name": "x"}, None, {**PEOPLE[0].to_dict(), "age": 7}, {**PEOPLE[0].to_dict(), "sex": "X"}):
        subjects = {record.subject: {"visit-1": parameters}}
        write(json.dumps({"version": VERSION, "kind": "brain", "size": 64, "subjects": subjects}))
        with pytest.raises(DataError, match=r"parameters of sim-0001 are damaged"):
            true_counterfactual(tmp_path, record, "AD")
