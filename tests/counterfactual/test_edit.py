from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.counterfactual import make_counterfactuals
from latentdrift.data import Cohort, ImageTransform
from latentdrift.drift import LatentDrift
from latentdrift.errors import ConfigurationError, DataError
from latentdrift.models import load_pipeline

BEFORE, AFTER = "a slice, mild demented", "a slice, non demented"


@pytest.fixture
def pipeline(toy_model: Path) -> Any:
    return LatentDrift(0.1).attach(load_pipeline(toy_model))


@pytest.fixture(scope="module")
def images(toy_cohort: Path) -> torch.Tensor:
    read = ImageTransform(size=32).read
    return torch.stack([read(record.image) for record in Cohort.open(toy_cohort).take(3, seed=0)])


def edit(pipeline: Any, images: torch.Tensor, after: str = AFTER, **settings: Any) -> Any:
    settings = {"steps": 10, **settings}
    return make_counterfactuals(pipeline, images, [BEFORE] * len(images), [after] * len(images), **settings)


def test_the_result_has_all_its_parts(pipeline: Any, images: torch.Tensor) -> None:
    done: list[int] = []
    result = edit(pipeline, images, batch_size=2, progress=done.append)
    assert done == [2, 1]
    assert torch.equal(result.source, images)
    assert result.counterfactual.shape == result.reconstruction.shape == images.shape
    assert result.source_captions == (BEFORE,) * 3
    assert result.target_captions == (AFTER,) * 3
    error = (result.reconstruction - images) * 127.5
    for i in range(3):
        assert result.round_trip_l1[i] == pytest.approx(error[i].abs().mean().item(), rel=1e-5)
        psnr = 10 * torch.log10(255**2 / error[i].double().pow(2).mean()).item()
        assert result.round_trip_psnr[i] == pytest.approx(psnr, rel=1e-5)
    assert torch.equal(result.effect, result.counterfactual - result.reconstruction)
    assert result.composed().abs().max() <= 1
    assert torch.allclose(result.composed(), (images + result.effect).clamp(-1, 1))


def test_another_caption_has_an_effect_that_grows_with_guidance(pipeline: Any, images: torch.Tensor) -> None:
    weak, strong = (edit(pipeline, images, guidance=guidance).effect.abs().mean() for guidance in (1.0, 6.0))
    assert weak > 1e-3
    assert strong > 1.3 * weak


@pytest.mark.parametrize("settings", [{"guidance": 0.0}, {"after": BEFORE, "guidance": 5.0}])
def test_without_a_wish_nothing_changes(pipeline: Any, images: torch.Tensor, settings: dict[str, Any]) -> None:
    assert edit(pipeline, images, **settings).effect.abs().max() < 1e-3


def test_less_strength_keeps_more(pipeline: Any, images: torch.Tensor) -> None:
    effects = [edit(pipeline, images, strength=s, guidance=4.0).effect.abs().mean() for s in (0.2, 0.6, 1.0)]
    assert effects[0] < effects[1] < effects[2]


def test_an_edit_does_not_depend_on_its_batch(pipeline: Any, images: torch.Tensor) -> None:
    together, single = (edit(pipeline, images, batch_size=size).counterfactual for size in (3, 1))
    assert torch.allclose(together, single, atol=1e-3)


def test_any_sampler_of_the_pipeline_will_do(pipeline: Any, images: torch.Tensor) -> None:
    """Editing needs DDIM's steps both ways; the pipeline's own sampler stays what it was."""
    from latentdrift.generate import use_sampler

    expected = edit(pipeline, images).counterfactual
    use_sampler(pipeline, "euler")
    assert torch.allclose(edit(pipeline, images).counterfactual, expected, atol=1e-4)
    assert type(pipeline.scheduler).__name__ == "EulerDiscreteScheduler"


def test_the_drift_takes_part(pipeline: Any, images: torch.Tensor) -> None:
    """A drift of every step shows the network other states than a drift of the start, so that the edit differs."""
    paper = LatentDrift(0.3, rule="paper", per_step="shared").attach(load_pipeline(pipeline.name_or_path))
    assert not torch.allclose(edit(pipeline, images).counterfactual, edit(paper, images).counterfactual, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"strength": 0.0}, "strength is 0.0"),
        ({"strength": 1.5}, "strength is 1.5"),
        ({"strength": float("nan")}, "strength is nan"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_settings_that_cannot_be(pipeline: Any, images: torch.Tensor, change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        edit(pipeline, images, **change)


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        (torch.zeros(2, 1, 32, 32), r"\(N, 3, H, W\) is needed"),
        (torch.zeros(3, 32, 32), r"\(N, 3, H, W\) is needed"),
        (torch.zeros(2, 3, 30, 32), "30 x 32 pixels do not fit"),
        (torch.full((2, 3, 32, 32), float("nan")), "NaN or infinite"),
        (torch.zeros(0, 3, 32, 32), "nothing to edit"),
    ],
)
def test_images_that_cannot_be(pipeline: Any, batch: torch.Tensor, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        edit(pipeline, batch)


def test_captions_that_cannot_be(pipeline: Any, images: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match="3 images, 2 source captions and 3 target captions"):
        make_counterfactuals(pipeline, images, [BEFORE] * 2, [AFTER] * 3)
    with pytest.raises(DataError, match="tokens long"):
        edit(pipeline, images, after="long " * 40)
