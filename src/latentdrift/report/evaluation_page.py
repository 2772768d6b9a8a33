"""The page of an evaluation: what was found, by group and by pair, what to be careful about, images of both sets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.report.page import Notice, Picture, Repeat, Section, Table, write_page

if TYPE_CHECKING:
    from latentdrift.evaluate import EvaluationResult

STATEMENT = (
    "The images called synthetic on this page show no patient and must not be used for diagnosis, treatment or any "
    "other clinical decision. Those called real are the data set's own: whoever sees the page sees the data, and its "
    "terms hold for the page."
)
READING = """- **Distances** are 0 for sets of one distribution. The Fréchet distance of few images is too large:
compare it only with figures from as many, or take the kernel distance and the Gaussian MMD, right for any number, which
may be slightly below 0.
- **Precision**: the share of synthetic images that look real. **Recall**: the share of real images the generator could
make. **Density** and **coverage** say the same and mind outliers less; density is about 1 for sets of one distribution.
- **Background** is the mean of the corners, **tint** the largest deviation of a channel from gray."""
GROUPS = (
    "Each group's synthetic images against the same group's real ones. Kernel distance and Gaussian MMD are of all "
    "images of a group, with intervals over subjects; the other figures depend on the number of images and are of "
    "equally many of each group, drawn at random. Of many differences between groups some are beyond 0 by chance."
)
CLOSEST = (
    "The synthetic images nearest to a real one by features; exact copies are at distance 0. Whether a model has "
    "memorised is another question: `latentdrift audit privacy` asks it of the training images."
)


def write_evaluation_page(
    path: str | Path,
    result: EvaluationResult,
    pictures: Mapping[str, Path],
    *,
    command: str,
    names: tuple[str, str] = ("real", "synthetic"),
) -> Path:
    """Write the page and return its path.

    Args:
        path: file to write.
        result: what was found.
        pictures: by name: samples, closest, pairs; each may be missing.
        command: how to make it again.
        names: of the real and the synthetic set.

    Raises:
        DataError: see `write_page`.
    """
    whole = f"Intervals are those of {result.confidence:.0%}, for other samples of as many images."
    found: list[Any] = [Notice(result.warnings), Table(result.rows(), whole), READING]
    sections = [Section("Figures", found)]
    if "samples" in pictures:
        shown = Picture(pictures["samples"], "Images of both sets, drawn at random.")
        sections.append(Section("Images of both sets", [shown]))
    for one in result.by_group:
        rows = result.group_rows(one.attribute)
        shown_rows: list[Any] = [GROUPS, Table(rows)] if rows else ["No group is large enough; see above."]
        sections.append(Section(f"By {one.attribute}", shown_rows))
    if result.pairs is not None:
        notes = [*result.pairs.figures.notes, *result.pairs.notes]
        caption = f"{len(result.pairs.names)} pairs; intervals are over subjects."
        blocks: list[Any] = [Notice(notes), Table(result.pair_rows(), caption)]
        if result.pairs.groups:
            blocks.append(Table(result.pairs.group_rows(result.confidence), "By group of the source."))
        if "pairs" in pictures:
            blocks.append(Picture(pictures["pairs"], "The first pairs."))
        sections.append(Section("Synthetic images and their sources", blocks))
    if "closest" in pictures:
        sections.append(Section("The closest pairs", [CLOSEST, Picture(pictures["closest"], "The closest first.")]))
    width, height = result.image_size
    settings = {
        "seed": result.seed,
        "extractor": result.extractor,
        "features": result.feature_dim,
        "image size": f"{width} x {height} pixels",
        "kernel distance": f"{result.subsets} subsets of {result.subset_size} images",
    }
    sections.append(Section("How to repeat it", [Repeat([command], settings=settings)]))
    summary = f"{result.n_synthetic} synthetic images ({names[1]}) against {result.n_real} real ones ({names[0]})."
    return write_page(path, "Evaluation", sections, summary=summary, statement=STATEMENT)
