"""The folder that `latentdrift counterfactual` leaves: images, maps, tables, and everything else in result.json."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from diffusers import DiffusionPipeline
    from numpy.typing import NDArray

    from latentdrift.cli.editing import Attributes, Classifiers, Wordings
    from latentdrift.cli.selection import Selected
    from latentdrift.data.provenance.manifest import Origin, SyntheticFile
    from latentdrift.edit import EditResult
    from latentdrift.evaluate.evidence import EditEvidence

SHOWN = 8
"""Rows of the overview."""

ENDS = ("value", "low", "high")
WANTED = ("_wanted_before", "_wanted_after")
"""Columns of the evidence that metadata.csv has too: the wanted class's probability by each classifier."""


def write_images(
    folder: Path,
    options: Any,
    selected: Sequence[Selected],
    names: Sequence[str],
    result: EditResult,
    words: Wordings,
    targets: Sequence[Attributes],
    evidence: EditEvidence,
    gray: bool,
    origin: Origin,
) -> tuple[list[dict[str, Any]], list[SyntheticFile]]:
    """Write every image's files; return one row an image (names, captions, figures), and all synthetic files.

    Per image: NAME.png (the counterfactual), NAME-source.png, NAME-difference.png (the signed map, without what the
    round trip changes by itself), and the scans of --export. l1 is in levels of 255, psnr in dB.
    """
    from latentdrift.cli.image_notes import source_digest
    from latentdrift.data import write_png
    from latentdrift.data.provenance.manifest import SyntheticFile
    from latentdrift.report import signed_difference

    limits = round_trip_limits(result)
    l1, psnr = result.round_trip_l1, result.round_trip_psnr
    rows: list[dict[str, Any]] = []
    made: list[SyntheticFile] = []
    for index, (one, name) in enumerate(zip(selected, names, strict=True)):
        edit = SyntheticFile(
            f"{name}.png",
            options.seed + index,
            words.after[index],
            targets[index],
            str(one.opened.file),
            source_digest(one.opened),
            words.before[index],
        )
        facts = origin.marks() | edit.marks()
        write_png(folder / f"{name}.png", result.image[index], gray=gray, text=facts, synthetic=True)
        write_png(folder / f"{name}-source.png", result.source[index], gray=gray)
        map_ = signed_difference(result.source[index], result.image[index], threshold=limits[index])
        write_png(folder / f"{name}-difference.png", map_, text=facts, synthetic=True)
        exported = export_edit(options, one, result, index, folder / f"{name}-edited", facts)
        made += [edit, dataclasses.replace(edit, file=f"{name}-difference.png")]
        if exported and one.opened.source is not None:
            # An export is of the scan itself, which may be another file than the image that the model saw.
            own = dataclasses.replace(edit, source_sha256=one.opened.source.source_hash())
            made += [dataclasses.replace(own, file=path.name) for path in exported]
        row: dict[str, Any] = {
            "file_name": f"{name}.png",
            "source_file": str(one.opened.file),
            **targets[index],
            "prompt": words.after[index],
            "seed": options.seed + index,
            "changed_l1": float((result.image - result.source)[index].abs().mean() * 127.5),
            "effect_l1": float(result.effect[index].abs().mean() * 127.5),
        }
        if l1 is not None and psnr is not None:
            row |= {"round_trip_l1": float(l1[index]), "round_trip_psnr": float(psnr[index])}
        row |= {name: value for name, value in evidence.rows[index].items() if name.endswith(WANTED)}
        if options.export:
            row["exported"] = " ".join(path.name for path in exported)
        rows.append(row)
    return rows, made


def origin_of(options: Any, pipeline: DiffusionPipeline, command: str) -> Origin:
    """Return what made the edits of a command, for their marks and manifest."""
    from latentdrift.data.provenance.manifest import Origin
    from latentdrift.models.identity import drift_facts, model_facts

    return Origin(
        model_facts(pipeline, options.model),
        drift_facts(pipeline, options.drift),
        {"name": options.editor, "config": dataclasses.asdict(options.settings)},
        {name: getattr(options, name) for name in ("steps", "guidance", "strength")},
        command,
    )


def round_trip_limits(result: EditResult) -> NDArray[np.float32]:
    """Return what the round trip changes by itself and a level more, (N, H, W) as parts of the range; else 0.

    The level is for rounding, which would else show where an edit is the reconstruction.
    """
    import torch

    if result.reconstruction is None:
        return torch.zeros(len(result.source), *result.source.shape[-2:]).numpy()
    limits: NDArray[np.float32] = ((result.reconstruction - result.source).abs().mean(1) / 2 + 1 / 255).numpy()
    return limits


def export_edit(
    options: Any, one: Selected, result: EditResult, index: int, stem: Path, facts: Mapping[str, Any]
) -> list[Path]:
    """Write one edit back into its scan, in every format asked for; return the files."""
    from latentdrift.data.export.edit import write_edit

    source = one.opened.source
    if source is None or not options.export:
        return []
    # Both in parts of the range from black to white. What is smaller than the round trip's own error is no edit.
    difference = result.effect[index].mean(0).numpy() / 2
    threshold: Any = 0.0
    if result.reconstruction is not None:
        threshold = (result.reconstruction - result.source)[index].abs().mean(0).numpy() / 2
    return write_edit(
        source,
        source.change(difference, threshold),
        stem,
        options.export,
        {**facts, "guidance": options.guidance, "steps": options.steps, "strength": options.strength},
        mark=options.mark,
        keep_identifiers=options.keep_identifiers,
    )


def write_overview(
    path: Path,
    result: EditResult,
    names: Sequence[str],
    words: Wordings,
    wish: Attributes,
    classifiers: Classifiers,
    evidence: EditEvidence,
    facts: Mapping[str, Any],
) -> Path:
    """Write rows of source, counterfactual and map, with a class's probability before → after beside them.

    The class is the wanted one, the image's own where nothing else is wanted; the probability the judge's, the guide's
    where there is no judge.
    """
    from latentdrift.report import counterfactual_figure

    shown = min(SHOWN, len(names))
    columns = [name for name in classifiers.named if name != "guide"] or ["guide"]
    labels = []
    for name, row in zip(names[:shown], evidence.rows, strict=False):
        lines = [name]
        for column in columns:
            if f"{column}_wanted" in row:
                before, after = (row[f"{column}_wanted_{when}"] for when in ("before", "after"))
                lines.append(f"{title_of(column)}, {row[f'{column}_wanted']}: {before:.0%} → {after:.0%}")
        labels.append("\n".join(lines))
    told = [next(iter(found)) if len(found) == 1 else "" for found in (set(words.before), set(words.after))]
    wanted = ", ".join(f"{name} {value}" for name, value in wish.items())
    return counterfactual_figure(
        path,
        list(result.source[:shown]),
        list(result.image[:shown]),
        row_labels=labels,
        title=" → ".join(told) if all(told) else f"→ {told[1] or wanted}",
        threshold=list(round_trip_limits(result)[:shown]),
        facts=facts,
    )


def title_of(column: str) -> str:
    """Return a classifier's columns' beginning in words: judge_stage_2 is "judge stage 2"."""
    return column.replace("_", " ")


def summary_lines(evidence: EditEvidence, classifiers: Classifiers) -> dict[str, str | list[str]]:
    """Return what is printed of the evidence: validity, gain, what should have stayed, and proximity.

    All with 95 % intervals; n is the number of subjects, or of images where subjects are not known.
    """
    summary = evidence.summary
    lines: dict[str, str | list[str]] = {}
    placebo = {"edit": "placebo edits"}.get(summary["placebo"], f"{summary['placebo']}s")
    for column in [*(name for name in classifiers.named if name != "guide"), "guide", "joint"]:
        if f"{column}_validity" not in summary:
            kept = kept_lines(evidence, column)
            if kept:
                lines[title_of(column)] = kept
            continue
        parts = [f"{share(summary[f'{column}_validity'])} show what is wanted"]
        if f"{column}_placebo_flip_rate" in summary:
            parts[0] += f"; of the {placebo} {summary[f'{column}_placebo_flip_rate']['value']:.0%}"
        if f"{column}_gain" in summary:
            parts.append(f"its probability changed by {points(summary[f'{column}_gain'])}")
        lines[title_of(column)] = parts
    near, alike = summary["changed_l1"], summary["ssim"]["value"]
    lines["proximity"] = f"{near['value']:.2f} levels of 255{between(near, '{:.2f}')} from the source, SSIM {alike:.3f}"
    return lines


def kept_lines(evidence: EditEvidence, column: str) -> list[str]:
    """Return what a judge says of an attribute that nobody asked to change."""
    rows = [row for row in evidence.leakage if row["judge"] == column and not row["wanted"]]
    if not rows:
        return []
    row = next((one for one in rows if one["class"] == "all"), rows[0])

    def figure(name: str) -> dict[str, Any]:
        return {"value": row[name], "low": row[f"{name}_low"], "high": row[f"{name}_high"], "n": row["n"]}

    return [
        f"should stay; {share(figure('other_class'))} are taken for another {row['attribute']} than before",
        f"its own class's probability changed by {points(figure('change'))}",
    ]


def share(figure: Mapping[str, Any]) -> str:
    """Return a share with its interval."""
    return f"{figure['value']:.0%}{between(figure, '{:.0%}')}"


def points(figure: Mapping[str, Any]) -> str:
    """Return a difference of probabilities in points of a hundred, with its interval."""
    # A tenth is shown; without adding 0 what rounds to nothing could be -0.0.
    found = {name: None if figure[name] is None else round(100 * figure[name], 1) + 0.0 for name in ENDS}
    return f"{found['value']:+.1f} points{between({**found, 'n': figure['n']}, '{:+.1f}')}"


def between(figure: Mapping[str, Any], form: str) -> str:
    """Return the interval and the number of subjects, such as ` (40% to 60%, n=64)`."""
    if figure["low"] is None:
        return f" (n={figure['n']})"
    return f" ({form.format(figure['low'])} to {form.format(figure['high'])}, n={figure['n']})"


def described_run(options: Any, pipeline: DiffusionPipeline, classifiers: Classifiers) -> dict[str, Any]:
    """Return what made the images: settings, editor, model, drift as used, classifiers, versions of packages."""
    from latentdrift.data.provenance.marks import package_versions
    from latentdrift.models import base_fingerprint
    from latentdrift.models.identity import drift_facts, model_facts

    card = pipeline.latentdrift_card
    config = options.settings
    return {
        "settings": {name: value for name, value in dataclasses.asdict(options).items() if name != "settings"},
        "editor": {"name": options.editor, "config": dataclasses.asdict(config)},
        "model": {
            **model_facts(pipeline, options.model),
            "fingerprint": base_fingerprint(pipeline.unet),
            "size": card.size,
        },
        "drift": drift_facts(pipeline, options.drift),
        "classifiers": [
            {
                "name": name,
                "role": one.role,
                "attribute": one.attribute,
                "classes": list(one.classes),
                "path": str(one.path),
            }
            for name, one in classifiers.named.items()
        ],
        "versions": package_versions(),
    }
