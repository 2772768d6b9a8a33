"""Ladders: each frame is the edit that would be made of it alone, from one inversion."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr

from latentdrift.counterfactual import ladder as module
from latentdrift.counterfactual.ladder import drift_samples, ladder
from latentdrift.counterfactual.steadiness import monotonicity, smoothness
from latentdrift.data import Cohort, ImageTransform, PromptTemplate
from latentdrift.drift import LatentDrift, remove
from latentdrift.edit import Editing
from latentdrift.edit.editor import editor as editors
from latentdrift.errors import ConfigurationError
from latentdrift.generate import generate_images
from latentdrift.models import load_pipeline

TEMPLATE = PromptTemplate("a slice, {stage}, aged {age}")
SOURCE = {"stage": "MildDemented", "age": 60}
STEPS = 4


@pytest.fixture
def pipeline(toy_model: Path) -> Any:
    return LatentDrift(0.1).attach(load_pipeline(toy_model))


@pytest.fixture(scope="session")
def images(toy_cohort: Path) -> torch.Tensor:
    read = ImageTransform(size=32).read
    return torch.stack([read(record.image) for record in Cohort.open(toy_cohort).take(2, seed=0)])


def alone(
    pipeline: Any, image: torch.Tensor, wanted: dict[str, Any], editor: str = "prompt_swap", **settings: Any
) -> Any:
    """The edit of one image, from an inversion of its own."""
    usual = {"steps": STEPS, "guidance": 2.0, "seeds": [5]}
    before, after = TEMPLATE.caption(SOURCE), TEMPLATE.caption(wanted)
    request = Editing(pipeline, image[None], [before], [after], **{**usual, **settings})
    return editors.get(editor)(None).edit(request)


def climb(pipeline: Any, images: torch.Tensor, values: list[Any], axis: str, **settings: Any) -> Any:
    seeds = [5] * (1 if images.ndim == 3 else len(images))
    usual = {"template": TEMPLATE, "steps": STEPS, "seeds": seeds}
    return ladder(pipeline, images, SOURCE, values, axis=axis, **{**usual, **settings})


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Alike to a thousandth of the range: a batch rounds otherwise than one image, and steps amplify it."""
    return float((a - b).abs().max()) < 2e-3


@pytest.mark.parametrize("editor", ["prompt_swap", "pix2pix_zero", "sdedit"])
def test_each_frame_is_the_edit_made_alone(pipeline: Any, images: torch.Tensor, editor: str) -> None:
    done: list[int] = []
    result = climb(pipeline, images, [60, 75, 90], "age", editor=editor, batch_size=4, progress=done.append)
    assert result.frames.shape == (2, 3, 3, 32, 32)
    assert sum(done) == 6
    for row, image in enumerate(images):
        for number, age in enumerate((60, 75, 90)):
            assert result.target_captions[row][number] == f"a slice, mild demented, aged {age}"
            assert close(result.frames[row, number], alone(pipeline, image, {**SOURCE, "age": age}, editor).image[0])
    assert not close(result.frames[0, 0], result.frames[0, 2])
    expected = (result.frames[1, 2] - images[1]).abs().mean() * 127.5
    assert result.changed_l1[1, 2] == pytest.approx(float(expected), rel=1e-5)
    assert result.composed()[0, 0] == pytest.approx(
        (images[0] + result.frames[0, 0] - result.reconstruction[0]).clamp(-1, 1), abs=1e-6
    )


def test_one_inversion_is_made(pipeline: Any, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, calls = editors.get("prompt_swap"), []
    inverted = kind.invert

    def counted(self: Any, request: Editing) -> Any:
        calls.append(len(request))
        return inverted(self, request)

    monkeypatch.setattr(kind, "invert", counted)
    for axis, values in (("age", [60, 70]), ("drift", [-0.1, 0.1]), ("guidance", [1, 3]), ("strength", [0.5, 1.0])):
        climb(pipeline, images, values, axis, target_attributes=None if axis == "age" else {"stage": "NonDemented"})
    assert calls == [2, 2, 2, 2]


def test_drifts_are_those_of_a_drifted_scheduler(toy_model: Path, images: torch.Tensor) -> None:
    """δ on an undrifted model is `LatentDrift(δ)` on noise inverted without it; 0 is no drift at all."""
    plain: Any = load_pipeline(toy_model)
    result = climb(plain, images[0], [-0.3, 0.0, 0.3], "drift", target_attributes={"stage": "NonDemented"})
    wanted = {**SOURCE, "stage": "NonDemented"}
    assert close(result.frames[0, 1], alone(plain, images[0], wanted).image[0])
    kind = editors.get("prompt_swap")(None)
    captions = [TEMPLATE.caption(SOURCE)], [TEMPLATE.caption(wanted)]
    made = kind.invert(Editing(plain, images[:1], *captions, steps=STEPS))
    for number, delta in ((0, -0.3), (2, 0.3)):
        drifted = LatentDrift(delta).attach(load_pipeline(toy_model))
        edited = kind.edit(Editing(drifted, images[:1], *captions, steps=STEPS), made)
        assert close(result.frames[0, number], edited.image[0])
        assert not close(edited.image[0], result.frames[0, 1])


def test_inverting_under_each_drift_would_show_nothing(toy_model: Path, images: torch.Tensor) -> None:
    wanted = {**SOURCE, "stage": "NonDemented"}
    made = [
        alone(LatentDrift(delta).attach(load_pipeline(toy_model)), images[0], wanted).image for delta in (-0.3, 0.3)
    ]
    assert close(*made)


def test_drifts_lie_on_top_of_the_models_own(toy_model: Path) -> None:
    plain: Any = load_pipeline(toy_model)
    prompts = ["a slice, mild", "a slice, none"]
    strips = drift_samples(plain, prompts, [0.0, 0.2], seed=3, steps=STEPS, guidance=2.0, batch_size=3)
    assert strips.shape == (2, 2, 3, 32, 32)
    known = {"seeds": [3, 3], "steps": STEPS, "guidance": 2.0}
    assert close(strips[:, 0], generate_images(plain, prompts, **known))
    drifted = LatentDrift(0.2).attach(load_pipeline(toy_model))
    expected = generate_images(drifted, prompts, **known)
    assert close(strips[:, 1], expected)
    assert close(drift_samples(drifted, prompts, [0.0], seed=3, steps=STEPS, guidance=2.0)[:, 0], expected)
    # 0.2 on top of -0.2 is none.
    LatentDrift(-0.2).attach(drifted)
    assert close(drift_samples(drifted, prompts, [0.2], seed=3, steps=STEPS, guidance=2.0)[:, 0], strips[:, 0])
    remove(drifted)


@pytest.mark.parametrize(("axis", "values"), [("guidance", [0.0, 1.0, 4.0]), ("strength", [0.25, 1.0, 0.5])])
@pytest.mark.parametrize("editor", ["prompt_swap", "sdedit"])
def test_settings_are_those_of_an_edit_of_its_own(
    pipeline: Any, images: torch.Tensor, axis: str, values: list[float], editor: str
) -> None:
    wanted = {"stage": "NonDemented"}
    result = climb(pipeline, images, values, axis, target_attributes=wanted, editor=editor)
    for number, value in enumerate(values):
        for row, image in enumerate(images):
            made = alone(pipeline, image, {**SOURCE, **wanted}, editor, **{axis: value})
            assert close(result.frames[row, number], made.image[0])
    assert result.round_trip_l1.shape == (2,)
    if editor == "prompt_swap" and axis == "guidance":
        assert close(result.frames[:, 0], result.reconstruction)


def test_captions_in_place_of_a_template(pipeline: Any, images: torch.Tensor) -> None:
    result = ladder(
        pipeline, images[0], {}, ["a", "b"], axis="word", source_captions=["it"], captions=["one", "two"], steps=STEPS
    )
    assert result.source_captions == ("it",)
    assert result.target_captions == (("one", "two"),)


@pytest.mark.parametrize(
    ("axis", "values", "settings", "says"),
    [
        ("age", [], {}, "has no value"),
        ("age", [60], {"target_attributes": {"age": 70}}, "fix it at 70"),
        ("age", [60, 70], {"captions": ["x"]}, "2 values and 1 captions"),
        ("drift", [math.nan], {}, "finite numbers"),
        ("drift", ["x"], {}, "'x' is none"),
        ("drift", [0.1], {"strength": 0.5}, "strength 1, not 0.5"),
        ("drift", [0.1], {"editor": "sdedit"}, "does not start from the image's own noise"),
        ("strength", [0.0], {"target_attributes": {"age": 70}}, "above 0"),
        ("guidance", [1.0], {}, "something that is wanted"),
        ("age", [60], {"editor": "prompt_swop"}, "prompt_swap"),
        ("age", [60], {"template": None}, "how its captions were written"),
        ("age", [60], {"source_captions": ["a", "b"]}, "1 images and 2 source captions"),
    ],
)
def test_what_cannot_be_is_refused(
    pipeline: Any, images: torch.Tensor, axis: str, values: list[Any], settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        climb(pipeline, images[0], values, axis, **settings)


def test_as_many_sources_as_images(pipeline: Any, images: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="2 images and 1 source attributes"):
        ladder(pipeline, images, [SOURCE], [60], axis="age", template=TEMPLATE)
    with pytest.raises(ConfigurationError, match="list of prompts is empty"):
        drift_samples(pipeline, [], [0.1])
    assert module.AXES == ("drift", "guidance", "strength")


def test_monotonicity_is_spearmans_and_its_interval_fishers() -> None:
    scores = [0.1, 0.3, 0.2, 0.5, 0.4, 0.6, 0.6, 0.9]
    found = monotonicity(scores)
    rho = float(spearmanr(range(8), scores).statistic)
    assert found.rho == pytest.approx(rho)
    half = 1.959964 * math.sqrt((1 + rho**2 / 2) / 5)
    assert math.atanh(found.high) - math.atanh(rho) == pytest.approx(half)
    assert math.atanh(rho) - math.atanh(found.low) == pytest.approx(half)
    rising, falling = monotonicity(range(7)), monotonicity(range(7, 0, -1))
    assert rising.rho == rising.high == 1
    assert 0.5 < rising.low < 1
    assert (falling.low, falling.high) == (-1, pytest.approx(-rising.low))
    # More frames say more.
    assert monotonicity(range(20)).low > rising.low
    assert math.isnan(monotonicity([1, 2, 3]).low)
    assert monotonicity([1, 2, 3]).rho == 1
    assert math.isnan(monotonicity([0.5] * 5).rho)
    with pytest.raises(ConfigurationError, match="finite"):
        monotonicity([0.1, math.nan, 0.2, 0.3])


def test_smoothness_of_known_strips() -> None:
    levels = torch.tensor([0.0, 0.1, 0.2, 0.3])[:, None, None, None].expand(-1, 3, 4, 4)
    even = smoothness(levels)
    assert even == pytest.approx((1 / 3, 1 / 3, 1.0, 0.3 * 127.5), rel=1e-5)
    jump = smoothness(levels[[0, 0, 0, 3]])
    assert jump == pytest.approx((1.0, 1 / 3, 1.0, 0.3 * 127.5), rel=1e-5)
    back = smoothness(levels[[0, 3, 0]])
    assert back == pytest.approx((0.5, 0.5, 0.0, 0.6 * 127.5), rel=1e-5)
    assert smoothness(levels[[1, 1]]) == (0.0, 1.0, 0.0, 0.0)
    with pytest.raises(ConfigurationError, match="two or more"):
        smoothness(levels[:1])
