"""Pages of commands that make images: `generate`, `counterfactual` and `ladder`. Each is written into their folder."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.report.page import Picture, Section, Table
from latentdrift.report.run_page import PAGE_FILE, DriftInUse, RunPage, write_run_page

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SHOWN, COLUMNS = 24, 8
"""Images of the contact sheet."""
ROWS = 60
"""Images in a table; the rest stand in the folder's own."""
EDITED = """- **Source**: the image as it was given. **Counterfactual**: the same image under the wanted attributes,
made by the model. **Difference**: what it has more (green) and less (red).
- What the edit shows is what the model has learned to associate with a word. It is no prognosis."""
STATEMENT = (
    "The edited images on this page are synthetic: they show no patient and must not be used for diagnosis, treatment "
    "or any other clinical decision. The sources are the images that were given, and their terms hold for the page."
)
FIGURES = {
    "validity": "share of edits that the classifier takes for the wanted class",
    "turned": "the same, of images that it did not take for it before",
    "gain": "change of the wanted class's probability",
    "placebo_flip_rate": "share of placebo edits taken for the wanted class",
    "placebo_gain": "change of that probability by the placebo",
    "above_placebo": "gain of the edit minus gain of the placebo",
    "changed_l1": "mean change of a pixel, levels of 255",
    "ssim": "structural similarity to the source, 1 is the same image",
    "lpips": "perceptual distance to the source, 0 is the same image",
    "sparsity": "share of the pixels that stayed",
    "effect_l1": "mean difference of edit and round trip, levels of 255",
    "round_trip_l1": "mean error of inverting and denoising without an edit, levels of 255",
    "round_trip_psnr": "the same in dB: the higher, the nearer to the source",
}
"""What figures of the evidence mean, by the end of their name."""


def drift_in_use(pipeline: DiffusionPipeline, steps: int) -> DriftInUse:
    """Return the drift that acts in a pipeline, and the gain of its sampler for a number of steps."""
    import copy

    from latentdrift.drift import drift_of
    from latentdrift.drift.scheduler import start_gain

    scheduler = copy.deepcopy(pipeline.scheduler)
    scheduler.set_timesteps(steps)
    return DriftInUse(drift_of(pipeline), float(start_gain(scheduler)), steps)


def write_generate_page(
    folder: str | Path,
    rows: Sequence[Mapping[str, Any]],
    *,
    command: str,
    options: Any,
    drift: DriftInUse,
    facts: Mapping[str, Any],
    warnings: Sequence[str] = (),
) -> Path:
    """Write the page of `generate` and return its path.

    Args:
        folder: with the images.
        rows: of metadata.csv.
        command: how to make it again.
        options: `GenerateOptions`.
        drift: under which images were made.
        facts: hash of the model and the like.
        warnings: what was warned of.

    Raises:
        DataError: an image that cannot be read, or a page that cannot be written.
    """
    from latentdrift.data.images import read_array
    from latentdrift.report.figures import image_grid

    folder = Path(folder)
    prompts = Counter(row["prompt"] for row in rows)
    shown = rows[:SHOWN]
    images = [2 * read_array(folder / row["file_name"]) - 1 for row in shown]
    lines = [images[start : start + COLUMNS] for start in range(0, len(images), COLUMNS)]
    with tempfile.TemporaryDirectory() as place:
        sheet = image_grid(Path(place, "sheet.png"), lines, inches=1.3).read_bytes()
    caption = f"The first {len(shown)} of {len(rows)} synthetic images, in the order of their seeds."
    table = [{"prompt": prompt, "images": count} for prompt, count in prompts.items()]
    under = "without a drift" if drift.drift is None else f"under a drift of rule *{drift.drift.rule}*"
    done = (
        f"{len(rows)} synthetic images were made by the model `{options.model}` {under}, from {len(prompts)} "
        f"{'prompt' if len(prompts) == 1 else 'prompts'}, in {options.steps} denoising steps at guidance "
        f"{options.guidance:g}."
    )
    results = [
        Section("Images", [Picture(sheet, caption)]),
        Section("Prompts", [Table(table[:ROWS], "" if len(table) <= ROWS else f"The first {ROWS} of {len(table)}.")]),
    ]
    page = RunPage("Generated images", done, results, command, warnings, options, drift, facts)
    return write_run_page(folder / PAGE_FILE, page)


def write_edit_page(
    folder: str | Path,
    record: Mapping[str, Any],
    *,
    command: str,
    options: Any,
    drift: DriftInUse,
    facts: Mapping[str, Any],
) -> Path:
    """Write the page of `counterfactual`; `record` is what result.json holds, the rest as `write_generate_page`."""
    folder, images = Path(folder), record["images"]
    wanted = ", ".join(record["settings"]["target"])
    done = (
        f"{len(images)} {'image was' if len(images) == 1 else 'images were'} edited by the model "
        f"`{record['model']['name']}` to show *{wanted}*, all else to stay as it is; editor "
        f"*{record['editor']['name']}*."
    )
    captions = record["captions"]
    if isinstance(captions["source"], str) and isinstance(captions["target"], str):
        done += f" Captions: `{captions['source']}` → `{captions['target']}`."
    first: list[Any] = [EDITED, Picture(folder / "overview.png", "Source, counterfactual and difference.")]
    results = [Section("Images", first)]
    figures = figure_rows(record["summary"])
    if figures:
        note = (
            "95 % intervals; n is the number of subjects, or of images where subjects are not known. "
            f"The placebo: {record['summary'].get('placebo') or 'none'}."
        )
        results.append(Section("Evidence", [Table(figures, note), *leakage_blocks(record["leakage"])]))
    table = [
        {
            "image": one["file_name"],
            "changed, levels of 255": one.get("changed_l1"),
            "round trip": one.get("round_trip_l1"),
            **{name.replace("_", " "): value for name, value in one.items() if name.endswith(("_before", "_after"))},
            "notes": "; ".join(one.get("notes", ())),
        }
        for one in images[:ROWS]
    ]
    more = "" if len(images) <= ROWS else f"The first {ROWS} of {len(images)}; all are in metadata.csv. "
    if not any(row["notes"] for row in table):
        table = [{name: value for name, value in row.items() if name != "notes"} for row in table]
    explained = f"{more}Round trip: error of the image inverted and denoised without an edit."
    results.append(Section("Every image", [Table(table, explained)]))
    page = RunPage(
        "Counterfactuals", done, results, command, record["warnings"], options, drift, facts, statement=STATEMENT
    )
    return write_run_page(folder / PAGE_FILE, page)


def figure_rows(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the figures of evidence as rows, with intervals and what they mean."""
    rows = []
    for name, figure in summary.items():
        if not isinstance(figure, Mapping) or "value" not in figure:
            continue
        meaning = next((text for end, text in FIGURES.items() if name == end or name.endswith(f"_{end}")), "")
        rows.append(
            {
                "figure": name.replace("_", " "),
                "value": figure["value"],
                "interval": interval_words(figure["low"], figure["high"]),
                "n": figure.get("n"),
                "meaning": meaning,
            }
        )
    return rows


def interval_words(low: float | None, high: float | None) -> str:
    """Return an interval as text, a dash where there is none."""
    return "–" if low is None or high is None else f"{low:.3g} to {high:.3g}"


def leakage_blocks(rows: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Return what judges say of attributes that should have stayed."""
    stayed = [row for row in rows if not row["wanted"] and row["class"] == "all"]
    if not stayed:
        return []
    table = [
        {
            "attribute": row["attribute"],
            "judge": row["judge"].replace("_", " "),
            "taken for another class than before": row["other_class"],
            "interval": interval_words(row["other_class_low"], row["other_class_high"]),
            "n": row["n"],
        }
        for row in stayed
    ]
    return [Table(table, "Attributes that nobody asked to change: the smaller, the better.")]


def write_ladder_page(
    folder: str | Path,
    record: Mapping[str, Any],
    sentences: Mapping[str, Any],
    *,
    command: str,
    options: Any,
    drift: DriftInUse,
    facts: Mapping[str, Any],
) -> Path:
    """Write the page of `ladder`; `record` is what result.json holds, `sentences` its figures in words."""
    folder, frames = Path(folder), record["frames"]
    axis, values = record["axis"], record["values"]
    done = (
        f"One image was shown under {len(values)} values of *{axis}*, from {values[0]} to {values[-1]}, by the model "
        f"`{record['model']['name']}`; all frames start from one noise."
    )
    if record.get("source_prompt"):
        done += f" The image's caption: `{record['source_prompt']}`."
    told = [
        {"": name, "found": "; ".join(value) if isinstance(value, list | tuple) else str(value)}
        for name, value in sentences.items()
        if value
    ]
    table = [
        {
            axis: str(frame["value"]),
            "caption": frame["prompt"],
            "changed, levels of 255": frame["changed_l1"],
            **({"distance to the source": frame["distance_to_source"]} if "distance_to_source" in frame else {}),
        }
        for frame in frames
    ]
    caption = "The source and the frames; below each frame what it has more (green) and less (red)."
    results = [
        Section("Frames", [Picture(folder / "strip.png", caption)]),
        Section("Figures", [Table(told), Table(table, "Every frame.")]),
    ]
    page = RunPage(
        f"Ladder of {axis}", done, results, command, record["warnings"], options, drift, facts, statement=STATEMENT
    )
    return write_run_page(folder / PAGE_FILE, page)
