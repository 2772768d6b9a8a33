"""The page that a command leaves beside its results: one order and one look for all of them.

What was done, what to be careful about, what came out, the drift, the configuration, and how to repeat it. Someone who
did not run the command is the reader.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import DataError
from latentdrift.report.page import STATEMENT, Notice, Picture, Repeat, Section, Table, package_versions, write_page

if TYPE_CHECKING:
    from latentdrift.drift import LatentDrift

PAGE_FILE = "page.html"
"""Name of the page in the folder of every command."""

BUDGET = 1_100_000
"""Bytes of all pictures of a page together; base64 adds a third."""

SIZES = ((1600, 88), (1200, 80), (900, 72), (640, 62), (400, 50))
"""Longest side in pixels and WebP's quality, from the best to the smallest."""

LONG = 400
"""Letters of a value in the table of settings."""


@dataclass(frozen=True)
class DriftInUse:
    """The drift of a run, None where there is none, and a_s / b_s of its sampler's first timestep if that is known."""

    drift: LatentDrift | None
    gain: float | None = None
    steps: int | None = None
    """Denoising steps for which the gain holds."""


@dataclass(frozen=True)
class RunPage:
    """What a run's page shows.

    Attributes:
        title: of the page.
        done: what was done, a sentence or two; light Markdown.
        results: what came out, in order.
        command: the command line that made it.
        warnings: what was warned of while it ran.
        options: the command's settings, a dataclass or a mapping.
        drift: the drift under which it ran, None for commands that have none.
        facts: seeds, hashes and the like.
        versions: of packages; those of this moment if not given.
        statement: what stands above everything.
    """

    title: str
    done: str
    results: Sequence[Section]
    command: str
    warnings: Sequence[str] = ()
    options: Any = None
    drift: DriftInUse | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] | None = None
    statement: str = STATEMENT


def write_run_page(path: str | Path, page: RunPage) -> Path:
    """Write the page and return its path. Pictures are made small enough for the page to stay below 1.5 MB.

    Raises:
        DataError: a picture that cannot be read, or a page that cannot be written.
    """
    sections = list(page.results)
    if page.warnings and sections:
        first = sections[0]
        sections[0] = Section(first.heading, [Notice(page.warnings, "Warnings"), *first.blocks])
    if page.drift is not None:
        sections.append(Section("Drift", drift_blocks(page.drift)))
    if page.options is not None:
        rows = settings_rows(page.options)
        sections.append(Section("Configuration", [Table(rows, folded=f"All {len(rows)} settings, and what they mean")]))
    versions = package_versions() if page.versions is None else page.versions
    repeat = Repeat([page.command], versions=versions, settings=page.facts)
    sections.append(Section("How to repeat it", [repeat]))
    return write_page(path, page.title, fitted(sections), summary=page.done, statement=page.statement)


def settings_rows(options: Any) -> list[dict[str, Any]]:
    """Return a row a setting: its name, value, and meaning where the dataclass has it; nested ones are unfolded."""
    if isinstance(options, Mapping):
        return [{"setting": str(name), "value": shown(value)} for name, value in options.items()]
    rows: list[dict[str, Any]] = []
    for one in dataclasses.fields(options):
        value = getattr(options, one.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            rows += settings_rows(value)
        elif one.name not in ("json", "quiet"):
            row = {"setting": one.name.replace("_", " "), "value": shown(value)}
            rows.append({**row, "meaning": one.metadata.get("help", "")})
    return rows


def shown(value: Any) -> str:
    """Return a setting's value as text."""
    if value is None or value == () or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    return text if len(text) <= LONG else text[: LONG - 1] + "…"


def drift_blocks(use: DriftInUse) -> list[Any]:
    """Return what is to be said and shown of a drift."""
    import torch

    drift = use.drift
    if drift is None:
        return ["No drift: the sampler starts from noise of mean 0, as it does in plain diffusers."]
    numbers = torch.as_tensor(drift.numbers, dtype=torch.float32).detach()
    delta = numbers * (use.gain if drift.automatic and use.gain is not None else 1.0)
    in_words = {"scalar": "one number", "vector": "one number a latent channel", "map": "one number a latent pixel"}
    row: dict[str, Any] = {"kind": f"{drift.kind}, {in_words[drift.kind]}", "rule": drift.rule, "target": drift.target}
    if drift.rule == "paper":
        row["a step"] = drift.per_step
    known = not drift.automatic or use.gain is not None
    row |= {
        "value": "automatic, from the latents of the training images" if drift.automatic else "fixed",
        "mean": f"{float(delta.mean()):.4g}",
        "smallest": f"{float(delta.min()):.4g}",
        "largest": f"{float(delta.max()):.4g}",
    }
    if use.gain is not None:
        row["gain at the first timestep"] = f"{use.gain:.4g} (signal over noise)"
    unit = "standard deviations of the noise" if known else "units of the latents"
    at = f", for a sampler of {use.steps} steps" if use.steps is not None and drift.automatic and known else ""
    blocks: list[Any] = [
        "The drift δ moves the mean of the latents from which sampling starts, or of the noise in training, to where "
        f"the images of the data set are. Figures are in {unit}{at}.",
        Table([{"": name, "drift": value} for name, value in row.items()]),
    ]
    if drift.kind == "vector":
        channels = [{"channel": index, "δ": float(value)} for index, value in enumerate(delta)]
        blocks.append(Table(channels))
    if drift.kind == "map":
        caption = "δ over the image, a panel a latent channel. Red: the mean is raised; blue: lowered."
        blocks.append(Picture(map_picture(delta.numpy()), caption))
    return blocks


def map_picture(delta: Any) -> bytes:
    """Return the picture of a drift map (C, h, w) as PNG, all channels on one scale."""
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    most = float(np.abs(delta).max()) or 1.0
    figure = Figure(figsize=(1.9 * len(delta) + 0.9, 2.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(delta), squeeze=False)[0]
    for index, (axes, channel) in enumerate(zip(panels, delta, strict=True)):
        drawn = axes.imshow(channel, cmap="RdBu_r", vmin=-most, vmax=most, interpolation="nearest")
        axes.set_title(f"channel {index}", fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(drawn, ax=list(panels), shrink=0.85).ax.tick_params(labelsize=8)
    packed = io.BytesIO()
    figure.savefig(packed, format="png", dpi=110, facecolor="white")
    return packed.getvalue()


def fitted(sections: Sequence[Section]) -> list[Section]:
    """Return the sections with pictures as WebP, as large as the page's budget allows.

    Raises:
        DataError: a picture that cannot be read.
    """
    for side, quality in SIZES:
        made = [
            Section(
                section.heading,
                [
                    dataclasses.replace(block, image=shrunk(block.image, side, quality))
                    if isinstance(block, Picture)
                    else block
                    for block in section.blocks
                ],
            )
            for section in sections
        ]
        pictures = [block.image for section in made for block in section.blocks if isinstance(block, Picture)]
        if sum(len(image) for image in pictures if isinstance(image, bytes)) <= BUDGET:
            break
    return made


def shrunk(image: str | Path | bytes, side: int, quality: int) -> bytes:
    """Return an image of at most `side` pixels a side: as WebP, or as it is where that is smaller.

    Raises:
        DataError: no image, or one that cannot be read.
    """
    from PIL import Image

    try:
        data = image if isinstance(image, bytes) else Path(image).read_bytes()
        with Image.open(io.BytesIO(data)) as file:
            picture = file.convert("RGB")
    except Exception as error:  # Pillow's plug-ins raise anything on damaged files
        name = "the image" if isinstance(image, bytes) else str(image)
        raise DataError(f"{name} cannot be put on the page ({error}). Make the picture first.") from error
    large = max(picture.size) > side
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    picture.save(packed, format="WEBP", quality=quality, method=4)
    kept = packed.getvalue()
    return data if not large and len(data) <= len(kept) else kept
