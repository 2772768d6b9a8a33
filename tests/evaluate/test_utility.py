"""Utility: figures of known scores against DeLong and a simulation, and a study on tiny images of known worth."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import norm, t

from latentdrift.data import Cohort, Record
from latentdrift.errors import ConfigurationError, DataError, EvaluationError, UnknownNameError
from latentdrift.evaluate.delong import areas, auc_interval, over_seeds, paired_test
from latentdrift.evaluate.utility import Setting, UtilityConfig, compare_settings, draw_share, measure_utility
from latentdrift.models.classifier import ClassifierConfig, Views

SIDE = 24
REAL, SMALL, HALF, SYNTHETIC = (
    Setting("real", 1.0),
    Setting("real", 0.5),
    Setting("half", 0.5),
    Setting("synthetic", 0.0),
)
QUICK = ClassifierConfig(
    attribute="stage",
    size=SIDE,
    epochs=14,
    patience=14,
    batch_size=16,
    learning_rate=2e-3,
    validation=0.25,
    views=Views(blur=0),
)


def scores(strength: float, truth: np.ndarray, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """Return probabilities (S, N, 2) that share what is hard about an image."""
    shared = rng.standard_normal(len(truth))
    logits = strength * truth + shared + 0.5 * rng.standard_normal((seeds, len(truth)))
    p = 1 / (1 + np.exp(-logits))
    return np.stack([1 - p, p], 2)


def test_one_seed_is_delong() -> None:
    truth, rng = np.arange(100) % 2, np.random.default_rng(0)
    given = {REAL: scores(1.5, truth, 1, rng), SYNTHETIC: scores(0.8, truth, 1, rng)}
    utilities, comparisons = compare_settings(given, truth)
    assert [found.setting for found in utilities] == [REAL, SYNTHETIC]
    for found in utilities:
        expected = auc_interval(given[found.setting][0], truth)
        assert found.auc.value == pytest.approx(expected.value)
        assert found.auc.interval == pytest.approx(expected.interval)
        assert found.by_seed == (pytest.approx(found.auc.value),)
    test = paired_test(given[SYNTHETIC][0], given[REAL][0], truth)
    assert comparisons[0].test.p == comparisons[0].p_holm == pytest.approx(test.p)
    assert comparisons[0].test.difference.interval == pytest.approx(test.difference.interval)
    assert (comparisons[0].first, comparisons[0].second) == (SYNTHETIC, REAL)


def test_the_seeds_spread_is_added() -> None:
    truth, rng = np.arange(100) % 2, np.random.default_rng(1)
    given = scores(1.0, truth, 4, rng)
    found = areas(given, truth)
    ones = np.full(4, 0.25)
    tested, trained = ones @ found.covariance @ ones, found.values.var(ddof=1) / 4
    mean, variance, freedom = over_seeds(found, [1.0], 4)
    assert mean == pytest.approx(found.values.mean())
    assert variance == pytest.approx(tested + trained)
    assert freedom == pytest.approx((tested + trained) ** 2 / (trained**2 / 3))
    (utility,), none = compare_settings({REAL: given}, truth)
    assert none == ()
    reach = t.ppf(0.975, freedom) * math.sqrt(variance) / (mean * (1 - mean))
    middle = math.log(mean / (1 - mean))
    assert utility.auc.interval == pytest.approx([1 / (1 + math.exp(-(middle + s * reach))) for s in (-1, 1)])


def test_interval_holds_other_test_images_and_other_trainings() -> None:
    # Each training ends at its own strength; the truth is the mean area over trainings.
    truth, hits = np.arange(90) % 2, 0
    strengths = np.random.default_rng(9).normal(1.5, 0.4, 4000)
    expected = norm.cdf(strengths / math.sqrt(2 * 1.25)).mean()
    for seed in range(120):
        drawn = np.random.default_rng(1000 + seed).normal(1.5, 0.4, 3)
        stack = np.concatenate([scores(s, truth, 1, np.random.default_rng(seed)) for s in drawn])
        (found,), _ = compare_settings({REAL: stack}, truth)
        hits += found.auc.interval.low <= expected <= found.auc.interval.high
    assert 109 <= hits <= 120


def test_what_is_compared_with_what() -> None:
    truth, rng = np.arange(60) % 2, np.random.default_rng(2)
    order = (SMALL, REAL, HALF, Setting("half", 1.0), SYNTHETIC)
    _, found = compare_settings({s: scores(1.0, truth, 2, rng) for s in order}, truth)
    assert [(str(c.first), str(c.second)) for c in found] == [
        ("50% of the real, as many synthetic", "50% of the real"),
        ("50% of the real, as many synthetic", "100% of the real"),
        ("100% of the real, as many synthetic", "100% of the real"),
        ("synthetic", "100% of the real"),
    ]
    assert all(c.p_holm >= c.test.p for c in found)
    with pytest.raises(EvaluationError, match="one shape"):
        compare_settings({REAL: scores(1.0, truth, 2, rng), HALF: scores(1.0, truth, 3, rng)}, truth)


def test_smaller_shares_are_part_of_larger_ones_and_hold_whole_subjects() -> None:
    records = [Record(Path(f"{i}.png"), subject=f"s{i // 3}") for i in range(90)]
    classes = [i // 3 % 2 for i in range(90)]
    drawn = [set(draw_share(records, classes, share, 5)) for share in (0.2, 0.5, 1.0)]
    assert drawn[0] < drawn[1] < drawn[2] == set(range(90))
    assert [len(found) for found in drawn] == [18, 48, 90]
    for found in drawn:
        assert set(Counter(records[i].subject for i in found).values()) == {3}
        assert len({classes[i] for i in found}) == 2
    assert set(draw_share(records, classes, 0.2, 6)) != drawn[0]
    assert len(draw_share(records, classes, 0.001, 5)) == 12  # two subjects of each class


def write(folder: Path, subjects: int, *, seed: int, bright: int = 1, named: bool = True) -> Cohort:
    """Gray noise, every other with a bright square: those whose stage is "square", or with bright=0 the others."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    lines = ["file_name,subject,stage" if named else "file_name,stage"]
    for person in range(subjects):
        pixels = rng.integers(20, 60, (SIDE, SIDE))
        if person % 2 == bright:
            row, column = rng.integers(3, SIDE - 11, 2)
            pixels[row : row + 8, column : column + 8] += 160
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{person:03d}.png")
        who = f"{seed}-{person}," if named else ""
        lines.append(f"{person:03d}.png,{who}{'square' if person % 2 else 'plain'}")
    (folder / "metadata.csv").write_text("\n".join(lines) + "\n")
    return Cohort.open(folder)


@pytest.fixture(scope="module")
def cohorts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Cohort]:
    place = tmp_path_factory.mktemp("cohorts")
    return {
        "real": write(place / "real", 64, seed=1),
        "synthetic": write(place / "synthetic", 50, seed=2, bright=0, named=False),
        "test": write(place / "test", 60, seed=3),
    }


def test_a_study_finds_what_images_are_worth(cohorts: dict[str, Cohort], tmp_path: Path) -> None:
    config = UtilityConfig(classifier=QUICK, seeds=(0, 1), kinds=("real", "synthetic"))
    said: list[str] = []
    result = measure_utility(**cohorts, config=config, out=tmp_path, tell=lambda what, *_: said.append(what))
    real, synthetic = result.utilities
    assert real.auc.value > 0.95
    assert synthetic.auc.value < 0.05  # its images are of the other class
    assert (real.real, real.synthetic, synthetic.real, synthetic.synthetic) == (64, 0, 0, 50)
    (comparison,) = result.comparisons
    assert comparison.test.difference.interval.high < 0
    assert comparison.p_holm < 0.05
    assert any("25 synthetic images of plain are all there are, not 32" in note for note in result.notes)
    assert any(what.startswith("training, validation loss") for what in said)
    written = json.loads((tmp_path / "utility.json").read_text())
    assert written["utilities"][0]["auc"]["value"] == real.auc.value
    assert written["test"] == {"images": 60, "subjects": 60}
    assert [row["trained on"] for row in result.rows()] == ["100% of the real", "synthetic"]
    assert result.comparison_rows()[0]["difference of AUC"].startswith("-")

    # Nothing is trained again, and a third seed trains two cells only.
    cells = {path: path.stat().st_mtime_ns for path in (tmp_path / "cells").iterdir()}
    assert len(cells) == 4
    said.clear()
    again = measure_utility(**cohorts, config=config, out=tmp_path, tell=lambda what, *_: said.append(what))
    assert again == result
    assert not any(what.startswith(("training", "real images")) for what in said)
    quick = dataclasses.replace(config, seeds=(0, 1, 2), kinds=("real",))
    more = measure_utility(**cohorts, config=quick, out=tmp_path)
    assert more.utilities[0].by_seed[:2] == real.by_seed
    assert {path: path.stat().st_mtime_ns for path in cells} == cells
    assert len(list((tmp_path / "cells").iterdir())) == 5

    # A damaged cell is trained anew, to the same answers.
    path = next(iter(cells))
    path.write_text(path.read_text()[:50])
    assert measure_utility(**cohorts, config=config, out=tmp_path).utilities == result.utilities


def test_half_has_the_real_images_and_as_many_synthetic_ones(cohorts: dict[str, Cohort], tmp_path: Path) -> None:
    config = UtilityConfig(
        classifier=dataclasses.replace(QUICK, epochs=1), seeds=(0,), kinds=("real", "half"), amounts=(0.5,)
    )
    result = measure_utility(**cohorts, config=config, out=tmp_path)
    assert [(u.real, u.synthetic) for u in result.utilities] == [(32, 0), (32, 32)]
    assert any("one seed" in note for note in result.notes)


def test_what_is_tested_is_not_trained_on(cohorts: dict[str, Cohort], tmp_path: Path) -> None:
    config = UtilityConfig(classifier=QUICK)
    with pytest.raises(DataError, match=r"60 synthetic training images are test images.*000\.png"):
        measure_utility(cohorts["real"], cohorts["test"], cohorts["test"], config, tmp_path)
    with pytest.raises(DataError, match="64 real training images are test images"):
        measure_utility(cohorts["real"], cohorts["synthetic"], cohorts["real"], config, tmp_path)
    with pytest.raises(DataError, match=r"1 subject\(s\) of stage square"):
        measure_utility(cohorts["real"], cohorts["synthetic"], cohorts["test"][:3], config, tmp_path)
    few = dataclasses.replace(config, amounts=(0.05,), kinds=("real",))
    with pytest.raises(DataError, match="seed 0|too few"):
        measure_utility(**cohorts, config=few, out=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "kind", "says"),
    [
        ({"kinds": ("reel",)}, UnknownNameError, "Did you mean 'real'"),
        ({"amounts": (0.0, 1.0)}, ConfigurationError, "amounts are"),
        ({"amounts": (1.0, 1.0)}, ConfigurationError, "none twice"),
        ({"seeds": ()}, ConfigurationError, "at least one"),
        ({"confidence": 1.0}, ConfigurationError, "confidence 1.0"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, object], kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        UtilityConfig(classifier=QUICK, **change)  # type: ignore[arg-type]


def test_the_command(cohorts: dict[str, Cohort], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from latentdrift.cli.utility import main

    folders = [f"--{name}={cohorts[name].root}" for name in ("real", "synthetic", "test")]
    settings = ["--attribute=stage", f"--size={SIDE}", "--epochs=1", "--seeds", "0", "--kinds", "real", "synthetic"]
    assert main([*folders, *settings, f"--out={tmp_path / 'study'}", "--device=cpu", "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "AUC, 100% of the real" in said
    assert "synthetic minus 100% of the real" in said
    assert "one seed" in said
    names = {path.name for path in (tmp_path / "study").iterdir()}
    assert names == {"utility.json", "utility.csv", "comparisons.csv", "cells", "page.html"}
    assert (tmp_path / "study" / "utility.csv").read_text().startswith("trained on,real images,")
    assert main([*folders, *settings, f"--out={tmp_path / 'study'}", "--device=cpu", "--quiet", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["seeds"] == [0]
    with pytest.raises(ConfigurationError, match="either --run"):
        main([*folders[:2], *settings, f"--out={tmp_path / 'other'}"])
    with pytest.raises(ConfigurationError, match="--seeds"):
        main([*folders, *settings, f"--out={tmp_path / 'other'}", "--seed=1"])
