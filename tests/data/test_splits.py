from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from latentdrift.data import Cohort, Record
from latentdrift.data.splits import assign, natural_key, strata
from latentdrift.errors import ConfigurationError, DataError


def slices(**classes: int) -> Cohort:
    """Numbered slices without subjects, in an order that is not that of the numbers."""
    records = [
        Record(Path(f"{name}{i}.jpg"), attributes={"stage": name}, key=f"{name}/{name}{i}.jpg")
        for name, count in classes.items()
        for i in range(count)
    ]
    return Cohort(sorted(records, key=lambda record: record.key), Path(), "slices")


def people(count: int, seed: int = 0) -> Cohort:
    rng = np.random.default_rng(seed)
    records = [
        Record(
            Path(f"{i}-{j}.png"), subject=f"s{i}", attributes={"stage": "AD" if i % 3 == 0 else "CN"}, key=f"{i}-{j}"
        )
        for i in range(count)
        for j in range(rng.integers(1, 6))
    ]
    return Cohort(records, Path(), "people")


def test_natural_order() -> None:
    assert sorted(["s10.png", "s9.png", "s1.png", "a/2.png"], key=natural_key) == [
        "a/2.png",
        "s1.png",
        "s9.png",
        "s10.png",
    ]


@pytest.mark.parametrize("cohort", [slices(CN=700, MCI=233, AD=52), people(150)], ids=["blocks", "subjects"])
def test_parts_cover_everything_once_in_proportion(cohort: Cohort) -> None:
    split = cohort.split()
    keys = [record.key for part in split.values() for record in part]
    assert sorted(keys) == sorted(record.key for record in cohort)
    for name, share in {"train": 0.8, "validation": 0.1, "test": 0.1}.items():
        assert len(split[name]) / len(cohort) == pytest.approx(share, abs=0.03)
        for stage, count in cohort.counts("stage").items():
            assert split[name].counts("stage")[stage] / count == pytest.approx(share, abs=0.06)


def test_no_subject_is_in_two_parts() -> None:
    split = people(60).split({"train": 0.6, "test": 0.4}, seed=3)
    assert not {r.subject for r in split["train"]} & {r.subject for r in split["test"]}
    assert split.strategy.startswith("by subject: 60 subjects")


def test_blocks_are_runs_of_neighbours_spread_over_the_whole() -> None:
    cohort = slices(CN=960)
    split = cohort.split({"train": 0.75, "test": 0.25}, block=12)
    numbers = sorted(int(record.key.split("CN")[-1][:-4]) for record in split["test"])
    blocks = {number // 12 for number in numbers}
    assert len(blocks) * 12 == len(numbers)
    # In every eighth of the order there is some of the test set: no part is one long block.
    assert {number // 120 for number in numbers} == set(range(8))
    assert "interleaved blocks of at most 12" in split.strategy
    assert "no subject column" in split.strategy


def test_a_rare_class_is_in_every_part() -> None:
    split = slices(CN=900, AD=20).split()
    assert all(part.counts("stage")["AD"] >= 1 for part in split.values())


@pytest.mark.parametrize("cohort", [slices(CN=400), people(80)], ids=["blocks", "subjects"])
def test_the_seed_decides(cohort: Cohort) -> None:
    first, again, other = (cohort.split(seed=seed)["test"] for seed in (0, 0, 1))
    assert list(first) == list(again)
    assert list(first) != list(other)


@pytest.mark.parametrize("fractions", [{}, {"a": 0.5, "b": 0.6}, {"a": 1.2, "b": -0.2}, {"a": 1.0, "b": float("nan")}])
def test_fractions_must_add_up(fractions: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="add up to 1"):
        slices(CN=50).split(fractions)


def test_too_few_subjects_or_images_are_refused() -> None:
    with pytest.raises(DataError, match="2 subjects are too few: nothing is left for"):
        people(2).split()
    with pytest.raises(DataError, match="2 images are too few"):
        slices(CN=2).split()
    with pytest.raises(ConfigurationError, match="block"):
        slices(CN=50).split(block=0)


FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}


def longitudinal(count: int, seed: int = 0) -> Cohort:
    """Subjects of one to six visits; a third of them go from CN over MCI to AD on the way."""
    rng = np.random.default_rng(seed)
    records = []
    for i in range(count):
        visits = int(rng.integers(1, 7))
        course = ["CN", "CN", "MCI", "MCI", "AD", "AD"] if i % 3 == 0 else [["CN", "MCI", "AD"][i % 9 // 3]] * 6
        for j in range(visits):
            known = {"diagnosis": course[j], "sex": "FM"[i % 5 < 2], "age": float(60 + i % 31 + j)}
            records.append(Record(Path(f"{i}-{j}.png"), f"s{i}", f"v{j}", known, f"{i}-{j}"))
    return Cohort(records, Path(), "longitudinal")


def worst_deviation(parts: Mapping[str, Cohort], whole: Cohort, labels: Mapping[str, object]) -> float:
    """Largest |share of a class in a part - its share in the whole|: 0 where every part is the whole in small."""
    everywhere = Counter(labels.values())
    worst = 0.0
    for part in parts.values():
        own = Counter(labels[record.key] for record in part)
        for label, number in everywhere.items():
            worst = max(worst, abs(own[label] / len(part) - number / len(whole)))
    return worst


def test_stratified_far_better_than_by_chance() -> None:
    ours, chance = [], []
    for seed in range(5):
        cohort = longitudinal(200, seed)
        labels = {record.key: record.attributes["diagnosis"] for record in cohort}
        ours.append(worst_deviation(cohort.split(FRACTIONS, seed), cohort, labels))
        people = sorted({str(record.subject) for record in cohort})
        order = list(np.random.default_rng(seed).permutation(people))
        part_of = {s: "train" if i < 160 else "validation" if i < 180 else "test" for i, s in enumerate(order)}
        names = {n: [s for s in people if part_of[s] == n] for n in FRACTIONS}
        dealt = {n: cohort.where(subject=own) for n, own in names.items()}
        chance.append(worst_deviation(dealt, cohort, labels))
    assert max(ours) < 0.05
    assert np.mean(ours) < np.mean(chance) / 3


def test_a_subject_that_changes_class_counts_for_each() -> None:
    cohort = longitudinal(300)
    split = cohort.split(FRACTIONS)
    assert not set.intersection(*({r.subject for r in part} for part in split.values()))
    assert sum(len({r.subject for r in part}) for part in split.values()) == 300
    for part in split.values():
        for subject in {record.subject for record in part}:
            assert len(part.where(subject=str(subject))) == len(cohort.where(subject=str(subject)))
    for name, share in FRACTIONS.items():
        for stage, number in cohort.counts("diagnosis").items():
            assert split[name].counts("diagnosis")[stage] / number == pytest.approx(share, abs=0.02)


def test_several_attributes_are_balanced_at_once() -> None:
    cohort = longitudinal(300)
    names = ["diagnosis", "sex", "age"]
    found = strata(list(cohort), names)
    parts, _ = assign(list(cohort), found, FRACTIONS, 0, 12)
    split = {name: Cohort([cohort[i] for i in indices], Path(), name) for name, indices in parts.items()}
    alone = cohort.split(FRACTIONS)
    for position, name in enumerate(names):
        labels = {record.key: labels[position] for record, labels in zip(cohort, found, strict=True)}
        assert worst_deviation(split, cohort, labels) < 0.05, name
        if name == "age":
            assert worst_deviation(split, cohort, labels) < worst_deviation(alone, cohort, labels) / 2
    assert not {r.subject for r in split["train"]} & {r.subject for r in split["test"]}


def test_strata_are_quantiles_of_numbers() -> None:
    records = [Record(Path(f"{i}.png"), attributes={"age": i, "sex": "FM"[i % 2], "n": i % 3}) for i in range(100)]
    found = strata([*records, Record(Path("x.png"))], ["age", "sex", "n"])
    assert Counter(label[0] for label in found) == {0: 25, 1: 25, 2: 25, 3: 25, None: 1}
    assert found[0] == (0, "F", 0)
    assert found[99] == (3, "M", 0)
    assert found[100] == (None, None, None)
