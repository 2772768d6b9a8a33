"""The page of a reader study: whether readers tell real from synthetic, how good the images are, how readers agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.report.page import Notice, Picture, Repeat, Section, Table, write_page

if TYPE_CHECKING:
    from latentdrift.evaluate.counterfactuals import Estimate
    from latentdrift.evaluate.reader_results import ReaderResults

STATEMENT = (
    "What readers said of real and synthetic images that were shown to them without names. It measures these images "
    "and these readers; it does not show that synthetic images are fit for diagnosis, and they must not be used for it."
)
READING = """- **Synthetic is positive.** Sensitivity is the share of synthetic images called synthetic, specificity the
share of real images called real. Who guesses has an accuracy and an AUC of 0.5.
- **AUC** takes the six ratings from surely real to surely synthetic, and so how sure readers are; that of all readers
is the mean of theirs.
- **Intervals** of all readers are for other readers and other images alike (both drawn again); those of one reader are
for other images. With few readers they are rough."""
SELF = (
    "Images that a reader saw twice, far apart. Kappa is Cohen's, for quality weighted by the square of the distance; "
    "with few repeats it is rough."
)
KAPPAS = (
    "Kappa is 1 for full agreement and 0 for that of chance. That of real or synthetic is near 0 when readers guess, "
    "so a low one is not a fault of theirs. Intervals are for other images."
)


def write_reader_page(
    path: str | Path,
    results: ReaderResults,
    roc: Path | None,
    *,
    title: str,
    command: str,
    notes: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write the page and return its path.

    Args:
        path: file to write.
        results: what was found.
        roc: picture of the curves.
        title: of the study.
        command: how to make the page again.
        notes: things to be careful about.
        settings: seeds, hashes and the like.

    Raises:
        DataError: see `write_page`.
    """
    share = f"{results.confidence:.0%}"
    first: list[Any] = [Notice(notes), Table(_rows(results.together, share), "All readers."), READING]
    if roc is not None:
        first.append(
            Picture(roc, "Ratings as thresholds: from surely synthetic alone (bottom left) to anything (top right).")
        )
    sections = [Section("Real or synthetic", first), Section("Each reader", [Table(results.reader_rows())])]
    if results.arms:
        rows = [{"set": arm, **row} for arm, found in results.arms.items() for row in _rows(found, share)]
        sections.append(Section("By set of synthetic images", ["Each set beside the same real images.", Table(rows)]))
    if results.agreement:
        sections.append(Section("Agreement between readers", [KAPPAS, Table(results.agreement_rows())]))
    if results.self_agreement:
        sections.append(Section("Agreement of readers with themselves", [SELF, Table(results.self_rows())]))
    sections.append(Section("How to repeat it", [Repeat([command], settings=settings or {})]))
    return write_page(path, title, sections, summary=results.verdict(), statement=STATEMENT)


def _rows(found: Mapping[str, Estimate], share: str) -> list[dict[str, Any]]:
    def ends(one: Estimate) -> str:
        return f"{one.interval.low:.3f} to {one.interval.high:.3f}"

    return [
        {"figure": name, "value": f"{one.value:.3f}", f"{share} interval": ends(one), "readers": one.n}
        for name, one in found.items()
    ]
