"""`latentdrift counterfactual`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.models import ModelOptions
from latentdrift.cli.options import parse_options
from latentdrift.cli.scans import Opened, ScanOptions, open_images, unique_stems
from latentdrift.cli.show import print_result, progress

if TYPE_CHECKING:
    from latentdrift.counterfactual import CounterfactualResult

DESCRIPTION = """Show what real images would look like under other attributes.

Each image is inverted to noise under its own attributes and denoised under the wanted ones, both under the model's
drift. For each, the folder holds the counterfactual, the signed difference (green added, red removed), and the error of
the round trip, in result.json; overview.png shows them side by side.

Images are pictures, DICOM files or folders of one series, and slices of NIfTI volumes. With --export the change goes
back into the scan at its own resolution; pixels that change by less than the round trip's error keep their bits."""


@dataclass(frozen=True, kw_only=True)
class CounterfactualOptions(ModelOptions, ScanOptions):
    """Show what real images would look like under other attributes."""

    image: tuple[Path, ...]
    """Pictures, DICOM or NIfTI files, or folders of them; a folder of DICOM files is one series."""
    source: tuple[str, ...]
    """What the images show, such as stage=NonDemented."""
    target: tuple[str, ...]
    """What they should show, such as stage=MildDemented; attributes not named stay as they are."""
    out: Path
    """Folder to make."""
    steps: int = 50
    """DDIM steps each way."""
    guidance: float = 3.0
    """How far beyond the wanted attributes, away from the image's own; 1 is just there."""
    strength: float = 1.0
    """Part of the way to the noise, above 0 and at most 1; less keeps more of the image."""
    export: tuple[str, ...] = ()
    """Also write the edited scan at its own resolution (png16, tiff, nifti, dicom), or the change alone (residual)."""
    mark: bool = False
    """Write SYNTHETIC into the pixels of exported DICOM files."""
    keep_identifiers: bool = False
    """Keep who the patient is in exported files; dropped by default."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(CounterfactualOptions, arguments, "counterfactual", DESCRIPTION)
    import torch

    from latentdrift.cli.folders import write_json, write_table
    from latentdrift.cli.models import open_model
    from latentdrift.cli.wishes import parse_attributes, require_card
    from latentdrift.counterfactual import make_counterfactuals
    from latentdrift.data import PromptTemplate, write_png
    from latentdrift.data.export.edit import check_formats
    from latentdrift.report import counterfactual_figure, signed_difference

    check_formats(options.export)
    pipeline, warnings = open_model(options.model, options.device, options.drift)
    card = require_card(pipeline.latentdrift_card, options.model, "a model made by `latentdrift finetune`")
    source = parse_attributes(options.source, card, "--source")
    target = source | parse_attributes(options.target, card, "--target")
    template = PromptTemplate.restore(card.template)
    before, after = template.caption(source), template.caption(target)
    opened = open_images(options.image, options, card, scans=bool(options.export))
    for one in opened:
        check_formats(options.export, one.source)
    files = [one.file for one in opened]
    images = torch.stack([one.image for one in opened])
    with progress(options.quiet) as tell:
        done = 0

        def finished(count: int) -> None:
            nonlocal done
            done += count
            tell("counterfactuals", done, len(files))

        result = make_counterfactuals(
            pipeline,
            images,
            [before] * len(files),
            [after] * len(files),
            steps=options.steps,
            guidance=options.guidance,
            strength=options.strength,
            batch_size=options.batch_size,
            progress=finished,
        )
    options.out.mkdir(parents=True, exist_ok=True)
    rows = []
    names = unique_stems(files)
    thresholds = ((result.reconstruction - result.source).abs().mean(1) / 2).numpy()
    for index, (file, name) in enumerate(zip(files, names, strict=True)):
        facts = {"source": before, "target": after, "model": options.model, "drift": options.drift}
        write_png(options.out / f"{name}.png", result.counterfactual[index], gray=card.gray, text=facts, synthetic=True)
        write_png(options.out / f"{name}-source.png", result.source[index], gray=card.gray)
        map_ = signed_difference(result.source[index], result.counterfactual[index], threshold=thresholds[index])
        write_png(options.out / f"{name}-difference.png", map_, text=facts, synthetic=True)
        exported = export_edit(options, opened[index], result, index, options.out / f"{name}-edited", facts)
        rows.append(
            {
                "file_name": f"{name}.png",
                "source_file": str(file),
                **target,
                "prompt": after,
                "changed_l1": float((result.counterfactual - result.source)[index].abs().mean() * 127.5),
                "effect_l1": float(result.effect[index].abs().mean() * 127.5),
                "round_trip_l1": float(result.round_trip_l1[index]),
                "round_trip_psnr": float(result.round_trip_psnr[index]),
                **({"exported": " ".join(path.name for path in exported)} if options.export else {}),
            }
        )
    write_table(options.out / "metadata.csv", rows)
    shown = min(8, len(files))
    overview = counterfactual_figure(
        options.out / "overview.png",
        list(result.source[:shown]),
        list(result.counterfactual[:shown]),
        row_labels=names[:shown],
        title=f"{before} → {after}",
        threshold=list(thresholds[:shown]),
    )
    captions = {"source": before, "target": after}
    record = {"settings": dataclasses.asdict(options), "captions": captions, "images": rows, "warnings": warnings}
    write_json(options.out / "result.json", record)
    psnr, levels = float(result.round_trip_psnr.mean()), float(result.round_trip_l1.mean())
    print_result(
        {
            "folder": options.out,
            "overview": overview,
            "round trip": f"{psnr:.1f} dB, {levels:.2f} levels of 255",
            "effect": f"{float(result.effect.abs().mean() * 127.5):.2f} levels of 255 changed on average",
            "warnings": warnings,
        },
        options.json,
    )
    return 0


def export_edit(
    options: CounterfactualOptions,
    opened: Opened,
    result: CounterfactualResult,
    index: int,
    stem: Path,
    facts: Mapping[str, Any],
) -> list[Path]:
    """Write one edit back into its scan, in every format asked for; return the files."""
    from latentdrift.data.export.edit import write_edit

    if opened.source is None or not options.export:
        return []
    # Both in parts of the range from black to white. What is smaller than the round trip's own error is no edit.
    difference = result.effect[index].mean(0).numpy() / 2
    threshold = (result.reconstruction - result.source)[index].abs().mean(0).numpy() / 2
    return write_edit(
        opened.source,
        opened.source.change(difference, threshold),
        stem,
        options.export,
        {**facts, "guidance": options.guidance, "steps": options.steps, "strength": options.strength},
        mark=options.mark,
        keep_identifiers=options.keep_identifiers,
    )
