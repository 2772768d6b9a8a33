"""What a benchmark leaves: one JSON, tables as Markdown, LaTeX and CSV, a plot, pictures, and a page of all of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.benchmark.plan import Benchmark, Column, in_words
from latentdrift.benchmark.runner import Measured, facts_of, finished, problems
from latentdrift.benchmark.summary import RowSummary, summarise
from latentdrift.benchmark.tables import csv_text, heading, latex, markdown, shown_columns, table_rows
from latentdrift.data.files import write_text
from latentdrift.evaluate.distribution import small_sample_message
from latentdrift.report.page import package_versions

if TYPE_CHECKING:
    from latentdrift.benchmark.workshop import Workshop

SHOWN_PLOTS = 3
HOW_TO_READ = (
    "A figure is the mean over seeds; its 95 % interval is for other images and other trainings. *Minus control* is "
    "the row's figure minus its control's, one number a seed: both start from the same noise, so a sign that all seeds "
    "share says more than intervals that overlap. The paper's figures are of other images, another base and another "
    "feature network."
)


def write_results(
    plan: Benchmark,
    workshop: Workshop,
    found: Sequence[Measured],
    command: str,
    out: Path | None = None,
    *,
    show_real: bool = True,
) -> dict[str, Path]:
    """Write everything into `out`, by default the workshop's folder; return the files by kind.

    Args:
        plan: the benchmark.
        workshop: its workshop.
        found: what was measured.
        command: how to repeat it.
        out: folder.
        show_real: show held-out images beneath the samples; off where the data's terms forbid to hand images on.

    Raises:
        DataError: a file that cannot be written.
    """
    rows = summarise(plan, finished(found))
    stem = (out or workshop.folder) / f"{plan.name}-{slug(workshop.parts.facts['name'])}"
    record = to_dict(plan, workshop, found, rows, command)
    files = {suffix: stem.with_suffix(f".{suffix}") for suffix in ("json", "md", "tex", "csv")}
    write_text(files["json"], json.dumps(record, indent=1, default=str) + "\n")
    network = workshop.extractor.name
    write_text(files["md"], markdown(plan, workshop.data, rows, network))
    write_text(files["tex"], latex(plan, workshop.data, rows, network))
    write_text(files["csv"], csv_text(rows))
    if rows:
        files["png"] = plot(stem.with_suffix(".png"), plan, workshop, rows)
        samples = samples_picture(stem.with_name(f"{stem.name}-samples.png"), workshop, rows, show_real)
        if samples is not None:
            files["samples"] = samples
    files["html"] = write_html(stem.with_suffix(".html"), plan, workshop, found, rows, files, command)
    return files


def to_dict(
    plan: Benchmark, workshop: Workshop, found: Sequence[Measured], rows: Sequence[RowSummary], command: str
) -> dict[str, Any]:
    """Return everything as plain values."""
    import torch

    return {
        "benchmark": plan.name,
        "data": workshop.parts.facts,
        "config": dict(vars(plan.config)),
        "extractor": workshop.extractor.name,
        "command": command,
        "versions": package_versions(),
        "threads": torch.get_num_threads(),
        "work": facts_of(finished(found)),
        "rows": [row.to_dict() for row in rows],
        "cells": [
            {"row": one.cell.row, "seed": one.cell.seed, "figures": one.figures, **one.facts} for one in finished(found)
        ],
        "published": [{"row": row, "figures": figures} for row, figures in plan.published(workshop.data)],
        "problems": problems(found),
    }


def plot(path: Path, plan: Benchmark, workshop: Workshop, rows: Sequence[RowSummary]) -> Path:
    """Draw the first columns as points with their intervals, a row a line, the paper's figures beside them."""
    from matplotlib.figure import Figure

    from latentdrift.report.canvas import save

    columns = [column for column in shown_columns(plan, rows) if column.better and differs(column, rows)][:SHOWN_PLOTS]
    labels = [in_words(row.row) for row in rows]
    columns = columns or [column for column in shown_columns(plan, rows) if column.better][:1]
    figure = Figure(figsize=(3.0 + 2.6 * len(columns), 1.2 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots(1, len(columns), sharey=True, squeeze=False)[0]
    places = list(range(len(rows)))[::-1]
    published = plan.published(workshop.data)
    for axis, column in zip(axes, columns, strict=True):
        draw_column(axis, column, rows, places)
        for place, row in zip(places, rows, strict=True):
            known = next((figures for one, figures in published if one == row.row), {})
            if column.name in known:
                axis.plot([known[column.name]], [place], "D", ms=5, mfc="none", color="#b5651d")
        axis.set_title(f"{heading(column, workshop.extractor.name)} ({column.better} is better)", fontsize=9)
        axis.tick_params(labelsize=8)
        axis.grid(axis="x", alpha=0.3)
    axes[0].set_yticks(places, labels)
    told = f"{plan.name}: {workshop.parts.facts['name']}, mean over seeds and 95 % interval"
    figure.suptitle(f"{told}; ◇ the paper" if published else told, fontsize=10)
    return save(figure, path)


def differs(column: Column, rows: Sequence[RowSummary]) -> bool:
    """Return whether a column tells rows apart; where it does not there is nothing to draw, unless there is one row."""
    shown = {round(row.figures[column.figure].value * column.scale, 3) for row in rows if column.figure in row.figures}
    return len(shown) > 1 or len(rows) == 1


def draw_column(axis: Any, column: Column, rows: Sequence[RowSummary], places: Sequence[int]) -> None:
    """Draw one column: means and intervals, and every seed as a small point."""
    for place, row in zip(places, rows, strict=True):
        mean = row.figures.get(column.figure)
        if mean is None:
            continue
        colour = "#1f5fa8" if row.against is not None else "#666666"
        if mean.low is not None and mean.high is not None:
            axis.plot([mean.low * column.scale, mean.high * column.scale], [place, place], color=colour, lw=1.5)
        axis.plot([mean.value * column.scale], [place], "o", color=colour, ms=5)
        axis.plot([v * column.scale for v in mean.by_seed], [place] * len(mean.by_seed), "|", color=colour, ms=8)


def samples_picture(path: Path, workshop: Workshop, rows: Sequence[RowSummary], show_real: bool) -> Path | None:
    """Draw the first images of every row under the same noises, the held-out ones of these captions last, if wanted.

    Returns None where there are no images.
    """
    from latentdrift.data import ImageTransform
    from latentdrift.report import image_grid

    shown = [(row, [workshop.folder / name for name in row.pictures]) for row in rows]
    shown = [(row, files) for row, files in shown if files and all(file.exists() for file in files)]
    if not shown:
        return None
    from PIL import Image

    with Image.open(shown[0][1][0]) as first:
        transform = ImageTransform(size=max(first.size))
    count = max(len(files) for _, files in shown)
    lines = [[transform.read(file) for file in files] for _, files in shown]
    labels = [in_words(row.row) for row, _ in shown]
    if show_real:
        lines.append([transform.read(record.image) for record in workshop.asked(count)])
        labels.append("real, held out")
    note = "Synthetic but for the last row." if show_real else "Synthetic."
    return image_grid(path, lines, row_labels=labels, note=note, inches=1.0)


def write_html(
    path: Path,
    plan: Benchmark,
    workshop: Workshop,
    found: Sequence[Measured],
    rows: Sequence[RowSummary],
    files: dict[str, Path],
    command: str,
) -> Path:
    """Write the page."""
    from latentdrift.report.page import Notice, Picture, Repeat, Section, Table, write_page

    facts = workshop.parts.facts
    few = small_sample_message(facts["test"], plan.config.samples, workshop.extractor.dim)
    blocks: list[Any] = [
        plan.about,
        HOW_TO_READ,
        Notice([few] if few else []),
        Notice(problems(found), "Cells that failed"),
    ]
    blocks.append(
        Table(table_rows(plan, workshop.data, rows, workshop.extractor.name))
        if rows
        else "No cell has been measured yet."
    )
    sections = [Section("Table", blocks)]
    if "png" in files:
        sections.append(Section("Plot", [Picture(files["png"], "Points: means over seeds; marks: each seed.")]))
    if "samples" in files:
        sections.append(Section("Images", [Picture(files["samples"], "The same captions and noise in every row.")]))
    work = facts_of(finished(found))
    repeat = Repeat([command], settings={**plan.config.common(), "content hash": facts["content_hash"], **work})
    sections.append(Section("How to repeat it", [repeat]))
    summary = (
        f"{facts['name']}: {facts['train']} images to train on, {facts['test']} held out, by subject; "
        f"{work['cells']} cells, {work['hours']} hours of work."
    )
    return write_page(path, f"Benchmark {plan.name}", sections, summary=summary)


def slug(name: str) -> str:
    """Return a name as part of a file's."""
    return "-".join("".join(sign if sign.isalnum() else " " for sign in name.lower()).split()) or "data"
