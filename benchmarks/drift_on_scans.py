"""What the drift does on real scans: fine-tune `tiny` briefly, sample under many drifts, compare with held-out scans.

    python benchmarks/drift_on_scans.py --data FOLDER --attribute stage --out runs/drift-on-scans

Two models are fine-tuned: without drift, and under rule `forward` with the automatic map. All variants of `start` use
the first one's weights; all variants share their noise and prompts. Distances are to held-out scans, and to the same
scans after the autoencoder (its blur is in every sample). What is finished is kept, so the command can be given again.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from latentdrift import (
    Cohort,
    LatentDrift,
    LatentMoments,
    PromptTemplate,
    finetune_model,
    generate_images,
    load_pipeline,
)
from latentdrift.data import ImageTransform
from latentdrift.drift import remove
from latentdrift.evaluate import corner_background, frechet_distance, kernel_distance, load_extractor, tint
from latentdrift.finetune import TrainingConfig
from latentdrift.generate import decode_latents, encode_images
from latentdrift.report import image_grid


def coverage(real: np.ndarray, made: np.ndarray, neighbours: int = 5) -> float:
    """Return the part of real images that have a sample nearer than their own k-th neighbour (arXiv 2002.09797)."""
    among = torch.cdist(torch.from_numpy(real), torch.from_numpy(real)).sort(1).values[:, neighbours]
    nearest = torch.cdist(torch.from_numpy(real), torch.from_numpy(made)).min(1).values
    return float((nearest < among).float().mean())


def spread(features: np.ndarray) -> float:
    """Return the mean distance of two samples' features: how different the samples are from each other."""
    return float(torch.pdist(torch.from_numpy(features)).mean())


def variants(latents: torch.Tensor) -> dict[str, LatentDrift | None]:
    """Return what is sampled from the model trained without drift."""
    found: dict[str, LatentDrift | None] = {"none": None}
    for kind in ("scalar", "vector", "map"):
        found[f"start, auto-{kind}"] = LatentDrift(LatentMoments.from_latents(latents, kind=kind), rule="start")
    for value in (-0.1, 0.05, 0.1):
        found[f"start, {value:+}"] = LatentDrift(value, rule="start")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--attribute", required=True, help="the attribute that is put into prompts and balanced")
    parser.add_argument("--template", default=None, help="caption template; names the attribute")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--base", default="tiny")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--learning-rate", type=float, default=4e-4)
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--sampling-steps", type=int, default=25)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--cache", type=Path, default=None)
    parser.add_argument("--label", default=None)
    args = parser.parse_args()
    template = args.template or "a scan, {" + args.attribute + "}"

    cohort = Cohort.open(args.data, label=args.label)
    config = TrainingConfig(
        steps=args.steps, learning_rate=args.learning_rate, balance=args.attribute, sample_steps=args.sampling_steps
    )
    models, seconds = {}, {}
    for name, drift, rule in (("none", "none", "start"), ("forward", "auto-map", "forward")):
        began = time.monotonic()
        models[name] = finetune_model(
            cohort,
            args.out / name,
            base=args.base,
            drift=drift,
            rule=rule,
            template=template,
            config=config,
            cache=args.cache,
        )
        seconds[name] = round(time.monotonic() - began, 1)
        print(f"{name}: {models[name]} after {seconds[name]} s", flush=True)

    parts = cohort.split({"train": 0.8, "validation": 0.1, "test": 0.1}, seed=config.seed)
    transform, prompts = ImageTransform(size=128), PromptTemplate(template)
    real = torch.stack([transform.read(record.image) for record in parts["test"]])
    captions = [prompts.caption(record) for record in parts["test"]]
    captions = [captions[i % len(captions)] for i in range(args.samples)]
    pipeline = load_pipeline(models["none"])
    train = parts["train"].take(512, seed=0)
    latents = encode_images(pipeline, torch.stack([transform.read(record.image) for record in train]))
    extractor = load_extractor("efficientnet-lite0")
    rebuilt = decode_latents(pipeline, encode_images(pipeline, real))
    features = {"real": extractor(real), "rebuilt": extractor(rebuilt)}
    result: dict[str, Any] = {
        "command": {key: str(value) for key, value in vars(args).items() if key not in ("data", "out", "cache")},
        "seconds": seconds,
        "threads": torch.get_num_threads(),
        "extractor": extractor.name,
        "real": {
            "n": len(real),
            "background": corner_background(real),
            "frechet_of_reconstructions": frechet_distance(features["real"], features["rebuilt"]),
            "spread": spread(features["rebuilt"]),
            "mean_latent": [round(v, 3) for v in latents.mean((0, 2, 3)).tolist()],
        },
        "rows": [],
    }
    file = args.out / "drift_on_scans.json"
    if file.exists():
        result["rows"] = json.loads(file.read_text())["rows"]
    done = {(row["variant"], row["seed"]) for row in result["rows"]}
    forward = load_pipeline(models["forward"])
    forward.scheduler = remove(forward.scheduler)
    strips = {}
    for seed in args.seeds:
        for name, drift in [*variants(latents).items(), ("forward, auto-map (in training)", None)]:
            if (name, seed) in done:
                continue
            model = forward if name.startswith("forward") else pipeline
            model.scheduler = remove(model.scheduler)
            if drift is not None:
                drift.attach(model)
            seeds = range(seed * 100_000, seed * 100_000 + args.samples)
            images = generate_images(
                model, captions, seeds=list(seeds), steps=args.sampling_steps, guidance=1.0, batch_size=32
            )
            found = extractor(images)
            result["rows"].append(
                {
                    "variant": name,
                    "seed": seed,
                    "frechet": frechet_distance(features["real"], found),
                    "frechet_to_reconstructions": frechet_distance(features["rebuilt"], found),
                    "kid_x1000": kernel_distance(features["real"], found).value * 1000,
                    "kid_x1000_to_reconstructions": kernel_distance(features["rebuilt"], found).value * 1000,
                    "background": corner_background(images),
                    "tint": tint(images),
                    "coverage": coverage(features["rebuilt"], found),
                    "spread": spread(found),
                }
            )
            print(json.dumps(result["rows"][-1]), flush=True)
            file.write_text(json.dumps(result, indent=2) + "\n")
            strips[name] = list(images[:8])
    if strips:
        image_grid(args.out / "strips.png", list(strips.values()), row_labels=list(strips))
    print(markdown(result))


def markdown(result: dict[str, Any]) -> str:
    """Return the table of a result, mean over seeds."""
    names = list(dict.fromkeys(row["variant"] for row in result["rows"]))
    columns = [key for key in result["rows"][0] if key not in ("variant", "seed")]
    lines = ["| drift | " + " | ".join(columns) + " |", "|" + "---|" * (len(columns) + 1)]
    for name in names:
        rows = [row for row in result["rows"] if row["variant"] == name]
        cells = [f"{np.mean([row[c] for row in rows]):.{2 if c in ('coverage', 'tint') else 1}f}" for c in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
