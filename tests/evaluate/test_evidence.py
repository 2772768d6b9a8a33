"""Evidence for edits against figures worked out by hand, on classifiers that read their answers from the pixels."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentdrift.edit import EditResult
from latentdrift.errors import ConfigurationError, DataError, EvaluationError, UnknownNameError
from latentdrift.evaluate.counterfactuals import mean_interval, wilson
from latentdrift.evaluate.evidence import edit_evidence
from latentdrift.evaluate.pairs import psnr, ssim

ROW = {"stage": 0, "sex": 1, "age": 2}
WELL, ILL = {"stage": "well"}, {"stage": "ill"}
ILL_BEFORE, ILL_AFTER, ILL_REBUILT = [0.1, 0.2, 0.6, 0.3], [0.9, 0.4, 0.7, 0.8], [0.2, 0.2, 0.7, 0.6]


@dataclass(frozen=True)
class Reader:
    """Answers with what `written` put into one row of the image."""

    attribute: str
    classes: tuple[str, str]
    trained_on: frozenset[str] = frozenset()
    role: str = "judge"
    path: Path = Path("reader")

    def index(self, value: str) -> int:
        if value not in self.classes:
            raise UnknownNameError(self.attribute, value, self.classes)
        return self.classes.index(value)

    def probabilities(self, images: torch.Tensor, batch_size: int = 64) -> np.ndarray:
        second = (images[:, 0, ROW[self.attribute], 0].double().numpy() + 1) / 2
        return np.stack([1 - second, second], axis=1)


STAGE, SEX, AGE = Reader("stage", ("well", "ill")), Reader("sex", ("F", "M")), Reader("age", ("young", "old"))


def written(count: int, **probabilities: Sequence[float]) -> torch.Tensor:
    """Return gray images that hold the probabilities of the second class of each attribute."""
    images = torch.zeros(count, 3, 16, 16)
    for attribute, values in probabilities.items():
        images[:, :, ROW[attribute], 0] = torch.tensor(values)[:, None] * 2 - 1
    return images


def edits(before: torch.Tensor, after: torch.Tensor, rebuilt: torch.Tensor | None = None, **extra: Any) -> EditResult:
    captions = ("a",) * len(before)
    return EditResult(before, after, torch.zeros(len(before), 4, 4, 4), rebuilt, captions, captions, **extra)


@pytest.fixture
def result() -> EditResult:
    return edits(*(written(4, stage=values) for values in (ILL_BEFORE, ILL_AFTER, ILL_REBUILT)))


def judged(result: EditResult, **settings: Any) -> Any:
    count = len(result.image)
    usual: dict[str, Any] = {"targets": [ILL] * count, "sources": [WELL] * count, "judges": [STAGE]}
    return edit_evidence(result, **{**usual, **settings})


def near(figure: dict[str, Any], value: float, low: float, high: float, n: int) -> bool:
    assert list(figure) == ["value", "low", "high", "n"]
    return figure == pytest.approx({"value": value, "low": low, "high": high, "n": n}, abs=1e-6)


def test_what_the_judge_says(result: EditResult) -> None:
    found = judged(result)
    first, third = found.rows[0], found.rows[2]
    assert first["judge_stage_wanted"] == "ill"
    assert first["judge_stage_source"] == "well"
    stages = {"wanted_before": 0.1, "wanted_after": 0.9, "wanted_placebo": 0.2}
    stages |= {name.replace("wanted", "source"): 1 - value for name, value in stages.items()}
    assert {name: first[f"judge_stage_{name}"] for name in stages} == pytest.approx(stages, abs=1e-6)
    assert [row["judge_stage_flipped"] for row in found.rows] == [True, False, True, True]
    assert [row["judge_stage_already"] for row in found.rows] == [False, False, True, False]
    assert [row["judge_stage_placebo_flipped"] for row in found.rows] == [False, False, True, True]
    assert third["image"] == 2
    summary = found.summary
    assert near(summary["judge_stage_validity"], 0.75, *wilson(3, 4).interval, 4)
    assert near(summary["judge_stage_turned"], 2 / 3, *wilson(2, 3).interval, 3)
    assert near(summary["judge_stage_gain"], 0.4, *mean_interval([0.8, 0.2, 0.1, 0.5]).interval, 4)
    assert near(summary["judge_stage_placebo_flip_rate"], 0.5, *wilson(2, 4).interval, 4)
    assert near(summary["judge_stage_placebo_gain"], 0.125, *mean_interval([0.1, 0, 0.1, 0.3]).interval, 4)
    assert near(summary["judge_stage_gain_above_placebo"], 0.275, *mean_interval([0.7, 0.2, 0, 0.2]).interval, 4)
    # One pair of four differs. Of four drawn again Binomial(4, 1/4) do: at most none in 32%, at most 3 in 99.6%, at
    # most 2 in 94.9%. The percentiles 2.5 and 97.5 are thus 0 and 3 of 4.
    assert near(summary["judge_stage_validity_above_placebo"], 0.25, 0.0, 0.75, 4)
    assert summary["placebo"] == "reconstruction"
    assert summary["warnings"] == []


def test_the_guide_has_columns_of_its_own(result: EditResult) -> None:
    with_guide = judged(result, guide=dataclasses.replace(STAGE, role="guide"))
    assert with_guide.summary["guide_validity"] == with_guide.summary["judge_stage_validity"]
    assert with_guide.rows[1]["guide_flipped"] is False
    assert {row["judge"] for row in with_guide.leakage} == {"judge_stage"}
    alone = judged(result, guide=STAGE, judges=[])
    assert alone.summary["guide_gain"]["value"] == pytest.approx(0.4)
    assert alone.summary["warnings"] == ["No judge looks at stage, which was asked to change."]
    assert alone.leakage == []
    idle = judged(result, guide=SEX, sources=[WELL | {"sex": "F"}] * 4)
    assert not any(name.startswith("guide") for name in idle.summary)
    assert idle.summary["warnings"] == ["The guide looks at sex, which was not asked to change in any image."]


def test_a_guide_and_a_judge_of_the_same_images(result: EditResult) -> None:
    one, other = (dataclasses.replace(STAGE, trained_on=frozenset(seen)) for seen in ("abc", "bcd"))
    with pytest.raises(ConfigurationError, match="both trained on 2 images"):
        judged(result, guide=one, judges=[STAGE, other])


def test_how_far_the_images_went() -> None:
    """Of 256 pixels two went by 40 and 4 levels in all channels; the round trip errs by 10 levels in every pixel."""
    before = torch.zeros(2, 3, 16, 16)
    after = before.clone()
    after[0, :, 8, 8] += 40 / 127.5
    after[0, 1:, 9, 9] -= 4 / 127.5
    found = edit_evidence(
        edits(before, after, before + 10 / 127.5),
        targets=[{}, {}],
        sources=[{}, {}],
        perceptual=lambda a, b: (a - b).abs().amax((1, 2, 3), keepdim=True),
    )
    row, equal = found.rows
    assert row["changed_l1"] == pytest.approx((3 * 40 + 2 * 4) / 768, rel=1e-5)
    assert row["effect_l1"] == pytest.approx((3 * 30 + 3 * 10 * 254 + 10 + 2 * 14) / 768, rel=1e-5)
    assert row["round_trip_l1"] == pytest.approx(10, rel=1e-5)
    assert row["round_trip_psnr"] == pytest.approx(20 * np.log10(25.5), rel=1e-5)
    assert row["psnr"] == pytest.approx(10 * np.log10(255**2 * 768 / (3 * 40**2 + 2 * 4**2)), rel=1e-5)
    assert [row["psnr"], row["ssim"]] == pytest.approx([psnr(before, after)[0], ssim(before, after)[0]])
    assert row["sparsity"] == 1 / 256
    assert row["lpips"] == pytest.approx(40 / 127.5, rel=1e-5)
    # No ratio of equal images is finite.
    assert [equal[name] for name in ("changed_l1", "psnr", "ssim", "sparsity")] == [0, None, pytest.approx(1), 0]
    figure = found.summary["sparsity"]
    assert (figure["value"], figure["low"], figure["high"], figure["n"]) == (0.5 / 256, 0, 1 / 256, 2)
    assert found.summary["round_trip_l1"]["value"] == pytest.approx(10, rel=1e-5)
    assert "psnr" not in found.summary
    json.dumps([found.rows, found.summary, found.leakage], allow_nan=False)
    # A reconstruction that is the edit, such as without a wish, changed no pixel.
    assert edit_evidence(edits(before, after, after), targets=[{}] * 2, sources=[{}] * 2).rows[0]["sparsity"] == 0


def test_images_go_in_batches(result: EditResult) -> None:
    whole, parts = judged(result), judged(result, batch_size=3)
    assert whole == parts


def test_without_a_placebo(result: EditResult) -> None:
    found = judged(dataclasses.replace(result, reconstruction=None))
    assert not [name for name in [*found.rows[0], *found.summary, *found.leakage[0]] if "placebo_" in name]
    assert not [name for name in [*found.rows[0], *found.summary] if name.startswith("round_trip")]
    assert found.summary["placebo"] is None
    (warning,) = found.summary["warnings"]
    assert "give one (--placebo of the command)" in warning
    assert "edit with reconstruct=True" in warning


def test_a_placebo_edit_takes_the_place_of_the_reconstruction(result: EditResult) -> None:
    sham = edits(result.source, written(4, stage=[0.1, 0.2, 0.6, 0.3]))
    found = judged(result, placebo=sham)
    assert found.summary["placebo"] == "edit"
    assert found.summary["judge_stage_placebo_flip_rate"]["value"] == 0.25
    assert found.summary["judge_stage_placebo_gain"]["value"] == pytest.approx(0, abs=1e-7)
    with pytest.raises(EvaluationError, match="other images"):
        judged(result, placebo=edits(result.image, result.source))


def test_a_mask_holds_for_the_placebo_too(result: EditResult) -> None:
    """The answers lie outside the mask, where neither the edit nor its placebo may act."""
    mask = torch.ones(4, 1, 16, 16)
    mask[:, :, 0] = 0
    found = judged(dataclasses.replace(result, image=result.source.clone(), mask=mask))
    assert found.summary["judge_stage_placebo_gain"]["value"] == 0
    assert found.rows[3]["judge_stage_placebo_flipped"] is False


def test_equal_answers_are_not_certain() -> None:
    """3 of 3 above 0 of 3: no bootstrap doubts it; Wilson's end of 0 of 3 does."""
    result = edits(*(written(3, stage=[value] * 3) for value in (0.1, 0.9, 0.1)))
    high = wilson(0, 3).interval.high
    assert near(judged(result).summary["judge_stage_validity_above_placebo"], 1.0, 1 - 2 * high, 1.0, 3)
    same = edits(*(written(3, stage=[value] * 3) for value in (0.1, 0.9, 0.9)))
    assert near(judged(same).summary["judge_stage_validity_above_placebo"], 0.0, -high, high, 3)
    of_two = judged(result, subjects=["a", "a", "b"]).summary["judge_stage_validity"]
    assert near(of_two, 1.0, *wilson(2, 2).interval, 2)


def test_subjects_are_drawn_not_images(result: EditResult) -> None:
    subjects = ["a", "a", "b", "c"]
    found = judged(result, subjects=subjects)
    hits = mean_interval([1, 0, 1, 1], subjects).interval
    assert near(found.summary["judge_stage_validity"], 0.75, *hits, 3)
    assert near(found.summary["judge_stage_gain"], 0.4, *mean_interval([0.8, 0.2, 0.1, 0.5], subjects).interval, 3)
    assert [row["subject"] for row in found.rows] == subjects
    other = judged(result, subjects=subjects, confidence=0.5, resamples=500, seed=3).summary["judge_stage_gain"]
    drawn = mean_interval([0.8, 0.2, 0.1, 0.5], subjects, confidence=0.5, resamples=500, seed=3)
    assert near(other, 0.4, *drawn.interval, 3)


def test_one_subject_has_no_interval(result: EditResult) -> None:
    one = judged(result, subjects=["a"] * 4).summary
    assert one["judge_stage_gain"] == {"value": pytest.approx(0.4), "low": None, "high": None, "n": 1}
    image = edits(*(picture[:1] for picture in (result.source, result.image, result.reconstruction)))
    assert near(judged(image).summary["judge_stage_validity"], 1.0, *wilson(1, 1).interval, 1)
    assert judged(image).summary["changed_l1"]["low"] is None


def test_what_moved_that_nobody_asked_for() -> None:
    before = written(4, stage=ILL_BEFORE, sex=[0.1, 0.9, 0.2, 0.8])
    after = written(4, stage=ILL_AFTER, sex=[0.3, 0.6, 0.7, 0.9])
    rebuilt = written(4, stage=ILL_BEFORE, sex=[0.1, 0.9, 0.3, 0.8])
    found = judged(
        edits(before, after, rebuilt),
        judges=[STAGE, SEX],
        sources=[WELL | {"sex": sex} for sex in ("F", "M", "F", "M")],
    )
    assert not any(name.startswith("judge_sex") for name in found.summary)
    assert found.rows[2]["judge_sex_flipped"] is None
    stage, everyone, women, men = found.leakage
    assert [row["class"] for row in found.leakage] == ["ill", "all", "F", "M"]
    assert [row["wanted"] for row in found.leakage] == [True, False, False, False]
    assert [row["images"] for row in found.leakage] == [4, 4, 2, 2]
    assert (stage["before"], stage["after"], stage["change"]) == pytest.approx((0.3, 0.7, 0.4))
    # In the sources the own class has .9 .9 .8 .8, in the edits .7 .6 .3 .9; image 2 alone is taken for the other sex.
    assert (everyone["before"], everyone["after"], everyone["change"]) == pytest.approx((0.85, 0.625, -0.225))
    ends = mean_interval([-0.2, -0.3, -0.5, 0.1]).interval
    assert (everyone["change_low"], everyone["change_high"]) == pytest.approx(tuple(ends), abs=1e-6)
    assert everyone["other_class"] == 0.25
    assert (everyone["other_class_low"], everyone["other_class_high"]) == pytest.approx(tuple(wilson(1, 4).interval))
    assert everyone["placebo_change"] == pytest.approx(-0.025)
    assert everyone["placebo_other_class"] == 0
    assert (women["change"], men["change"]) == pytest.approx((-0.35, -0.1))
    assert (women["other_class"], men["other_class"]) == (0.5, 0)
    assert everyone["stated"] == 4
    # Targets that repeat what is shown ask for nothing more.
    repeated = [ILL | {"sex": sex} for sex in ("F", "M", "F", "M")]
    again = judged(
        edits(before, after, rebuilt),
        judges=[STAGE, SEX],
        targets=repeated,
        sources=[WELL | {"sex": target["sex"]} for target in repeated],
    )
    assert again.leakage == found.leakage


def test_a_class_that_was_not_stated_is_the_judges(result: EditResult) -> None:
    before = written(4, stage=ILL_BEFORE, sex=[0.1, 0.9, 0.2, 0.8])
    found = judged(edits(before, before, before), judges=[STAGE, SEX], sources=[WELL | {"sex": "F"}] * 2 + [WELL] * 2)
    everyone = next(row for row in found.leakage if (row["attribute"], row["class"]) == ("sex", "all"))
    # F, F as stated, then the judge's F and M.
    assert everyone["before"] == pytest.approx((0.9 + 0.1 + 0.8 + 0.8) / 4)
    assert everyone["stated"] == 2
    assert found.summary["warnings"] == [
        "2 of 4 sources have no sex that judge_sex knows: its own answer stands in for it."
    ]


def test_several_attributes_at_once() -> None:
    """Both are wanted of the first three images; of these edits 1 of 3 has both, of these placebos none."""
    before = written(4, stage=[0.1] * 4, age=[0.2] * 4)
    after = written(4, stage=[0.9, 0.9, 0.2, 0.9], age=[0.8, 0.3, 0.7, 0.1])
    rebuilt = written(4, stage=[0.9, 0.1, 0.1, 0.9], age=[0.2] * 4)
    found = judged(
        edits(before, after, rebuilt),
        judges=[STAGE, AGE, STAGE],
        targets=[ILL | {"age": "old"}] * 3 + [ILL],
        sources=[WELL | {"age": "young"}] * 4,
    )
    summary = found.summary
    assert near(summary["joint_validity"], 1 / 3, *wilson(1, 3).interval, 3)
    assert near(summary["joint_placebo_flip_rate"], 0.0, *wilson(0, 3).interval, 3)
    assert summary["joint_validity_above_placebo"]["value"] == pytest.approx(1 / 3)
    assert summary["judge_stage_validity"]["value"] == 0.75
    assert near(summary["judge_age_validity"], 2 / 3, *wilson(2, 3).interval, 3)
    assert [row["joint_flipped"] for row in found.rows] == [True, False, False, None]
    ages = [(row["wanted"], row["class"], row["images"]) for row in found.leakage if row["attribute"] == "age"]
    assert ages == [(True, "old", 3), (False, "young", 1)]
    # A second judge of the same attribute has a number, and is not a second wish.
    assert summary["judge_stage_2_validity"] == summary["judge_stage_validity"]
    twice = judged(edits(before, after), judges=[STAGE, STAGE])
    assert "joint_validity" not in twice.summary


def test_values_of_one_class_are_no_wish(result: EditResult) -> None:
    class Bins(Reader):
        def index(self, value: Any) -> int:
            return int(value >= 65)

    ages = Bins("age", ("under 65", "65 and over"))
    settings = {"judges": [ages], "sources": [{"age": 70}] * 4}
    found = judged(result, targets=[{"age": 80}] * 4, **settings)
    assert found.rows[0]["judge_age_flipped"] is None
    assert found.leakage[0]["wanted"] is False
    assert found.summary["warnings"] == [
        "judge_age sees no wish: every wanted age is in the source's own class.",
    ]
    assert judged(result, targets=[{"age": 60}] * 4, **settings).rows[0]["judge_age_wanted"] == "under 65"


def test_a_judge_that_knows_the_sources(result: EditResult, tmp_path: Path) -> None:
    series = tmp_path / "series"
    series.mkdir()
    files = [tmp_path / "a.png", tmp_path / "b.png", tmp_path / "b.png", series]
    for number, file in enumerate((files[0], files[1], series / "1.dcm", series / "2.dcm")):
        file.write_bytes(bytes([number]))
    seen = frozenset(hashlib.sha256(bytes([number])).hexdigest() for number in (1, 3))
    judges = [dataclasses.replace(STAGE, trained_on=seen), STAGE]
    warnings = judged(result, judges=judges, source_files=files).summary["warnings"]
    assert len(warnings) == 1
    assert warnings[0].startswith("judge_stage was trained on 3 of the 4 source images")
    with pytest.raises(DataError, match=r"missing\.png cannot be read"):
        judged(result, source_files=[tmp_path / "missing.png"] * 4)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"targets": [ILL]}, "1 targets for 4 images"),
        ({"sources": [WELL] * 5}, "5 sources for 4 images"),
        ({"subjects": ["a"]}, "1 subjects for 4 images"),
        ({"source_files": []}, "0 files for 4 images"),
        ({"confidence": 1.0}, r"confidence=1\.0"),
    ],
)
def test_what_cannot_be_judged(result: EditResult, change: dict[str, Any], says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        judged(result, **change)


def test_a_classifier_of_other_classes(result: EditResult) -> None:
    with pytest.raises(UnknownNameError, match="no stage 'cured'"):
        judged(result, targets=[{"stage": "cured"}] * 4)
    broken = Reader("stage", ("well", "ill", "cured"))  # type: ignore[arg-type]
    with pytest.raises(EvaluationError, match=r"judge_stage answers with shape \(4, 2\), or NaN; \(4, 3\) is needed"):
        judged(result, judges=[broken])
