"""The steps of the demo; each is what a user would do with the Python interface."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.show import Tell, counting

if TYPE_CHECKING:
    import torch

    from latentdrift.data import Cohort
    from latentdrift.data.provenance.manifest import Origin
    from latentdrift.edit import EditResult
    from latentdrift.evaluate import EvaluationResult
    from latentdrift.report import LatentCurve

TEMPLATE = "an MRI of a {diagnosis} brain"
SAMPLING_STEPS, TEMPLATE_STEPS = 25, 50
EDIT_GUIDANCE, TEMPLATE_GUIDANCE = 2.0, 3.0
COMMAND = "latentdrift demo"
FRACTIONS = {"train": 0.65, "validation": 0.05, "test": 0.3}


@dataclass(frozen=True)
class Sampled:
    """What sampling under one drift gave: images (N, 3, H, W), figures, and the latents' way, step by step."""

    images: torch.Tensor
    result: EvaluationResult
    curve: LatentCurve


@dataclass(frozen=True)
class Edited:
    """Edits of simulated subjects beside the truth; errors are mean absolute differences, in levels of 0 to 255.

    Agreement is the cosine between the change an edit made and the true change, over all pixels: 0 for a change that
    has nothing to do with it, 1 for the same one at any strength. With the true change of *other* subjects it tells how
    much of the agreement is not the subject's own anatomy.
    """

    result: EditResult
    truth: torch.Tensor
    labels: list[str]
    error: list[float]
    error_of_doing_nothing: list[float]
    agreement: list[float]
    agreement_with_others: list[float]


def simulate(folder: Path, subjects: int, seed: int, tell: Tell) -> Cohort:
    """Return the simulated cohort, made once; one that an older demo made is made anew.

    Raises:
        DataError: the folder holds a cohort that no demo made.
    """
    from latentdrift.data import Cohort
    from latentdrift.data.simulate import simulate_cohort
    from latentdrift.data.simulate.cohort import VERSION
    from latentdrift.errors import DataError

    if (folder / "metadata.csv").exists():
        # A demo's own can be made again; one with truth/ is of `latentdrift simulate`, any other is the user's data.
        if simulation_version(folder) is None or (folder / "truth").exists():
            raise DataError(f"{folder} holds a cohort that no demo made. Choose another --out, or move it.")
        cohort = Cohort.open(folder)
        if len(cohort) == subjects and simulation_version(folder) == VERSION:
            return cohort
        shutil.rmtree(folder)
    return simulate_cohort(
        folder, subjects, seed=seed, truth=False, progress=lambda done, total: tell("simulating", done, total)
    )


def simulation_version(folder: Path) -> int | None:
    """Return which version of the simulator made a cohort, or None."""
    try:
        return int(json.loads((folder / "simulation.json").read_text(encoding="utf-8"))["version"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def train(
    cohort: Cohort, out: Path, drift: str, rule: str, steps: int, seed: int, tell: Tell, base: str = "tiny"
) -> Path:
    """Fine-tune `tiny`, or another base; return the model's folder."""
    from latentdrift.finetune import TrainingConfig, finetune_model

    config = TrainingConfig(
        steps=steps,
        learning_rate=4e-4,
        balance="diagnosis",
        seed=seed,
        validate_every=50,
        validation_images=12,
        ema_decay=0.98,
        sample_steps=SAMPLING_STEPS,
        sample_columns=3,
    )
    name = {"tiny": "without drift" if drift == "none" else "with drift"}.get(base, base)
    return finetune_model(
        cohort,
        out,
        base=base,
        drift=drift,
        rule=rule,
        template=TEMPLATE,
        config=config,
        fractions=FRACTIONS,
        stage=lambda what, done, total: tell(f"{name}: {what}", done, total),
    )


def sample_and_measure(
    cohort: Cohort, runs: Mapping[str, Path], folder: Path, count: int, seed: int, tell: Tell
) -> dict[str, Sampled]:
    """Sample without drift, with the start drift on the same weights, and from the run trained with drift.

    All three start from the same noise. Distances are to held-out subjects.
    """
    import torch

    from latentdrift.data import PromptTemplate
    from latentdrift.data.provenance.manifest import Origin, SyntheticFile, write_marked_images
    from latentdrift.drift import LatentDrift, LatentMoments
    from latentdrift.evaluate import evaluate_sets, load_extractor
    from latentdrift.generate import generate_images
    from latentdrift.models import load_pipeline
    from latentdrift.models.identity import drift_facts, model_facts
    from latentdrift.report import LatentCurve

    parts = cohort.split(FRACTIONS, seed=seed)
    plain = load_pipeline(runs["none"])
    latents = encoded(plain, parts["train"])
    variants = {
        "no drift": (plain, None),
        "start, automatic": (plain, LatentDrift(LatentMoments.from_latents(latents, kind="map"), rule="start")),
        "forward, automatic (in training)": (load_pipeline(runs["forward"]), None),
    }
    captions = PromptTemplate(TEMPLATE).captions(parts["test"].take(count, seed=seed))
    captions = [captions[index % len(captions)] for index in range(count)]
    real = torch.stack([read_image(record.image) for record in parts["test"]])
    extractor = load_extractor("default")
    found = {}
    for number, (name, (pipeline, drift)) in enumerate(variants.items()):
        if drift is not None:
            drift.attach(pipeline)
        trace: list[list[torch.Tensor]] = [[] for _ in range(SAMPLING_STEPS)]
        before = number * count

        def follow(step: int, now: torch.Tensor, trace: list[list[torch.Tensor]] = trace) -> None:
            trace[step - 1].append(now.detach().float().cpu())

        def finished(done: int, before: int = before) -> None:
            tell("sampling", before + done, count * len(variants))

        images = generate_images(
            pipeline,
            captions,
            seeds=range(seed, seed + count),
            steps=SAMPLING_STEPS,
            guidance=1.0,
            batch_size=24,
            on_step=follow,
            progress=finished,
        )
        write_marked_images(
            folder / name.split(" (")[0].replace(", ", "-").replace(" ", "-"),
            Origin(
                model_facts(pipeline, runs["forward" if name.startswith("forward") else "none"]),
                drift_facts(pipeline, name),
                settings={"steps": SAMPLING_STEPS, "guidance": 1.0},
                command=COMMAND,
            ),
            [
                (SyntheticFile(f"{index:04d}.png", seed + index, captions[index]), image)
                for index, image in enumerate(images)
            ],
            gray=True,
        )
        result = evaluate_sets(real, images, extractor, resamples=50, seed=seed)
        curve = LatentCurve.from_latents(torch.stack([torch.cat(step) for step in trace]))
        found[name] = Sampled(images, result, curve)
        tell("sampling", (number + 1) * count, count * len(variants))
    return found


def edit_subjects(cohort: Cohort, model: Path, folder: Path, count: int, seed: int, tell: Tell) -> Edited:
    """Turn held-out cognitively normal subjects into AD, under the model's drift, and compare with the truth."""
    import torch
    import torch.nn.functional as F

    from latentdrift.counterfactual import make_counterfactuals
    from latentdrift.data import PromptTemplate
    from latentdrift.data.files import sha256_of
    from latentdrift.data.provenance.manifest import SyntheticFile, write_marked_images
    from latentdrift.data.simulate import true_counterfactual
    from latentdrift.models import load_pipeline

    parts = cohort.split(FRACTIONS, seed=seed)
    subjects = [record for record in parts["test"] if record.attributes["diagnosis"] == "CN"][:count]
    pipeline = load_pipeline(model)
    template = PromptTemplate(TEMPLATE)
    source = torch.stack([read_image(record.image) for record in subjects])
    result = make_counterfactuals(
        pipeline,
        source,
        [template.caption({"diagnosis": "CN"})] * len(subjects),
        [template.caption({"diagnosis": "AD"})] * len(subjects),
        steps=SAMPLING_STEPS,
        guidance=EDIT_GUIDANCE,
        batch_size=24,
        progress=counting(tell, "editing", len(subjects)),
    )
    truth = torch.stack(
        [
            torch.from_numpy(true_counterfactual(cohort.root, record, "AD")).expand(3, -1, -1) * 2 - 1
            for record in subjects
        ]
    )
    made, true = (F.normalize(change.mean(1).flatten(1)) for change in (result.effect, truth - source))
    agreement = made @ true.T
    others = ~torch.eye(len(subjects), dtype=torch.bool)
    prompts = [template.caption({"diagnosis": diagnosis}) for diagnosis in ("CN", "AD")]
    write_marked_images(
        folder,
        edits_origin(pipeline, model, SAMPLING_STEPS, EDIT_GUIDANCE),
        [
            (
                SyntheticFile(
                    f"{record.subject}-AD.png",
                    prompt=prompts[1],
                    attributes={"diagnosis": "AD"},
                    source=record.key,
                    source_sha256=sha256_of(record.image),
                    source_prompt=prompts[0],
                ),
                image,
            )
            for record, image in zip(subjects, result.composed(), strict=True)
        ],
        gray=True,
    )
    return Edited(
        result=result,
        truth=truth,
        labels=[f"{record.subject}\nage {record.attributes['age']}" for record in subjects],
        error=((result.composed() - truth).abs().mean((1, 2, 3)) * 127.5).tolist(),
        error_of_doing_nothing=((source - truth).abs().mean((1, 2, 3)) * 127.5).tolist(),
        agreement=agreement.diagonal().tolist(),
        agreement_with_others=agreement[others].tolist(),
    )


def edit_template(folder: Path, tell: Tell) -> dict[str, Any]:
    """Show the MNI152 template under the stages that `tiny-brain` knows; return images and captions."""
    import torch

    from latentdrift.counterfactual import make_counterfactuals
    from latentdrift.data import PromptTemplate
    from latentdrift.data.provenance.manifest import SyntheticFile, write_marked_images
    from latentdrift.data.simulate import template_slice
    from latentdrift.models import load_pipeline

    pipeline = load_pipeline("tiny-brain")
    card = pipeline.latentdrift_card
    template = PromptTemplate.restore(card.template)
    # ModerateDemented was learned from two people: asked for it, the model makes one of them.
    stages = ["VeryMildDemented", "MildDemented"]
    image = torch.from_numpy(template_slice(size=card.size)).expand(3, -1, -1) * 2 - 1
    healthy, wanted = template.caption({"stage": "NonDemented"}), [template.caption({"stage": s}) for s in stages]
    result = make_counterfactuals(
        pipeline,
        torch.stack([image] * len(stages)),
        [healthy] * len(stages),
        wanted,
        steps=TEMPLATE_STEPS,
        guidance=TEMPLATE_GUIDANCE,
    )
    source: dict[str, Any] = {"source": "MNI152 template", "source_prompt": healthy}
    write_marked_images(
        folder,
        edits_origin(pipeline, "tiny-brain", TEMPLATE_STEPS, TEMPLATE_GUIDANCE),
        [
            (SyntheticFile(f"mni152-{stage}.png", prompt=prompt, attributes={"stage": stage}, **source), made)
            for stage, prompt, made in zip(stages, wanted, result.counterfactual, strict=True)
        ],
        gray=True,
    )
    tell("template", len(stages), len(stages))
    return {"result": result, "stages": stages}


def edits_origin(pipeline: Any, model: str | Path, steps: int, guidance: float) -> Origin:
    """Return what a manifest of edits says of their making."""
    from latentdrift.data.provenance.manifest import Origin
    from latentdrift.models.identity import drift_facts, model_facts

    config = {"steps": steps, "guidance": guidance}
    editor = {"name": "prompt_swap", "config": config}
    return Origin(model_facts(pipeline, model), drift_facts(pipeline), editor, command=COMMAND)


def read_image(path: Path) -> torch.Tensor:
    """Return an image of the cohort, (3, H, W) in [-1, 1]."""
    from latentdrift.data import ImageTransform

    return ImageTransform(size=128).read(path)


def encoded(pipeline: Any, cohort: Cohort) -> torch.Tensor:
    """Return the scaled latents of a cohort, (N, C, h, w)."""
    import torch

    from latentdrift.generate import encode_images

    return encode_images(pipeline, torch.stack([read_image(record.image) for record in cohort]))
