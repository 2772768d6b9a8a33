"""Every fine-tuning method on real scans, with and without drift: the rows of the paper's Table 1, in short runs.

    python -m benchmarks.methods_on_scans --data FOLDER --template "an MRI of a {stage} brain" --balance stage \\
        --name brain --out runs/methods

Each method is fine-tuned on the same training part and samples the same held-out captions under the same seeds;
InstructPix2Pix edits held-out images, and is compared with what they should have become. Where a cohort has no pairs,
`--pairs-from MODEL` makes them: real training images, and their counterfactuals under the other classes by that model.
Distances are to held-out real images. What is finished is kept, so the command can be given again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.edited_pairs import write_pairs
from latentdrift import Cohort, PromptTemplate, finetune_model, generate_images, load_pipeline
from latentdrift.data import ImageTransform, edit_pairs
from latentdrift.errors import DataError
from latentdrift.evaluate import evaluate_sets, load_extractor
from latentdrift.finetune import TrainingConfig, finetune_method
from latentdrift.generate import edit_by_instruction
from latentdrift.report import image_grid

FRACTIONS = {"train": 0.6, "validation": 0.05, "test": 0.35}
"""A third is held out: a distance to a few dozen images would say little."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="cohort")
    parser.add_argument("--template", required=True, help="caption template")
    parser.add_argument("--balance", required=True, help="the class attribute")
    parser.add_argument("--only", nargs="+", default=None, help="values of the class to keep; all by default")
    parser.add_argument("--columns", nargs="*", default=None, help="attributes to read; all by default")
    parser.add_argument("--modality", default="mri", choices=["mri", "xray"])
    parser.add_argument("--pairs-from", default=None, help="model whose counterfactuals InstructPix2Pix learns from")
    parser.add_argument("--pairs", type=int, default=160, help="images that it edits for that")
    parser.add_argument("--name", required=True, help="what to call the data in the table")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--images", type=int, default=720, help="images drawn from the cohort; 0 for all")
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--samples", type=int, default=192)
    parser.add_argument("--sampling-steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=1.5)
    parser.add_argument("--mixed-precision", default="bf16", choices=["no", "bf16", "fp16"])
    parser.add_argument("--methods", nargs="+", default=None)
    parser.add_argument("--drifts", nargs="+", default=["none", "auto"])
    return parser.parse_args()


def open_cohort(args: argparse.Namespace) -> Cohort:
    """Return the images to work on: of the wanted classes, and not more than asked for."""
    cohort = Cohort.open(args.data, label=args.balance, columns=args.columns)
    if args.only:
        cohort = cohort.where(**{args.balance: args.only})
    return cohort.take(args.images, seed=0) if 0 < args.images < len(cohort) else cohort


def train(args: argparse.Namespace, method: str, drift: str, cohort: Cohort) -> tuple[Path, float]:
    """Fine-tune, or find it done; return the model and the seconds this took."""
    options: dict[str, Any] = {}
    if method == "instruct_pix2pix":
        options = {"modality": args.modality, "min_years": 0.0, "both_ways": not args.pairs_from}
    config = TrainingConfig(
        steps=args.steps,
        batch_size=args.batch_size,
        balance=None if method == "instruct_pix2pix" else args.balance,
        # A class with a few dozen images is not repeated until it is known by heart.
        balance_strength=0.5,
        sample_steps=args.sampling_steps,
        validate_every=0,
        mixed_precision=args.mixed_precision,
    )
    began = time.monotonic()
    model = finetune_model(
        cohort,
        args.out / args.name / f"{method}-{drift}",
        base=args.base,
        method=method,
        drift=drift,
        # Instructions take the place of captions, and pairs may lack what the template needs.
        template=None if method == "instruct_pix2pix" else args.template,
        config=config,
        method_config=finetune_method.get(method).config_class(**options),
        fractions=FRACTIONS,
        cache=args.out / "latents",
    )
    return model, time.monotonic() - began


def sample(args: argparse.Namespace, model: Path, test: Cohort) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images of the held-out captions, and the held-out images: (N, 3, H, W), (M, 3, H, W)."""
    pipeline = load_pipeline(model)
    card = pipeline.latentdrift_card
    transform = ImageTransform(size=card.size)
    if card.method == "instruct_pix2pix":
        pairs = edit_pairs(test, min_years=0.0, both_ways=not args.pairs_from, modality=args.modality)
        pairs = pairs[: args.samples]
        before, after = (
            torch.stack([transform.read(record.image) for record in records])
            for records in ([pair.source for pair in pairs], [pair.target for pair in pairs])
        )
        made = edit_by_instruction(
            pipeline,
            before,
            [pair.instruction for pair in pairs],
            seeds=list(range(len(pairs))),
            steps=args.sampling_steps,
            batch_size=32,
        )
        return made, after
    real = torch.stack([transform.read(record.image) for record in test])
    prompts = PromptTemplate.restore(card.template)
    captions = [prompts.caption(test[index % len(test)]) for index in range(args.samples)]
    made = generate_images(
        pipeline,
        captions,
        seeds=list(range(args.samples)),
        steps=args.sampling_steps,
        guidance=args.guidance,
        batch_size=32,
    )
    return made, real


def main() -> None:
    args = parse_arguments()
    cohort = open_cohort(args)
    parts = cohort.split(FRACTIONS, seed=0)
    extractor = load_extractor("efficientnet-lite0")
    file = args.out / f"{args.name}.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text())["rows"] if file.exists() else []
    done = {(row["method"], row["drift"]) for row in rows}
    strips: dict[str, list[torch.Tensor]] = {}
    for method in args.methods or finetune_method.names():
        own, test = cohort, parts["test"]
        if method == "instruct_pix2pix":
            own = (
                write_pairs(
                    cohort.take(min(args.pairs, len(cohort)), seed=1),
                    args.pairs_from,
                    args.balance,
                    args.out / f"{args.name}-pairs",
                )
                if args.pairs_from
                # Pairs go from class to class, so all classes are needed, and every visit.
                else Cohort.open(args.data, label=args.balance, columns=args.columns)
            )
            test = own.split(FRACTIONS, seed=0)["test"]
        for drift in args.drifts:
            if (method, drift) in done:
                continue
            try:
                model, seconds = train(args, method, drift, own)
                made, real = sample(args, model, test)
            except DataError as error:
                print(f"{method}, {drift}: {error}", flush=True)
                continue
            # As `latentdrift generate` writes them: gray, if all training images were.
            gray = made.mean(1, keepdim=True).expand_as(made) if cohort.is_gray(64) else made
            found, raw = evaluate_sets(real, gray, extractor), evaluate_sets(real, made, extractor, resamples=0)
            row = {"method": method, "drift": drift, "seconds": round(seconds, 1), **found.to_dict()}
            row["as_decoded"] = {"fid": raw.fid, "kid": raw.kid, "tint": raw.tint_synthetic}
            rows.append(row)
            print(json.dumps(row), flush=True)
            settings = {key: str(value) for key, value in vars(args).items() if key not in ("data", "out")}
            counts = {name: len(part) for name, part in parts.items()}
            facts = {"settings": settings, "images": counts, "threads": torch.get_num_threads(), "rows": rows}
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps(facts, indent=2) + "\n")
            strips[f"{method}, {drift}"] = list(made[:8])
    if strips:
        shown = ImageTransform(size=next(iter(strips.values()))[0].shape[-1])
        strips["real"] = [shown.read(record.image) for record in parts["test"][:8]]
        image_grid(args.out / f"{args.name}.png", list(strips.values()), row_labels=list(strips))
    print(markdown(rows))


def markdown(rows: list[dict[str, Any]]) -> str:
    """Return the table: Fréchet distance with its interval, kernel distance x 1000, background from 0 to 255."""
    lines = ["| method | drift | Fréchet (95 %) | KID × 1000 | background |", "|---|---|---|---|---|"]
    for row in rows:
        low, high = row["fid_interval"]
        lines.append(
            f"| `{row['method']}` | {row['drift']} | {row['fid']:.0f} ({low:.0f} to {high:.0f}) | "
            f"{row['kid'] * 1000:.0f} | {row['background_synthetic']:.0f} (real: {row['background_real']:.0f}) |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
