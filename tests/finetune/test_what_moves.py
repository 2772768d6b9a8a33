"""What a training moves, and what it leaves alone, bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.data import ImageTransform, PromptTemplate
from latentdrift.drift import LatentDrift
from latentdrift.finetune import TrainingConfig
from latentdrift.finetune.denoiser import Denoiser
from latentdrift.finetune.method import FinetuneMethod, finetune_method
from latentdrift.finetune.schedules import noise_schedule
from latentdrift.finetune.sets import SetMaker
from latentdrift.finetune.trainer import Trainer
from latentdrift.models import load_pipeline
from tests.finetune.short_runs import METHODS, SHORT, TEMPLATE, every_weight, paired_cohort, short_run

DRIFT = LatentDrift(0.3, rule="forward")


def state(pipeline: Any) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.detach().clone()
        for name, part in pipeline.components.items()
        if isinstance(part, torch.nn.Module)
        for key, value in part.state_dict().items()
    }


def moved(before: Mapping[str, torch.Tensor], after: Mapping[str, torch.Tensor]) -> set[str]:
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


def attention(name: str, layers: Sequence[str], kinds: Sequence[str] = ("attn1", "attn2")) -> bool:
    """Whether `name` is the weight of one of these layers of an attention."""
    return any(f".{kind}.{layer}." in name for kind in kinds for layer in layers)


PROJECTIONS = ("to_q", "to_k", "to_v", "to_out.0")
TEXT_PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
TRAINED: dict[str, Callable[[str], bool]] = {
    "basic": lambda name: name.startswith("unet."),
    "textual_inversion": lambda name: name.endswith("token_embedding.rows"),
    "dreambooth": lambda name: name.startswith(("unet.", "text_encoder.")),
    "custom_diffusion": lambda name: "_custom_diffusion." in name or name.endswith("token_embedding.rows"),
    "lora": lambda name: ".lora_A." in name or ".lora_B." in name,
    "instruct_pix2pix": lambda name: name.startswith("unet."),
}
"""What is trained, by its name in the pipeline while it is."""
MERGED: dict[str, Callable[[str], bool]] = {
    "basic": TRAINED["basic"],
    "textual_inversion": lambda name: False,
    "dreambooth": TRAINED["dreambooth"],
    "custom_diffusion": lambda name: attention(name, PROJECTIONS, ["attn2"]),
    "lora": lambda name: (
        name.endswith(".weight")
        and (attention(name, PROJECTIONS) or any(f".self_attn.{part}." in name for part in TEXT_PROJECTIONS))
    ),
    "instruct_pix2pix": TRAINED["instruct_pix2pix"],
}
"""What of the base is another in the pipeline that is saved; new tokens' rows are no part of the base."""


def train(
    name: str, base: Path, cohort: Path, latents: Path, folder: Path, drift: LatentDrift | None = None
) -> tuple[FinetuneMethod, Any, Denoiser, dict[str, torch.Tensor]]:
    """Three steps of the trainer; the last value is what the pipeline's modules held before."""
    method = finetune_method.get(name)(METHODS[name])
    records = paired_cohort(cohort)
    config = method.settle(TrainingConfig(**{**SHORT, "ema_decay": 0.0}))
    prompts = method.wording(PromptTemplate(TEMPLATE), records)
    pipeline = method.adapt(load_pipeline(base))
    drawn = method.training_set(records, SetMaker(pipeline, ImageTransform(size=32), prompts, latents, config))
    torch.manual_seed(0)  # as a run does: a LoRA begins at random
    module = method.prepare(pipeline)
    before = state(pipeline)
    Trainer(method, module, noise_schedule(pipeline.scheduler, drift), drawn, None, config, folder).run()
    return method, pipeline, module, before


@pytest.mark.parametrize("name", METHODS)
def test_only_what_is_trained_moves_and_all_of_it(
    name: str, toy_model: Path, toy_cohort: Path, latents: Path, tmp_path: Path
) -> None:
    method, pipeline, module, before = train(name, toy_model, toy_cohort, latents, tmp_path)
    after = state(pipeline)
    trained = {key for key in before if TRAINED[name](key)}
    assert len(trained) == len(dict(module.trained()))
    assert moved(before, after) == trained

    method.finish(pipeline, module)
    base, last = state(load_pipeline(toy_model)), state(pipeline)
    assert base.keys() == last.keys()
    grown = {key for key in base if base[key].shape != last[key].shape}
    tokens = name in ("textual_inversion", "custom_diffusion")
    matrix = next(key for key in base if key.endswith("token_embedding.weight"))
    assert grown == ({matrix} if tokens else {"unet.conv_in.weight"} if name == "instruct_pix2pix" else set())
    if tokens:
        rows = len(base[matrix])
        assert torch.equal(base[matrix], last[matrix][:rows])
        assert torch.equal(last[matrix][rows:], next(after[key] for key in after if key.endswith("embedding.rows")))
        assert len(last[matrix]) == rows + 4
    shared = base.keys() - grown
    found = moved({key: base[key] for key in shared}, {key: last[key] for key in shared})
    assert found == {key for key in shared if MERGED[name](key)}


@pytest.mark.parametrize("name", METHODS)
def test_a_drift_that_is_zero_or_acts_in_sampling_alone_changes_no_bit(
    name: str, toy_model: Path, toy_cohort: Path, latents: Path, tmp_path: Path
) -> None:
    drifts = {"none": None, "zero": LatentDrift(0.0, rule="forward"), "start": LatentDrift(0.3), "forward": DRIFT}
    found = {}
    for key, drift in drifts.items():
        method, pipeline, module, _ = train(name, toy_model, toy_cohort, latents, tmp_path / key, drift)
        method.finish(pipeline, module)
        found[key] = state(pipeline)
    assert not moved(found["none"], found["zero"])
    assert not moved(found["none"], found["start"])
    assert moved(found["none"], found["forward"])


def test_a_drift_does_not_act_on_the_images_of_the_class(toy_model: Path, toy_cohort: Path, tmp_path: Path) -> None:
    """Nor on anything else that a run saves: the base makes the class's images before it is drifted."""
    found = []
    for key, drift in (("none", "none"), ("start", LatentDrift(0.3))):
        model = short_run(
            "dreambooth", toy_cohort, tmp_path / key, base=toy_model, cache=tmp_path / f"{key}-latents", drift=drift
        )
        found.append(every_weight(model))
        images = [path.read_bytes() for path in sorted((tmp_path / f"{key}-latents").rglob("*.png"))]
        assert len(images) == 2
        found[-1]["images"] = torch.tensor(list(b"".join(images)))
    assert not moved(*found)
