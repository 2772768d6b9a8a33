"""Figures by groups: known groups, counts by hand, other implementations."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from latentdrift.data import Cohort, Record
from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate.counterfactuals import mean_interval
from latentdrift.evaluate.fairness import (
    auc_by_group,
    demographic_groups,
    equal_parts,
    figure_by_group,
    groups_of,
    mean_by_group,
)


def test_known_groups_differ_by_what_they_do() -> None:
    rng = np.random.default_rng(0)
    groups = ["F" if i % 3 else "M" for i in range(180)]
    values = rng.standard_normal(180) + np.array([0.0 if name == "F" else 2.0 for name in groups])
    found = mean_by_group(values, groups)
    women = np.array([name == "F" for name in groups])
    assert found.groups["F"].value == pytest.approx(values[women].mean())
    assert found.subjects == {"F": 120, "M": 60}
    assert found.groups["M"].n == 60
    difference = found.differences["F", "M"]
    assert difference.value == pytest.approx(values[women].mean() - values[~women].mean())
    assert difference.interval.low < -2.0 < difference.interval.high < 0
    # As an interval of the group alone, and as the variances of independent groups add up.
    alone = mean_interval(values[women])
    np.testing.assert_allclose(found.groups["F"].interval, alone.interval, atol=0.03)
    error = np.sqrt(values[women].var(ddof=1) / 120 + values[~women].var(ddof=1) / 60)
    assert (difference.interval.high - difference.interval.low) / 3.92 == pytest.approx(error, rel=0.1)


def test_equal_groups_are_said_to_differ_as_seldom_as_promised() -> None:
    groups, apart = ["a" if i % 2 else "b" for i in range(80)], 0
    for seed in range(60):
        values = np.random.default_rng(seed).standard_normal(80)
        low, high = mean_by_group(values, groups, resamples=200, seed=seed).differences["a", "b"].interval
        apart += not low <= 0 <= high
    assert apart <= 10  # 3 expected


def test_images_of_one_subject_are_no_new_witnesses() -> None:
    values = np.random.default_rng(1).standard_normal(40)
    groups = ["a"] * 20 + ["b"] * 20
    alone = mean_by_group(values, groups, list(range(40)), resamples=300)
    again = mean_by_group(
        np.repeat(values, 5), np.repeat(groups, 5).tolist(), np.repeat(np.arange(40), 5).tolist(), resamples=300
    )
    assert again.subjects == alone.subjects == {"a": 20, "b": 20}
    assert again.differences["a", "b"].interval == pytest.approx(alone.differences["a", "b"].interval)


def test_a_subject_in_two_groups_is_drawn_in_both() -> None:
    # Each person is seen young and old, one higher when old, whatever the person's own level.
    level = 10 * np.random.default_rng(2).standard_normal(30)
    values, groups = np.r_[level, level + 1], ["under 60"] * 30 + ["60 and over"] * 30
    people = [*range(30), *range(30)]
    paired = mean_by_group(values, groups, people, resamples=200).differences["under 60", "60 and over"]
    assert paired.interval == pytest.approx((-1, -1))
    loose = mean_by_group(values, groups, resamples=200).differences["under 60", "60 and over"]
    assert loose.interval.high - loose.interval.low > 5


@pytest.mark.parametrize("classes", [2, 3])
def test_areas_within_groups_are_those_of_sklearn(classes: int) -> None:
    rng = np.random.default_rng(3)
    truth, groups = np.arange(240) % classes, np.array(["F", "M"])[rng.integers(0, 2, 240)]
    strength = np.where(groups == "F", 3.0, 0.3)
    logits = rng.standard_normal((240, classes)) + strength[:, None] * np.eye(classes)[truth]
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    found = auc_by_group(p, truth, groups.tolist(), resamples=200)
    for name in ("F", "M"):
        chosen = groups == name
        scores = p[chosen, 1] if classes == 2 else p[chosen]
        expected = roc_auc_score(truth[chosen], scores, multi_class="ovr", average="macro")
        assert found.groups[name].value == pytest.approx(expected)
        assert found.groups[name].interval.low <= expected <= found.groups[name].interval.high
    assert found.differences["F", "M"].interval.low > 0.1


def test_small_groups_are_named_and_not_compared() -> None:
    groups = ["a"] * 12 + ["b"] * 12 + ["c"] * 9 + [None] * 3
    found = mean_by_group(np.arange(36.0), groups, resamples=50)
    assert list(found.groups) == ["a", "b"]
    assert list(found.differences) == [("a", "b")]
    assert found.subjects["c"] == 9
    assert found.notes == ("c: 9 subjects, fewer than 10: no figure", "3 images are of no known group")
    assert set(mean_by_group(np.arange(36.0), groups, resamples=50, smallest=9).groups) == {"a", "b", "c"}
    written = json.loads(json.dumps(found.to_dict()))
    assert written["smallest_group"] == 10
    assert written["differences"][0] | {"low": 0, "high": 0} == {
        **{"first": "a", "second": "b", "value": -12.0, "low": 0, "high": 0, "n": 24}
    }
    assert [row["group"] for row in found.rows()] == ["a", "b", "a minus b"]
    # Many images of few people are few.
    with pytest.raises(EvaluationError, match=r"No group has 10 subjects .*'a': 2"):
        mean_by_group(np.arange(40.0), ["a"] * 40, [i % 2 for i in range(40)], resamples=50)


def test_a_group_without_a_class_has_no_area() -> None:
    p = np.tile([[0.3, 0.7], [0.6, 0.4]], (15, 1))
    found = auc_by_group(p, [1, 0] * 10 + [0] * 10, ["a"] * 20 + ["b"] * 10, resamples=50)
    assert list(found.groups) == ["a"]
    assert found.notes[0].startswith("b: the figure is not defined")


def cohort(attributes: list[dict[str, object]]) -> Cohort:
    records = [Record(Path(f"{i}.png"), attributes=found) for i, found in enumerate(attributes)]  # type: ignore[arg-type]
    return Cohort(records, Path(), "made")


def test_groups_of_a_cohort() -> None:
    people = cohort([{"Sex": "F", "Age": 39.9}, {"Sex": "M", "Age": 40}, {"Age": 95}, {"Sex": "F"}])
    assert demographic_groups(people) == {
        "sex": ["F", "M", None, "F"],
        "age": ["under 40", "40 to 60", "80 and over", None],
    }
    assert groups_of(people, "Age", (50,)) == ["under 50", "under 50", "50 and over", None]
    assert demographic_groups(cohort([{"stage": "a"}])) == {}
    with pytest.raises(UnknownNameError, match="attribute"):
        groups_of(people, "sexx")
    with pytest.raises(EvaluationError, match="ascend"):
        groups_of(people, "Age", (60, 50))
    with pytest.raises(EvaluationError, match="has the value 'F'"):
        groups_of(people, "Sex", (60,))


def test_age_groups_are_in_order() -> None:
    ages = cohort([{"age": age} for age in (85, 20, 120, 50, 65, 99, 5) for _ in range(2)])
    found = mean_by_group(np.arange(14.0), groups_of(ages, "age", (18, 40, 60, 80, 100)), smallest=2, resamples=20)
    assert list(found.groups) == ["under 18", "18 to 40", "40 to 60", "60 to 80", "80 to 100", "100 and over"]


def test_equal_parts_have_as_many_images() -> None:
    groups = ["a"] * 30 + ["b"] * 12 + ["c"] * 4 + [None] * 5
    found = equal_parts(groups, seed=1)
    assert {name: len(places) for name, places in found.items()} == {"a": 12, "b": 12}
    assert {groups[i] for i in found["a"]} == {"a"}
    assert found["b"].tolist() == list(range(30, 42))
    assert len(set(found["a"].tolist())) == 12
    assert found["a"].tolist() != equal_parts(groups, seed=2)["a"].tolist()
    with pytest.raises(EvaluationError, match="two have 20 images"):
        equal_parts(groups, smallest=20)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(EvaluationError, match=r"shape \(3,\) for 2 groups"):
        mean_by_group([1.0, 2.0, 3.0], ["a", "b"])
    with pytest.raises(EvaluationError, match="NaN"):
        mean_by_group([1.0, np.nan], ["a", "b"])
    with pytest.raises(EvaluationError, match="1 subjects for 2 images"):
        mean_by_group([1.0, 2.0], ["a", "b"], ["x"])
    with pytest.raises(EvaluationError, match="smallest=1"):
        figure_by_group(lambda weights: 0.0, ["a", "b"], smallest=1)
