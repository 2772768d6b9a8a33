"""`latentdrift counterfactual`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from latentdrift.cli.editing import EditingOptions, parse_editing
from latentdrift.cli.models import ModelOptions
from latentdrift.cli.selection import SelectionOptions
from latentdrift.cli.show import counting, print_result, progress

if TYPE_CHECKING:
    from latentdrift.edit import EditResult

DESCRIPTION = """Show what real images would look like under other attributes.

Each image is inverted to noise under its own attributes and denoised under the wanted ones, both under the model's
drift; --editor names other ways. For each, the folder holds the counterfactual, the signed difference (green added, red
removed), and the error of the round trip, in result.json; overview.png shows them side by side. With --judge, a
classifier that had no part in the edit says before and after how likely the wanted class is.

Images are pictures, DICOM files or folders of one series, and slices of NIfTI volumes; or the folder of a cohort, whose
table says what they show. With --export the change goes back into the scan at its own resolution; pixels that change by
less than the round trip's error keep their bits."""

OWN = {"result.json": "captions"}
"""What tells a former result; a ladder's file of that name has no captions."""


@dataclass(frozen=True, kw_only=True)
class CounterfactualOptions(ModelOptions, EditingOptions, SelectionOptions):
    """Show what real images would look like under other attributes."""

    target: tuple[str, ...]
    """What they should show, such as stage=MildDemented, several at once; attributes not named stay as they are."""
    out: Path
    """Folder to make, or of a former result to replace; not one that holds an image of --image."""
    placebo: bool = False
    """Also edit towards what the images show already, as the judge's baseline; else the reconstruction is."""
    way_up: Literal["drifted", "plain"] = "drifted"
    """How the noise is found: drifted, under the model's drift; plain, without any, so that a --drift that `search`
    found under rule start acts on the edit."""
    export: tuple[str, ...] = ()
    """Also write the edited scan at its own resolution (png16, tiff, nifti, dicom), or the change alone (residual)."""
    mark: bool = False
    """Write SYNTHETIC into the pixels of exported DICOM files."""
    keep_identifiers: bool = False
    """Keep who the patient is in exported files; dropped by default."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options: Any = parse_editing(CounterfactualOptions, arguments, "counterfactual", DESCRIPTION)
    import torch

    from latentdrift.cli.counterfactual_folder import (
        described_run,
        origin_of,
        summary_lines,
        write_images,
        write_overview,
    )
    from latentdrift.cli.editing import (
        doubts,
        open_classifiers,
        run_edit,
    )
    from latentdrift.cli.folders import command_line, write_json, write_table
    from latentdrift.cli.image_notes import prepare_image, source_digest
    from latentdrift.cli.masks import read_mask
    from latentdrift.cli.models import open_model
    from latentdrift.cli.objectives import objective_config, objective_of, perceptual_distance
    from latentdrift.cli.scans import unique_stems
    from latentdrift.cli.selection import select_images, unchanged
    from latentdrift.cli.whole_folder import check_out, whole_folder
    from latentdrift.cli.wishes import parse_attributes, require_card
    from latentdrift.counterfactual.wordings import wordings
    from latentdrift.data.export.edit import check_formats
    from latentdrift.data.provenance.manifest import SyntheticFile, write_manifest
    from latentdrift.evaluate.evidence import edit_evidence
    from latentdrift.report.making_pages import drift_in_use, write_edit_page
    from latentdrift.report.run_page import PAGE_FILE

    check_out(options.out, OWN, options.image)
    check_formats(options.export)
    pipeline, warnings = open_model(options.model, options.device, options.drift)
    card = require_card(pipeline.latentdrift_card, options.model, "a model made by `latentdrift finetune`")
    wish = parse_attributes(options.target, card, "--target")
    selected = select_images(options, card, scans=bool(options.export))
    # A cohort's table may name images anywhere.
    check_out(options.out, OWN, [one.opened.file for one in selected])
    for one in selected:
        check_formats(options.export, one.opened.source)
    sources = [one.attributes for one in selected]
    targets = [source | wish for source in sources]
    words = wordings(card, sources, targets, [one.key for one in selected])
    classifiers = open_classifiers(options, pipeline, wish)
    prepared = [prepare_image(one.opened, card) for one in selected]
    images = torch.stack([image for image, _, _ in prepared])
    notes = [found for _, found, _ in prepared]
    mask = None if options.mask is None else read_mask(options.mask, [one.opened for one in selected], card.size)
    warnings += [text for _, _, found in prepared for text in found]
    same = unchanged(sources, targets)
    if same:
        warnings.append(f"{same} of {len(sources)} images show what is wanted already.")
    device = pipeline.unet.device
    objective = objective_of(options, classifiers.guide, targets, images, device)
    perceptual = perceptual_distance(objective_config(options), "cpu")
    files = [one.opened.file for one in selected]
    names = unique_stems(files)
    with whole_folder(options.out, own=OWN) as folder:
        with progress(options.quiet) as tell:
            counted = counting(tell, "counterfactuals", len(files))
            edit: dict[str, Any] = {"mask": mask, "way_up": options.way_up}
            result = run_edit(options, pipeline, images, words, objective=objective, progress=counted, **edit)
            placebo = None
            if options.placebo:
                # A guide, too, is asked for what the images show already.
                aim = objective_of(options, classifiers.guide, sources, images, device)
                counted = counting(tell, "placebo", len(files))
                edit |= {"objective": aim, "progress": counted, "placebo": True, "reconstruct": False}
                placebo = run_edit(options, pipeline, images, words, **edit)
        evidence = edit_evidence(
            result,
            targets=[one.facts | wish for one in selected],
            sources=[one.facts for one in selected],
            guide=classifiers.guide,
            judges=classifiers.judges,
            subjects=[one.subject for one in selected] if all(one.subject for one in selected) else None,
            placebo=placebo,
            source_files=files,
            perceptual=perceptual,
        )
        if classifiers.all:
            warnings += [*doubts(classifiers), *evidence.summary["warnings"]]
        origin = origin_of(options, pipeline, command_line("counterfactual", arguments))
        rows, made = write_images(folder, options, selected, names, result, words, targets, evidence, card.gray, origin)
        write_table(folder / "metadata.csv", rows)
        write_overview(folder / "overview.png", result, names, words, wish, classifiers, evidence, origin.marks())
        write_manifest(folder, origin, [*made, SyntheticFile("overview.png")])
        facts = [
            {
                "source_prompt": words.before[index],
                "source_attributes": one.attributes,
                "source_sha256": source_digest(one.opened),
                "subject": one.subject,
                "notes": notes[index],
                "evidence": evidence.rows[index],
            }
            for index, one in enumerate(selected)
        ]
        record = {
            **described_run(options, pipeline, classifiers),
            "captions": {"source": told(words.before), "target": told(words.after)},
            "images": [{**row, **more} for row, more in zip(rows, facts, strict=True)],
            "summary": {name: value for name, value in evidence.summary.items() if name != "warnings"},
            "leakage": evidence.leakage,
            "warnings": warnings,
        }
        write_json(folder / "result.json", record)
        write_edit_page(
            folder,
            record,
            command=origin.command or "",
            options=options,
            drift=drift_in_use(pipeline, options.steps),
            facts={"first seed": options.seed, "SHA-256 of the model's weights": origin.model["sha256"]},
        )
    done = [note for found in notes for note in found]
    print_result(
        {
            "folder": options.out,
            "overview": options.out / "overview.png",
            "page": options.out / PAGE_FILE,
            **summary_lines(evidence, classifiers),
            **round_trip(result),
            "done to images": [
                f"{note} ({count} of {len(files)} images)" for note, count in Counter(done).most_common()
            ],
            "warnings": warnings,
        },
        options.json,
    )
    return 0


def round_trip(result: EditResult) -> dict[str, str]:
    """Return the lines about the round trip and what the edit changed beside it, for an editor that makes one."""
    l1, psnr = result.round_trip_l1, result.round_trip_psnr
    if l1 is None or psnr is None:
        return {}
    return {
        "round trip": f"{float(l1.mean()):.2f} levels of 255 from the source by itself, {float(psnr.mean()):.1f} dB",
        "effect": f"{float(result.effect.abs().mean() * 127.5):.2f} levels of 255 from the round trip to the edit",
    }


def told(captions: Sequence[str]) -> str | list[str]:
    """Return the caption that all images have, or all captions."""
    return captions[0] if len(set(captions)) == 1 else list(captions)
