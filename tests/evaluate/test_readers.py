"""Readers whose skill is known: what they can do is found again, guessing is called guessing."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sklearn.metrics import roc_curve as their_curve

from latentdrift.errors import EvaluationError
from latentdrift.evaluate.crossed import draw, means
from latentdrift.evaluate.reader_results import ReaderResults, analyse_readers
from latentdrift.evaluate.readers import ReaderAnswers, Repeats, areas_of_readers, mean_curve, one_reader, roc_curve


def simulated(
    skill: float, readers: int = 4, images: int = 120, seed: int = 0, spread: float = 0.0, **more: Any
) -> ReaderAnswers:
    """Readers who see evidence N(d', 1) of synthetic images and N(0, 1) of real ones, half of it common to all.

    Ratings are the evidence cut at fixed criteria, many enough that the area is nearly that of the evidence itself.
    """
    generator = np.random.default_rng(seed)
    synthetic = np.arange(images) % 2 == 1
    skills = skill + spread * generator.standard_normal(readers)
    common = generator.standard_normal(images)
    own = generator.standard_normal((readers, images))
    evidence = skills[:, None] * synthetic + math.sqrt(0.5) * common + math.sqrt(0.5) * own
    rating = 1 + np.digitize(evidence, skill / 2 + np.array([-1.0, -0.5, 0, 0.5, 1.0])).astype(float)
    quality = np.clip(np.rint(3.5 - synthetic + 0.7 * generator.standard_normal((readers, images))), 1, 5)
    seconds = generator.gamma(4, 2, (readers, images)) + 3 * synthetic
    shown = (np.arange(images) // 2 % 2).astype(float)
    wrong = generator.random((readers, images)) < np.where(synthetic, 0.4, 0.1)
    return ReaderAnswers(
        tuple(f"reader {index + 1}" for index in range(readers)),
        synthetic,
        rating,
        quality,
        seconds,
        ("CN", "AD"),
        np.where(wrong, 1 - shown, shown),
        shown,
        **more,
    )


@pytest.fixture(scope="module")
def skilled() -> tuple[ReaderAnswers, ReaderResults]:
    answers = simulated(1.2, images=200)
    return answers, analyse_readers(answers, resamples=400)


def test_known_skill_is_within_the_interval(skilled: tuple[ReaderAnswers, ReaderResults]) -> None:
    _, results = skilled
    area = results.together["AUC"]
    assert area.interval.low < norm.cdf(1.2 / math.sqrt(2)) < area.interval.high
    assert area.interval.low > 0.6
    assert "better than by guessing" in results.verdict()
    accuracy = results.together["accuracy"]
    assert accuracy.interval.low < norm.cdf(0.6) < accuracy.interval.high


@pytest.mark.parametrize("seed", range(3))
def test_guessing_is_not_told_from_chance(seed: int) -> None:
    results = analyse_readers(simulated(0.0, seed=seed), resamples=300)
    for name in ("AUC", "accuracy"):
        found = results.together[name]
        assert found.interval.low < 0.5 < found.interval.high
    assert "not shown" in results.verdict()
    assert "no proof" in results.verdict()


def test_readers_who_take_one_for_the_other() -> None:
    answers = simulated(1.5)
    turned = ReaderAnswers(answers.readers, ~answers.synthetic, answers.rating, answers.quality, answers.seconds)
    assert "more often than real ones" in analyse_readers(turned, resamples=200).verdict()


def test_intervals_cover_as_often_as_they_say() -> None:
    """Readers of different skill, other readers and images each time: 90 % intervals hold the mean skill's area."""
    truth = float(np.mean(norm.cdf((1.0 + 0.4 * np.random.default_rng(0).standard_normal(20_000)) / math.sqrt(2))))
    held = 0
    for seed in range(60):
        answers = simulated(1.0, readers=5, images=80, seed=seed, spread=0.4)
        draws = draw(80, 5, confidence=0.9, resamples=100, seed=seed)
        found = draws.estimate(lambda times, a=answers: areas_of_readers(a.rating, a.synthetic, times))
        assert found is not None
        # Six ratings lose a little of the area: between 0 and 0.02 here.
        held += found.interval.low < truth - 0.01 < found.interval.high
    assert 47 <= held <= 60  # of 60: 54 expected, three standard deviations


def test_area_is_that_of_scikit_learn(skilled: tuple[ReaderAnswers, ReaderResults]) -> None:
    answers, results = skilled
    theirs = [roc_auc_score(answers.synthetic, row) for row in answers.rating]
    assert [one.figures["AUC"].value for one in results.readers] == pytest.approx(theirs)
    assert results.together["AUC"].value == pytest.approx(np.mean(theirs))


def test_curve_is_that_of_scikit_learn(skilled: tuple[ReaderAnswers, ReaderResults]) -> None:
    answers, _ = skilled
    found = roc_curve(answers.rating[0], answers.synthetic)
    false, true, _ = their_curve(answers.synthetic, answers.rating[0], drop_intermediate=False)
    assert found.false_positive.tolist() == pytest.approx(false.tolist())
    assert found.true_positive.tolist() == pytest.approx(true.tolist())
    with pytest.raises(EvaluationError, match="real and to synthetic"):
        roc_curve([1, 2], [True, True])


def test_mean_curve_has_the_mean_area(skilled: tuple[ReaderAnswers, ReaderResults]) -> None:
    _, results = skilled
    curves = [one.curve for one in results.readers if one.curve is not None]
    mean = mean_curve(curves, 2001)
    area = np.trapezoid(mean.true_positive, mean.false_positive)
    assert area == pytest.approx(results.together["AUC"].value, abs=2e-3)
    assert all(a <= b for a, b in pairwise(mean.true_positive))


def test_one_reader_by_hand() -> None:
    answers = ReaderAnswers(
        ("a",),
        np.array([True, True, True, False, False]),
        np.array([[6.0, 4.0, 1.0, 2.0, np.nan]]),
        np.full((1, 5), 3.0),
        np.array([[1.0, 2.0, 9.0, 4.0, np.nan]]),
    )
    found = one_reader(answers, 0)
    assert found.answered == 4
    assert found.figures["sensitivity"].value == pytest.approx(2 / 3)
    assert found.figures["specificity"].value == 1
    assert found.figures["accuracy"].value == 0.75
    assert found.figures["specificity"].interval.low < 0.5  # one image proves little
    assert found.seconds == {"real": 4.0, "synthetic": 2.0}
    assert "AUC" not in found.figures  # one real image was answered
    assert found.curve is not None


def test_quality_and_diagnosis(skilled: tuple[ReaderAnswers, ReaderResults]) -> None:
    answers, results = skilled
    gap = results.together["quality, synthetic − real"]
    assert gap.interval.low < -1 + 0.1 < gap.interval.high or gap.interval.low < -1 < gap.interval.high
    made = answers.synthetic
    assert gap.value == pytest.approx(answers.quality[:, made].mean() - answers.quality[:, ~made].mean())
    for name, truth in (("real", 0.9), ("synthetic", 0.6)):
        found = results.together[f"diagnosis, {name}"]
        assert found.interval.low < truth < found.interval.high
    assert results.together["diagnosis, synthetic − real"].interval.high < 0


def test_agreement_rows(skilled: tuple[ReaderAnswers, ReaderResults]) -> None:
    answers, results = skilled
    rows = {(row["question"], row["readers"]): row for row in results.agreement}
    assert len(rows) == 3 * (6 + 1)  # three questions, six pairs and all
    found = rows["quality", "reader 1, reader 2"]["estimate"]
    assert found.value == pytest.approx(cohen_kappa_score(*answers.quality[:2], weights="quadratic"))
    calls = answers.rating > 3
    assert rows["real or synthetic", "reader 3, reader 4"]["estimate"].value == pytest.approx(
        cohen_kappa_score(*calls[2:])
    )
    assert 0.2 < rows["real or synthetic", "all"]["estimate"].value < 0.6


def test_agreement_with_oneself() -> None:
    answers = simulated(1.0, readers=2, images=20)
    first, second = np.array([1.0, 6, 2, 5]), np.array([2.0, 5, 6, 5])
    repeats = Repeats(
        np.array([0, 0, 0, 1]),
        (first, second),
        (np.array([3.0, 3, 3, 3]), np.array([3.0, 3, 3, 4])),
        (np.array([0.0, 1, 1, 0]), np.array([0.0, 1, 1, 0])),
    )
    kept = {name: getattr(answers, name) for name in ReaderAnswers.__dataclass_fields__}
    rows = analyse_readers(ReaderAnswers(**{**kept, "repeats": repeats}), resamples=50).self_agreement
    found = {(row["reader"], row["question"]): row for row in rows}
    assert found["reader 1", "real or synthetic"]["same"].value == pytest.approx(2 / 3)
    assert found["reader 1", "diagnosis"]["same"].value == 1
    assert found["reader 1", "diagnosis"]["kappa"] == 1
    assert math.isnan(found["reader 1", "quality"]["kappa"])
    assert found["reader 2", "quality"]["same"].value == 0
    assert found["reader 2", "quality"]["same"].n == 1


def test_sets_of_synthetic_images() -> None:
    images = 120
    arms = tuple(("", "plain", "", "drifted")[index % 4] for index in range(images))
    answers = simulated(1.0, images=images, arms=arms)
    obvious = np.array([arm == "plain" for arm in arms])
    answers.rating[:, obvious] = 6
    results = analyse_readers(answers, resamples=100)
    assert results.arms["plain"]["sensitivity"].value == 1
    assert results.arms["plain"]["AUC"].value > results.arms["drifted"]["AUC"].value
    assert results.arms["plain"]["specificity"].value == results.together["specificity"].value
    assert results.to_dict()["sets"]["plain"]["sensitivity"]["value"] == 1
    assert {row["set"] for row in results.records()} == {"all", "plain", "drifted"}


def test_clusters_widen_the_interval() -> None:
    values = np.repeat([0.0, 1.0] * 5, 10)[None]
    alone = draw(100, 1, resamples=500).estimate(means(values))
    together = draw(100, 1, [index // 10 for index in range(100)], resamples=500).estimate(means(values))
    assert alone is not None
    assert together is not None
    assert alone.value == together.value == 0.5
    width = alone.interval.high - alone.interval.low
    assert together.interval.high - together.interval.low > 2 * width


def test_two_readers_who_differ_have_a_wide_interval() -> None:
    values = np.array([np.zeros(200), np.ones(200)])
    found = draw(200, 2, resamples=500).estimate(means(values))
    assert found is not None
    assert found.value == 0.5
    assert found.interval == (0, 1)


def test_all_right_is_not_all_certain() -> None:
    answers = simulated(1.0, images=40)
    answers.rating[:] = np.where(answers.synthetic, 6.0, 1.0)
    found = analyse_readers(answers, resamples=50).together
    for name, low in (("AUC", 0.84), ("sensitivity", 0.84), ("accuracy", 0.91)):  # Wilson: n / (n + 1.96²)
        assert found[name].value == 1
        assert found[name].interval.low == pytest.approx(low, abs=0.005)
        assert found[name].interval.high == pytest.approx(1)


def test_what_is_missing_is_left_out() -> None:
    answers = simulated(1.0, readers=3)
    answers.rating[2] = np.nan
    answers.quality[2] = np.nan
    answers.diagnosis[2] = np.nan
    answers.rating[1, 60:] = np.nan
    results = analyse_readers(answers, resamples=100)
    assert [one.answered for one in results.readers] == [120, 60]
    assert results.together["AUC"].n == 2
    assert {row["readers"] for row in results.agreement} == {"reader 1, reader 2", "all"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rating": np.full((1, 4), 7.0)}, "rating are whole numbers from 1 to 6"),
        ({"quality": np.full((1, 4), 2.5)}, "quality are whole numbers"),
        ({"rating": np.full((2, 4), 1.0)}, "shape"),
        ({"seconds": np.zeros((1, 3))}, "do not fit"),
        ({"synthetic": np.ones(4, dtype=bool)}, "one kind is missing"),
        ({"rating": np.full((1, 4), np.nan)}, "no answer yet"),
        ({"classes": ("a", "b"), "diagnosis": np.full((1, 4), 2.0), "shown": np.zeros(4)}, "diagnosis are whole"),
    ],
)
def test_answers_that_cannot_be(change: dict[str, Any], says: str) -> None:
    good: dict[str, Any] = {
        "readers": ("a",),
        "synthetic": np.array([True, False, True, False]),
        "rating": np.full((1, 4), 3.0),
        "quality": np.full((1, 4), 3.0),
        "seconds": np.zeros((1, 4)),
    }
    ReaderAnswers(**good)
    with pytest.raises(EvaluationError, match=says):
        ReaderAnswers(**{**good, **change})


@pytest.mark.parametrize(("settings", "says"), [({"confidence": 1.0}, "confidence"), ({"resamples": 3}, "resamples")])
def test_settings_that_cannot_be(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        analyse_readers(simulated(1.0), **settings)
