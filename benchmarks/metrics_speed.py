"""Fréchet and kernel distance from features, beside torchmetrics and torch-fidelity on the same features.

`python -m benchmarks.metrics_speed --out metrics.json`. Every case is run in turns; the ratio is that of the medians of
processor time, which leaves out what other programs took, and must reach its bar. Values must agree too.

The figure `whole` is an evaluation of 2 x n image files, from reading them to the last interval: which part of the
processor time is the feature network's, and what a second call costs that finds the features kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.stopwatch import lap
from latentdrift.evaluate.distribution import frechet_distance, kernel_distance

BARS = {("frechet", 200): 100.0, ("frechet", 1000): 10.0, ("kernel", 1000): 5.0}
"""How many times faster, at least, with 2,048 dimensions."""
AGREEMENT = {"frechet": 1e-6, "kernel": 1e-6}
"""Relative, with torch-fidelity; torchmetrics draws other subsets, so that its kernel distance is another number."""
SUBSETS = 100
SHARE = 0.9
"""Of a whole evaluation's processor time, at least, that is the feature network's, with 1,000 images or more a set."""


class Given(torch.nn.Module):
    """Stands for the feature network where features are there already."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.num_features = dim

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Return features (n, d) float32 as a pooled network gives them: not negative, correlated, of uneven variance."""
    mixing = np.random.default_rng(0).normal(size=(d, d)) * np.exp(-np.arange(d) / (d / 6))[:, None]
    draw = np.random.default_rng(seed).normal(size=(n, d)) + 0.1 * (seed - 1)
    return np.maximum(draw @ mixing / np.sqrt(d) + 0.3, 0.0).astype(np.float32)


def of_torchmetrics(name: str, a: np.ndarray, b: np.ndarray, subset_size: int) -> float:
    """Return torchmetrics' figure: its public class, given features."""
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance

    metric: Any
    if name == "frechet":
        metric = FrechetInceptionDistance(feature=Given(a.shape[1]))
    else:
        metric = KernelInceptionDistance(feature=Given(a.shape[1]), subsets=SUBSETS, subset_size=subset_size)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    found = metric.compute()
    return float(found if name == "frechet" else found[0])


def of_torch_fidelity(name: str, a: np.ndarray, b: np.ndarray, subset_size: int) -> float:
    """Return torch-fidelity's figure, from its functions of features; in float64, as ours."""
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = (torch.from_numpy(features.astype(np.float64)) for features in (a, b))
    if name == "frechet":
        found = fid_statistics_to_metric(fid_features_to_statistics(x), fid_features_to_statistics(y), False)
        return float(found["frechet_inception_distance"])
    found = kid_features_to_metric(x, y, kid_subsets=SUBSETS, kid_subset_size=subset_size, rng_seed=0, verbose=False)
    return float(found["kernel_inception_distance_mean"])


def of_ours(name: str, a: np.ndarray, b: np.ndarray, subset_size: int) -> float:
    """Return our figure."""
    if name == "frechet":
        return frechet_distance(a, b)
    return kernel_distance(a, b, subsets=SUBSETS, subset_size=subset_size, seed=0).value


SIDES: dict[str, Callable[[str, np.ndarray, np.ndarray, int], float]] = {
    "latentdrift": of_ours,
    "torchmetrics": of_torchmetrics,
    "torch-fidelity": of_torch_fidelity,
}


def measure(name: str, n: int, d: int, turns: int, own_turns: int) -> dict[str, Any]:
    """Return seconds and values of one figure on 2 x n features of d dimensions."""
    a, b = features(n, d, 1), features(n, d, 2)
    cpu = torch.device("cpu")
    row: dict[str, Any] = {"figure": name, "images": n, "dimensions": d, "bar": BARS.get((name, n)), "sides": {}}
    walls: dict[str, list[float]] = {side: [] for side in SIDES}
    processors: dict[str, list[float]] = {side: [] for side in SIDES}
    values = {}
    for function in SIDES.values():
        # Libraries are imported and threads started before the clock is.
        function(name, a[:64, :32], b[:64, :32], 16)
    for _ in range(turns):
        for side, function in SIDES.items():
            for _ in range(own_turns if side == "latentdrift" else 1):
                with lap(walls[side], processors[side], cpu):
                    values[side] = function(name, a, b, n // 2)
    for side in SIDES:
        row["sides"][side] = {
            "value": values[side],
            "seconds": statistics.median(walls[side]),
            "processor_seconds": statistics.median(processors[side]),
            "all_seconds": walls[side],
        }
    ours = row["sides"]["latentdrift"]
    row["faster"], row["faster_wall_clock"] = (
        {side: row["sides"][side][key] / ours[key] for side in SIDES if side != "latentdrift"}
        for key in ("processor_seconds", "seconds")
    )
    row["difference"] = abs(values["torch-fidelity"] / values["latentdrift"] - 1.0)
    row["agrees"] = row["difference"] <= AGREEMENT[name]
    row["reached"] = None if row["bar"] is None else min(row["faster"].values()) >= row["bar"]
    return row


def write_images(folder: Path, n: int, side: int, seed: int) -> Path:
    """Write n gray images with some structure, as PNG."""
    from PIL import Image

    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for i in range(n):
        coarse = Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8))
        coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{i:05}.png")
    return folder


def measure_whole(n: int, side: int, extractor: str, figures: str) -> dict[str, Any]:
    """Return the seconds of an evaluation of 2 x n images, and of the same again with its features kept."""
    from latentdrift.evaluate import evaluate_sets, load_extractor

    network = load_extractor(extractor)
    inner = network._features
    spent: list[float] = []
    spent_clock: list[float] = []
    cpu = torch.device("cpu")

    def timed(images: torch.Tensor) -> torch.Tensor:
        with lap(spent_clock, spent, cpu):
            return inner(images)

    network._features = timed  # type: ignore[method-assign]
    row: dict[str, Any] = {"figure": "whole", "images": n, "side": side, "extractor": network.name, "figures": figures}
    walls: list[float] = []
    processors: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        sets = [write_images(Path(folder) / str(seed), n, side, seed) for seed in (1, 2)]
        evaluate_sets(*(sorted(path.iterdir())[:4] for path in sets), network, resamples=0)
        spent.clear()
        spent_clock.clear()
        for name in ("first", "again"):
            with lap(walls, processors, cpu):
                found = evaluate_sets(*sets, network, figures=figures, cache=Path(folder) / "kept")  # type: ignore[arg-type]
            row[name] = {"seconds": walls[-1], "processor_seconds": processors[-1], "kept": found.from_cache}
            row[name] |= {"network_seconds": sum(spent_clock), "network_processor_seconds": sum(spent)}
            spent.clear()
            spent_clock.clear()
    row["share"] = row["first"]["network_processor_seconds"] / row["first"]["processor_seconds"]
    row["bar"] = SHARE if n >= 1000 else None
    row["reached"] = None if row["bar"] is None else row["share"] >= row["bar"]
    row["agrees"] = row["again"]["kept"] == 2 * n and row["again"]["network_seconds"] == 0
    return row


def show_whole(row: dict[str, Any]) -> None:
    """Print the row of a whole evaluation."""
    print(
        f"\nwhole evaluation, 2 x {row['images']} images of {row['side']} pixels, {row['extractor']}, {row['figures']}"
    )
    for name in ("first", "again"):
        one = row[name]
        print(
            f"{name:10}{one['seconds']:10.2f} s, processor {one['processor_seconds']:.2f} s, of which the network "
            f"{one['network_processor_seconds']:.2f} s; {one['kept']} images kept"
        )
    bar = "" if row["bar"] is None else f" (at least {row['bar']:.0%}: {'yes' if row['reached'] else 'NO'})"
    print(f"share of the network: {row['share']:.1%}{bar}")


def show(row: dict[str, Any]) -> None:
    """Print one row."""
    print(f"\n{row['figure']}, 2 x {row['images']} x {row['dimensions']}")
    print(f"{'':18}{'value':>14}{'seconds':>11}{'processor s':>13}{'ours is':>13}")
    for side, found in row["sides"].items():
        faster = f"{row['faster'][side]:.0f} x faster" if side in row["faster"] else ""
        print(f"{side:18}{found['value']:14.6g}{found['seconds']:11.4f}{found['processor_seconds']:13.4f}{faster:>13}")
    if row["bar"] is not None:
        print(f"at least {row['bar']:g} x faster: {'yes' if row['reached'] else 'NO'}")
    print(f"difference from torch-fidelity: {row['difference']:.1e} (relative)")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--dimensions", type=int, default=2048)
    parser.add_argument("--turns", type=int, default=1, help="of each side; a reference takes up to a minute")
    parser.add_argument("--own-turns", type=int, default=5, help="of ours in a turn")
    parser.add_argument("--figures", nargs="+", default=["frechet", "kernel"], choices=["frechet", "kernel", "whole"])
    parser.add_argument("--extractor", default="default", help="of the whole evaluation")
    parser.add_argument("--side", type=int, default=128, help="pixels of the whole evaluation's images")
    parser.add_argument("--whole-figures", default="all", choices=["basic", "all"])
    parser.add_argument("--out", type=Path, default=Path("metrics_speed.json"))
    args = parser.parse_args()
    # Fewer images than dimensions are what is measured; torchmetrics warns of its memory.
    warnings.filterwarnings("ignore")
    rows = []
    for name in args.figures:
        for n in args.images:
            if name == "whole":
                rows.append(measure_whole(n, args.side, args.extractor, args.whole_figures))
                show_whole(rows[-1])
                continue
            rows.append(measure(name, n, args.dimensions, args.turns, args.own_turns))
            show(rows[-1])
    result = {
        "rows": rows,
        "threads": torch.get_num_threads(),
        "processors": os.cpu_count(),
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("numpy", "torch", "torchmetrics", "torch-fidelity")},
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(result, indent=2) + "\n")
    print(f"\nwritten: {args.out}")
    return 0 if all(row["agrees"] and row["reached"] is not False for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
