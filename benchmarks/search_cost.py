"""How few U-Net evaluations a search needs: Brent, golden section, Gaussian process and screening beside the grid.

    python -m benchmarks.search_cost --out search_cost.json

Simulated healthy brains are edited by the embedded model towards mild dementia, and δ is searched for the paper's
objective with a small network that is trained here to tell simulated CN from AD. Every method starts with nothing kept.
Bar: the grid's best objective within 1 %, with at most 40 % of the grid's U-Net evaluations, in every set of images.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from latentdrift.counterfactual import ObjectiveConfig, Screening, SearchConfig, open_editor
from latentdrift.counterfactual.rendering import EditRenderer, EditScore, Meter
from latentdrift.counterfactual.search import search
from latentdrift.data import PromptTemplate
from latentdrift.data.simulate import SimulatedSubject, render
from latentdrift.edit import Editing
from latentdrift.models import load_pipeline

COST, EXCESS = 0.4, 0.01
SIDE = 64


def brains(seeds: range, diagnosis: str, size: int) -> torch.Tensor:
    """Return simulated slices, (N, 3, size, size) in [-1, 1], of people of 60 to 84 years."""
    made = []
    for seed in seeds:
        age, sex = 60 + 3 * (seed % 9), "FM"[seed % 2]
        subject = SimulatedSubject(str(seed), seed, age, sex, diagnosis, strength=2.0 if diagnosis == "AD" else 1.0)
        made.append(torch.from_numpy(render(subject, size=size)) * 2 - 1)
    return torch.stack(made)[:, None].expand(-1, 3, -1, -1).contiguous()


def small(images: torch.Tensor) -> torch.Tensor:
    """Return images as the network sees them, (N, 1, SIDE, SIDE)."""
    return functional.interpolate(images.mean(1, keepdim=True), (SIDE, SIDE), mode="area")


def train_guide(count: int, size: int, seed: int = 0) -> tuple[Any, float]:
    """Return logits of CN and AD as a function of images, and the accuracy on as many others as a quarter of these."""
    torch.manual_seed(seed)
    total = count + count // 4
    images = torch.cat([brains(range(1000, 1000 + total), name, size) for name in ("CN", "AD")])
    classes = torch.arange(2).repeat_interleave(total)
    held = torch.arange(2 * total) % total >= count
    network = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 5, 2, 2), torch.nn.ReLU(), torch.nn.Conv2d(8, 16, 5, 2, 2), torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3, 2, 1), torch.nn.ReLU(),
        torch.nn.Flatten(), torch.nn.Linear(16 * (SIDE // 8) ** 2, 2),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    seen = small(images)
    for _ in range(150):
        rows = torch.nonzero(~held)[:, 0][torch.randint(int((~held).sum()), (32,))]
        noisy = seen[rows] + 0.05 * torch.randn_like(seen[rows])
        loss = functional.cross_entropy(network(noisy), classes[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.requires_grad_(False)
    accuracy = float((network(seen[held]).argmax(1) == classes[held]).float().mean())
    return (lambda batch: network(small(batch))), accuracy


def settings_of(name: str, args: argparse.Namespace) -> SearchConfig:
    """Return how a method searches; screening is Brent's after a ranking with few steps."""
    method: Any = name.partition("+")[0]
    return SearchConfig(method, points=args.points, evaluations=args.evaluations)


def measure(name: str, request: Editing, score: EditScore, args: argparse.Namespace) -> dict[str, Any]:
    """Return what one search found and took; nothing is kept from another."""
    meter, editor = Meter(), open_editor("prompt_swap")
    rendered = EditRenderer(editor, request, meter=meter)
    cheap = None
    if "+" in name:
        import dataclasses

        few = dataclasses.replace(request, steps=args.screen_steps)
        cheap = Screening(EditRenderer(editor, few, meter=meter, memory=rendered.memory), f"{args.screen_steps} steps")
    began = time.perf_counter()
    found = search(rendered, score, {"delta": (args.low, args.high)}, settings_of(name, args), screening=cheap)
    return {
        "method": name,
        "delta": found.best.parameters["delta"],
        "objective": found.best.objective,
        "without_drift": found.control.objective,
        "trials": found.evaluations,
        "screened": found.screenings,
        "unet_evaluations": meter.made,
        "spared_inversions": meter.spared,
        "seconds": time.perf_counter() - began,
        "curve": [[trial.parameters["delta"], trial.objective] for trial in found.trials],
    }


def compare(rows: list[dict[str, Any]]) -> None:
    """Add to every row its cost and excess over the grid's, the first."""
    grid = rows[0]
    for row in rows:
        row["cost"] = row["unet_evaluations"] / grid["unet_evaluations"]
        row["excess"] = (row["objective"] - grid["objective"]) / abs(grid["objective"])
        row["within"] = bool(row["cost"] <= COST and row["excess"] <= EXCESS)
    # What as many calls of the whole edit, each with its own inversion, would take.
    grid["cost_of_plain_calls"] = 1 + grid["spared_inversions"] / grid["unet_evaluations"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny-brain")
    parser.add_argument("--sets", type=int, default=2, help="sets of images, each searched by every method")
    parser.add_argument("--images", type=int, default=3, help="images a set")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--weight", type=float, default=0.1, help="λ")
    parser.add_argument("--points", type=int, default=41, help="of the grid")
    parser.add_argument("--evaluations", type=int, default=16, help="most trials of the other methods")
    parser.add_argument("--screen-steps", type=int, default=3)
    parser.add_argument("--low", type=float, default=-0.2)
    parser.add_argument("--high", type=float, default=0.2)
    parser.add_argument("--train", type=int, default=40, help="images a class that the guide is trained on")
    parser.add_argument("--methods", nargs="+", default=["brent", "golden", "optuna", "brent+screening"])
    parser.add_argument("--out", type=Path, default=Path("search_cost.json"))
    args = parser.parse_args()
    began = time.perf_counter()
    pipeline = load_pipeline(args.model, device="cpu")
    card = pipeline.latentdrift_card
    caption = PromptTemplate.restore(card.template).caption
    guide, accuracy = train_guide(args.train, card.size)
    print(f"guide: {100 * accuracy:.0f} % right on held-out simulated brains")
    result: dict[str, Any] = {
        "settings": {name: str(value) for name, value in vars(args).items() if name != "out"},
        "guide_accuracy": accuracy,
        "bars": {"cost": COST, "excess": EXCESS},
        "threads": torch.get_num_threads(),
        "sets": [],
    }
    for number in range(args.sets):
        images = brains(range(number * args.images, (number + 1) * args.images), "CN", card.size)
        before, after = (caption({"stage": stage}) for stage in ("NonDemented", "MildDemented"))
        count = len(images)
        request = Editing(
            pipeline, images, [before] * count, [after] * count, args.steps, args.guidance, reconstruct=False
        )
        score = EditScore(images, guide, [1] * count, ObjectiveConfig(weight=args.weight))
        rows = [measure(name, request, score, args) for name in ["grid", *args.methods]]
        compare(rows)
        result["sets"].append(rows)
        print(f"\nset {number + 1}, {count} images, {args.steps} steps; no drift {rows[0]['without_drift']:.4f}")
        print(f"{'':18}{'δ':>9}{'objective':>11}{'excess':>9}{'trials':>8}{'U-Net':>8}{'cost':>7}{'seconds':>9}")
        for row in rows:
            print(
                f"{row['method']:18}{row['delta']:9.4f}{row['objective']:11.4f}{100 * row['excess']:8.2f}%"
                f"{row['trials'] + row['screened']:8}{row['unet_evaluations']:8}{100 * row['cost']:6.0f}%"
                f"{row['seconds']:9.1f}"
            )
    names = args.methods
    result["within"] = {name: all(row["within"] for rows in result["sets"] for row in rows if row["method"] == name)
                        for name in names}  # fmt: skip
    result["cost"] = {
        name: float(np.mean([row["cost"] for rows in result["sets"] for row in rows if row["method"] == name]))
        for name in names
    }
    result["seconds"] = time.perf_counter() - began
    print(f"\nwithin {100 * EXCESS:.0f} % of the grid's best for at most {100 * COST:.0f} % of its U-Net evaluations:")
    for name in names:
        print(f"  {name:18}{'yes' if result['within'][name] else 'no':5}{100 * result['cost'][name]:.0f} % of the cost")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
