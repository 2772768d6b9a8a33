"""Synthetic images beside the images they were made from: which belong together, and how alike they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from latentdrift.data import Cohort, ImageTransform, Record
from latentdrift.errors import EvaluationError
from latentdrift.evaluate.fairness import SMALLEST, GroupFigures, mean_by_group
from latentdrift.evaluate.features.base import to_bytes
from latentdrift.evaluate.images import read_as_is
from latentdrift.evaluate.lines import Line
from latentdrift.evaluate.pairs import PairFigures, pair_figures
from latentdrift.evaluate.set_groups import GroupLabels

SOURCE_COLUMN = "source_file"
"""Of metadata.csv, as `latentdrift counterfactual` writes it: the file an image was made from."""
VIEW = "-source.png"
"""End of the file beside a counterfactual that shows its source as the model saw it."""


class Match(NamedTuple):
    """A synthetic image and its source."""

    synthetic: int
    """Place in the synthetic cohort."""
    real: int | None
    """Place in the real cohort; None where the source is not in it."""
    file: Path
    """Of the source's pixels."""
    subject: Hashable
    """Whose image the source is; the source itself where that is not known."""


@dataclass(frozen=True)
class PairedFigures:
    """Figures of pairs.

    Args:
        figures: SSIM, MS-SSIM, PSNR and LPIPS with intervals over subjects.
        names: of the synthetic image and its source.
        groups: by attribute and figure, the means by group.
        notes: what was left out, and why.
    """

    figures: PairFigures
    names: tuple[tuple[str, str], ...]
    groups: dict[str, dict[str, GroupFigures]]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        found = self.figures.to_dict()
        groups = {a: {name: one.to_dict() for name, one in figures.items()} for a, figures in self.groups.items()}
        return {**found, "pairs": len(self.names), "groups": groups, "notes": [*found["notes"], *self.notes]}

    def lines(self) -> list[Line]:
        """Return the figures of all pairs, then by group, then the differences between groups."""
        count, units = f"{len(self.names)} pairs", self.figures.units
        found = [
            Line(f"{name} ({units[name]})", one.value, one.interval, digits=4, group="pairs", images=count)
            for name, one in self.figures.estimates.items()
        ]
        for attribute, figures in self.groups.items():
            for name, grouped in figures.items():
                ones = [(group, one) for group, one in grouped.groups.items()]
                ones += [(f"{a} minus {b}", one) for (a, b), one in grouped.differences.items()]
                for group, one in ones:
                    place = {"group": f"pairs, {attribute}: {group}", "images": f"{one.n} subjects"}
                    found.append(Line(f"{name} ({units[name]})", one.value, one.interval, digits=4, **place))  # type: ignore[arg-type]
        return found

    def group_rows(self, confidence: float) -> list[dict[str, str]]:
        """Return the table by groups."""
        return [
            {"group": line.group, **line.shown(confidence), "images": line.images}
            for line in self.lines()
            if line.group != "pairs"
        ]


def match_pairs(real: Cohort, synthetic: Cohort) -> list[Match]:
    """Return the synthetic images whose source is known: named in the column source_file, or of the same file name.

    A source that is named is looked for by its path, and where no such file is left by its name. Beside counterfactuals
    stands their source as the model saw it (NAME-source.png): its pixels are taken, for they are in the same place.

    Raises:
        EvaluationError: fewer than two have a source.
    """
    by_path = {record.image.resolve(): i for i, record in enumerate(real)}
    by_key = {record.key: i for i, record in enumerate(real)}
    times = Counter(Path(record.key).name for record in real)
    by_name = {Path(r.key).name: i for i, r in enumerate(real) if times[Path(r.key).name] == 1}
    found = []
    for place, record in enumerate(synthetic):
        named = record.attributes.get(SOURCE_COLUMN)
        if isinstance(named, str):
            files = [path for path in (Path(named), synthetic.root / named) if path.is_file()]
            index = next((by_path[path.resolve()] for path in files if path.resolve() in by_path), None)
            if not files:
                index = by_key.get(named, by_name.get(Path(named).name))
            view = record.image.with_name(record.image.stem + VIEW)
            files = [view] if view.is_file() else files
        else:
            index, files = by_key.get(record.key, by_name.get(Path(record.key).name)), []
        file = files[0] if files else None if index is None else real[index].image
        if file is None or file.resolve() == record.image.resolve():
            continue
        subject: Hashable = None if index is None else real[index].subject
        source = named if index is None else real[index].key
        found.append(Match(place, index, file, subject or ("unknown", source)))
    if len(found) < 2:
        raise EvaluationError(
            f"{len(found)} of {len(synthetic)} images in {synthetic.root} have a source in {real.root}: pairs need a "
            f"column {SOURCE_COLUMN!r} that names the source of each image, or files of the same names in both folders."
        )
    return found


def paired_figures(
    real: Cohort,
    synthetic: Cohort,
    matches: Sequence[Match],
    *,
    size: int | None = None,
    labels: Sequence[GroupLabels] = (),
    smallest: int = SMALLEST,
    progress: Callable[[int, int], None] | None = None,
    **settings: Any,
) -> PairedFigures:
    """Return how alike synthetic images and their sources are.

    Args:
        real: the real images.
        synthetic: the synthetic ones.
        matches: what belongs together, from `match_pairs`.
        size: side in pixels at which files are read; None requires all to be of one size.
        labels: groups by attribute; the source's group counts, else the synthetic image's.
        smallest: fewest subjects of a group whose figure is given.
        progress: called with (pairs read, pairs in all).
        **settings: lpips_network, device, confidence, resamples and seed of `pair_figures`; its errors too.

    Raises:
        EvaluationError: images of different size, or fewer than two subjects.
        DataError: files that cannot be read.
    """
    import torch

    read = read_as_is if size is None else ImageTransform(size=size).read
    chosen: list[Record] = [synthetic[match.synthetic] for match in matches]
    made, sources = [], []
    for done, (record, match) in enumerate(zip(chosen, matches, strict=True), 1):
        one, other = (to_bytes(read(path)[None])[0] for path in (record.image, match.file))
        if one.shape != other.shape:
            raise EvaluationError(
                f"{record.image} and its source {match.file} differ in size. Give size (such as 128) to read both at."
            )
        made.append(one)
        sources.append(other)
        if progress:
            progress(done, len(matches))
    if len({image.shape for image in made}) > 1:
        raise EvaluationError("The pairs differ in size. Give size (such as 128) to read all files at one size.")
    a, b = torch.stack(made), torch.stack(sources)
    if bool((a == a[:, :1]).all()) and bool((b == b[:, :1]).all()):
        a, b = a[:, :1], b[:, :1]  # gray: three equal channels would say the same three times
    subjects = [match.subject for match in matches]
    figures = pair_figures(a, b, subjects, **settings)
    notes = []
    if len(matches) < len(synthetic):
        notes.append(f"{len(synthetic) - len(matches)} of {len(synthetic)} synthetic images have no known source")
    few = {name: settings[name] for name in ("confidence", "seed") if name in settings}
    groups: dict[str, dict[str, GroupFigures]] = {}
    for one_of in labels:
        names = [
            (None if match.real is None else one_of.real[match.real]) or one_of.synthetic[match.synthetic]
            for match in matches
        ]
        for name, values in figures.per_image.items():
            finite = [group if abs(value) < float("inf") else None for group, value in zip(names, values, strict=True)]
            try:
                found = mean_by_group(
                    [value if group is not None else 0.0 for group, value in zip(finite, values, strict=True)],
                    finite,
                    subjects,
                    smallest=smallest,
                    **few,
                )
            except EvaluationError as error:
                notes.append(f"{name} by {one_of.attribute}: {error}")
                continue
            groups.setdefault(one_of.attribute, {})[name] = found
    names_of = tuple((record.key, match.file.name) for record, match in zip(chosen, matches, strict=True))
    return PairedFigures(figures, names_of, groups, tuple(notes))
