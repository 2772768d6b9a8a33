"""Editing beside diffusers' pipelines, each case in fresh processes of its own, in turns: seconds, memory, parts.

`python -m benchmarks.edit_speed --help`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.training_speed import machine_facts

ROOT = Path(__file__).resolve().parents[1]
MEASURES = ("seconds", "processor_seconds", "working_bytes", "peak_bytes")
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "131072"}
"""Has glibc hand back every larger block when it is freed: the peak is then what was in use, without holes between."""


@dataclass(frozen=True)
class Comparison:
    """Two cases of `edit_reference.CASES`.

    Attributes:
        title: what is compared.
        ours, reference: names of the cases.
        bar: highest ratio of seconds.
        memory_bar: highest ratio of working memory; None where there is none.
    """

    title: str
    ours: str
    reference: str
    bar: float
    memory_bar: float | None = None


COMPARISONS = {
    "one": Comparison("One edit / diffusers' pix2pix-zero pipeline", "ours", "diffusers", 0.667, 0.5),
    "eight": Comparison(
        "Eight edits of one image / eight runs of diffusers' pipeline",
        "ours, one batch of 8",
        "diffusers, 8 runs",
        0.4,
    ),
    "eight_own": Comparison(
        "Eight edits of one image / eight runs of our own", "ours, one batch of 8", "ours, 8 runs", 0.4
    ),
    "sweep": Comparison(
        "The same noise under nine drifts / nine calls of the plain pipeline",
        "ours, one batch of 9",
        "pipeline, 9 calls",
        0.5,
    ),
    "ladder": Comparison(
        "One edit under nine drifts / nine calls that invert and edit", "ladder of 9", "edits, 9 calls", 0.5
    ),
}


class CaseError(Exception):
    """A case failed, or two cases that should make the same images made others."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--base", default="tiny", help="model: an embedded name or a Stable Diffusion 1.x, 2.x folder")
    parser.add_argument("--only", nargs="+", choices=COMPARISONS, default=list(COMPARISONS), help="what to measure")
    parser.add_argument("--steps", type=int, default=50, help="DDIM steps each way of the one edit")
    parser.add_argument("--many-steps", type=int, default=20, help="DDIM steps of the eight edits and of the sweep")
    parser.add_argument("--guidance", type=float, default=2.0, help="guidance scale, above 1")
    parser.add_argument("--repeats", type=int, default=3, help="processes measured for each case")
    parser.add_argument("--threads", type=int, default=0, help="threads of each process; 0 leaves it to torch")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    for name in ("steps", "many_steps", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.guidance <= 1:
        parser.error("--guidance must be above 1: diffusers' pipeline edits nothing without")
    return args


def run_case(name: str, setting: str, folder: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Run one case in a process of its own.

    Raises:
        CaseError: it failed; the message ends with its last lines.
    """
    out, log = folder / f"{name}.json", folder / f"{name}.log"
    paths = [str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")]
    given = {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "HF_HUB_OFFLINE": "1"} | dict(environment or {})
    command = [sys.executable, "-m", "benchmarks.edit_reference", name, setting, str(out)]
    with log.open("w") as file:
        status = subprocess.run(
            command, cwd=folder, env=os.environ | given, stdout=file, stderr=file, check=False
        ).returncode
    if status:
        tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise CaseError(f"The case {name!r} ended with status {status}:\n{tail}")
    return json.loads(out.read_text())


def summed_up(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the run of median seconds, with the median of each measure and all of its values."""
    middle = sorted(runs, key=lambda run: run["seconds"])[(len(runs) - 1) // 2]
    medians = {measure: statistics.median(run[measure] for run in runs) for measure in MEASURES}
    return middle | medians | {f"{measure}_all": [run[measure] for run in runs] for measure in MEASURES}


def compared(comparison: Comparison, cases: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return ratios of the medians, and the lowest and highest ratio of seconds of runs made in the same turn."""
    ours, reference = cases[comparison.ours], cases[comparison.reference]
    turns = [a / b for a, b in zip(ours["seconds_all"], reference["seconds_all"], strict=True)]
    found: dict[str, Any] = {measure: ours[measure] / reference[measure] for measure in MEASURES}
    found["seconds_lowest"], found["seconds_highest"] = min(turns), max(turns)
    if "gflop" in ours and "gflop" in reference:
        found["gflop"] = ours["gflop"] / reference["gflop"]
    if "in_use_bytes" in ours and "in_use_bytes" in reference:
        found["in_use_bytes"] = ours["in_use_bytes"] / reference["in_use_bytes"]
    count = 8 if comparison.reference == "diffusers, 8 runs" else 0
    if count:
        # What the reference would take if its user inverted the image only once.
        spared = reference["inversion_seconds"] * (count - 1) / count
        found["seconds_on_one_inversion"] = ours["seconds"] / (reference["seconds"] - spared)
    return found


def image_difference(folder: Path, comparison: Comparison, image: Path) -> dict[str, float]:
    """Return how far the images of both sides are apart, in levels of 0 to 255, and how far from the source.

    Both compute the same in another order, and the attention's gradient makes much of rounding.

    Raises:
        CaseError: they are further apart than half the edit.
    """
    import torch

    ours, reference = (torch.load(folder / f"{name}.pt") for name in (comparison.ours, comparison.reference))
    found = {
        "levels_apart": (ours - reference).abs().mean().item() * 127.5,
        "levels_from_source": (reference - torch.load(image)).abs().mean().item() * 127.5,
    }
    if not found["levels_apart"] < found["levels_from_source"] / 2:
        raise CaseError(
            f"{comparison.ours!r} and {comparison.reference!r} made different images: {found['levels_apart']:.2f} of "
            f"255 levels apart, {found['levels_from_source']:.2f} from the source."
        )
    return found


class NoModules:
    """In place of the counter's own tracker of modules, whose hooks allow no gradient of an input."""

    parents = frozenset({"Global"})

    def __enter__(self) -> NoModules:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def case_operations(name: str, setting: Any) -> float:
    """Return the GFLOP of a case; each step costs the same, so two runs of few steps say what many cost."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.edit_reference import CASES, load, together
    from benchmarks.edit_setting import WISHES

    make, count = CASES[name]
    # Where every edit is made alone, they cost the same.
    times = 1 if make is together else max(1, count)
    wishes = WISHES[: count // times]
    pipeline, found = load(setting.base), []
    for steps in (1, 2):
        work = make(pipeline, replace(setting, steps=steps), wishes, {})
        counter = FlopCounterMode(display=False)
        counter.mod_tracker = NoModules()
        # Fused attention is unfolded to be counted.
        with sdpa_kernel(SDPBackend.MATH), counter:
            work()
        found.append(times * counter.get_total_flops() / 1e9)
    one, two = found
    return one + (two - one) * (setting.steps - 1)


def print_comparison(name: str, comparison: Comparison, found: dict[str, Any]) -> None:
    """Print both sides and where the time of each goes."""
    from benchmarks.tables import verdict

    cases, ratios = found["cases"], found["comparisons"][name]
    ours, reference = cases[comparison.ours], cases[comparison.reference]
    print(f"\n{comparison.title}: {verdict(ratios['seconds'], comparison.bar)}")
    spread = f"{ratios['seconds_lowest']:.3f} to {ratios['seconds_highest']:.3f}"
    print(f"   {ours['steps']} steps each way; ratio of single turns {spread}")
    if "seconds_on_one_inversion" in ratios:
        print(f"   if the reference inverted once too: {ratios['seconds_on_one_inversion']:.3f}")
    print(f"   {'':<34}{'ours':>11}{'reference':>11}{'ratio':>12}")
    lines = [
        ("seconds", "seconds", 1, None),
        ("processor seconds", "processor_seconds", 1, None),
        ("peak memory above loading, MB", "working_bytes", 1e6, comparison.memory_bar),
        ("the same, freed blocks returned", "in_use_bytes", 1e6, comparison.memory_bar),
        ("peak memory, whole, MB", "peak_bytes", 1e6, None),
        ("operations, GFLOP", "gflop", 1, None),
    ]
    for label, measure, unit, bar in lines:
        if measure in ratios:
            ratio = verdict(ratios[measure], bar)
            print(f"   {label:<34}{ours[measure] / unit:>11.1f}{reference[measure] / unit:>11.1f}    {ratio}")
    for measure in ("seconds", "working_bytes"):
        values = [" ".join(f"{x / (1 if measure == 'seconds' else 1e6):.1f}" for x in side[f"{measure}_all"])
                  for side in (ours, reference)]  # fmt: skip
        print(f"   all {measure.replace('_bytes', ' MB')}: ours {values[0]}; reference {values[1]}")
    for label, key in (
        ("U-Net evaluations", "calls"),
        ("  rows", "rows"),
        ("  rows for a gradient", "rows_for_gradient"),
        ("  rows cut off after the maps", "rows_cut_off"),
    ):
        counts = [side["unet"].get(key, 0) for side in (ours, reference)]
        if any(counts):
            print(f"   {label:<34}{counts[0]:>11}{counts[1]:>11}")
    kept = [side.get("reference_maps_bytes", 0) / 1e6 for side in (ours, reference)]
    if any(kept):
        print(f"   {'attention maps kept, MB':<34}{kept[0]:>11.1f}{kept[1]:>11.1f}")
    print("   seconds in")
    for part in dict.fromkeys([*ours["parts"], *reference["parts"]]):
        cells = [f"{side['parts'][part]:.2f}" if part in side["parts"] else "-" for side in (ours, reference)]
        print(f"     {part:<32}{cells[0]:>11}{cells[1]:>11}")
    if "levels_apart" in ratios:
        print(
            f"   images {ratios['levels_apart']:.2f} of 255 levels apart, "
            f"{ratios['levels_from_source']:.1f} from the source"
        )


def write_image(folder: Path, pipeline: Any) -> Path:
    """Write a simulated brain slice of the model's size as a tensor."""
    import torch

    from latentdrift.data import ImageTransform
    from latentdrift.data.simulate import simulate_cohort

    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    cohort = simulate_cohort(folder / "cohort", subjects=1, size=size, truth=False)
    image = folder / "image.pt"
    torch.save(ImageTransform(size=size).read(next(iter(cohort)).image)[None], image)
    return image


def measure_all(args: argparse.Namespace, folder: Path, found: dict[str, Any]) -> None:
    """Fill `found` with cases and comparisons.

    Raises:
        CaseError: a case failed, or two made different images.
    """
    from benchmarks.edit_reference import as_json, load
    from benchmarks.edit_setting import Setting

    pipeline = load(args.base)
    found["device"] = str(pipeline.unet.device)
    image = write_image(folder, pipeline)
    del pipeline
    chosen = {name: COMPARISONS[name] for name in args.only}
    settings = {
        case: Setting(args.base, str(image), args.steps if name == "one" else args.many_steps, args.guidance)
        for name, comparison in chosen.items()
        for case in (comparison.reference, comparison.ours)
    }
    # The files of the libraries come into memory before the first process that counts.
    first = next(iter(settings))
    run_case(first, as_json(replace(settings[first], steps=1)), folder)
    runs: dict[str, list[dict[str, Any]]] = {case: [] for case in settings}
    for repeat in range(args.repeats):
        for case in list(settings) if repeat % 2 == 0 else reversed(settings):
            runs[case].append(run_case(case, as_json(settings[case]), folder))
            print(f"   {case:<24}{runs[case][-1]['seconds']:8.2f} s", flush=True)
    for case, setting in settings.items():
        found["cases"][case] = summed_up(runs[case]) | {
            "steps": setting.steps,
            "gflop": case_operations(case, setting),
        }
    for name, comparison in chosen.items():
        apart = image_difference(folder, comparison, image)
        if comparison.memory_bar is not None:
            for case in (comparison.reference, comparison.ours):
                again = run_case(case, as_json(settings[case]), folder, RETURNING)
                found["cases"][case]["in_use_bytes"] = again["working_bytes"]
        found["comparisons"][name] = compared(comparison, found["cases"]) | apart


def main() -> int:
    args = parse_arguments()
    if args.threads:
        # Before torch is imported, and inherited by the processes that are measured.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    from benchmarks.tables import print_machine
    from latentdrift.errors import LatentDriftError

    bars = {name: {"seconds": c.bar, "working_bytes": c.memory_bar} for name, c in COMPARISONS.items()}
    settings = {name: value for name, value in vars(args).items() if name != "out"}
    found: dict[str, Any] = {
        "machine": machine_facts(),
        "settings": settings,
        "bars": bars,
        "cases": {},
        "comparisons": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        try:
            measure_all(args, Path(folder), found)
        except (LatentDriftError, CaseError) as error:
            print(f"edit_speed: {error}", file=sys.stderr)
            return 2
    print_machine(found)
    for name in args.only:
        print_comparison(name, COMPARISONS[name], found)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        temporary = args.out.with_name(args.out.name + ".part")
        temporary.write_text(json.dumps(found, indent=2) + "\n")
        temporary.replace(args.out)
        print(f"\nwritten: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
