"""Every fine-tuning method beside diffusers' example of it, as whole processes in one run: seconds, memory, parts.

`python -m benchmarks.method_speed --help`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.training_speed import machine_facts

METHODS = ("textual_inversion", "dreambooth", "custom_diffusion", "instruct_pix2pix", "lora", "basic")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--reference", type=Path, required=True, help="folder with diffusers' examples, anywhere below")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS[:-1]), help="what to measure")
    parser.add_argument("--base", default="tiny", help="model: an embedded name or a Stable Diffusion 1.x, 2.x folder")
    parser.add_argument("--steps", type=int, default=100, help="training steps")
    parser.add_argument("--batch-size", type=int, default=16, help="images a step; as many of the class beside them")
    parser.add_argument("--images", type=int, default=200, help="simulated images; 8 of 10 are trained on")
    parser.add_argument("--class-images", type=int, default=0, help="for prior preservation; 0 is the script's default")
    parser.add_argument("--image-size", type=int, default=0, help="side of the images' files; 0 is the model's own")
    parser.add_argument("--repeats", type=int, default=1, help="pairs of processes measured")
    parser.add_argument("--threads", type=int, default=0, help="threads of each process; 0 leaves it to torch")
    parser.add_argument("--out", type=Path, help="JSON file to write, anew after each method")
    args = parser.parse_args()
    for name in ("steps", "batch_size", "images", "repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if not args.reference.is_dir():
        parser.error(f"--reference {args.reference} is no folder")
    return args


def find_script(folder: Path, name: str) -> Path:
    """Return a script by its file name; of several the one nearest the top, as diffusers' research projects lie deeper.

    Raises:
        ProcessError: there is none.
    """
    from benchmarks.whole_process import ProcessError

    found = sorted(folder.rglob(name), key=lambda path: (len(path.parts), path))
    if not found:
        raise ProcessError(f"There is no {name} below {folder}. README.md here says where to take it from.")
    return found[0]


def main() -> int:
    args = parse_arguments()
    if args.threads:
        # Before torch is imported, and inherited by the processes that are measured.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    import torch

    from benchmarks.method_operations import method_ceilings, method_operations
    from benchmarks.method_table import COMPARISONS
    from benchmarks.tables import operations, print_machine, print_process
    from benchmarks.whole_process import ProcessError, Setting, measure_processes
    from latentdrift.errors import LatentDriftError
    from latentdrift.models import load_pipeline

    settings = {name: value for name, value in vars(args).items() if name not in ("out", "reference")}
    bars = {method: COMPARISONS[method].bar for method in args.methods}
    found: dict[str, Any] = {"machine": machine_facts(), "settings": settings, "bars": bars, "methods": {}}
    failed = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            # All scripts are found before the first is run.
            scripts = {name: find_script(args.reference, COMPARISONS[name].script) for name in args.methods}
            pipeline = load_pipeline(args.base, dtype=torch.float32, drift=None)
        except (LatentDriftError, ProcessError) as error:
            print(f"method_speed: {error}", file=sys.stderr)
            return 2
        pipeline.save_pretrained(Path(folder) / "base")
        found["device"] = str(pipeline.unet.device)
        size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
        setting = Setting(args.steps, args.batch_size, args.images, size, args.image_size or size, args.class_images)
        print_machine(found)
        for method in args.methods:
            comparison, own = COMPARISONS[method], Path(folder) / method
            own.mkdir()
            try:
                process = measure_processes(
                    comparison, scripts[method], Path(folder) / "base", own, setting, args.repeats
                )
            except (LatentDriftError, ProcessError) as error:
                print(f"\nmethod_speed: {method}: {error}", file=sys.stderr)
                failed.append(method)
                continue
            channels = pipeline.unet.config.in_channels * process["data"]["encodings"]
            cost = process["gflop_an_image"] = method_operations(pipeline, comparison.trained, channels)
            process["ceilings"] = method_ceilings(process, cost)
            found["methods"][method] = process
            print_process(process, comparison.bar)
            print(f"   {operations(cost)}", flush=True)
            if args.out is not None:
                args.out.parent.mkdir(parents=True, exist_ok=True)
                args.out.write_text(json.dumps(found, indent=2) + "\n")
    print("\nwhole processes, ours / reference:")
    for method, process in found["methods"].items():
        print(
            f"   {method:<20}{process['ratio']:7.3f}   loop {process['loop_ratio']:.3f}   "
            f"processor {process['processor_ratio']:.3f}   peak memory {process['memory_ratio']:.3f}"
        )
    if failed:
        print(f"\nnot measured: {', '.join(failed)}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
