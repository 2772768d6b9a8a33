"""Classifier guidance: the predicted image under every drift, the gradient, the batch, the direction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import LatentDrift, noise_and_latents
from latentdrift.drift.expectation import DELTA, MEAN, STD, channels, noise
from latentdrift.drift.gaussian import GaussianNetwork
from latentdrift.drift.levels import levels_at
from latentdrift.edit import Editing, invert
from latentdrift.edit.editor import editor
from latentdrift.edit.editors.classifier_guided import (
    ClassifierGuided,
    ClassifierGuidedConfig,
    GuidedUNet,
    _Clamp,
    frozen,
)
from latentdrift.errors import ConfigurationError, LatentDriftError, UnknownNameError
from latentdrift.models import load_pipeline
from tests.conftest import build_scheduler
from tests.edit.conftest import AFTER, BEFORE, MakeRequest

REGION = (..., slice(12, 24), slice(8, 24))
THROUGH = ("unet", "decoder")


def region_mean(images: torch.Tensor) -> torch.Tensor:
    return images[REGION].mean((1, 2, 3))


def darkness(images: torch.Tensor, _: slice) -> torch.Tensor:
    """Lower where the region is brighter."""
    return -region_mean(images)


def towards(wanted: torch.Tensor) -> Callable[[torch.Tensor, slice], torch.Tensor]:
    """Each row of the request has a brightness of its own that its region should have."""
    return lambda images, rows: (region_mean(images) - wanted[rows].to(images)).square()


def guided(**settings: Any) -> ClassifierGuided:
    return ClassifierGuided(ClassifierGuidedConfig(**settings))


def guided_unet(request: Editing, **settings: Any) -> tuple[GuidedUNet, Any]:
    inversion = invert(request)
    return GuidedUNet(request, 0, inversion, inversion.source, ClassifierGuidedConfig(**settings)), inversion


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize(
    ("rule", "target"),
    [
        (None, None),
        ("start", None),
        ("forward", "drifted"),
        ("forward", "plain"),
        ("matched", "plain"),
        ("matched", "drifted"),
        ("paper", "plain"),
        ("paper", "drifted"),
    ],
)
def test_the_predicted_image_is_right_under_every_drift(prediction: str, rule: str | None, target: str | None) -> None:
    """For data N(m, s²) and a network that is exactly right: E[x_0 | y] = m + a s² r / (a² s² + b²)."""
    scheduler, reader = build_scheduler(prediction), build_scheduler(prediction)
    shift: Any = 0.0
    if rule is not None:
        drift = LatentDrift(DELTA, rule, target)
        scheduler, reader = drift.apply(scheduler), drift.apply(reader)
        shift = drift.forward_sign * channels(DELTA)
    network = GaussianNetwork(build_scheduler(prediction), MEAN, STD, shift, target or "plain")
    for each in (scheduler, reader):
        each.set_timesteps(6)
    state = noise()
    for timestep in scheduler.timesteps:
        seen = scheduler.scale_model_input(state, timestep)
        predicted = network(seen, timestep)
        signal, level = levels_at(reader, timestep.reshape(1), seen)
        rest = (seen - signal * MEAN - level * shift) / (signal**2 * STD**2 + level**2)
        found_noise, found = noise_and_latents(reader, predicted, seen, timestep)
        torch.testing.assert_close(found, MEAN + signal * STD**2 * rest, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(found_noise, level * rest, atol=1e-5, rtol=1e-5)
        step = scheduler.step(predicted, timestep, state)
        if (rule, target) == ("paper", "plain") and prediction != "sample":
            # Eq. 4 to the letter takes the drift that the network was trained with for a part of the image.
            gap = signal * level * shift if prediction == "v_prediction" else level / signal * shift
            torch.testing.assert_close(step.pred_original_sample - found, gap.expand_as(found), atol=1e-5, rtol=1e-5)
        else:
            torch.testing.assert_close(step.pred_original_sample, found, atol=1e-5, rtol=1e-5)
        state = step.prev_sample


@pytest.mark.parametrize(
    ("model", "rule"),
    [
        ("toy_model", "start"),
        ("toy_model", "matched"),
        ("toy_velocity_model", "forward"),
        ("toy_velocity_model", "paper"),
    ],
)
def test_the_gradient_is_that_of_finite_differences(
    model: str, rule: str, images: torch.Tensor, request_for: MakeRequest, request: pytest.FixtureRequest
) -> None:
    pipeline: Any = load_pipeline(request.getfixturevalue(model), dtype=torch.float64)
    pipeline = LatentDrift(0.1, rule).attach(pipeline)
    asked = request_for(pipeline, images=images.double(), objective=towards(torch.tensor([0.9, -0.9, 0.3, 0.0])))
    with torch.no_grad():
        pipeline.vae.decoder.conv_out.weight *= 0.1  # nothing is clamped
    network, inversion = guided_unet(asked)
    reader, timestep = network.scheduler, network.scheduler.timesteps[2]
    seen = inversion.source_at(2)

    def values(latents: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            clean = noise_and_latents(reader, network.predict(latents, timestep), latents, timestep)[1]
            decoded = network.decode(clean)
            assert decoded.abs().max() < 1
            return asked.objective(decoded, slice(0, 4))  # type: ignore[misc]

    _, _, gradient = network.gradient(seen, timestep)
    for seed in range(3):
        way = torch.randn(seen.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        slope = (values(seen + 1e-5 * way) - values(seen - 1e-5 * way)) / 2e-5
        torch.testing.assert_close((gradient * way).sum((1, 2, 3)), slope, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("model", ["toy_model", "toy_velocity_model"])
@pytest.mark.parametrize("normalise", [True, False])
def test_the_noise_is_shifted_by_the_gradient(
    model: str, normalise: bool, request_for: MakeRequest, request: pytest.FixtureRequest
) -> None:
    """ε̂ = ε + s √(1 - ᾱ) g, whatever is predicted; normalised, g has the norm of ε."""
    pipeline: Any = load_pipeline(request.getfixturevalue(model))
    network, inversion = guided_unet(request_for(pipeline, objective=darkness), scale=0.3, normalise=normalise)
    timestep = network.scheduler.timesteps[1]
    seen = inversion.source_at(1)
    _, before, gradient = network.gradient(seen, timestep)
    with torch.no_grad():
        after, _ = noise_and_latents(network.scheduler, network(seen, timestep).sample, seen, timestep)
    level = (1 - network.scheduler.alphas_cumprod[int(timestep)]) ** 0.5
    if normalise:
        sizes = ((after - before).flatten(1).norm(dim=1), before.flatten(1).norm(dim=1))
        torch.testing.assert_close(sizes[0], 0.3 * level * sizes[1], rtol=1e-4, atol=1e-6)
        like = torch.nn.functional.cosine_similarity((after - before).flatten(1), gradient.flatten(1))
        assert like.min() > 0.999
    else:
        torch.testing.assert_close(after - before, 0.3 * level * gradient, rtol=1e-3, atol=2e-6)


def test_through_the_decoder_the_network_is_left_out(pipeline: Any, request_for: MakeRequest) -> None:
    """The gradient is √ᾱ times that of the decoder alone, and the U-Net runs without a graph."""
    network, inversion = guided_unet(request_for(pipeline, objective=darkness), through="decoder")
    timestep, seen = network.scheduler.timesteps[2], inversion.source_at(2)
    graphs: list[bool] = []
    handle = pipeline.unet.register_forward_hook(lambda _, __, output: graphs.append(output.sample.requires_grad))
    predicted, _, gradient = network.gradient(seen, timestep)
    handle.remove()
    assert graphs == [False]
    clean = noise_and_latents(network.scheduler, predicted, seen, timestep)[1].requires_grad_()
    (direct,) = torch.autograd.grad(darkness(network.decode(clean), slice(0, 4)).sum(), clean)
    torch.testing.assert_close(gradient, direct * network.scheduler.alphas_cumprod[int(timestep)] ** 0.5)


@pytest.mark.parametrize("through", THROUGH)
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.slow
def test_an_image_does_not_depend_on_its_batch(
    through: str, normalise: bool, toy_model: Path, images: torch.Tensor, request_for: MakeRequest
) -> None:
    """In double precision: what is left is no rounding that a network of random weights blows up."""
    pipeline: Any = LatentDrift(0.1).attach(load_pipeline(toy_model, dtype=torch.float64))
    eight, wanted = torch.cat([images, images.flip(-1) * 0.8]), torch.linspace(-0.9, 0.9, 8)
    make = guided(through=through, normalise=normalise, scale=0.2 if normalise else 5.0)

    def request(rows: list[int]) -> Editing:
        return request_for(
            pipeline,
            images=eight[rows],
            source_captions=[(BEFORE * 2)[row] for row in rows],
            target_captions=[(AFTER * 2)[row] for row in rows],
            seeds=rows,
            objective=towards(wanted[rows]),
            reconstruct=False,
        )

    together = make.edit(request(list(range(8))))
    parts = make.edit(dataclasses.replace(request(list(range(8))), batch_size=3))
    torch.testing.assert_close(parts.image, together.image, atol=1e-6, rtol=0)
    for row in (0, 7):
        alone = make.edit(request([row]))
        torch.testing.assert_close(alone.latents[0], together.latents[row], atol=1e-8, rtol=1e-8)
        torch.testing.assert_close(alone.image[0], together.image[row], atol=1e-6, rtol=0)
    still = guided(scale=0.0).edit(request(list(range(8))))
    assert ((together.image - still.image).abs().mean((1, 2, 3)) > 1e-3).all()


def test_without_scale_it_is_the_reconstruction_or_prompt_swap(pipeline: Any, request_for: MakeRequest) -> None:
    still = guided(scale=0.0).edit(request_for(pipeline, objective=darkness, guidance=5.0))
    assert still.reconstruction is not None
    assert torch.equal(still.image, still.reconstruction)
    for guidance in (1.0, 3.0):
        asked = request_for(pipeline, objective=darkness, guidance=guidance)
        found = guided(scale=0.0, captions="target").edit(asked)
        swapped = editor.get("prompt_swap")().edit(asked)
        assert torch.equal(found.image, swapped.image)
        assert swapped.reconstruction is not None
        assert torch.equal(found.reconstruction, swapped.reconstruction)  # type: ignore[arg-type]


def test_both_guidances_act_together(pipeline: Any, request_for: MakeRequest) -> None:
    asked = request_for(pipeline, objective=darkness, guidance=3.0)
    alone = guided().edit(asked)
    other = guided().edit(dataclasses.replace(asked, target_captions=["x"] * 4, guidance=1.0))
    assert torch.equal(alone.image, other.image)
    swapped = editor.get("prompt_swap")().edit(asked)
    both = guided(captions="target").edit(asked)
    assert (region_mean(both.image) > region_mean(swapped.image)).all()


@pytest.mark.parametrize("model", ["toy_model", "toy_velocity_model"])
@pytest.mark.parametrize("through", THROUGH)
def test_the_edit_goes_where_the_objective_points(
    model: str, through: str, request_for: MakeRequest, request: pytest.FixtureRequest
) -> None:
    pipeline: Any = LatentDrift(0.1).attach(load_pipeline(request.getfixturevalue(model)))
    asked = request_for(pipeline, objective=darkness, steps=6, reconstruct=False)
    inversion = invert(asked)
    reached = [guided(scale=scale, through=through).edit(asked, inversion) for scale in (0.0, 0.05, 0.1, 0.2)]
    brightness = torch.stack([region_mean(result.image) for result in reached])
    assert (brightness.diff(dim=0) > 0).all()
    change = reached[-1].image - reached[0].image
    inside = change[REGION].mean((1, 2, 3))
    elsewhere = torch.cat([change[..., :8, :], change[..., 28:, :]], dim=-2).mean((1, 2, 3))
    assert (inside > elsewhere.abs()).all()
    darker = dataclasses.replace(asked, objective=lambda images, rows: -darkness(images, rows))
    assert (region_mean(guided(scale=0.2, through=through).edit(darker, inversion).image) < brightness[0]).all()


def test_guidance_may_begin_late(pipeline: Any, request_for: MakeRequest) -> None:
    asked = request_for(pipeline, objective=darkness, steps=8)
    inversion = invert(asked)
    calls: list[int] = []

    def counted(images: torch.Tensor, rows: slice) -> torch.Tensor:
        calls.append(rows.stop - rows.start)
        return darkness(images, rows)

    sizes = []
    for begin in (0.0, 0.5):
        result = guided(begin=begin).edit(dataclasses.replace(asked, objective=counted), inversion)
        sizes.append(result.effect.abs().mean())
    assert calls == [4] * 8 + [4] * 4
    assert 0 < sizes[1] < sizes[0]
    short = dataclasses.replace(asked, strength=0.25, objective=counted)
    calls.clear()
    guided().edit(short)
    assert calls == [4] * 2


def test_a_level_without_signal_is_not_guided(toy_velocity_model: Path, request_for: MakeRequest) -> None:
    from diffusers import DDIMScheduler

    pipeline: Any = load_pipeline(toy_velocity_model)
    pipeline.scheduler = DDIMScheduler.from_config(
        pipeline.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    network, _ = guided_unet(request_for(pipeline, objective=darkness))
    assert network.scheduler.timesteps.tolist() == [999, 749, 499, 249]
    assert network.guided == {749, 499, 249}
    assert guided().edit(request_for(pipeline, objective=darkness)).image.isfinite().all()


def test_weights_take_no_gradients(pipeline: Any, request_for: MakeRequest) -> None:
    weights = [*pipeline.unet.parameters(), *pipeline.vae.parameters(), *pipeline.text_encoder.parameters()]
    weights[0].requires_grad_(False)
    before = [weight.requires_grad for weight in weights]
    asked = request_for(pipeline, objective=darkness)
    during: list[bool] = []

    def watching(images: torch.Tensor, rows: slice) -> torch.Tensor:
        during.append(any(w.requires_grad for net in (pipeline.unet, pipeline.vae) for w in net.parameters()))
        return darkness(images, rows)

    result = guided().edit(dataclasses.replace(asked, objective=watching))
    assert during == [False] * 4
    assert all(weight.grad is None for weight in weights)
    assert [weight.requires_grad for weight in weights] == before
    assert not result.latents.requires_grad
    assert not result.image.requires_grad
    with pytest.raises(RuntimeError), frozen(pipeline.unet):
        raise RuntimeError
    assert [weight.requires_grad for weight in weights] == before


def test_outside_the_mask_no_bit_changes_and_the_objective_sees_the_source(
    pipeline: Any, images: torch.Tensor, request_for: MakeRequest
) -> None:
    mask = torch.zeros(4, 1, 32, 32)
    mask[..., 12:] = 1
    outside = (mask == 0).expand_as(images)
    shown: list[torch.Tensor] = []

    def watching(images: torch.Tensor, rows: slice) -> torch.Tensor:
        shown.append(images.detach())
        return darkness(images, rows)

    result = guided(scale=0.2).edit(request_for(pipeline, mask=mask, objective=watching, batch_size=4))
    assert torch.equal(result.image[outside].view(torch.int32), images[outside].view(torch.int32))
    assert (result.image - images)[~outside].abs().mean() > 1e-2
    assert all(torch.equal(seen[outside], images[outside]) for seen in shown)
    still = guided(scale=0.0).edit(request_for(pipeline, mask=mask, objective=darkness))
    within = (..., slice(12, 24), slice(12, 24))
    assert (result.image[within].mean((1, 2, 3)) > still.image[within].mean((1, 2, 3))).all()


@pytest.mark.parametrize("normalise", [True, False])
def test_a_content_objective_changes_nothing(normalise: bool, pipeline: Any, request_for: MakeRequest) -> None:
    """Of two rows that are content and two that are not, only the latter change."""

    def half(images: torch.Tensor, rows: slice) -> torch.Tensor:
        return darkness(images, rows) * torch.tensor([0.0, 1.0, 0.0, 1.0])[rows]

    result = guided(normalise=normalise, scale=0.2 if normalise else 20.0).edit(request_for(pipeline, objective=half))
    changed = result.effect.abs().amax((1, 2, 3))
    assert changed[[0, 2]].max() == 0
    assert changed[[1, 3]].min() > 1e-3


def test_black_can_become_brighter() -> None:
    outside = torch.tensor([-1.5, -1.5, 0.3, 0.3, 1.5, 1.5], requires_grad=True)
    pull = torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    clamped = _Clamp.apply(outside)
    assert clamped.tolist() == pytest.approx([-1, -1, 0.3, 0.3, 1, 1])
    (gradient,) = torch.autograd.grad((clamped * pull).sum(), outside)
    assert gradient.tolist() == [-1, 0, -1, 1, 0, 1]


def test_what_is_not_finite_makes_no_image(pipeline: Any, request_for: MakeRequest) -> None:
    with pytest.raises(LatentDriftError, match=r"finite|NaN or infinite"):
        guided(scale=1e38).edit(request_for(pipeline, objective=darkness))

    def broken(images: torch.Tensor, rows: slice) -> torch.Tensor:
        return darkness(images, rows) * torch.tensor([1.0, torch.nan, 1.0, 1.0])[rows]

    with pytest.raises(LatentDriftError, match="The objective's gradients of 1 of 4 images hold NaN"):
        guided().edit(request_for(pipeline, objective=broken))


def test_an_objective_is_needed_and_is_one_value_an_image(pipeline: Any, request_for: MakeRequest) -> None:
    with pytest.raises(ConfigurationError, match="the request has none. Train a guide with `latentdrift classifier"):
        guided().edit(request_for(pipeline, objective=None))
    for name in editor.names():
        if name != "instruct_pix2pix":
            with pytest.raises(ConfigurationError, match="objective is 'brighter'; give a function"):
                editor.get(name)().edit(request_for(pipeline, objective="brighter"))
    for wrong, says in (
        (lambda images, _: images.mean(), r"shape \(\) with a gradient for 4 images"),
        (lambda images, _: images.detach().mean((1, 2, 3)), r"shape \(4,\) without a gradient for 4 images"),
    ):
        with pytest.raises(ConfigurationError, match=says):
            guided().edit(request_for(pipeline, objective=wrong))


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"scale": -1.0}, ConfigurationError, "scale is -1.0"),
        ({"scale": float("nan")}, ConfigurationError, "scale is nan"),
        ({"begin": 1.0}, ConfigurationError, "begin is 1.0"),
        ({"through": "vae"}, UnknownNameError, "no through 'vae'"),
        ({"captions": "sauce"}, UnknownNameError, "Did you mean 'source'"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ClassifierGuidedConfig(**settings)


@pytest.mark.parametrize("through", THROUGH)
def test_guidance_through_an_autoencoder_that_overflows(
    through: str, overflowing_xl: Any, request_for: MakeRequest
) -> None:
    request = request_for(overflowing_xl, count=1, steps=2, objective=darkness)
    ((edited, rebuilt),) = guided(through=through, scale=1.0).run(request, invert(request))
    assert edited.dtype == torch.float16
    assert torch.isfinite(edited).all()
    assert torch.isfinite(rebuilt).all()
    assert overflowing_xl.vae.dtype == torch.float16
