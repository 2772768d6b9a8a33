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
from latentdrift.models.loading import WEIGHTS, model_folder
from latentdrift.report import counterfactual_figure, image_grid
from training.base.card import forget_paths

STAGES = ["NonDemented", "VeryMildDemented", "MildDemented", "ModerateDemented"]

CONVINCED = "The edit moves the judge further than the placebo does."
NOT_CONVINCED = """The edit moves the judge no further than the placebo does: this model has not learned the stages well
enough for an edit between them to be taken as one."""

CARD = """---
license: odbl
library_name: diffusers
pipeline_tag: text-to-image
---
# tiny-brain

`tiny` fine-tuned on {train} axial T1-weighted brain slices in four stages of dementia, {steps} steps of {batch} in
which rare stages are drawn more often ({minutes:.0f} minutes on one processor core, other work beside it){before}. Only the
U-Net is its own. Drift saved with it: {drift}. Prompts: "{template}" with the words of {stages}.

## Data and terms

"Alzheimer's Dataset (4 class of images)", derived from OASIS, under the Open Database License (ODbL) 1.0; made
available by its contributors and the OASIS project. The weights derive from that database and carry the same licence.
The images are not in this repository. The set has no subject identifiers: the parts were split by interleaved blocks
of a dozen neighbouring files, so slices of one person can be in several parts. Its stages are clinical ratings, not
diagnoses of a slice. Not for clinical use.

## Samples, {n} an item, against {held} held-out slices ({extractor}, {steps_s} steps, no guidance)

{table}

![Samples a stage](samples.png)

## Edits before a judge

The judge is a logistic regression on {extractor} features, trained on the real training slices to tell NonDemented from
MildDemented; AUC on held-out real slices {auc:.3f} (neighbouring slices of one person may be on both sides). {edits}
held-out NonDemented slices were edited to MildDemented, guidance {guidance}:

{judge}

{verdict}

Round trip without an edit: {psnr:.1f} dB. A placebo edit asks for the stage the slice has.

## Memorisation

Distance of the nearest training slice (root mean square of pixels, levels of 0 to 255), for samples and for held-out
real slices:

{memory}

{copies} of {n_memory} samples are nearer to a training slice than the nearest 1% of held-out real slices are. Held-out
slices often have a neighbour of the same person in the training part, so their distances are small for that reason too.
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
    parts = cohort.split({"train": 0.8, "validation": 0.1, "test": 0.1}, seed=0)
    train, test = read(parts["train"], card.size), read(parts["test"], card.size)
    template = PromptTemplate(card.template)
    prompts = {stage: template.caption({"stage": stage}) for stage in STAGES}
    weights.mkdir(parents=True, exist_ok=True)
    extractor = load_extractor("efficientnet-lite0")

    drift = drift_of(pipeline.scheduler)
    captions = [template.caption(record) for record in parts["test"]]
    made: dict[str, torch.Tensor] = {}
    rows = ["| drift | Frechet distance | kernel distance x 1000 | background (real %s) |", "|---|---|---|---|"]
    for name, chosen in (("none", None), ("saved", drift)):
        pipeline.scheduler = remove(pipeline.scheduler)
        if chosen is not None:
            chosen.attach(pipeline)
        made[name] = generate_images(pipeline, captions[:128], seeds=range(128), steps=25, guidance=1.0)
        result = evaluate_sets(test, made[name], extractor, resamples=0)
        rows.append(f"| {name} | {result.fid:.1f} | {result.kid * 1000:.1f} | {result.background_synthetic:.2f} |")
    rows[0] = rows[0] % f"{result.background_real:.2f}"

    sheet = generate_images(
        pipeline, [prompts[s] for s in STAGES for _ in range(6)], seeds=[*range(6)] * 4, steps=50, guidance=1.5
    )
    image_grid(weights / "samples.png", [list(row) for row in sheet.split(6)], row_labels=STAGES)
    judged = judge_edits(pipeline, parts, train, test, prompts, extractor, run / "edits.png")

    distances = {"samples": nearest(made["saved"], train), "held-out slices": nearest(test, train)}
    memory = ["| | nearest | 1% | median |", "|---|---|---|---|"]
    for name, values in distances.items():
        memory.append(f"| {name} | {values.min():.1f} | {np.quantile(values, 0.01):.1f} | {np.median(values):.1f} |")
    copies = int((distances["samples"] < np.quantile(distances["held-out slices"], 0.01)).sum())

    pipeline.unet.half().save_pretrained(weights / "unet")
    shutil.copy(WEIGHTS / "tiny" / "model_index.json", weights / "model_index.json")
    if drift is not None:
        save_drift(weights, drift)
    facts: dict[str, Any] = json.loads((run / "run.json").read_text())
    former = read_model_card(model_folder(facts["base"]) or run)
    before = ""
    if former is not None:
        earlier = {"steps": former.steps, "template": former.template}
        card = dataclasses.replace(card, notes={**card.notes, "before": earlier})
        before = f", after {former.steps} steps under the prompt {former.template!r}"
    notes = dict(card.notes) | {"terms": "ODbL 1.0, Alzheimer's Dataset (4 class of images), derived from OASIS"}
    write_model_card(weights, dataclasses.replace(card, base="tiny", notes=notes))
    forget_paths(weights)
    (weights / "README.md").write_text(
        CARD.format(
            train=len(parts["train"]),
            steps=card.steps,
            batch=facts["training"]["batch_size"],
            minutes=card.notes["training_seconds"] / 60,
            drift=drift or "none",
            template=card.template,
            before=before,
            stages=", ".join(STAGES),
            n=128,
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


def judge_edits(
    pipeline: Any,
    parts: Any,
    train: torch.Tensor,
    test: torch.Tensor,
    prompts: dict[str, str],
    extractor: Any,
    figure: Path,
    count: int = 24,
    guidance: float = 3.0,
) -> dict[str, Any]:
    """Return how a judge trained on real slices sees edits from NonDemented to MildDemented.

    `figure` shows real slices: it stays with the run and is not shipped.
    """

    def labels(cohort: Cohort) -> np.ndarray:
        return np.array([{"NonDemented": 0, "MildDemented": 1}.get(str(v), -1) for v in cohort.values("stage")])

    y_train, y_test = labels(parts["train"]), labels(parts["test"])
    judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000, class_weight="balanced"))
    judge.fit(extractor(train[y_train >= 0]), y_train[y_train >= 0])
    real = judge.predict_proba(extractor(test[y_test >= 0]))[:, 1]
    auc = roc_auc_score(y_test[y_test >= 0], real)

    source = test[y_test == 0][:count]
    seen: dict[str, float] = {}
    rows = ["| images | judged MildDemented, mean probability | judged MildDemented, part |", "|---|---|---|"]
    before = [prompts["NonDemented"]] * len(source)
    results = {
        name: make_counterfactuals(pipeline, source, before, [prompts[stage]] * len(source), guidance=guidance)
        for name, stage in (("placebo edit", "NonDemented"), ("edited", "MildDemented"))
    }
    for name, images in (
        ("source", source),
        ("placebo edit", results["placebo edit"].counterfactual),
        ("edited", results["edited"].counterfactual),
        ("edited, with the round trip's loss put back", results["edited"].composed()),
    ):
        p = judge.predict_proba(extractor(images))[:, 1]
        seen[name] = float(p.mean())
        rows.append(f"| {name} | {p.mean():.3f} | {(p > 0.5).mean():.2f} |")
    edited = results["edited"]
    counterfactual_figure(
        figure,
        list(edited.source[:6]),
        list(edited.counterfactual[:6]),
        threshold=list(((edited.reconstruction - edited.source).abs().mean(1) / 2)[:6].numpy()),
        title="NonDemented → MildDemented",
    )
    return {
        "verdict": CONVINCED if seen["edited"] > seen["placebo edit"] + 0.05 else NOT_CONVINCED,
        "auc": auc,
        "edits": len(source),
        "guidance": guidance,
        "judge": "\n".join(rows),
        "psnr": float(edited.round_trip_psnr.mean()),
    }
