"""Three ratios of speed, each measured side by side in one run. `python -m benchmarks.training_speed --help`.

The fine-tuning methods beside `basic`: `benchmarks.method_speed`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

PARTS = ("step", "process", "sampling")
BARS = {"step": 1.15, "process": 0.6, "sampling": 1.01}
REFERENCE_URL = "https://github.com/huggingface/diffusers/blob/v{version}/examples/text_to_image/train_text_to_image.py"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--base", default="tiny", help="model: an embedded name or a diffusers folder")
    parser.add_argument("--reference", type=Path, help="diffusers' train_text_to_image.py; see README.md here")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts to measure")
    parser.add_argument("--steps", type=int, default=100, help="training steps of the whole processes")
    parser.add_argument("--batch-size", type=int, default=16, help="images a training step")
    parser.add_argument("--images", type=int, default=200, help="simulated images; 8 of 10 are trained on")
    parser.add_argument("--image-size", type=int, default=0, help="side of the images' files; 0 is the model's own")
    parser.add_argument("--repeats", type=int, default=15, help="training steps, and pairs of samplings, measured")
    parser.add_argument("--process-repeats", type=int, default=1, help="pairs of whole processes measured")
    parser.add_argument("--threads", type=int, default=0, help="threads of each process; 0 leaves it to torch")
    parser.add_argument("--no-ema", action="store_true", help="average no weights, in none of the trainings")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    for name in ("steps", "batch_size", "images", "repeats", "process_repeats"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if args.reference is not None and not args.reference.is_file():
        parser.error(f"--reference {args.reference} is no file")
    if args.reference is None and "process" in args.only:
        url = REFERENCE_URL.format(version=version("diffusers"))
        if args.only == ["process"]:
            parser.error(f"--only process needs --reference PATH; the script is at {url}")
        print(f"The whole processes are left out: give --reference PATH, the script at {url}\n", file=sys.stderr)
        args.only = [part for part in args.only if part != "process"]
    return args


def machine_facts() -> dict[str, Any]:
    """Return what the seconds depend on."""
    import torch

    names = ("latentdrift", "torch", "diffusers", "transformers", "accelerate", "datasets", "numpy")
    versions = {}
    for name in names:
        try:
            versions[name] = version(name)
        except ImportError:
            versions[name] = "not installed"
    cpu = Path("/proc/cpuinfo")
    models = [line for line in cpu.read_text().splitlines() if line.startswith("model name")] if cpu.exists() else []
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "processor": models[0].split(":", 1)[1].strip() if models else platform.processor(),
        "cores": os.cpu_count(),
        "usable_cores": usable,
        "threads": torch.get_num_threads(),
        "load_before": os.getloadavg() if hasattr(os, "getloadavg") else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions,
    }


def main() -> int:
    args = parse_arguments()
    if args.threads:
        # Before torch is imported, and inherited by the processes that are measured.
        os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = str(args.threads)
    from benchmarks.method_operations import method_ceilings, split_operations
    from benchmarks.method_table import COMPARISONS
    from benchmarks.operations import training_operations
    from benchmarks.tables import print_tables
    from benchmarks.whole_process import ProcessError, Setting, measure_processes
    from latentdrift.errors import LatentDriftError
    from latentdrift.models import load_pipeline

    try:
        import torch

        settings = {name: value for name, value in vars(args).items() if name not in ("out", "reference")}
        found: dict[str, Any] = {"machine": machine_facts(), "settings": settings, "bars": BARS}
        pipeline = load_pipeline(args.base, dtype=torch.float32, drift=None)
        found["device"] = str(pipeline.unet.device)
        cost = found["gflop_an_image"] = training_operations(pipeline)
        if "process" in args.only:
            size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
            setting = Setting(
                args.steps, args.batch_size, args.images, size, args.image_size or size, ema=not args.no_ema
            )
            with tempfile.TemporaryDirectory() as folder:
                pipeline.save_pretrained(Path(folder) / "base")
                found["process"] = measure_processes(
                    COMPARISONS["basic"],
                    args.reference,
                    Path(folder) / "base",
                    Path(folder),
                    setting,
                    args.process_repeats,
                )
            found["process"]["ceilings"] = method_ceilings(found["process"], split_operations(cost))
        if "sampling" in args.only:
            from benchmarks.sampling_cost import measure_sampling

            found["sampling"] = measure_sampling(pipeline, args.repeats)
        # Last, because it trains the pipeline's own network.
        if "step" in args.only:
            from benchmarks.step_cost import measure_step

            found["step"] = measure_step(pipeline, args.batch_size, args.images, args.repeats, not args.no_ema)
    except (LatentDriftError, ProcessError) as error:
        print(f"training_speed: {error}", file=sys.stderr)
        return 2
    print_tables(found)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(found, indent=2) + "\n")
        print(f"\nwritten: {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
