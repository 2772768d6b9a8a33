"""What every editor keeps to, those registered from outside too."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import LatentDrift
from latentdrift.edit import EditResult
from latentdrift.edit.editor import Editor, editor
from latentdrift.errors import ConfigurationError, DataError, LatentDriftError, UnknownNameError
from latentdrift.generate import decode_latents
from latentdrift.models import load_pipeline
from tests.edit.conftest import AFTER, BEFORE, MakeRequest

NAMES = editor.names()
BY_CAPTION = [name for name in NAMES if editor.get(name).starts_from_inversion and name != "classifier_guided"]
"""Those of which the wanted captions alone are the wish."""


@pytest.fixture(scope="module")
def pipeline(toy_model: Path) -> Any:
    """One for the whole file: nothing here changes it."""
    return LatentDrift(0.1).attach(load_pipeline(toy_model))


@pytest.fixture(scope="module")
def suited(pipeline: Any, instructed: Any) -> Any:
    """A model of the kind that an editor works with."""
    return lambda name: instructed if name == "instruct_pix2pix" else pipeline


def heeding(name: str) -> Editor:
    """An editor that asks the network for the wanted captions."""
    kind = editor.get(name)
    return kind(kind.config_class(captions="target")) if name == "classifier_guided" else kind()


def half_mask(count: int = 4) -> torch.Tensor:
    mask = torch.zeros(count, 1, 32, 32)
    mask[..., 12:] = 1
    return mask


def test_the_editors_are_found() -> None:
    assert {"classifier_guided", "instruct_pix2pix", "pix2pix_zero", "prompt_swap", "sdedit"} <= set(NAMES)
    with pytest.raises(UnknownNameError, match="no editor 'prompt_swop'. Did you mean 'prompt_swap'"):
        editor.get("prompt_swop")


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_frozen_and_each_has_a_default(name: str) -> None:
    made = editor.get(name)()
    assert isinstance(made, Editor)
    assert dataclasses.is_dataclass(made.config)
    assert made.config == made.config_class()
    assert made.config_class.__dataclass_params__.frozen


@pytest.mark.parametrize("name", NAMES)
def test_the_result_has_all_its_parts(name: str, suited: Any, images: torch.Tensor, request_for: MakeRequest) -> None:
    done: list[int] = []
    request = request_for(suited(name), batch_size=3)
    result = editor.get(name)().edit(request, progress=done.append)
    assert done == [3, 1]
    assert torch.equal(result.source, images)
    assert result.latents.shape == (4, 4, 8, 8)
    assert torch.allclose(result.image, decode_latents(suited(name), result.latents), atol=1e-5)
    assert (result.source_captions, result.target_captions) == (tuple(BEFORE), tuple(AFTER))
    assert result.effect.abs().mean() > 1e-3
    assert (result.reconstruction is None) is (name == "instruct_pix2pix")


@pytest.mark.parametrize("name", [name for name in NAMES if name != "classifier_guided"])
def test_an_edit_does_not_depend_on_its_batch(name: str, suited: Any, request_for: MakeRequest) -> None:
    """Up to rounding, which gradients through a random network blow up: for classifier_guided see its own test."""
    make, model = editor.get(name)(), suited(name)
    together = make.edit(request_for(model))
    for row in range(4):
        alone = make.edit(request_for(model, rows=[row]))
        torch.testing.assert_close(alone.latents[0], together.latents[row], atol=2e-4, rtol=1e-4)
        torch.testing.assert_close(alone.image[0], together.image[row], atol=2e-4, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_outside_the_mask_no_bit_changes(
    name: str, suited: Any, images: torch.Tensor, request_for: MakeRequest
) -> None:
    mask = half_mask()
    result = editor.get(name)().edit(request_for(suited(name), mask=mask.bool()))
    outside, inside = (mask == 0).expand_as(images), (mask == 1).expand_as(images)
    assert torch.equal(result.image[outside].view(torch.int32), images[outside].view(torch.int32))
    assert (result.image - images)[inside].abs().mean() > 1e-2
    assert result.effect[outside].abs().max() == 0
    assert torch.equal(result.composed()[outside], images[outside])


@pytest.mark.parametrize("name", NAMES)
def test_a_mask_of_everything_is_none_and_of_nothing_the_source(
    name: str, suited: Any, images: torch.Tensor, request_for: MakeRequest
) -> None:
    make, model = editor.get(name)(), suited(name)
    free = make.edit(request_for(model))
    everything = make.edit(request_for(model, mask=torch.ones(4, 1, 32, 32)))
    assert torch.equal(everything.image, free.image)
    assert torch.equal(make.edit(request_for(model, mask=torch.zeros(4, 1, 32, 32))).image, images)


def test_a_mask_between_blends(pipeline: Any, images: torch.Tensor, request_for: MakeRequest) -> None:
    make = editor.get("prompt_swap")()
    free = make.edit(request_for(pipeline)).image
    soft = make.edit(request_for(pipeline, mask=torch.full((4, 1, 32, 32), 0.25))).image
    torch.testing.assert_close(soft, 0.75 * images + 0.25 * free, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "instruct_pix2pix"])
def test_the_round_trip_is_measured_or_left_out(name: str, pipeline: Any, request_for: MakeRequest) -> None:
    result = editor.get(name)().edit(request_for(pipeline, count=2, strength=0.5))
    assert result.reconstruction is not None
    assert result.round_trip_l1 is not None
    assert result.round_trip_psnr is not None
    error = ((result.reconstruction - result.source) * 127.5).double()
    for row in range(2):
        assert result.round_trip_l1[row] == pytest.approx(error[row].abs().mean().item(), rel=1e-5)
        psnr = 10 * torch.log10(255**2 / error[row].pow(2).mean()).item()
        assert result.round_trip_psnr[row] == pytest.approx(psnr, rel=1e-5)
    without = editor.get(name)().edit(request_for(pipeline, count=2, strength=0.5, reconstruct=False))
    assert torch.equal(without.image, result.image)
    assert (without.reconstruction, without.round_trip_l1, without.round_trip_psnr) == (None, None, None)
    assert torch.equal(without.effect, without.image - without.source)


@pytest.mark.parametrize("name", BY_CAPTION)
def test_without_a_wish_nothing_changes(name: str, pipeline: Any, request_for: MakeRequest) -> None:
    result: EditResult = editor.get(name)().edit(request_for(pipeline, target_captions=BEFORE, guidance=3.0))
    assert result.effect.abs().max() < 2e-3


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"target_captions": ["a"]}, "4 images"),
        ({"seeds": [1, 2]}, "2 seeds"),
        ({"mask": torch.ones(4, 1, 16, 32)}, r"mask has shape \(4, 1, 16, 32\); \(4, 1, 32, 32\) is needed"),
        ({"mask": torch.ones(1, 1, 32, 32)}, r"mask has shape \(1, 1, 32, 32\)"),
        ({"mask": torch.full((4, 1, 32, 32), 2.0)}, "values outside 0 to 1"),
        ({"mask": torch.full((4, 1, 32, 32), torch.nan)}, "values outside 0 to 1"),
        ({"images": torch.zeros(4, 1, 32, 32)}, r"\(N, 3, H, W\) is needed"),
        ({"images": torch.zeros(4, 3, 30, 32)}, "30 x 32 pixels do not fit"),
        ({"images": torch.full((4, 3, 32, 32), torch.nan)}, "NaN or infinite"),
        ({"images": torch.full((4, 3, 32, 32), 255.0)}, "values up to 255"),
        ({"steps": 0}, "steps is 0"),
        ({"strength": 0.0}, "strength is 0.0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"source_wordings": [["a"]]}, "4 images and 1 source_wordings"),
        ({"target_wordings": [["a"], [], ["b"], ["c"]]}, r"target_wordings\[1\] is \[\]"),
        ({"target_wordings": ["a", "b", "c", "d"]}, r"target_wordings\[0\] is 'a'"),
    ],
)
def test_what_cannot_be_edited(
    name: str, suited: Any, request_for: MakeRequest, change: dict[str, Any], says: str
) -> None:
    with pytest.raises(ConfigurationError, match=says):
        editor.get(name)().edit(request_for(suited(name), **change))


@pytest.mark.parametrize("name", NAMES)
def test_an_empty_batch_and_a_long_caption(name: str, suited: Any, request_for: MakeRequest) -> None:
    with pytest.raises(ConfigurationError, match="nothing to edit"):
        editor.get(name)().edit(request_for(suited(name), count=0))
    with pytest.raises(DataError, match="tokens long"):
        heeding(name).edit(request_for(suited(name), target_captions=["long " * 40] * 4))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_of_the_wrong_kind(name: str, pipeline: Any, instructed: Any, request_for: MakeRequest) -> None:
    wrong, says = (instructed, "edits images by instruction")
    if name == "instruct_pix2pix":
        wrong, says = (pipeline, "does not edit by instruction: its U-Net takes 4 channels")
    with pytest.raises(ConfigurationError, match=says):
        editor.get(name)().edit(request_for(wrong))


@pytest.mark.parametrize("name", NAMES)
def test_latents_that_overflow_make_no_image(name: str, suited: Any, request_for: MakeRequest) -> None:
    with pytest.raises(LatentDriftError, match=r"finite|NaN or infinite"):
        heeding(name).edit(request_for(suited(name), guidance=1e38))
