"""What δ does to a rendering, what is kept between renderings, and what overflows."""

from __future__ import annotations

import copy
import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.counterfactual.objective import ObjectiveConfig
from latentdrift.counterfactual.rendering import DriftParameter, EditRenderer, EditScore, Keeper, Meter, Rendering
from latentdrift.drift import LatentDrift, LatentMoments, drift_of, remove
from latentdrift.edit import Editing, Editor, invert
from latentdrift.edit.editor import editor as editors
from latentdrift.errors import ConfigurationError, DriftError, UnknownNameError
from latentdrift.generate import decode_latents, denoise, scheduler_like
from latentdrift.models import encode_prompts, load_pipeline

STEPS, COUNT = 4, 3
BEFORE = ["a slice, mild demented", "a slice, non demented", "a slice, aged 60"]
AFTER = ["a slice, non demented", "a slice, mild demented", "a slice, aged 80"]


@pytest.fixture(scope="module")
def pipeline(toy_model: Path) -> Any:
    """The toy under a drift of its own, which must not come into what is rendered."""
    return LatentDrift(0.1).attach(load_pipeline(toy_model))


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth pictures, and none alike."""
    y, x = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    return torch.stack([(torch.sin(3 * x + k) * torch.cos(2 * y - k) * 0.9).expand(3, -1, -1) for k in range(COUNT)])


def asked(pipeline: Any, images: torch.Tensor, rows: slice = slice(None), **settings: Any) -> Editing:
    usual: dict[str, Any] = {"steps": STEPS, "guidance": 2.0, "reconstruct": False, "seeds": list(range(COUNT))[rows]}
    return Editing(pipeline, images[rows], BEFORE[rows], AFTER[rows], **{**usual, **settings})


def renderer(request: Editing, name: str = "prompt_swap", **settings: Any) -> EditRenderer:
    editor: Editor = editors.get(name)()
    return EditRenderer(editor, request, **settings)


def pixels(rendering: Rendering) -> torch.Tensor:
    assert rendering.values is not None, rendering.failure
    return rendering.values


@pytest.mark.parametrize("name", ["prompt_swap", "sdedit", "pix2pix_zero"])
def test_zero_is_no_drift_to_the_bit(name: str, pipeline: Any, images: torch.Tensor, toy_model: Path) -> None:
    request = asked(pipeline, images)
    bare = dataclasses.replace(request, pipeline=remove(load_pipeline(toy_model)))
    wanted = editors.get(name)().edit(bare).image
    assert torch.equal(pixels(renderer(request, name)({"delta": 0.0})), wanted)
    assert torch.equal(pixels(renderer(request, name)({"delta": -0.0})), wanted)
    # The pipeline is left as it was.
    assert drift_of(pipeline) == LatentDrift(0.1)
    assert "encode" not in vars(pipeline.vae)
    assert "forward" not in vars(pipeline.text_encoder)


def test_the_drift_shifts_the_noise_that_was_found_without(
    pipeline: Any, images: torch.Tensor, toy_model: Path
) -> None:
    """By hand: undrifted inversion, noise + b_s δ, undrifted way down."""
    from diffusers import DDIMScheduler

    request, delta = asked(pipeline, images), 0.15
    bare = remove(load_pipeline(toy_model))
    inversion = invert(dataclasses.replace(request, pipeline=bare))
    down = scheduler_like(bare.scheduler, DDIMScheduler)
    down.set_timesteps(STEPS)
    level = (1 - down.alphas_cumprod[down.timesteps[0]]).sqrt()
    latents = denoise(
        bare.unet,
        down,
        inversion.noise + level * delta,
        encode_prompts(bare, AFTER),
        unconditional=encode_prompts(bare, BEFORE),
        guidance=2.0,
    )
    render = renderer(request)
    found = pixels(render({"delta": delta}))
    assert torch.allclose(found, decode_latents(bare, latents), atol=1e-4)
    assert (found - pixels(render({"delta": 0.0}))).abs().mean() > 1e-3


def test_start_both_ways_is_nothing(pipeline: Any, images: torch.Tensor) -> None:
    request = asked(pipeline, images)
    both = renderer(request, way_up="drifted")
    assert torch.allclose(pixels(both({"delta": 0.2})), pixels(both({"delta": 0.0})), atol=1e-4)


def test_a_rule_that_acts_at_every_step_drifts_the_way_up_too(pipeline: Any, images: torch.Tensor) -> None:
    request = asked(pipeline, images, strength=0.5)
    parameter = DriftParameter(rule="paper")
    under = LatentDrift(0.02, "paper").attach(remove(load_pipeline_of(pipeline)))
    wanted = editors.get("prompt_swap")().edit(dataclasses.replace(request, pipeline=under)).image
    found = pixels(renderer(request, parameter=parameter)({"delta": 0.02}))
    assert torch.equal(found, wanted)
    assert not torch.allclose(found, pixels(renderer(request, parameter=parameter)({"delta": 0.0})), atol=1e-4)


def load_pipeline_of(pipeline: Any) -> Any:
    """The same networks in another pipeline."""
    return type(pipeline)(**pipeline.components, requires_safety_checker=False)


@pytest.mark.parametrize("name", ["prompt_swap", "pix2pix_zero"])
def test_what_is_kept_gives_the_same_as_anew(name: str, pipeline: Any, images: torch.Tensor) -> None:
    asked_for = [
        {"delta": 0.1, "guidance": 2.0},
        {"delta": -0.1, "guidance": 2.0},
        {"delta": 0.1, "guidance": 4.0},
        {"delta": 0.1, "guidance": 2.0},
    ]
    request = asked(pipeline, images)
    kept = renderer(request, name)
    found = [pixels(kept(parameters)) for parameters in asked_for]
    anew = [pixels(renderer(request, name)(parameters)) for parameters in asked_for]
    assert all(torch.equal(a, b) for a, b in zip(found, anew, strict=True))
    assert torch.equal(found[0], found[3])
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert kept.meter.spared == 3 * STEPS * COUNT


def test_strengths_are_parts_of_one_way(pipeline: Any, images: torch.Tensor) -> None:
    request = asked(pipeline, images)
    parameter = DriftParameter(rule="paper")
    kept = renderer(request, parameter=parameter, strengths=(0.25, 1.0), way_up="plain")
    for strength in (0.5, 1.0, 0.25, 0.5):
        parameters = {"delta": 0.02, "strength": strength}
        anew = renderer(dataclasses.replace(request, strength=strength), parameter=parameter, way_up="plain")
        assert torch.equal(pixels(kept(parameters)), pixels(anew({"delta": 0.02})))
    assert kept.meter.spared == (STEPS + 1 + 2) * COUNT


def test_a_batch_is_its_images(pipeline: Any, images: torch.Tensor) -> None:
    # In double precision: in single, a batch's other order of sums grows along the way, by as much as threads decide.
    pipeline, images = copy.deepcopy(pipeline).to(torch.float64), images.double()
    parameters = {"delta": 0.12}
    together = pixels(renderer(asked(pipeline, images))(parameters))
    for row in range(COUNT):
        alone = pixels(renderer(asked(pipeline, images, slice(row, row + 1)))(parameters))
        assert torch.allclose(together[row], alone[0], rtol=0, atol=1e-6)


def test_evaluations_are_counted_an_image(pipeline: Any, images: torch.Tensor) -> None:
    meter = Meter()
    encoded: list[int] = []
    render = renderer(asked(pipeline, images), meter=meter)
    handle = pipeline.vae.encoder.register_forward_hook(lambda *_: encoded.append(1))
    try:
        render({"delta": 0.0})
        assert meter.made == COUNT * STEPS * (1 + 2)  # up, and down with guidance
        render({"delta": 0.1, "guidance": 1.0})
        assert meter.made == COUNT * STEPS * (1 + 2 + 1)
        assert meter.spared == COUNT * STEPS
        drifted = renderer(asked(pipeline, images), way_up="drifted", meter=meter, memory=render.memory)
        drifted({"delta": 0.1})
        drifted({"delta": 0.2})
        assert meter.spared == COUNT * STEPS
        assert len(encoded) == 1
    finally:
        handle.remove()


def test_overflow_is_told_and_no_crash(pipeline: Any, images: torch.Tensor) -> None:
    request = asked(pipeline, images)
    render = renderer(request)
    score = EditScore(images, config=ObjectiveConfig(weight=0))
    keeper = Keeper(render, score, {"delta": 0.0})
    lost = render({"delta": 1e30})
    assert lost.values is None
    assert math.isnan(keeper.score(lost)["objective"])
    assert "no image was made" in keeper.failures["delta=1e+30"]
    assert drift_of(pipeline) == LatentDrift(0.1)
    assert math.isfinite(keeper.score(render({"delta": 0.1}))["objective"])


def test_scale_keeps_the_direction() -> None:
    assert DriftParameter("scale", LatentDrift((0.1, -0.2))).drift(2.0) == LatentDrift((0.2, -0.4))
    map_ = torch.arange(8.0).reshape(2, 2, 2)
    assert DriftParameter("scale", LatentDrift(map_)).drift(-0.5) == LatentDrift(-0.5 * map_)
    automatic = DriftParameter("scale", LatentDrift(LatentMoments((0.5, -1.0), 7))).drift(0.5)
    assert automatic == LatentDrift(LatentMoments((0.25, -0.5), 7))
    assert DriftParameter().drift(0.07) == LatentDrift(0.07)
    literal = DriftParameter(base=LatentDrift(0.3, "paper", per_step="shared"))
    assert literal.drift(0.1) == LatentDrift(0.1, "paper", per_step="shared")
    # What was made in training acts in sampling as a shift of the start.
    assert DriftParameter("scale", LatentDrift(0.3, "forward")).drift(1.0) == LatentDrift(0.3)


def test_scale_one_is_the_models_own_drift(pipeline: Any, images: torch.Tensor) -> None:
    request = asked(pipeline, images)
    scaled = renderer(request, parameter=DriftParameter("scale", LatentDrift(0.1)))
    assert torch.equal(pixels(scaled({"scale": 1.5})), pixels(renderer(request)({"delta": 0.1 * 1.5})))


def test_scores_are_means_and_the_objective_of_each_image(images: torch.Tensor) -> None:
    edited = (images * 0.5 + 0.1).clamp(-1, 1)

    def logits(batch: torch.Tensor) -> torch.Tensor:
        light = batch.mean((1, 2, 3))
        return torch.stack([-light, light], 1)

    score = EditScore(images, logits, [1, 0, 1], ObjectiveConfig(weight=2.0), batch_size=2)
    rendering = Rendering({"delta": 0.0}, edited)
    found = score.objective(rendering)
    assert found is not None
    light = edited.mean((1, 2, 3)) * torch.tensor([1.0, -1.0, 1.0])
    wanted = 2 * torch.nn.functional.softplus(-2 * light) + (edited - images).abs().mean((1, 2, 3))
    assert torch.allclose(found.total, wanted, atol=1e-6)
    assert score(rendering)["objective"] == pytest.approx(float(wanted.mean()), abs=1e-6)
    assert score(rendering)["missed"] == pytest.approx(float((light < 0).float().mean()))


def test_keeper_makes_the_best_and_the_control_once() -> None:
    made: list[float] = []

    def render(parameters: Any) -> Rendering:
        made.append(parameters["delta"])
        return Rendering(dict(parameters), torch.tensor([parameters["delta"]]))

    keeper = Keeper(render, lambda one: {"objective": (one.parameters["delta"] - 0.1) ** 2}, {"delta": 0.0})
    for value in (0.0, 0.2, 0.1, -0.2):
        keeper.score(render({"delta": value}))
    assert keeper.get({"delta": 0.1}).parameters == {"delta": 0.1}
    assert keeper.get({"delta": 0.0}).parameters == {"delta": 0.0}
    assert len(made) == 4
    keeper.get({"delta": 0.2})
    assert len(made) == 5


def test_what_cannot_be(pipeline: Any, images: torch.Tensor) -> None:
    request = asked(pipeline, images)
    with pytest.raises(ConfigurationError, match=r"strength 0\.5 does not reach .* rule 'paper'"):
        renderer(asked(pipeline, images, strength=0.5))
    with pytest.raises(ConfigurationError, match="does not reach"):
        renderer(request, strengths=(0.25, 1.0))
    with pytest.raises(UnknownNameError, match="'guidence'"):
        renderer(request)({"delta": 0.0, "guidence": 2.0})
    with pytest.raises(DriftError, match="nan"):
        renderer(request)({"delta": math.nan})
    with pytest.raises(ConfigurationError, match="model has none"):
        DriftParameter("scale")
    with pytest.raises(ConfigurationError, match="changes no sampling step"):
        DriftParameter(rule="forward")
    with pytest.raises(UnknownNameError, match="drift rule 'strat'"):
        DriftParameter(rule="strat")
    with pytest.raises(DriftError, match="2 channels"):
        renderer(request, parameter=DriftParameter("scale", LatentDrift((0.1, 0.2))))({"scale": 1.0})
