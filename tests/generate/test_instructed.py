from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from latentdrift.counterfactual import make_counterfactuals
from latentdrift.data import Cohort, instruction
from latentdrift.data.simulate import simulate_cohort
from latentdrift.drift import LatentDrift
from latentdrift.errors import ConfigurationError
from latentdrift.finetune.methods.instruct_pix2pix import InstructPix2Pix, InstructPix2PixConfig
from latentdrift.generate import edit_by_instruction, generate_images, image_generators, start_noise, use_sampler
from latentdrift.generate.instructed import SourceGuidedUNet, source_latents
from latentdrift.models import Conditioning, load_pipeline, save_pipeline

INSTRUCTIONS = ["make it older", "remove the hole", "enlarge it"]


def grow(unet: Any) -> Any:
    """The U-Net with as many input channels again, which see the source image."""
    first = unet.conv_in
    wider = torch.nn.Conv2d(2 * first.in_channels, first.out_channels, first.kernel_size, padding=first.padding)
    torch.manual_seed(3)
    with torch.no_grad():
        wider.weight[:, : first.in_channels] = first.weight
        wider.weight[:, first.in_channels :].normal_(std=0.2)
        wider.bias.copy_(first.bias)
    unet.conv_in = wider
    unet.register_to_config(in_channels=2 * first.in_channels)
    return unet


def save_editing(toy: Path, folder: Path, **extra: Any) -> Path:
    """Save a toy as diffusers' pipeline that edits by instruction."""
    import diffusers

    plain = load_pipeline(toy)
    kind = type(plain).__name__.replace("Pipeline", "InstructPix2PixPipeline")
    parts = {**plain.components, "unet": grow(plain.unet)}
    accepted = getattr(diffusers, kind)._get_signature_keys(getattr(diffusers, kind))[0]
    made = getattr(diffusers, kind)(**{name: part for name, part in parts.items() if name in accepted}, **extra)
    return save_pipeline(made, folder)


@pytest.fixture(scope="module")
def editing(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_editing(toy_model, tmp_path_factory.mktemp("edit") / "model", requires_safety_checker=False)


@pytest.fixture(scope="module")
def editing_xl(toy_xl_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_editing(toy_xl_model, tmp_path_factory.mktemp("edit-xl") / "model")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(5)) * 2 - 1


def theirs(pipeline: Any, images: torch.Tensor, guidance: float, image_guidance: float) -> torch.Tensor:
    """What diffusers makes from the same noise, in [-1, 1]."""
    noise = start_noise((4, 8, 8), image_generators(range(3)), torch.device("cpu"), torch.float32)
    made = pipeline(
        INSTRUCTIONS,
        image=(images + 1) / 2,
        num_inference_steps=4,
        guidance_scale=guidance,
        image_guidance_scale=image_guidance,
        latents=noise,
        output_type="pt",
    )
    return made.images * 2 - 1


@pytest.mark.parametrize("model", ["editing", "editing_xl"])
@pytest.mark.parametrize(("guidance", "image_guidance"), [(4.0, 1.5), (7.0, 1.0), (1.5, 1.5)])
@pytest.mark.parametrize("sampler", ["ddim", "euler"])
def test_diffusers_makes_the_same(
    model: str,
    guidance: float,
    image_guidance: float,
    sampler: str,
    images: torch.Tensor,
    request: pytest.FixtureRequest,
) -> None:
    pipeline = load_pipeline(request.getfixturevalue(model))
    use_sampler(pipeline, sampler)
    ours = edit_by_instruction(
        pipeline, images, INSTRUCTIONS, seeds=range(3), steps=4, guidance=guidance, image_guidance=image_guidance
    )
    # The random XL toy amplifies rounding, which differs with the prompts that are encoded together.
    atol = 2e-4 if model == "editing_xl" else 2e-5
    torch.testing.assert_close(ours, theirs(pipeline, images, guidance, image_guidance), atol=atol, rtol=0)


def test_diffusers_makes_the_same_under_a_drift(editing: Path, images: torch.Tensor) -> None:
    pipeline = LatentDrift(0.4).attach(load_pipeline(editing))
    ours = edit_by_instruction(pipeline, images, INSTRUCTIONS, seeds=range(3), steps=4)
    torch.testing.assert_close(ours, theirs(pipeline, images, 4.0, 1.5), atol=2e-5, rtol=0)


def test_cosxl_scales_the_source(toy_xl_model: Path, images: torch.Tensor, tmp_path: Path) -> None:
    pipeline = load_pipeline(save_editing(toy_xl_model, tmp_path / "cosxl"))
    pipeline.is_cosxl_edit = True
    ours = edit_by_instruction(pipeline, images, INSTRUCTIONS, seeds=range(3), steps=2)
    pipeline.set_progress_bar_config(disable=True)
    noise = start_noise((4, 8, 8), image_generators(range(3)), torch.device("cpu"), torch.float32)
    made = pipeline(
        INSTRUCTIONS,
        image=(images + 1) / 2,
        num_inference_steps=2,
        guidance_scale=4.0,
        latents=noise,
        output_type="pt",
    ).images
    torch.testing.assert_close(ours, made * 2 - 1, atol=2e-5, rtol=0)
    plain = source_latents(pipeline, images) / pipeline.vae.config.scaling_factor
    torch.testing.assert_close(plain, pipeline.vae.encode(images).latent_dist.mode())


def test_the_drift_shifts_the_start_and_not_the_source(
    editing: Path, images: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start drift of 0.4 is added to the noise in the latents that the U-Net sees first, and to nothing else."""
    seen: dict[str, torch.Tensor] = {}
    for name, drift in (("plain", None), ("drifted", LatentDrift(0.4))):
        pipeline = load_pipeline(editing) if drift is None else drift.attach(load_pipeline(editing))
        original = pipeline.unet.forward

        def look(sample: torch.Tensor, *rest: Any, _name: str = name, _forward: Any = original, **more: Any) -> Any:
            seen.setdefault(_name, sample.clone())
            return _forward(sample, *rest, **more)

        monkeypatch.setattr(pipeline.unet, "forward", look)
        edit_by_instruction(pipeline, images, INSTRUCTIONS, seeds=range(3), steps=2)
    moved = seen["drifted"] - seen["plain"]
    assert moved.shape == (9, 8, 8, 8)
    noise_part = (1 - pipeline.scheduler.alphas_cumprod[pipeline.scheduler.timesteps[0]]).sqrt()
    torch.testing.assert_close(moved[:, :4], (0.4 * noise_part).expand(9, 4, 8, 8), atol=1e-6, rtol=0)
    assert torch.equal(moved[:, 4:], torch.zeros(9, 4, 8, 8))
    nothing, source, again = seen["plain"][:, 4:].chunk(3)
    assert not nothing.any()
    assert torch.equal(source, again)
    assert torch.equal(source, source_latents(pipeline, images))


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_an_image_does_not_depend_on_its_batch(editing: Path, images: torch.Tensor, sampler: str) -> None:
    pipeline = LatentDrift(0.2).attach(load_pipeline(editing))
    use_sampler(pipeline, sampler)
    done: list[int] = []
    together = edit_by_instruction(pipeline, images, INSTRUCTIONS, seeds=[7, 8, 9], steps=3, progress=done.append)
    apart = edit_by_instruction(pipeline, images, INSTRUCTIONS, seeds=[7, 8, 9], steps=3, batch_size=2)
    alone = edit_by_instruction(pipeline, images[1:2], INSTRUCTIONS[1:2], seeds=[8], steps=3)
    torch.testing.assert_close(together, apart, atol=2e-5, rtol=0)
    torch.testing.assert_close(together[1:2], alone, atol=2e-5, rtol=0)
    assert done == [3]
    assert together.dtype == torch.float32
    assert together.abs().max() <= 1


class Counting(torch.nn.Module):
    """Predicts from what it sees, in numbers that tell the three cases apart, and counts the rows it was given."""

    rows = 0

    def forward(self, sample: torch.Tensor, timestep: torch.Tensor, encoder_hidden_states: torch.Tensor) -> Any:
        self.rows += len(sample)
        told = encoder_hidden_states.mean((1, 2))[:, None, None, None]
        latents, source = sample.chunk(2, 1)
        return type("Out", (), {"sample": latents + 10 * source + 100 * told * source})()


@pytest.mark.parametrize(
    ("guidance", "image_guidance", "evaluations"),
    [(4.0, 1.5, 3), (1.0, 1.5, 3), (4.0, 1.0, 2), (1.5, 1.5, 2), (0.0, 1.5, 2), (1.0, 1.0, 1), (0.0, 1.0, 1)],
)
def test_needless_evaluations_are_left_out(guidance: float, image_guidance: float, evaluations: int) -> None:
    unet, generator = Counting(), torch.Generator().manual_seed(0)
    latents, source = torch.randn(2, 2, 4, 8, 8, generator=generator, dtype=torch.float64)
    told, empty = Conditioning(torch.ones(2, 3, 5)), Conditioning(torch.zeros(2, 3, 5))
    seeing = SourceGuidedUNet(unet, source, told, empty, guidance, image_guidance)
    found = seeing(latents, torch.tensor(10)).sample
    assert unet.rows == 2 * evaluations
    none, image, both = latents, latents + 10 * source, latents + 110 * source
    torch.testing.assert_close(found, none + image_guidance * (image - none) + guidance * (both - image))


def test_wide_images_are_edited(editing_xl: Path) -> None:
    """XL is told the height and the width."""
    pipeline = load_pipeline(editing_xl)
    wide = torch.zeros(1, 3, 32, 64)
    ours = edit_by_instruction(pipeline, wide, INSTRUCTIONS[:1], seeds=[0], steps=2)
    noise = start_noise((4, 8, 16), image_generators([0]), torch.device("cpu"), torch.float32)
    made = pipeline(
        INSTRUCTIONS[:1],
        image=(wide + 1) / 2,
        height=32,
        width=64,
        num_inference_steps=2,
        guidance_scale=4.0,
        latents=noise,
        output_type="pt",
    ).images
    torch.testing.assert_close(ours, made * 2 - 1, atol=2e-5, rtol=0)


def test_a_plain_model_does_not_edit(toy_model: Path, images: torch.Tensor) -> None:
    with pytest.raises(ConfigurationError, match=r"takes 4 channels, 8 are needed.*make_counterfactuals"):
        edit_by_instruction(load_pipeline(toy_model), images, INSTRUCTIONS, seeds=range(3))


def test_an_editing_model_makes_nothing_from_noise(editing: Path, images: torch.Tensor) -> None:
    pipeline = load_pipeline(editing)
    with pytest.raises(ConfigurationError, match=r"edits images by instruction.*8 channels.*edit_by_instruction"):
        generate_images(pipeline, ["a"], seeds=[0])
    with pytest.raises(ConfigurationError, match=r"edits images by instruction.*edit_by_instruction"):
        make_counterfactuals(pipeline, images, ["a"] * 3, ["b"] * 3)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"instructions": ["a"]}, "3 images, 1 instructions and 3 seeds"),
        ({"seeds": [1, 2]}, "3 images, 3 instructions and 2 seeds"),
        ({"images": torch.zeros(3, 1, 32, 32)}, r"shape \(3, 1, 32, 32\)"),
        ({"images": torch.full((3, 3, 32, 32), torch.nan)}, "NaN"),
        ({"images": torch.zeros(3, 3, 30, 32)}, "30 x 32 pixels do not fit.*multiples of 4"),
        ({"images": torch.zeros(0, 3, 32, 32), "instructions": [], "seeds": []}, "nothing to edit"),
        ({"steps": 0}, "steps is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"guidance": float("nan")}, "guidance is nan"),
        ({"image_guidance": float("inf")}, "image_guidance is inf"),
    ],
)
def test_what_cannot_be_edited(editing: Path, images: torch.Tensor, change: dict[str, Any], says: str) -> None:
    given = {"images": images, "instructions": INSTRUCTIONS, "seeds": range(3), **change}
    with pytest.raises(ConfigurationError, match=says):
        edit_by_instruction(load_pipeline(editing), given.pop("images"), given.pop("instructions"), **given)


@pytest.mark.parametrize(("label", "told"), [("severity", "severity"), (None, None)])
def test_the_card_says_what_the_class_was_called(label: str | None, told: str | None, tmp_path: Path) -> None:
    """Edits are asked for in the words of training only where the class goes by the same name."""
    lines = ["file_name,subject,age,severity,stage"]
    for visit, (severity, stage) in enumerate([("mild", "CN"), ("grave", "AD")]):
        Image.new("L", (16, 16), 40 * visit).save(tmp_path / f"{visit}.png")
        lines.append(f"{visit}.png,s,{60 + visit},{severity},{stage}")
    (tmp_path / "metadata.csv").write_text("\n".join(lines) + "\n")
    cohort = Cohort.open(tmp_path, label=label)
    made: list[Any] = []
    method = InstructPix2Pix(InstructPix2PixConfig())
    assert method.notes()["instructions"]["attribute"] is None
    method.training_set(cohort, SimpleNamespace(pairs=lambda _, pairs: made.extend(pairs)))  # type: ignore[arg-type]
    said = method.notes()["instructions"]
    assert said == {"modality": "mri", "style": "command", "age": "number", "attribute": told}
    (pair,) = made
    key, names = f"{pair.source.key} {pair.target.key}", (label or "stage", "age")
    before, after = ({name: one.attributes[name] for name in names} for one in (pair.source, pair.target))
    assert pair.instruction == instruction(before, after, key=key, **said)


def test_the_truths_class_is_its_own(tmp_path: Path) -> None:
    cohort = Cohort.open(simulate_cohort(tmp_path / "chests", 1, size=32, kind="chest").root, label="sex")
    method = InstructPix2Pix(InstructPix2PixConfig())
    method.training_set(cohort, SimpleNamespace(pairs=lambda _, pairs: pairs))  # type: ignore[arg-type]
    assert method.notes()["instructions"]["attribute"] is None


def test_a_source_is_encoded_without_overflow(overflowing_xl: Any) -> None:
    latents = source_latents(overflowing_xl, torch.ones(1, 3, 32, 32))
    assert latents.dtype == torch.float16
    assert torch.isfinite(latents).all()
