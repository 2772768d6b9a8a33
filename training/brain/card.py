"""What `tiny-brain` can and cannot do, measured: samples, edits before a judge, memorisation; and its files."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from latentdrift.counterfactual import make_counterfactuals
from latentdrift.data import Cohort, ImageTransform, PromptTemplate
from latentdrift.drift import drift_of, remove, save_drift
from latentdrift.evaluate import evaluate_sets, load_extractor
from latentdrift.generate import generate_images
from latentdrift.models import load_pipeline, read_model_card, write_model_card
from latentdrift.models.loading import WEIGHTS
from latentdrift.report import counterfactual_figure, image_grid
from training.base.card import forget_paths
from training.brain.__main__ import FRACTIONS

SAMPLES = 128
STAGES = ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"]

DOUBT = """The judge itself tells people it has not seen apart poorly: it says that the edits look like the other stage
of the people it learned from, not that they are right."""
CONVINCED = "The edits move the judge further than the placebo does, in both directions."
NOT_CONVINCED = """The edits do not move the judge further than the placebo does in both directions: this model has not
learned the stages well enough for an edit between them to be taken as one."""

CARD = """---
license: odbl
library_name: diffusers
pipeline_tag: text-to-image
---
# tiny-brain

`tiny` fine-tuned on {train} axial T1-weighted brain slices of {people} people in four stages of dementia, {steps} steps
of {batch} in which rare stages are drawn more often ({minutes:.0f} minutes on two processor cores, other work beside
it). Only the U-Net is its own. Drift saved with it: {drift}. Prompts: "{template}" with the words of {stages}.

## Data and terms

"Alzheimer's Dataset (4 class of images)", derived from OASIS, under the Open Database License (ODbL) 1.0; made
available by its contributors and the OASIS project. The weights derive from that database and carry the same licence.
The images are not in this repository. The set does not name its subjects, but its file numbers tell them apart
(`python -m training.brain subjects`): the parts below share no person. Its stages are clinical ratings, not diagnoses
of a slice. Two people have the stage ModerateDemented. Not for clinical use.

## Samples

{n} samples a row against {held} slices of {held_people} held-out people; {extractor} features, {steps_s} steps, no
guidance.

{table}

![Samples a stage](samples.png)

## Edits before a judge

The judge is a logistic regression on {extractor} features, trained on the real training slices to tell NonDemented
from MildDemented; AUC on real slices of {judge_people} held-out people {auc:.3f}. Slices of held-out people were edited
to the other stage, {edits} each way, guidance {guidance}; a placebo edit asks for the stage the slice has. Mean
probability of the wanted stage, and in brackets the part of the slices judged to show it:

{judge}

{verdict} Round trip without an edit: {psnr:.1f} dB. {doubt}

## Memorisation

Distance of the nearest training slice (root mean square of pixels, levels of 0 to 255), for samples and for real slices
of held-out people:

| | nearest | 1% | median |
|---|---|---|---|
{memory}

{copies} of {n_memory} samples are nearer to a training slice than the nearest 1% of held-out people's real slices are.
A smooth image is nearer to everything than a sharp one, so this alone does not tell copying from blur. ModerateDemented
has two people: expect its samples to be like them.
"""


def read(cohort: Cohort, size: int) -> torch.Tensor:
    """Return all images, (N, 3, H, W)."""
    transform = ImageTransform(size=size)
    return torch.stack([transform.read(record.image) for record in cohort])


def nearest(images: torch.Tensor, others: torch.Tensor) -> np.ndarray:
    """Return the distance of each image to the nearest of the others, root mean square in levels of 0 to 255."""
    a, b = (x[:, 0].flatten(1) * 127.5 for x in (images, others))
    return (torch.cdist(a, b).min(1).values / a.shape[1] ** 0.5).numpy()


def package(data: Path, run: Path, weights: Path) -> Path:
    """Measure the run's model and write the embedded model; return its folder."""
    pipeline = load_pipeline(run / "model")
    card = read_model_card(run / "model")
    assert card is not None
    cohort = Cohort.open(data)
    parts = cohort.split(FRACTIONS, seed=0)
    train, test = read(parts["train"], card.size), read(parts["test"], card.size)
    template = PromptTemplate.restore(card.template)
    prompts = {stage: template.caption({"stage": stage}) for stage in STAGES}
    weights.mkdir(parents=True, exist_ok=True)
    extractor = load_extractor("efficientnet-lite0")

    drift = drift_of(pipeline.scheduler)
    # Spread over the part: files follow the slices' height.
    spread = np.linspace(0, len(parts["test"]) - 1, SAMPLES).astype(int)
    captions = [template.caption(parts["test"][int(index)]) for index in spread]
    made: dict[str, torch.Tensor] = {}
    rows = ["| drift | Frechet distance | kernel distance x 1000 | background (real %s) |", "|---|---|---|---|"]
    for name, chosen in (("none", None), ("saved", drift)):
        pipeline.scheduler = remove(pipeline.scheduler)
        if chosen is not None:
            chosen.attach(pipeline)
        made[name] = generate_images(pipeline, captions, seeds=range(SAMPLES), steps=25, guidance=1.0)
        result = evaluate_sets(test, made[name], extractor, resamples=0)
        rows.append(f"| {name} | {result.fid:.1f} | {result.kid * 1000:.1f} | {result.background_synthetic:.2f} |")
    rows[0] = rows[0] % f"{result.background_real:.2f}"

    sheet = generate_images(
        pipeline, [prompts[s] for s in STAGES for _ in range(6)], seeds=[*range(6)] * 4, steps=50, guidance=1.5
    )
    image_grid(weights / "samples.png", [list(row) for row in sheet.split(6)], row_labels=STAGES)
    judged = judge_edits(pipeline, parts, train, test, prompts, extractor, run / "edits.png")

    distances = {"samples": nearest(made["saved"], train), "held-out slices": nearest(test, train)}
    memory = []
    for name, values in distances.items():
        memory.append(f"| {name} | {values.min():.1f} | {np.quantile(values, 0.01):.1f} | {np.median(values):.1f} |")
    copies = int((distances["samples"] < np.quantile(distances["held-out slices"], 0.01)).sum())

    pipeline.unet.half().save_pretrained(weights / "unet")
    shutil.copy(WEIGHTS / "tiny" / "model_index.json", weights / "model_index.json")
    if drift is not None:
        save_drift(weights, drift)
    facts: dict[str, Any] = json.loads((run / "run.json").read_text())
    notes = dict(card.notes) | {"terms": "ODbL 1.0, Alzheimer's Dataset (4 class of images), derived from OASIS"}
    write_model_card(
        weights, dataclasses.replace(card, base="tiny", notes=notes, data={**card.data, "name": "brain-mri-stages"})
    )
    forget_paths(weights)
    (weights / "README.md").write_text(
        CARD.format(
            train=len(parts["train"]),
            steps=card.steps,
            batch=facts["training"]["batch_size"],
            minutes=card.notes["training_seconds"] / 60,
            drift=drift or "none",
            template=card.template,
            people=people(parts["train"]),
            held_people=people(parts["test"]),
            stages=", ".join(STAGES),
            n=SAMPLES,
            held=len(test),
            extractor=extractor.name,
            steps_s=25,
            table="\n".join(rows),
            memory="\n".join(memory),
            copies=copies,
            n_memory=len(distances["samples"]),
            **judged,
        )
    )
    return weights


def people(cohort: Cohort) -> int:
    """Return how many subjects a cohort has."""
    return len({record.subject for record in cohort})


def judge_edits(
    pipeline: Any,
    parts: Any,
    train: torch.Tensor,
    test: torch.Tensor,
    prompts: dict[str, str],
    extractor: Any,
    figure: Path,
    count: int = 32,
    guidance: float = 3.0,
) -> dict[str, Any]:
    """Return how a judge trained on real slices sees edits between NonDemented and MildDemented.

    `figure` shows real slices: it stays with the run and is not shipped.
    """
    stages = ("NonDemented", "MildDemented")

    def labels(cohort: Cohort) -> np.ndarray:
        return np.array([stages.index(str(v)) if v in stages else -1 for v in cohort.values("stage")])

    y_train, y_test = labels(parts["train"]), labels(parts["test"])
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
    judge.fit(extractor(train[y_train >= 0]), y_train[y_train >= 0])
    real = judge.predict_proba(extractor(test[y_test >= 0]))[:, 1]
    judged = {record.subject for record, y in zip(parts["test"], y_test, strict=True) if y >= 0}

    kinds = ("source", "placebo edit", "edited", "edited, with the round trip's loss put back")
    cells: dict[str, list[str]] = {kind: [] for kind in kinds}
    convinced, psnr = [], []
    for before, after in ((0, 1), (1, 0)):
        own = test[y_test == before]
        source = own[np.linspace(0, len(own) - 1, count).astype(int)]
        asked = [prompts[stages[before]]] * count
        placebo = make_counterfactuals(pipeline, source, asked, asked, guidance=guidance)
        edited = make_counterfactuals(pipeline, source, asked, [prompts[stages[after]]] * count, guidance=guidance)
        images = (source, placebo.counterfactual, edited.counterfactual, edited.composed())
        seen = {}
        for kind, these in zip(kinds, images, strict=True):
            wanted = judge.predict_proba(extractor(these))[:, after]
            seen[kind] = float(wanted.mean())
            cells[kind].append(f"{wanted.mean():.3f} ({(wanted > 0.5).mean():.2f})")
        convinced.append(seen["edited"] > seen["placebo edit"] + 0.05)
        psnr.append(float(edited.round_trip_psnr.mean()))
        counterfactual_figure(
            figure.with_name(f"{figure.stem}-{stages[after]}.png"),
            list(edited.source[:: count // 6][:6]),
            list(edited.composed()[:: count // 6][:6]),
            threshold=list(((edited.reconstruction - edited.source).abs().mean(1) / 2)[:: count // 6][:6].numpy()),
            title=f"{stages[before]} → {stages[after]}",
        )
    rows = ["| images | NonDemented → MildDemented | MildDemented → NonDemented |", "|---|---|---|"]
    rows += [f"| {kind} | {there} | {back} |" for kind, (there, back) in cells.items()]
    auc = roc_auc_score(y_test[y_test >= 0], real)
    return {
        "doubt": DOUBT if auc < 0.8 else "",
        "verdict": CONVINCED if all(convinced) else NOT_CONVINCED,
        "auc": auc,
        "judge_people": len(judged),
        "edits": count,
        "guidance": guidance,
        "judge": "\n".join(rows),
        "psnr": float(np.mean(psnr)),
    }
