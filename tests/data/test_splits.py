from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from latentdrift.data import Cohort, Record
from latentdrift.data.splits import natural_key
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
