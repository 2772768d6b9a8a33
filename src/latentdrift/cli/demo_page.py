"""The demo's page: what it shows, and what it does not."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentdrift.cli.demo import DemoOptions
    from latentdrift.cli.demo_steps import Edited, Sampled
    from latentdrift.data import Cohort

SUMMARY = """Everything on this page was computed by this run, from simulated brains whose truth is known, on this
machine. The base model `tiny` had seen photographs only."""

DRIFT = """Diffusion starts from noise whose mean is zero. A scan's latents do not have mean zero: most of a slice is
black. A network fine-tuned for a few hundred steps reads the noise's mean as evidence about the image, so samples
come out with a gray, uneven background. The drift puts the mean right: **start** shifts the noise that sampling
starts from, on the same weights; **forward** does it in training, and any deterministic, unmodified sampler then
draws the right mean."""

TRUTH = """{count} held-out subjects, edited by `tiny-brain` after {steps} steps on the simulated cohort, by inversion
and denoising under the wanted diagnosis. The simulator renders the same subject with AD, everything else equal: that is
the truth. The change that the edit made and the true change agree by **{agreement:.2f}** (cosine over all pixels: 0 is
no relation, 1 the same change); with the true change of other subjects by {others:.2f}. Mean absolute error to the
truth, in levels of 255: **{error:.2f}** for the edit, **{nothing:.2f}** for doing nothing; the edit is nearer to the
truth in {better} of {count}."""

TEMPLATE = """`tiny-brain` was fine-tuned on real slices of 150 people in four stages. Round trip without an edit:
{psnr:.1f} dB. Changes smaller than the round trip's own error are not coloured. ModerateDemented is left out: it was
learned from two people, and asked for it the model makes one of them."""

NOT = """- One seed, a few dozen images: the intervals are wide, and small differences mean nothing.
- {steps} fine-tuning steps of a very small model: textures stay rough, and edits of single subjects are weak.
- Simulated anatomy follows simple rules. It shows whether a known change is recovered, and says nothing about patients.
- The MNI152 template is an average of young adults, not a scan; `tiny-brain` has seen stages, not diagnoses."""


def write_demo_page(
    options: DemoOptions,
    cohort: Cohort,
    runs: Mapping[str, Path],
    measured: Mapping[str, Sampled],
    edits: Edited,
    template: Mapping[str, Any],
    seconds: float,
) -> Path:
    """Write the figures and the page; return the page's path."""
    from latentdrift.report import (
        Notice,
        Picture,
        Repeat,
        Section,
        Table,
        counterfactual_figure,
        image_grid,
        latent_curve_figure,
        loss_curve,
        write_page,
    )

    out = options.out
    first = next(iter(measured.values())).result
    strip = image_grid(
        out / "drift.png",
        [list(sampled.images[:6]) for sampled in measured.values()],
        row_labels=[name.replace(" (", "\n(") for name in measured],
        title="The same noise under each drift",
    )
    curves = latent_curve_figure(
        out / "latents.png", {name: sampled.curve for name, sampled in measured.items()}, title="Latents while sampling"
    )
    losses = loss_curve(
        out / "losses.png", {name: read_losses(model.parent) for name, model in runs.items()}, smooth=15
    )
    shown = min(4, len(edits.labels))
    subjects = counterfactual_figure(
        out / "counterfactuals.png",
        list(edits.result.source[:shown]),
        list(edits.result.composed()[:shown]),
        list(edits.truth[:shown]),
        row_labels=edits.labels[:shown],
        title="Cognitively normal → Alzheimer's disease, simulated subjects never trained on",
    )
    result = template["result"]
    brain = counterfactual_figure(
        out / "template.png",
        list(result.source),
        list(result.counterfactual),
        row_labels=template["stages"],
        title="The MNI152 template under other stages, by tiny-brain",
        threshold=list(((result.reconstruction - result.source).abs().mean(1) / 2).numpy()),
    )
    table = []
    for name, sampled in measured.items():
        figures = {row["figure"]: row for row in sampled.result.rows()}
        row = {"drift": name}
        for figure, cells in figures.items():
            if not figure.startswith("images") and not figure.endswith("real"):
                interval = next((value for key, value in cells.items() if key.endswith("interval")), "")
                row[figure.split(" (")[0].removesuffix(", synthetic")] = cells["value"].split(" ±")[0] + (
                    f" ({interval})" if interval else ""
                )
        table.append(row)
    count = len(edits.error)
    error, nothing = sum(edits.error) / count, sum(edits.error_of_doing_nothing) / count
    agreement = sum(edits.agreement) / count
    others = sum(edits.agreement_with_others) / max(1, len(edits.agreement_with_others))
    better = sum(a < b for a, b in zip(edits.error, edits.error_of_doing_nothing, strict=True))
    psnr = float(result.round_trip_psnr.mean())
    sections = [
        Section(
            "What the drift did",
            [
                DRIFT,
                Picture(
                    strip,
                    "Rows share their noise and prompts, the first two also their weights. Shown as decoded.",
                ),
                Table(
                    table,
                    f"{first.n_synthetic} samples against {first.n_real} held-out simulated slices; features: "
                    f"{first.extractor}; real background {first.background_real:.1f}, in levels of 0 to 255. "
                    f"In brackets {first.confidence:.0%} bootstrap intervals.",
                ),
                Picture(curves, "Mean and spread of the latents over the reverse process."),
                Picture(losses, "Training loss of both runs."),
                Notice(sorted({warning for sampled in measured.values() for warning in sampled.result.warnings})),
            ],
        ),
        Section(
            "Counterfactuals beside the truth",
            [
                TRUTH.format(
                    count=count,
                    steps=options.brain_steps,
                    agreement=agreement,
                    others=others,
                    error=error,
                    nothing=nothing,
                    better=better,
                ),
                Picture(subjects, "Green: signal added; red: removed. Last columns: the true change."),
            ],
        ),
        Section(
            "A real average brain",
            [
                TEMPLATE.format(psnr=psnr),
                Picture(brain, "Green: signal added; red: removed."),
            ],
        ),
        Section("What this page does not show", [NOT.format(steps=options.steps)]),
        Section(
            "How to repeat it",
            [
                Repeat(
                    [
                        f"latentdrift demo --out {out.name} --subjects {options.subjects} --steps {options.steps} "
                        f"--samples {options.samples} --edits {options.edits} --seed {options.seed}"
                    ],
                    settings={
                        "cohort": f"{len(cohort)} simulated subjects, content {cohort.content_hash()[:16]}",
                        "seconds": f"{seconds:.0f}",
                    },
                )
            ],
        ),
    ]
    return write_page(out / "index.html", "Latent drifting on simulated brains", sections, summary=SUMMARY)


def read_losses(run: Path) -> tuple[list[int], list[float]]:
    """Return the steps and losses of a run."""
    import pandas as pd

    table = pd.read_csv(run / "losses.csv")
    return table["step"].tolist(), table["loss"].tolist()
