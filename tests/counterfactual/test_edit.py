from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from latentdrift.counterfactual import make_counterfactuals, open_editor
from latentdrift.data import Cohort, ImageTransform
from latentdrift.drift import LatentDrift
from latentdrift.edit import Editing, EditResult, invert
from latentdrift.edit.editor import Edited
from latentdrift.edit.editor import editor as editors
from latentdrift.edit.editors.pix2pix_zero import Pix2PixZeroConfig
from latentdrift.edit.editors.prompt_swap import PromptSwap, PromptSwapConfig
from latentdrift.edit.editors.sdedit import SDEditConfig
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError
from latentdrift.finetune.methods.instruct_pix2pix import editing_pipeline, grow_input
from latentdrift.generate import (
    decode_latents,
    denoise,
    edit_by_instruction,
    encode_images,
    invert_latents,
    scheduler_like,
)
from latentdrift.models import encode_prompts, load_pipeline

BEFORE, AFTER = "a slice, mild demented", "a slice, non demented"


@pytest.fixture
def pipeline(toy_model: Path) -> Any:
    return LatentDrift(0.1).attach(load_pipeline(toy_model))


@pytest.fixture
def instructed(toy_model: Path) -> Any:
    """The toy, grown by the channels of a source image."""
    made: Any = load_pipeline(toy_model)
    grow_input(made.unet, 8)
    with torch.no_grad():
        made.unet.conv_in.weight[:, 4:].normal_(std=0.2, generator=torch.Generator().manual_seed(3))
    return LatentDrift(0.1).attach(editing_pipeline(made))


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


@pytest.mark.parametrize("model", ["toy_model", "toy_velocity_model", "toy_xl_model"])
@pytest.mark.parametrize("settings", [{}, {"guidance": 4.0, "strength": 0.5, "batch_size": 2}])
def test_an_edit_is_inversion_and_another_caption(
    model: str, images: torch.Tensor, settings: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    """The same by hand, in one batch or two: up under the own captions, down under the wanted ones."""
    pipeline: Any = LatentDrift(0.1).attach(load_pipeline(request.getfixturevalue(model)))
    result = edit(pipeline, images, **settings)
    guidance, strength, size = (
        settings.get(name, usual) for name, usual in (("guidance", 2.0), ("strength", 1.0), ("batch_size", 3))
    )
    source, target = (encode_prompts(pipeline, [caption] * 3, 32) for caption in (BEFORE, AFTER))
    edited, rebuilt = [], []
    for part in (slice(0, size), slice(size, 3)):
        latents = images[part]
        if not len(latents):
            continue
        latents = encode_images(pipeline, latents)
        noise = invert_latents(pipeline, latents, source[part], steps=10, strength=strength)
        for output, wanted, scale in ((edited, target, guidance), (rebuilt, source, 1.0)):
            scheduler: Any = scheduler_like(pipeline.scheduler, DDIMScheduler)
            scheduler.set_timesteps(10)
            down = denoise(
                pipeline.unet,
                scheduler,
                noise,
                wanted[part],
                unconditional=source[part],
                guidance=scale,
                timesteps=scheduler.timesteps[-round(10 * strength) :],
            )
            output.append(decode_latents(pipeline, down))
    assert torch.equal(result.image, torch.cat(edited))
    assert result.counterfactual is result.image
    assert torch.equal(result.reconstruction, torch.cat(rebuilt))


@pytest.mark.parametrize(
    ("name", "given", "config"),
    [
        ("prompt_swap", {}, PromptSwapConfig()),
        ("sdedit", {"away_from": "nothing"}, SDEditConfig(away_from="nothing")),
        ("pix2pix_zero", {"kl": 0.0, "rounds": 2}, Pix2PixZeroConfig(kl=0.0, rounds=2)),
    ],
)
def test_any_editor_by_its_name(name: str, given: Any, config: Any, pipeline: Any, images: torch.Tensor) -> None:
    """Settings as a mapping and as the config class; everything that was asked reaches the editor."""
    mask = torch.zeros(3, 1, 32, 32)
    mask[..., 16:] = 1
    asked: dict[str, Any] = {"steps": 4, "strength": 0.5, "guidance": 3.0, "seeds": [5, 6, 7], "mask": mask}
    first = edit(pipeline, images, editor=name, editor_config=given, **asked)
    second = edit(pipeline, images, editor=name, editor_config=config, **asked)
    request = Editing(pipeline, images, [BEFORE] * 3, [AFTER] * 3, **asked)
    expected = editors.get(name)(config).edit(request)
    assert isinstance(first, EditResult)
    for result in (first, second):
        assert torch.equal(result.image, expected.image)
        assert torch.equal(result.latents, expected.latents)
    assert torch.equal(first.image[..., :16], images[..., :16])
    assert not torch.equal(first.image[..., 16:], images[..., 16:])


def test_settings_of_an_editor_and_seeds_matter(pipeline: Any, images: torch.Tensor) -> None:
    made = {"editor": "sdedit", "steps": 4, "strength": 0.5}
    usual = edit(pipeline, images, **made).image
    assert not torch.allclose(usual, edit(pipeline, images, editor_config={"away_from": "nothing"}, **made).image)
    assert not torch.allclose(usual, edit(pipeline, images, seeds=[7, 8, 9], **made).image, atol=1e-3)
    without = edit(pipeline, images, reconstruct=False, **made)
    assert torch.equal(without.image, usual)
    assert without.reconstruction is None


def test_an_inversion_serves_many_edits(pipeline: Any, images: torch.Tensor) -> None:
    evaluations = 0

    def count(*_: Any) -> None:
        nonlocal evaluations
        evaluations += 1

    expected = edit(pipeline, images, reconstruct=False)
    inversion = invert(Editing(pipeline, images, [BEFORE] * 3, [AFTER] * 3, steps=10))
    pipeline.unet.register_forward_hook(count)
    reused = edit(pipeline, images, inversion=inversion, reconstruct=False)
    assert evaluations == 10
    assert torch.equal(reused.image, expected.image)
    with pytest.raises(ConfigurationError, match="made with steps = 10, the edit has 5"):
        edit(pipeline, images, inversion=inversion, steps=5)


def test_the_objective_reaches_the_editor(pipeline: Any, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Asking(PromptSwap):
        def run(self, request: Editing, inversion: Any) -> Iterator[Edited]:
            seen.append(request.objective)
            return super().run(request, inversion)

    def objective(made: torch.Tensor, rows: slice) -> torch.Tensor:
        return made.mean((1, 2, 3))

    assert "prompt_swap" in editors.names()
    monkeypatch.setitem(editors._items, "asking", Asking)
    edit(pipeline, images, editor="asking", objective=objective)
    assert seen == [objective]


def test_wordings_are_the_direction_of_pix2pix_zero(pipeline: Any, images: torch.Tensor) -> None:
    sets = {"source_wordings": [["a scan, mild", "mild"]] * 3, "target_wordings": [["a scan, none", "none"]] * 3}
    settings: dict[str, Any] = {"steps": 3}
    config = Pix2PixZeroConfig(rounds=1)
    found = edit(pipeline, images, editor="pix2pix_zero", editor_config=config, **sets, **settings)
    request = Editing(pipeline, images, [BEFORE] * 3, [AFTER] * 3, **sets, **settings)
    assert torch.equal(found.image, editors.get("pix2pix_zero")(config).edit(request).image)
    without = edit(pipeline, images, editor="pix2pix_zero", editor_config=config, **settings)
    assert not torch.allclose(found.image, without.image, atol=1e-3)


def test_a_model_that_follows_instructions(instructed: Any, images: torch.Tensor) -> None:
    orders = ["make it old", "make it young", "nothing"]
    expected = edit_by_instruction(instructed, images, orders, seeds=[0, 1, 2], steps=3, image_guidance=1.2)
    settings: dict[str, Any] = {"steps": 3, "guidance": 4.0, "editor_config": {"image_guidance": 1.2}}
    for name in ("instruct_pix2pix", "auto"):
        result = make_counterfactuals(instructed, images, [], orders, editor=name, **settings)
        assert torch.equal(result.image, expected)
        assert (result.reconstruction, result.source_captions) == (None, ())
    for name in ("prompt_swap", "sdedit", "pix2pix_zero"):
        with pytest.raises(ConfigurationError, match=f"the editor {name} by captions.*instruct_pix2pix"):
            edit(instructed, images, editor=name)


def test_auto_is_prompt_swap_for_captions(pipeline: Any, images: torch.Tensor) -> None:
    assert torch.equal(edit(pipeline, images, editor="auto").image, edit(pipeline, images).image)
    with pytest.raises(ConfigurationError, match="instruct_pix2pix edits by instruction, but this model.*prompt_swap"):
        edit(pipeline, images, editor="instruct_pix2pix")


@pytest.mark.parametrize(
    ("name", "config", "kind", "says"),
    [
        ("prompt_swop", None, UnknownNameError, "no editor 'prompt_swop'. Did you mean 'prompt_swap'"),
        ("sdedit", {"away": 1}, UnknownNameError, "no setting of the editor sdedit 'away'. Did you mean 'away_from'"),
        ("prompt_swap", {"kl": 1}, UnknownNameError, "no setting of the editor prompt_swap 'kl'. Known: none"),
        ("sdedit", {"away_from": "target"}, UnknownNameError, "no away_from 'target'"),
        ("pix2pix_zero", {"attention_guidance": -1}, ConfigurationError, "attention_guidance is -1"),
        ("pix2pix_zero", {"attention_guidance": "much"}, ConfigurationError, "pix2pix_zero are of a wrong type"),
        ("instruct_pix2pix", {"image_guidance": float("nan")}, ConfigurationError, "image_guidance is nan"),
        (
            "sdedit",
            PromptSwapConfig(),
            ConfigurationError,
            "PromptSwapConfig; the editor sdedit takes SDEditConfig",
        ),
    ],
)
def test_editors_that_cannot_be(name: str, config: Any, kind: type[Exception], says: str) -> None:
    with pytest.raises(kind, match=says):
        open_editor(name, config)


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
        (torch.full((2, 3, 32, 32), 255.0), "values up to 255"),
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


def test_a_plain_way_up_lets_a_start_drift_act(toy_model: Path) -> None:
    pipeline = load_pipeline(toy_model, drift=None)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    before, after = [BEFORE] * 2, [AFTER] * 2
    kept = open_editor("prompt_swap").invert(Editing(pipeline, images, before, after, steps=4))
    undrifted = make_counterfactuals(pipeline, images, before, after, steps=4).image
    LatentDrift(0.5).attach(pipeline)
    plain = make_counterfactuals(pipeline, images, before, after, steps=4, way_up="plain").image
    by_hand = make_counterfactuals(pipeline, images, before, after, steps=4, inversion=kept).image
    cancelled = make_counterfactuals(pipeline, images, before, after, steps=4).image
    torch.testing.assert_close(plain, by_hand, rtol=0, atol=0)
    assert (plain - undrifted).abs().mean() > 20 * (cancelled - undrifted).abs().mean()
    with pytest.raises(UnknownNameError, match="way up"):
        make_counterfactuals(pipeline, images, before, after, way_up="up")  # type: ignore[arg-type]
