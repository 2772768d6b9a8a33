"""The benchmark's result as text."""

from __future__ import annotations

from typing import Any

from benchmarks.operations import ceiling


def print_tables(found: dict[str, Any]) -> None:
    """Print what was measured, and add the ceilings to `found["process"]`."""
    machine = found["machine"]
    print(
        f"{machine['processor']}; {machine['usable_cores']} of {machine['cores']} cores, {machine['threads']} threads"
    )
    print(f"device {found['device']}, float32; " + ", ".join(f"{k} {v}" for k, v in machine["versions"].items()))
    cost = found["gflop_an_image"]
    print("\nOperations an image, GFLOP: " + ", ".join(f"{name} {value:.3f}" for name, value in cost.items()))
    if "step" in found:
        print_step(found["step"], found["bars"]["step"])
    if "process" in found:
        print_process(found["process"], cost, found["bars"]["process"])
    if "sampling" in found:
        print_sampling(found["sampling"], found["bars"]["sampling"])


def verdict(ratio: float, bar: float) -> str:
    return f"{ratio:.3f} (at most {bar}: {'met' if ratio <= bar else 'MISSED'})"


def print_step(step: dict[str, Any], bar: float) -> None:
    """Print the training step beside the bare one."""
    print(f"\n1. Training step / bare U-Net forward, backward, optimizer step: {verdict(step['ratio'], bar)}")
    print(f"   processor time alone: {step['processor_ratio']:.3f}; medians of {step['steps']} steps in turns")
    ours, bare = step["trainer_seconds"] * 1e3, step["bare_seconds"] * 1e3
    print(f"   trainer {ours:.1f} ms, bare {bare:.1f} ms; of the trainer's:")
    for name, seconds in step["parts"].items():
        print(f"     {name:<26}{seconds * 1e3:9.2f} ms")


def print_process(process: dict[str, Any], cost: dict[str, float], bar: float) -> None:
    """Print the two trainings, the ceilings, and where the time of each goes."""
    data, ours, reference = process["data"], process["ours"], process["reference"]
    drawn = process["steps"] * process["batch_size"]
    scale = (drawn, data["encoded_images"], data["captions"])
    counted = ceiling(cost, *scale)
    loop = reference["calls"]["training loop"]
    rest = loop["U-Net forward"] + loop["backward"]
    measured = ceiling(
        {
            "unet_forward_backward": rest / drawn,
            "vae_encode": loop["latents"] / drawn,
            "text": loop["text"] / drawn,
        },
        *scale,
    )
    process["ceiling_operations"], process["ceiling_reference_seconds"] = counted, measured
    print(f"\n2. latentdrift finetune / train_text_to_image.py, whole processes: {verdict(process['ratio'], bar)}")
    print(
        f"   {process['steps']} steps of {process['batch_size']}, {data['training_images']} training images of "
        f"{data['image_size']} px, averaged weights {'in both' if process['ema'] else 'in neither'}"
    )
    print(f"   whole: {ours['seconds']:.1f} s and {reference['seconds']:.1f} s")
    print(f"   loops alone: {process['loop_ratio']:.3f}; processor time alone: {process['processor_ratio']:.3f}")
    print(f"   ceiling by operations: {counted['ratio']:.3f} (endless training {counted['limit']:.3f})")
    print(f"   ceiling by the reference's own seconds: {measured['ratio']:.3f} (endless {measured['limit']:.3f})")
    print(f"   {'seconds in':<34}{'ours':>9}{'reference':>11}")
    for stage in dict.fromkeys([*ours["stages"], *reference["stages"]]):
        print(row(f"   {stage}", ours["stages"].get(stage), reference["stages"].get(stage)))
        inner = [run["calls"].get(stage, {}) for run in (ours, reference)]
        for name in dict.fromkeys([*inner[0], *inner[1]]):
            print(row(f"     of these {name}", inner[0].get(name), inner[1].get(name)))


def row(name: str, ours: float | None, reference: float | None) -> str:
    cells = ("-" if value is None else f"{value:.2f}" for value in (ours, reference))
    return f"{name:<37}{next(cells):>9}{next(cells):>11}"


def print_sampling(sampling: dict[str, Any], bar: float) -> None:
    """Print sampling through a drifted scheduler beside the plain one."""
    print(f"\n3. Sampling drifted / plain, 25 DDIM steps of 8: {verdict(sampling['ratio'], bar)}")
    plain, drifted = sampling["plain_seconds"], sampling["drifted_seconds"]
    pairs = len(sampling["plain_all"])
    print(f"   drifted {drifted:.3f} s, plain {plain:.3f} s, medians of {pairs} in turns; rule start, a value a pixel")
    print(f"   processor time alone: {sampling['processor_ratio']:.3f}")
    alone, implied = sampling["scheduler_microseconds"], sampling["ratio_from_scheduler"]
    print(f"   scheduler alone, us a step: none {alone['none']:.0f}; and the ratio that its extra time makes:")
    for rule, ratio in implied.items():
        print(f"     {rule:<10}{alone[rule]:8.0f}  {ratio:.4f}")
