"""The benchmark's result as text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

MEASURED = {
    "seconds": ("whole", "ratio"),
    "loop_seconds": ("training loop", "loop_ratio"),
    "processor_seconds": ("processor", "processor_ratio"),
    "peak_bytes": ("peak memory", "memory_ratio"),
}
"""What each measure of a process is called, and where its ratio stands."""


def print_tables(found: dict[str, Any]) -> None:
    """Print what was measured."""
    print_machine(found)
    print(operations(found["gflop_an_image"]))
    if "step" in found:
        print_step(found["step"], found["bars"]["step"])
    if "process" in found:
        print_process(found["process"], found["bars"]["process"])
    if "sampling" in found:
        print_sampling(found["sampling"], found["bars"]["sampling"])


def print_machine(found: dict[str, Any]) -> None:
    """Print what the seconds depend on."""
    machine = found["machine"]
    print(
        f"{machine['processor']}; {machine['usable_cores']} of {machine['cores']} cores, {machine['threads']} threads"
    )
    print(f"device {found['device']}, float32; " + ", ".join(f"{k} {v}" for k, v in machine["versions"].items()))


def operations(cost: dict[str, float]) -> str:
    return "Operations an image, GFLOP: " + ", ".join(f"{name} {value:.3f}" for name, value in cost.items())


def verdict(ratio: float, bar: float | None) -> str:
    if bar is None:
        return f"{ratio:.3f}"
    return f"{ratio:.3f} (at most {bar}: {'met' if ratio <= bar else 'MISSED'})"


def print_step(step: dict[str, Any], bar: float) -> None:
    """Print the training step beside the bare one."""
    print(f"\nTraining step / bare U-Net forward, backward, optimizer step: {verdict(step['ratio'], bar)}")
    print(f"   processor time alone: {step['processor_ratio']:.3f}; medians of {step['steps']} steps in turns")
    ours, bare = step["trainer_seconds"] * 1e3, step["bare_seconds"] * 1e3
    print(f"   trainer {ours:.1f} ms, bare {bare:.1f} ms; of the trainer's:")
    for name, seconds in step["parts"].items():
        print(f"     {name:<26}{seconds * 1e3:9.2f} ms")


def print_process(process: dict[str, Any], bar: float | None) -> None:
    """Print the two trainings, the ceilings, and where the time of each goes."""
    data, ours, reference = process["data"], process["ours"], process["reference"]
    name = Path(process["script"]).name
    beside = f", {data['class_images']} of the class" if "class_images" in data else ""
    beside += f", {data['pairs']} pairs" if "pairs" in data else ""
    batch = str(process["batch_size"])
    batch += f" and {batch} of the class" if data["rows"] == 2 else ""
    print(
        f"\n{process['method']}: latentdrift finetune / {name}, whole processes: {verdict(process['ratio'], bar)}\n"
        f"   {process['steps']} steps of {batch}; {data['training_images']} training images{beside}, "
        f"{data['image_size']} px; averaged weights {'in both' if process['ema'] else 'in neither'}"
    )
    for measure, unit in (("seconds", "s"), ("loop_seconds", "s"), ("processor_seconds", "s"), ("peak_bytes", "MB")):
        pair = [run[measure] / (1e6 if unit == "MB" else 1) for run in (ours, reference)]
        label, ratio = MEASURED[measure]
        print(f"   {label:<34}{pair[0]:>9.1f}{pair[1]:>11.1f} {unit:<3}{process[ratio]:>8.3f}")
    if "peak_gpu_bytes" in ours:
        pair = [run["peak_gpu_bytes"] / 1e6 for run in (ours, reference)]
        print(f"   {'peak memory of the GPU':<34}{pair[0]:>9.1f}{pair[1]:>11.1f} MB {pair[0] / pair[1]:>8.3f}")
    for what, found in process["ceilings"].items():
        what = what.replace("_", " ")
        print(f"   ceiling by {what + ':':<22} {found['ratio']:.3f} (endless training {found['limit']:.3f})")
    print(f"   {'seconds in':<34}{'ours':>9}{'reference':>11}")
    for stage in dict.fromkeys([*ours["stages"], *reference["stages"]]):
        print(row(f"   {stage}", ours["stages"].get(stage), reference["stages"].get(stage)))
        inner = [run["calls"].get(stage, {}) for run in (ours, reference)]
        for name in dict.fromkeys([*inner[0], *inner[1]]):
            print(row(f"     of these {name}", inner[0].get(name), inner[1].get(name)))
        if any(inner):
            rest = [
                run["stages"][stage] - sum(calls.values()) if stage in run["stages"] else None
                for run, calls in zip((ours, reference), inner, strict=True)
            ]
            print(row("     the rest", *rest))


def row(name: str, ours: float | None, reference: float | None) -> str:
    cells = ("-" if value is None else f"{value:.2f}" for value in (ours, reference))
    return f"{name:<41}{next(cells):>9}{next(cells):>11}"


def print_sampling(sampling: dict[str, Any], bar: float) -> None:
    """Print sampling through a drifted scheduler beside the plain one."""
    print(f"\nSampling drifted / plain, 25 DDIM steps of 8: {verdict(sampling['ratio'], bar)}")
    plain, drifted = sampling["plain_seconds"], sampling["drifted_seconds"]
    pairs = len(sampling["plain_all"])
    print(f"   drifted {drifted:.3f} s, plain {plain:.3f} s, medians of {pairs} in turns; rule start, a value a pixel")
    print(f"   processor time alone: {sampling['processor_ratio']:.3f}")
    alone, implied = sampling["scheduler_microseconds"], sampling["ratio_from_scheduler"]
    print(f"   scheduler alone, us a step: none {alone['none']:.0f}; and the ratio that its extra time makes:")
    for rule, ratio in implied.items():
        print(f"     {rule:<10}{alone[rule]:8.0f}  {ratio:.4f}")
