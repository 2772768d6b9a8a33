"""Figures of counterfactuals against cases by hand, scipy and scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from scipy.stats import bootstrap
from sklearn.neighbors import NearestNeighbors

from latentdrift.errors import EvaluationError, UnknownNameError
from latentdrift.evaluate.counterfactuals import (
    diversity,
    errors_against_truth,
    identity,
    mean_interval,
    proximity,
    sparsity,
    validity,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(8, 10), (0, 20), (20, 20), (1, 2)])
def test_wilson_by_its_formula(k: int, n: int) -> None:
    z, p = 1.959963984540054, k / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    value, (low, high), count = wilson(k, n)
    assert (value, count) == (p, n)
    assert low == pytest.approx(max(0, middle - half), abs=1e-9)
    assert high == pytest.approx(min(1, middle + half), abs=1e-9)


def test_wilson_in_print() -> None:
    """8 of 10: 0.4902 to 0.9433, as in Brown, Cai and DasGupta's comparison and every table since."""
    assert wilson(8, 10).interval == pytest.approx((0.4902, 0.9433), abs=5e-5)


def test_validity_by_hand() -> None:
    after = [[0.2, 0.8], [0.6, 0.4], [0.1, 0.9], [0.3, 0.7]]
    wanted = [1, 1, 1, 0]
    assert validity(after, wanted).value == 0.5
    before = [[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]
    kept = validity(after, wanted, before=before)
    assert (kept.value, kept.n) == (1 / 3, 3)  # the third had its class already
    assert kept.interval == wilson(1, 3).interval
    with pytest.raises(EvaluationError, match="nothing to flip"):
        validity(after[:1], [1], before=after[:1])


def test_mean_interval_by_enumeration() -> None:
    """Two subjects of one and three images: a resample is one, both or the other, with 1/4, 1/2 and 1/4."""
    values, subjects = [0.0, 4.0, 4.0, 10.0], ["a", "b", "b", "b"]
    found = mean_interval(values, subjects, confidence=0.6, resamples=20_000)
    assert found.value == 4.5
    assert found.n == 2
    assert found.interval == (0.0, 6.0)  # the 20 % and 80 % of 0, 4.5 and 6
    assert mean_interval(values, subjects, confidence=0.4, resamples=20_000).interval == (4.5, 4.5)


def test_mean_interval_as_scipy() -> None:
    values = np.random.default_rng(0).exponential(size=40)
    found = mean_interval(values, resamples=20_000)
    other = bootstrap((values,), np.mean, method="percentile", n_resamples=20_000, rng=1).confidence_interval
    assert found.interval == pytest.approx((other.low, other.high), rel=0.01)


def test_images_of_one_subject_are_one_witness() -> None:
    """Each subject's image five times: no narrower, where images as witnesses would give 1/√5 of the width."""
    values = np.random.default_rng(0).normal(size=30)
    once = np.diff(mean_interval(values).interval)[0]
    repeated, subjects = np.repeat(values, 5), np.repeat(np.arange(30), 5).tolist()
    assert np.diff(mean_interval(repeated, subjects).interval)[0] == pytest.approx(once)
    assert np.diff(mean_interval(repeated).interval)[0] == pytest.approx(once / math.sqrt(5), rel=0.1)


def test_proximity_and_sparsity_by_hand() -> None:
    source = np.zeros((2, 3, 4, 4), dtype=np.uint8) + np.uint8(100)
    edited = source.copy()
    edited[0] += 6
    edited[1, 1, 0] = 80  # one channel of one row in four, by 20
    l1, l2 = proximity(source, edited)
    assert l1 == pytest.approx([6, 20 / 12])
    assert l2 == pytest.approx([6, 20 / math.sqrt(12)])
    assert sparsity(source, edited, 5) == pytest.approx([1, 0.25])
    assert sparsity(source, edited, 6) == pytest.approx([0, 0.25])
    assert sparsity(source, edited, [5.0, 20.0]) == pytest.approx([1, 0])
    noise = np.zeros((4, 4))
    noise[0, :2] = 50
    assert sparsity(source, edited, noise) == pytest.approx([14 / 16, 2 / 16])


def test_floats_and_tensors_are_the_same_levels() -> None:
    draw = np.random.default_rng(0)
    a, b = (draw.integers(0, 256, size=(3, 3, 8, 8), dtype=np.uint8) for _ in range(2))
    floats = [torch.from_numpy(x).double() / 127.5 - 1 for x in (a, b)]
    floats[1].requires_grad_()
    for mine, other in zip(proximity(a, b), proximity(*floats), strict=True):
        assert mine == pytest.approx(other)
    assert proximity(a, b).l1 == pytest.approx(np.abs(a.astype(float) - b).mean((1, 2, 3)))


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_identity_as_scikit_learn(metric: str) -> None:
    draw = np.random.default_rng(0)
    people = draw.normal(size=(12, 6)) * 1.2
    subjects = [f"s{i}" for i in range(12)]
    gallery, owners = np.repeat(people, 3, axis=0) + draw.normal(size=(36, 6)), np.repeat(subjects, 3).tolist()
    edited = people + draw.normal(size=(12, 6))
    found = identity(edited, subjects, gallery, owners, metric=metric)  # type: ignore[arg-type]
    order = NearestNeighbors(n_neighbors=36, metric=metric).fit(gallery).kneighbors(edited, return_distance=False)
    ranks = [1 + next(k for k, j in enumerate(row) if owners[j] == subjects[i]) for i, row in enumerate(order)]
    assert found.ranks.tolist() == ranks
    assert max(ranks) > 1
    assert found.rate == wilson(sum(rank == 1 for rank in ranks), 12)
    assert found.chance == pytest.approx(3 / 36)


def test_identity_without_the_own_source() -> None:
    """An unchanged copy finds its source; without it the stranger is nearer than the subject's other scan."""
    gallery, owners = [[0.0], [1.0], [3.0]], ["a", "b", "a"]
    assert identity([[0.0]], ["a"], gallery, owners, metric="euclidean").ranks.tolist() == [1]
    other = identity([[0.0]], ["a"], gallery, owners, metric="euclidean", leave_out=[0])
    assert other.ranks.tolist() == [2]
    assert other.rate.value == 0
    assert other.chance == 0.5
    stranger = identity([[1.0]], ["a"], gallery, owners, metric="euclidean", leave_out=[1])
    assert stranger.ranks.tolist() == [1]


def test_features_that_say_nothing_recognise_nobody() -> None:
    same = np.ones((4, 3))
    found = identity(same, list("abcd"), same, list("abcd"))
    assert found.rate.value == 0
    assert found.ranks.tolist() == [4, 4, 4, 4]


def test_diversity_as_scipy() -> None:
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, size=(4, 3, 3, 5, 5), dtype=np.uint8)
    features = draw.normal(size=(4, 3, 7))
    for i in range(3):
        flat = images[:, i].reshape(4, -1).astype(float)
        assert diversity(images)[i] == pytest.approx(pdist(flat, "cityblock").mean() / 75)
        assert diversity(features, of="features")[i] == pytest.approx(pdist(features[:, i]).mean())
    assert diversity(np.repeat(images[:1], 3, axis=0)).tolist() == [0, 0, 0]


def test_errors_against_truth_by_hand() -> None:
    """Four subjects; the truth adds 10, 20, 30 and 40, and the edit always 20."""
    source = np.full((4, 3, 4, 4), 100, dtype=np.uint8)
    added = np.array([10, 20, 30, 40], dtype=np.uint8)[:, None, None, None]
    found = errors_against_truth(source, source + np.uint8(20), source + added)
    assert found.per_image["edited"] == pytest.approx([10, 0, 10, 20])
    assert found.per_image["nothing"] == pytest.approx([10, 20, 30, 40])
    # The others' mean: 30, 80/3, 70/3 and 20.
    assert found.per_image["average"] == pytest.approx([20, 20 / 3, 20 / 3, 20])
    assert (found.edited.value, found.nothing.value) == (10, 25)
    assert found.against_nothing.value == -15
    assert found.against_average.value == pytest.approx(10 - 160 / 12)
    for name in ("edited", "nothing", "average"):
        assert getattr(found, name) == mean_interval(found.per_image[name])
    assert found.against_nothing == mean_interval(found.per_image["edited"] - found.per_image["nothing"])


def test_average_change_is_never_the_subjects_own() -> None:
    """One subject has two images and a change like no other's: its own average must not know of it."""
    source = np.full((4, 1, 2, 2), 100, dtype=np.uint8)
    truth = source + np.array([60, 60, 10, 20], dtype=np.uint8)[:, None, None, None]
    found = errors_against_truth(source, source, truth, ["a", "a", "b", "c"])
    assert found.per_image["average"] == pytest.approx([45, 45, 140 / 3 - 10, 130 / 3 - 20])
    assert found.edited.n == 3
    given = errors_against_truth(source, source, truth, average_change=np.full((1, 2, 2), 15.0))
    assert given.per_image["average"] == pytest.approx([45, 45, 5, 5])
    clipped = errors_against_truth(source, source, truth, average_change=np.full((1, 2, 2), 500.0))
    assert clipped.per_image["average"] == pytest.approx([95, 95, 145, 135])


IMAGES = np.zeros((2, 3, 4, 4))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: wilson(3, 2), "3 of 2"),
        (lambda: wilson(0, 0), "0 of 0"),
        (lambda: wilson(1, 2, confidence=95), "confidence=95"),
        (lambda: mean_interval([1.0]), "1 subject"),
        (lambda: mean_interval([1.0, 2.0], ["a", "a"]), "1 subject"),
        (lambda: mean_interval([1.0, 2.0], ["a"]), "1 subjects for 2 images"),
        (lambda: mean_interval([1.0, math.nan]), "NaN"),
        (lambda: mean_interval([1.0, 2.0], resamples=2), "resamples=2"),
        (lambda: validity([[0.5, 0.5]], [2]), "there are 2"),
        (lambda: validity([[2.0, -1.0]], [1]), "all in"),
        (lambda: validity([[math.nan, 0.5]], [1]), "NaN"),
        (lambda: validity([[0.5, 0.5]], [0, 1]), "whole numbers"),
        (lambda: proximity(IMAGES, IMAGES[:1]), "pairs of one shape"),
        (lambda: proximity(IMAGES, IMAGES * math.nan), "edits have NaN"),
        (lambda: proximity(IMAGES + 9, IMAGES), "sources have NaN, or values outside"),
        (lambda: proximity(IMAGES.astype(int), IMAGES), "type int64"),
        (lambda: proximity(IMAGES[0], IMAGES[0]), r"\(N, C, H, W\) is needed"),
        (lambda: sparsity(IMAGES, IMAGES, [1.0, 2.0, 3.0]), r"shape \(3,\)"),
        (lambda: sparsity(IMAGES, IMAGES, -1), "below 0"),
        (lambda: identity([[1.0]], ["a"], [[1.0]], ["b"]), "no image of subject 'a'"),
        (lambda: identity([[1.0]], ["a"], [[1.0]], ["a"], leave_out=[0]), "no image of subject 'a'"),
        (lambda: identity([[1.0]], ["a"], [[1.0]], ["a"], leave_out=[1]), "places from 0 to 0"),
        (lambda: identity([[1.0]], ["a"], [[1.0, 2.0]], ["a"]), "1 features, the gallery 2"),
        (lambda: identity([[0.0]], ["a"], [[1.0]], ["a"]), "no direction"),
        (lambda: diversity(IMAGES[None]), "at least two seeds"),
        (lambda: diversity(IMAGES), "at least two seeds"),
        (lambda: errors_against_truth(IMAGES, IMAGES, IMAGES[:1]), "differ in shape"),
        (lambda: errors_against_truth(IMAGES, IMAGES, IMAGES, ["a", "a"]), "of one subject"),
        (lambda: errors_against_truth(IMAGES, IMAGES, IMAGES, average_change=np.zeros(3)), "average change"),
    ],
)
def test_bad_input_is_named(call: object, says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        call()  # type: ignore[operator]


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="cosine"):
        identity([[1.0]], ["a"], [[1.0]], ["a"], metric="cosin")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="features"):
        diversity(IMAGES, of="feature")  # type: ignore[arg-type]
