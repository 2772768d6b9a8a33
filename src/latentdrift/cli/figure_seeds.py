"""`latentdrift figure seeds`: the paper's Figure 2."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from latentdrift.cli.figure_common import RunOptions, check_out, finish, prompts_of, wrapped
from latentdrift.cli.options import parse_options
from latentdrift.cli.show import counting, print_result, progress

DESCRIPTION = """Draw the same noise under drifts from a to b: a strip a prompt (Figure 2 of the paper).

The drift lies on top of the model's own, so that 0 is the model as it is; with --drift none it is the only one."""


@dataclass(frozen=True, kw_only=True)
class SeedsOptions(RunOptions):
    """Draw the same noise under drifts from a to b."""

    drift_from: float = -0.1
    """First drift, in standard deviations of the noise."""
    drift_to: float = 0.1
    """Last drift."""
    count: int = 9
    """Drifts from first to last."""
    attributes: tuple[str, ...] = ()
    """Classes, such as stage=MildDemented; those not given take all their values."""
    prompt: tuple[str, ...] = ()
    """Prompts in place of attributes."""
    seed: int = 0
    """Of the noise, the same for all images."""
    steps: int = 25
    """Denoising steps."""
    guidance: float = 1.5
    """Classifier-free guidance scale; 1 is none."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(SeedsOptions, arguments, "figure seeds", DESCRIPTION)
    import numpy as np

    from latentdrift.cli.image_notes import as_gray
    from latentdrift.cli.ladder_folder import smoothness_words
    from latentdrift.cli.models import open_model
    from latentdrift.counterfactual.ladder import drift_samples
    from latentdrift.counterfactual.steadiness import smoothness
    from latentdrift.errors import ConfigurationError
    from latentdrift.report import image_grid

    check_out(options)
    low, high = options.drift_from, options.drift_to
    if options.count < 2 or not (math.isfinite(low) and math.isfinite(high)) or low == high:
        raise ConfigurationError(
            f"From {low} to {high} in {options.count} drifts is no strip; give different ends and --count 2 or more."
        )
    pipeline, warnings = open_model(options.run, options.device, options.drift)
    prompts, names = prompts_of(pipeline, options.run, options.attributes, options.prompt)
    # Rounded, so that 0 is 0 and not what is left of it.
    deltas = [round(float(delta), 9) for delta in np.linspace(low, high, options.count)]
    with progress(options.quiet) as tell:
        samples = drift_samples(
            pipeline,
            prompts,
            deltas,
            seed=options.seed,
            steps=options.steps,
            guidance=options.guidance,
            batch_size=options.batch_size,
            progress=counting(tell, "images", len(prompts) * len(deltas)),
        )
    card = pipeline.latentdrift_card
    if card is not None and card.gray:
        samples = as_gray(samples)
    image_grid(
        options.out,
        [list(strip) for strip in samples],
        row_labels=[wrapped(name) for name in names],
        column_labels=[f"δ {delta:+.3g}" for delta in deltas],
        title=f"The same noise (seed {options.seed}) under δ from {low:g} to {high:g}",
        note="All images are synthetic.",
    )
    smooth = [smoothness(strip)._asdict() for strip in samples]
    levels = [[float((image.mean() + 1) * 127.5) for image in strip] for strip in samples]
    strips = [
        {"prompt": prompt, "smoothness": even, "mean_level": mean}
        for prompt, even, mean in zip(prompts, smooth, levels, strict=True)
    ]
    record = finish("seeds", arguments, options, {"drifts": deltas, "strips": strips}, warnings)
    said = [f"{name}: {smoothness_words(even)}" for name, even in zip(names, smooth, strict=True)]
    print_result({"figure": options.out, "numbers": record, "smoothness": said, "warnings": warnings}, options.json)
    return 0
