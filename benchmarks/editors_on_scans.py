"""Every editor on held-out images, with and without drift: does the judge agree, and does the rest stay as it was?

    python -m benchmarks.editors_on_scans --data FOLDER --attribute stage --values NonDemented MildDemented \\
        --template "an MRI of a {stage} brain" --name brain --out runs/editors

The cohort is divided by subject. The training part trains the models, one without drift and one under the automatic
drift of rule `forward`; one half of its subjects trains the guide, the other the judge. Of the test part, which none of
them has seen, `--count` images of each class are edited into the other. `--data simulated` simulates a cohort whose
true counterfactuals are known.

Everything that is finished is kept, so the command can be given again, and several processes can share the work by
`--editors` or `--drifts`.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import functools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.edited_pairs import write_pairs
from latentdrift import Cohort, PromptTemplate, finetune_model, load_pipeline, make_counterfactuals
from latentdrift.counterfactual import ObjectiveConfig
from latentdrift.counterfactual.guidance import image_objective
from latentdrift.data import ImageTransform, edit_pairs
from latentdrift.data.simulate import simulate_cohort, true_counterfactual
from latentdrift.edit import EditResult
from latentdrift.evaluate import kernel_distance, load_extractor
from latentdrift.evaluate.auc import classifier_figures
from latentdrift.evaluate.counterfactuals import Estimate, errors_against_truth, identity
from latentdrift.evaluate.evidence import edit_evidence
from latentdrift.finetune import TrainingConfig, finetune_method
from latentdrift.models.classifier import Classifier, ClassifierConfig, load_classifier, train_classifier
from latentdrift.report import counterfactual_figure

Figures = dict[str, Any]

FRACTIONS = {"train": 0.75, "validation": 0.05, "test": 0.2}
"""As `training.brain` divides its slices, so that the test part is held out from `tiny-brain` too."""
EDITORS: dict[str, dict[str, Any]] = {
    "prompt_swap": {"guidance": 3.0},
    "sdedit": {"guidance": 5.0, "strength": 0.5},
    "pix2pix_zero": {"guidance": 3.0},
    "classifier_guided": {"guidance": 1.0, "config": {"begin": 0.34, "scale": 1.0}},
    "instruct_pix2pix": {"guidance": 5.0},
}
"""Settings of each editor, the same with and without drift, on every cohort."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="cohort, or the word simulated")
    parser.add_argument("--attribute", required=True, help="the class")
    parser.add_argument("--values", nargs=2, required=True, help="two of its values; each is edited into the other")
    parser.add_argument("--template", required=True, help="caption template")
    parser.add_argument("--modality", default="mri", choices=["mri", "xray"])
    parser.add_argument("--name", required=True, help="what to call the data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="tiny", help="what is fine-tuned")
    parser.add_argument("--steps", type=int, default=600, help="of fine-tuning")
    parser.add_argument("--instruct-steps", type=int, default=300, help="of fine-tuning instruct_pix2pix")
    parser.add_argument("--network", default="efficientnet-lite0", help="of guide and judge")
    parser.add_argument("--guide-network", default="small", help="of the guide that classifier_guided follows")
    parser.add_argument("--guide-epochs", type=int, default=20, help="of training that guide")
    parser.add_argument("--epochs", type=int, default=8, help="of training guide and judge")
    parser.add_argument("--pairs", type=int, default=200, help="made by the first model where a cohort has no visits")
    parser.add_argument("--visits", action="store_true", help="train instruct_pix2pix on the cohort's own visits")
    parser.add_argument("--subjects", type=int, default=900, help="simulated")
    parser.add_argument("--count", type=int, default=64, help="images of each class that are edited")
    parser.add_argument("--edit-steps", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--mixed-precision", default="bf16", choices=["no", "bf16", "fp16"], help="of training")
    parser.add_argument("--editors", nargs="*", default=list(EDITORS), choices=list(EDITORS))
    parser.add_argument("--drifts", nargs="*", default=["none", "auto"])
    parser.add_argument("--classifiers", nargs="*", default=["guide", "judge"], help="to train, if they are not yet")
    return parser.parse_args()


@dataclass(frozen=True, eq=False)
class Study:
    """The images and the parts of one cohort."""

    args: argparse.Namespace
    cohort: Cohort
    parts: dict[str, Cohort]

    @property
    def folder(self) -> Path:
        return Path(self.args.out) / str(self.args.name)

    def model(self, drift: str, *, instruct: bool = False) -> Path:
        """Fine-tune, or find it done."""
        args = self.args
        cohort, options, template = self.parts["train"], {}, args.template
        if instruct:
            cohort, template = self.pairs(), None
            # A table of pairs holds both directions already.
            options = {"modality": args.modality, "min_years": 0.0, "both_ways": cohort is self.parts["train"]}
        method = "instruct_pix2pix" if instruct else "basic"
        return finetune_model(
            cohort,
            self.folder / f"{method}-{drift}",
            base=args.base,
            method=method,
            drift=drift,
            rule="forward",
            template=template,
            config=TrainingConfig(
                steps=args.instruct_steps if instruct else args.steps,
                balance=None if instruct else args.attribute,
                balance_strength=0.5,
                validate_every=0,
                sample_steps=args.edit_steps,
                mixed_precision=args.mixed_precision,
            ),
            method_config=finetune_method.get(method).config_class(**options),
            fractions={"train": 0.95, "validation": 0.05},
            cache=self.folder / "latents",
        )

    def pairs(self) -> Cohort:
        """Return what instruct_pix2pix is trained on: visits, the simulator's truth, or what the plain model makes."""
        if self.args.visits or self.args.data == "simulated":
            return self.parts["train"]
        train = self.parts["train"]
        taken = train.take(min(self.args.pairs, len(train)), seed=1)
        return write_pairs(taken, str(self.model("none")), self.args.attribute, self.folder / "pairs")

    def other(self, value: str) -> str:
        """Return the class that is not this one."""
        first, second = self.args.values
        return str(second if value == first else first)

    @functools.cache  # noqa: B019 - one study a process
    def features(self, cohort: Cohort) -> Any:
        """Return the features of real images, (N, d)."""
        return load_extractor("efficientnet-lite0")(read(cohort, 128))

    def write_split(self) -> Path:
        """Write down who is in which part."""
        path = self.folder / "split.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", newline="", encoding="utf-8") as file:
            rows = [(record.key, part) for part, cohort in self.parts.items() for record in cohort]
            csv.writer(file).writerows([("file_name", "part"), *rows])
        return path

    def guide_of(self, editor: str) -> Classifier:
        """Return the guide; for an editor that follows it, one of another architecture than the judge.

        Networks that are alike are convinced by the same grain.
        """
        follows = editor == "classifier_guided"
        return self.classifier("guide", self.args.guide_network) if follows else self.classifier("guide")

    def classifier(self, role: Literal["guide", "judge"], network: str | None = None) -> Classifier:
        """Train a classifier, or find it done."""
        folder = self.folder / (f"{role}-{network}" if network else role)
        if not folder.exists():
            train_classifier(
                self.cohort,
                folder,
                ClassifierConfig(
                    attribute=self.args.attribute,
                    classes=tuple(self.args.values),
                    role=role,
                    network=network or self.args.network,
                    learning_rate=3e-4,
                    epochs=self.args.guide_epochs if network else self.args.epochs,
                    patience=4,
                ),
                split=self.write_split(),
                autoencoder=self.args.base,
                measure=lambda *found, **more: classifier_figures(*found, **more).to_dict(),
            )
        return load_classifier(folder)


def open_study(args: argparse.Namespace) -> Study:
    """Return the images of both classes, divided by subject."""
    if args.data == "simulated":
        folder = args.out / "simulated-cohort"
        if not (folder / "simulation.json").exists():
            simulate_cohort(folder, args.subjects, seed=11, truth=True)
        cohort = Cohort.open(folder, label=args.attribute)
    else:
        cohort = Cohort.open(args.data, label=args.attribute, missing="keep")
    parts = cohort.split(FRACTIONS, seed=0)
    name, values = args.attribute, args.values
    return Study(
        args, labelled(cohort, name, values), {key: labelled(part, name, values) for key, part in parts.items()}
    )


def labelled(cohort: Cohort, name: str, values: list[str]) -> Cohort:
    """Return the images of either class; of several findings, `Effusion|Pneumonia`, the one among them counts."""
    records = []
    for record in cohort:
        found = [value for value in values if value in str(record.attributes.get(name)).split("|")]
        if len(found) == 1:
            records.append(dataclasses.replace(record, attributes={**record.attributes, name: found[0]}))
    return Cohort(records, cohort.root, cohort.name, name)


def directions(study: Study) -> Iterator[tuple[str, Cohort]]:
    """Yield each class and its held-out images."""
    for source in study.args.values:
        held_out = study.parts["test"].where(**{study.args.attribute: source})
        yield source, held_out.take(min(study.args.count, len(held_out)), seed=0)


def read(cohort: Cohort, size: int) -> torch.Tensor:
    """Return images (N, 3, H, W) in [-1, 1]."""
    transform = ImageTransform(size=size)
    return torch.stack([transform.read(record.image) for record in cohort])


def instructions(study: Study, source: str, target: str, count: int) -> list[str]:
    """Return the words in which the model learned this edit, one an image."""
    if study.args.visits or study.args.data == "simulated":
        found = edit_pairs(study.parts["train"], min_years=0.0, both_ways=True, modality=study.args.modality)
    else:
        found = edit_pairs(study.pairs(), modality=study.args.modality)
    name = study.args.attribute
    words = sorted(
        {
            pair.instruction
            for pair in found
            if str(pair.target.attributes.get(name)) == target
            and str(pair.source.attributes.get(name, source)) == source
        }
    )
    return [words[index % len(words)] for index in range(count)]


def edit(study: Study, editor: str, drift: str, source: str, target: str, held_out: Cohort) -> EditResult:
    """Edit the held-out images."""
    args = study.args
    pipeline = load_pipeline(study.model(drift, instruct=editor == "instruct_pix2pix"))
    images = read(held_out, pipeline.latentdrift_card.size)
    captions = PromptTemplate(args.template)
    before = [captions.caption(record) for record in held_out]
    after = [captions.caption({**record.attributes, args.attribute: target}) for record in held_out]
    if editor == "instruct_pix2pix":
        before, after = [], instructions(study, source, target, len(held_out))
    objective = None
    if editor == "classifier_guided":
        guide = study.guide_of(editor)
        objective = image_objective(guide, [guide.index(target)] * len(images), images, ObjectiveConfig())
    options = dict(EDITORS[editor])
    return make_counterfactuals(
        pipeline,
        images,
        before,
        after,
        editor=editor,
        editor_config=options.pop("config", None),
        steps=args.edit_steps,
        objective=objective,
        batch_size=args.batch_size,
        **options,
    )


def judge(
    study: Study, guide: Classifier, result: EditResult, placebo: EditResult | None, source: str, held_out: Cohort
) -> Figures:
    """Return what guide and judge say of edits into the other class, and how alike they are; a figure by name."""
    name, target = study.args.attribute, study.other(source)
    found = edit_evidence(
        result,
        sources=[{**record.attributes, name: source} for record in held_out],
        targets=[{**record.attributes, name: target} for record in held_out],
        guide=guide,
        judges=[study.classifier("judge")],
        subjects=subjects_of(held_out),
        placebo=placebo,
    )
    extractor, gallery = load_extractor("efficientnet-lite0"), study.parts["test"]
    real, made = study.features(gallery), extractor(result.image)
    # The source itself is in the gallery: of most people there is no other image.
    whose = identity(made, subjects_of(held_out), real, subjects_of(gallery))
    wanted = np.array([record.attributes[name] == target for record in gallery])
    figures: Figures = {
        **found.summary,
        "identity": {**as_figure(whose.rate), "chance": whose.chance},
        "kernel_distance_to_wanted_class": float(kernel_distance(made, real[wanted]).value),
        "kernel_distance_of_sources": float(kernel_distance(study.features(held_out), real[wanted]).value),
    }
    if study.args.data == "simulated":
        truth = torch.stack(
            [
                torch.from_numpy(true_counterfactual(study.cohort.root, record, target)).expand(3, -1, -1) * 2 - 1
                for record in held_out
            ]
        )
        errors = errors_against_truth(result.source, result.image, truth, subjects_of(held_out))
        names = [field.name for field in dataclasses.fields(errors) if field.name != "per_image"]
        figures["truth"] = {key: as_figure(getattr(errors, key)) for key in names}
    return figures


def as_figure(estimate: Estimate) -> dict[str, float]:
    """Return an estimate as JSON has it."""
    low, high = estimate.interval
    return {"value": estimate.value, "low": low, "high": high, "n": estimate.n}


def subjects_of(cohort: Cohort) -> list[str]:
    """Return whose image each is."""
    return [record.subject or record.key for record in cohort]


def measure(study: Study, editor: str, drift: str, source: str, held_out: Cohort) -> dict[str, Any]:
    """Edit the images of one class into the other, and return the figures of the direction.

    `as_made` are those of the images that come out. `composed` are those of the sources plus what the edit changed in
    comparison with the reconstruction, so that the blur of autoencoder and inversion is neither change nor evidence.
    """
    began = time.monotonic()
    result = edit(study, editor, drift, source, study.other(source), held_out)
    guide = study.guide_of(editor)
    row: dict[str, Any] = {"source": source, "target": study.other(source), "images": len(held_out)}
    row["seconds_an_image"] = (time.monotonic() - began) / len(held_out)
    row["as_made"] = judge(study, guide, result, None, source, held_out)
    if result.reconstruction is not None:
        composed = dataclasses.replace(result, image=result.composed())
        untouched = dataclasses.replace(result, image=result.source)
        row["composed"] = judge(study, guide, composed, untouched, source, held_out)
    shown = result.image if result.reconstruction is None else result.composed()
    counterfactual_figure(
        study.folder / f"{editor}-{drift}-{study.other(source).replace(' ', '-')}.png",
        list(result.source[:6]),
        list(shown[:6]),
        title=f"{editor}, drift {drift}: {source} → {study.other(source)}",
    )
    return row


def main() -> None:
    args = parse_arguments()
    study = open_study(args)
    print({name: len(part) for name, part in study.parts.items()}, flush=True)
    for role in args.classifiers:
        study.classifier(role)
    study.folder.mkdir(parents=True, exist_ok=True)
    for drift in args.drifts:
        for editor in args.editors:
            file = study.folder / f"{editor}-{drift}.json"
            if file.exists():
                continue
            began = time.monotonic()
            study.model(drift, instruct=editor == "instruct_pix2pix")
            trained = time.monotonic() - began
            rows = [measure(study, editor, drift, source, held_out) for source, held_out in directions(study)]
            record = {"editor": editor, "drift": drift, "training_seconds": round(trained, 1), "rows": rows}
            partial = file.with_suffix(".partial")
            partial.write_text(json.dumps(record, indent=2, default=str) + "\n")
            partial.replace(file)
            print(f"{editor}, {drift}: done", flush=True)
    write_summary(study)


def write_summary(study: Study) -> None:
    """Write all cells into one file, with what is known of the classifiers."""
    cells = [json.loads(file.read_text()) for file in sorted(study.folder.glob("*-*.json"))]
    settings = {key: str(value) for key, value in vars(study.args).items() if key not in ("data", "out")}
    facts = {
        "settings": settings | {"data": "simulated" if study.args.data == "simulated" else study.cohort.name},
        "editors": EDITORS,
        "images": {name: len(part) for name, part in study.parts.items()},
        "threads": torch.get_num_threads(),
        "cells": cells,
    }
    for role in ("guide", f"guide-{study.args.guide_network}", "judge"):
        card = study.folder / role / "classifier.json"
        if card.exists():
            told = json.loads(card.read_text())
            facts[role] = {key: value for key, value in told.items() if "hash" not in key and key != "trained_on"}
    path = Path(study.args.out) / f"editors-{study.args.name}.json"
    path.write_text(json.dumps(facts, indent=2) + "\n")
    print(f"{len(cells)} cells in {path}")


if __name__ == "__main__":
    main()
