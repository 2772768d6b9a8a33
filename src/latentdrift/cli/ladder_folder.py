"""What `latentdrift ladder` measures of its frames, and the folder it leaves."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import UnknownNameError

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

    from latentdrift.cli.editing import Classifiers
    from latentdrift.counterfactual.ladder import LadderResult
    from latentdrift.data.provenance.manifest import Origin
    from latentdrift.models.classifier import Classifier

Value = str | float
FRAMES = "frame-*.png"
"""Files of frames; a new ladder in the same folder leaves none of a former one's."""
LATER = ("synthetic", "synthetic_composed", "doing_nothing")


def in_gray(result: LadderResult) -> LadderResult:
    """Return the same without the tint that the decoder leaves, for models of gray images."""
    from latentdrift.cli.image_notes import as_gray

    kept = None if result.reconstruction is None else as_gray(result.reconstruction)
    return dataclasses.replace(result, frames=as_gray(result.frames), reconstruction=kept)


def measure(
    options: Any,
    result: LadderResult,
    frames: torch.Tensor,
    shown: Mapping[str, Value],
    wanted: Mapping[str, Value],
    real: Mapping[Value, torch.Tensor],
    classifiers: Classifiers,
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Return the figures of every frame, and those of the whole ladder.

    Args:
        options: `LadderOptions`.
        result: of one image.
        frames: what is shown, (K, 3, H, W).
        shown: what the source shows.
        wanted: what the last frame should show; of what is not named, the frames should show what the source does.
        real: the person's scans by value.
        classifiers: guide and judges.
    """
    import torch

    from latentdrift.counterfactual.steadiness import smoothness
    from latentdrift.evaluate.pairs import ssim

    source, composed = result.source[0], result.composed()[0]
    changed = (frames - source).abs().mean((1, 2, 3)) * 127.5
    rows: list[dict[str, Any]] = [
        {"value": value, "file_name": frame_name(i), "prompt": result.target_captions[0][i], "changed_l1": float(l1)}
        for i, (value, l1) in enumerate(zip(result.values, changed, strict=True))
    ]
    figures: dict[str, Any] = {"smoothness": smoothness(frames)._asdict()} if len(frames) > 1 else {}
    if result.round_trip_l1 is not None:
        figures["round_trip_l1"] = float(result.round_trip_l1[0])
    if options.extractor != "none":
        figures["identity"] = add_identity(options, rows, source, frames)
    figures["classifiers"] = [
        add_answers(name, one, rows, source, frames, shown, wanted) for name, one in classifiers.named.items()
    ]
    for row, frame, whole in zip(rows, frames, composed, strict=True):
        scan = real.get(row["value"])
        if scan is not None:
            pairs = torch.stack([frame, whole, source])
            l1 = (pairs - scan).abs().mean((1, 2, 3)) * 127.5
            alike = ssim(pairs, scan[None].expand_as(pairs))
            row["later"] = {name: {"l1": float(l1[i]), "ssim": float(alike[i])} for i, name in enumerate(LATER)}
    return rows, figures


def add_identity(
    options: Any, rows: Sequence[dict[str, Any]], source: torch.Tensor, frames: torch.Tensor
) -> dict[str, Any]:
    """Add each frame's distance to the source, and with a gallery the source's rank, 1 being the nearest; say by what.

    Gallery images that are the source pixel by pixel are left out.
    """
    import numpy as np
    import torch
    from scipy.spatial.distance import cdist

    from latentdrift.data import Cohort, ImageTransform
    from latentdrift.evaluate import load_extractor

    extractor = load_extractor(options.extractor, weights=options.weights)
    features = extractor(torch.cat([source[None], frames]))
    own = cdist(features[1:], features[:1], "cosine")[:, 0]
    for row, distance in zip(rows, own, strict=True):
        row["distance_to_source"] = float(distance)
    facts: dict[str, Any] = {"extractor": extractor.name, "metric": "cosine distance of features"}
    if options.gallery is None:
        return facts
    read = ImageTransform(size=source.shape[-1]).read
    others = []
    for record in Cohort.open(options.gallery, missing="keep"):
        image = read(record.image)
        if float((image - source).abs().max()) > 1 / 127.5:
            others.append(extractor(image[None]))
    facts["gallery"] = len(others)
    if others:
        ranks = 1 + (cdist(features[1:], np.concatenate(others), "cosine") <= own[:, None]).sum(1)
        for row, rank in zip(rows, ranks, strict=True):
            row["rank_of_source"] = int(rank)
    return facts


def add_answers(
    name: str,
    classifier: Classifier,
    rows: Sequence[dict[str, Any]],
    source: torch.Tensor,
    frames: torch.Tensor,
    shown: Mapping[str, Value],
    wanted: Mapping[str, Value],
) -> dict[str, Any]:
    """Add a classifier's probabilities of each frame, under its name; return those of the source, and how they go.

    What should rise is the class that the last frame should show. Where nothing is wanted of the attribute it is the
    class that should stay: the source's own, or what the classifier takes it for.
    """
    import torch

    from latentdrift.counterfactual.steadiness import monotonicity

    names = [str(one) for one in classifier.classes]
    table = classifier.probabilities(torch.cat([source[None], frames]))
    toward = int(table[0].argmax())
    if classifier.attribute in wanted:
        toward = classifier.index(wanted[classifier.attribute])
    elif classifier.attribute in shown:
        with suppress(UnknownNameError):
            toward = classifier.index(shown[classifier.attribute])
    for row, found in zip(rows, table[1:], strict=True):
        row[name] = {one: float(p) for one, p in zip(names, found, strict=True)}
    steady = monotonicity(table[1:, toward].tolist())
    return {
        "name": name,
        "role": classifier.role,
        "attribute": classifier.attribute,
        "wanted": classifier.attribute in wanted,
        "class": names[toward],
        "source": {one: float(p) for one, p in zip(names, table[0], strict=True)},
        "first_and_last": [float(table[1, toward]), float(table[-1, toward])],
        "monotonicity": {one: number if math.isfinite(number) else None for one, number in steady._asdict().items()},
    }


def write_ladder(
    folder: Path,
    options: Any,
    result: LadderResult,
    frames: torch.Tensor,
    real: Mapping[Value, torch.Tensor],
    rows: Sequence[Mapping[str, Any]],
    figures: Mapping[str, Any],
    pipeline: DiffusionPipeline,
    *,
    classifiers: Classifiers,
    warnings: Sequence[str],
    origin: Origin,
    digest: str,
) -> None:
    """Write the frames, the strip, the GIF, the page, manifest.json and result.json.

    `origin` is what made the frames, `digest` the SHA-256 of the source; the rest as `measure`.
    """
    from latentdrift.cli.counterfactual_folder import described_run
    from latentdrift.cli.folders import write_json
    from latentdrift.data import write_png
    from latentdrift.data.provenance.manifest import SyntheticFile, write_manifest
    from latentdrift.report.making_pages import drift_in_use, write_ladder_page
    from latentdrift.report.strip import strip_figure, write_gif

    source, gray = result.source[0], pipeline.latentdrift_card.gray
    shown = result.source_captions[0]
    whole = SyntheticFile(
        "strip.png", options.seed, source=str(options.image), source_sha256=digest, source_prompt=shown
    )
    whole = dataclasses.replace(whole, facts={"axis": result.axis})
    facts = origin.marks() | whole.marks()
    write_png(folder / "source.png", source, gray=gray)
    made = [whole, dataclasses.replace(whole, file="ladder.gif")]
    for row, frame in zip(rows, frames, strict=True):
        told = {**whole.facts, "value": str(row["value"])}
        made.append(dataclasses.replace(whole, file=row["file_name"], prompt=row["prompt"], facts=told))
        text = origin.marks() | made[-1].marks()
        write_png(folder / row["file_name"], frame, gray=gray, text=text, synthetic=True)
    labels = [label_of(result.axis, value) for value in result.values]
    # A level more than the round trip, whose rounding would show where a frame is the reconstruction. Composed frames
    # have no round trip in them.
    threshold: Any = 1 / 255
    if result.reconstruction is not None and not options.composed:
        threshold = (result.reconstruction[0] - source).abs().mean(0).numpy() / 2 + 1 / 255
    strip_figure(
        folder / "strip.png",
        source,
        list(frames),
        labels,
        real=[real.get(value) for value in result.values],
        title=f"{shown}, along {'δ' if result.axis == 'drift' else result.axis}" if shown else f"along {result.axis}",
        threshold=threshold,
        facts=facts,
    )
    # The font of the GIF has no δ.
    write_gif(
        folder / "ladder.gif",
        list(frames),
        [f"{result.axis} {label.removeprefix('δ ')}" for label in labels],
        milliseconds=options.milliseconds,
        facts=facts,
    )
    record = {
        **described_run(options, pipeline, classifiers),
        "axis": result.axis,
        "values": list(result.values),
        "source_prompt": shown,
        "frames": list(rows),
        **figures,
        "warnings": list(warnings),
    }
    write_json(folder / "result.json", record)
    write_manifest(folder, origin, made)
    write_ladder_page(
        folder,
        record,
        sentences(figures, rows),
        command=origin.command or "",
        options=options,
        drift=drift_in_use(pipeline, options.steps),
        facts={"seed": options.seed, "SHA-256 of the model's weights": origin.model["sha256"]},
    )


def sentences(figures: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the figures in words."""
    said: dict[str, Any] = {
        "changed": [f"{row['value']}: {row['changed_l1']:.2f} levels of 255 from the source" for row in rows]
    }
    if "smoothness" in figures and len(rows) > 2:
        said["smoothness"] = smoothness_words(figures["smoothness"])
    if "round_trip_l1" in figures:
        said["round trip"] = f"{figures['round_trip_l1']:.2f} levels of 255"
    ranks = [row["rank_of_source"] for row in rows if "rank_of_source" in row]
    if ranks:
        said["identity"] = (
            f"the source is nearer than all {figures['identity']['gallery']} images of the gallery to "
            f"{ranks.count(1)} of {len(ranks)} frames, by {figures['identity']['extractor']}"
        )
    for one in figures.get("classifiers", ()):
        steady, (first, last) = one["monotonicity"], one["first_and_last"]
        before = one["source"][one["class"]]
        words = f"{one['class']}: source {before:.0%}, frames {first:.0%} → {last:.0%}"
        if not one["wanted"]:
            words += ", should stay"
        elif steady["rho"] is not None and steady["low"] is not None:  # of a few frames it says nothing
            words += f", Spearman {steady['rho']:+.2f} (95% CI {steady['low']:+.2f} to {steady['high']:+.2f})"
            words += f", {steady['n']} frames"
        said[one["name"].replace("_", " ") + ("" if one["role"] == "judge" else f" {one['attribute']}")] = words
    said["later scans"] = [
        f"{row['value']}: "
        + "; ".join(
            f"{name.replace('_', ' ')} {row['later'][name]['l1']:.2f} levels of 255 off, SSIM "
            f"{row['later'][name]['ssim']:.3f}"
            for name in LATER
        )
        for row in rows
        if "later" in row
    ]
    return said


def smoothness_words(smooth: Mapping[str, float]) -> str:
    """Return the evenness of a strip in words."""
    return (
        f"largest step {smooth['largest_step']:.0%} of the whole way of {smooth['whole_way']:.2f} levels of 255 "
        f"(even steps: {smooth['even_step']:.0%}); its ends are {smooth['straightness']:.0%} of that apart"
    )


def frame_name(index: int) -> str:
    """Return the file of a frame."""
    return f"frame-{index:02d}.png"


def label_of(axis: str, value: Value) -> str:
    """Return a value as it stands above its frame."""
    if isinstance(value, str):
        return value
    return f"δ {value:+.3g}" if axis == "drift" and value else f"δ {value:g}" if axis == "drift" else f"{value:g}"
