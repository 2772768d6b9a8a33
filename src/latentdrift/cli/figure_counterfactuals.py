"""`latentdrift figure counterfactuals`: the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.figure_common import FigureOptions, check_out, finish, split_part
from latentdrift.cli.options import parse_options
from latentdrift.cli.show import counting, print_result, progress
from latentdrift.errors import ConfigurationError, DataError

if TYPE_CHECKING:
    import torch

    from latentdrift.data import Cohort, Record
    from latentdrift.models import ModelCard

DESCRIPTION = """Draw source, counterfactual and signed difference (green added, red removed): Figure 1 of the paper.

Either from a run and its cohort (--run, --data), with held-out images of the run's split; or from the folder that
`latentdrift counterfactual` left (--edits). Beside them stands the truth: of a simulated cohort the simulator's, of a
real one the same person's later scan that shows what was wanted. --later takes first and last scans of the same person
and asks for what the last one shows."""

Attributes = dict[str, str | float]


@dataclass(frozen=True, kw_only=True)
class CounterfactualsOptions(FigureOptions):
    """Draw source, counterfactual and signed difference."""

    run: str | None = None
    """Run folder of `latentdrift finetune`, or any model."""
    data: Path | None = None
    """Cohort of the images; of a run the test part of its split."""
    edits: Path | None = None
    """Folder of `latentdrift counterfactual`, in place of --run and --data."""
    source: tuple[str, ...] = ()
    """Only images that show this, such as stage=NonDemented."""
    target: tuple[str, ...] = ()
    """What they should show, such as stage=MildDemented."""
    later: bool = False
    """Ask for what the same person's last scan shows, in place of --target."""
    tolerance: float = 1.0
    """Most by which a later scan's number, such as its age in years, may differ from the wanted one."""
    count: int = 6
    """Most rows."""
    seed: int = 0
    """Of the choice among the images, and of editors that draw noise."""
    drift: str = "saved"
    """saved: the drift the model was trained with; none; a number; one number a channel with commas; a model folder."""
    editor: str = "auto"
    """prompt_swap, sdedit, pix2pix_zero or instruct_pix2pix; auto: the last for a model that edits by instruction."""
    steps: int = 50
    """DDIM steps each way."""
    guidance: float = 3.0
    """How far beyond the wanted attributes, away from the image's own; 1 is just there."""
    strength: float = 1.0
    """Part of the way to the noise, above 0 and at most 1; less keeps more of the image."""
    composed: bool = False
    """Show the source plus what the edit changed, which has the details that the round trip loses."""


@dataclass
class Rows:
    """What the figure shows: images (3, S, S) in [-1, 1], one of each a row; thresholds are parts of the range."""

    labels: list[str] = field(default_factory=list)
    sources: list[Any] = field(default_factory=list)
    edited: list[Any] = field(default_factory=list)
    truths: list[Any] = field(default_factory=list)
    thresholds: list[Any] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(CounterfactualsOptions, arguments, "figure counterfactuals", DESCRIPTION)
    from latentdrift.report import counterfactual_figure

    check_out(options)
    if (options.edits is None) == (options.run is None or options.data is None):
        raise ConfigurationError("Give --run and --data, or --edits.")
    if options.count < 1:
        raise ConfigurationError(f"--count is {options.count}; at least 1 row is needed.")
    warnings: list[str] = []
    rows, title, about = from_edits(options) if options.edits is not None else from_run(options, warnings)
    known = [truth is not None for truth in rows.truths]
    if any(known) and not all(known):
        warnings.append(f"{known.count(False)} of {len(known)} rows have no later scan, and are left out.")
        kept = [index for index, found in enumerate(known) if found]
        rows = Rows(**{name: [column[i] for i in kept] for name, column in vars(rows).items()})
    whole = any(known)
    counterfactual_figure(
        options.out,
        rows.sources,
        rows.edited,
        rows.truths if whole else None,
        row_labels=rows.labels,
        title=title,
        threshold=rows.thresholds,
    )
    for index, row in enumerate(rows.facts):
        row |= errors(rows.sources[index], rows.edited[index], rows.truths[index] if whole else None)
    record = finish("counterfactuals", arguments, options, {**about, "rows": rows.facts}, warnings)
    changed = mean(rows.facts, "changed_l1")
    said = {"changed": f"{changed:.2f} levels of 255 on average over {len(rows.facts)} images"}
    if whole:
        said["error"] = (
            f"{mean(rows.facts, 'error_l1'):.2f} levels of 255 from the {about['truth']}; doing nothing "
            f"{mean(rows.facts, 'error_l1_of_doing_nothing'):.2f}"
        )
    print_result({"figure": options.out, "numbers": record, **said, "warnings": warnings}, options.json)
    return 0


def errors(source: torch.Tensor, edited: torch.Tensor, truth: torch.Tensor | None) -> dict[str, float]:
    """Return how far the edit is from its source, and edit and source from the truth, L1 in levels of 0 to 255."""
    found = {"changed_l1": float((edited - source).abs().mean() * 127.5)}
    if truth is not None:
        found["error_l1"] = float((edited - truth).abs().mean() * 127.5)
        found["error_l1_of_doing_nothing"] = float((source - truth).abs().mean() * 127.5)
    return found


def mean(rows: Sequence[Mapping[str, Any]], name: str) -> float:
    """Return the mean of a figure over the rows."""
    return sum(float(row[name]) for row in rows) / len(rows)


def from_edits(options: CounterfactualsOptions) -> tuple[Rows, str, dict[str, Any]]:
    """Return the rows of a counterfactual folder, a title, and where they come from.

    Raises:
        DataError: no such folder, or images that are no longer there.
    """
    import pandas as pd
    from PIL import Image

    from latentdrift.data import ImageTransform

    folder = Path(options.edits or "")
    table_file = folder / "metadata.csv"
    if not table_file.exists():
        raise DataError(f"{table_file} does not exist: {folder} is no folder of `latentdrift counterfactual`.")
    table = pd.read_csv(table_file).iloc[: options.count]
    rows = Rows()
    for fact in table.to_dict("records"):
        file = folder / str(fact["file_name"])
        before = file.with_name(f"{file.stem}-source.png")
        for path in (file, before):
            if not path.exists():
                raise DataError(f"{path} is not there, though {table_file} names it. Make the counterfactuals again.")
        with Image.open(file) as picture:
            read = ImageTransform(size=max(picture.size)).read
        rows.labels.append(file.stem)
        rows.sources.append(read(before))
        rows.edited.append(read(file))
        rows.truths.append(None)
        # The map of the round trip is not kept; its mean is.
        error = float(fact.get("round_trip_l1", 0.0) or 0.0)
        rows.thresholds.append(error / 255 if error == error else 0.0)
        rows.facts.append({"file_name": file.name, "source_file": fact.get("source_file")})
    prompts = set(table["prompt"]) if "prompt" in table else set()
    return rows, f"→ {prompts.pop()}" if len(prompts) == 1 else "", {"edits": str(folder)}


def from_run(options: CounterfactualsOptions, warnings: list[str]) -> tuple[Rows, str, dict[str, Any]]:
    """Return rows of a run's held-out images, a title, and where they come from."""
    import torch

    from latentdrift.cli.counterfactual_folder import round_trip_limits
    from latentdrift.cli.models import open_model
    from latentdrift.cli.wishes import parse_attributes, require_card
    from latentdrift.counterfactual import make_counterfactuals
    from latentdrift.counterfactual.wordings import wordings
    from latentdrift.data import Cohort, ImageTransform
    from latentdrift.edit.gray import gray_edit

    run = str(options.run)
    pipeline, said = open_model(run, options.device, options.drift)
    warnings += said
    card = require_card(pipeline.latentdrift_card, run, "a model made by `latentdrift finetune`")
    wish = parse_attributes(options.target, card, "--target")
    if bool(wish) == options.later:
        raise ConfigurationError("Say what the images should show: --target NAME=VALUE, or --later; not both.")
    everything = Cohort.open(Path(options.data or ""), missing="keep")
    cohort, which = split_part(everything, run, "test")
    shown = parse_attributes(options.source, card, "--source")
    if shown:
        cohort = cohort.where(**shown)
    chosen = last_scans(options, cohort, card) if options.later else towards(options, cohort, everything, card, wish)
    records, targets, truths = chosen
    sources = [known_attributes(record, card) for record in records]
    read = ImageTransform(size=card.size).read
    images = torch.stack([read(record.image) for record in records])
    words = wordings(card, sources, targets, [record.key for record in records])
    with progress(options.quiet) as tell:
        result = make_counterfactuals(
            pipeline,
            images,
            words.before,
            words.after,
            editor=options.editor,
            steps=options.steps,
            guidance=options.guidance,
            strength=options.strength,
            seeds=[options.seed + index for index in range(len(images))],
            batch_size=options.batch_size,
            progress=counting(tell, "counterfactuals", len(records)),
        )
    if card.gray:
        result = gray_edit(result)
    edited = result.composed() if options.composed else result.image
    limits: list[Any] = [0.0] * len(records)
    if result.reconstruction is not None:
        limits = list(round_trip_limits(result))
    rows = Rows(
        labels=[
            label_of(record, source, target) for record, source, target in zip(records, sources, targets, strict=True)
        ],
        sources=list(result.source),
        edited=list(edited),
        truths=[None if truth is None else truth(read) for truth in truths],
        thresholds=limits,
        facts=[
            {"file_name": record.key, "subject": record.subject, "source_prompt": before, "target_prompt": after}
            for record, before, after in zip(records, words.before, words.after, strict=True)
        ],
    )
    truth = "simulator's truth" if simulated(everything) and not options.later else "later scan"
    title = f"→ {words.after[0]}" if len(set(words.after)) == 1 else ""
    return rows, title, {"images": which, "truth": truth if any(truths) else None}


def known_attributes(record: Record, card: ModelCard) -> Attributes:
    """Return those attributes of a record that the model was trained with."""
    return {name: record.attributes[name] for name in card.attributes if name in record.attributes}


def towards(
    options: CounterfactualsOptions, cohort: Cohort, everything: Cohort, card: ModelCard, wish: Attributes
) -> tuple[list[Record], list[Attributes], list[Any]]:
    """Return images that do not show what is wanted, what each should show, and what reads its truth or None.

    Raises:
        DataError: all images show it already.
    """
    records = [r for r in cohort if any(r.attributes.get(name) != value for name, value in wish.items())]
    if not records:
        raise DataError(
            f"Every image of {cohort.name!r} shows what is wanted already. Give another --target or --source."
        )
    truths = [truth_of(options, record, everything, wish) for record in records]
    # Those whose truth is known first; of equals at random.
    import numpy as np

    order = np.random.default_rng(options.seed).permutation(len(records)).tolist()
    order = sorted(order, key=lambda index: truths[index] is None)[: options.count]
    order.sort()
    return (
        [records[i] for i in order],
        [known_attributes(records[i], card) | wish for i in order],
        [truths[i] for i in order],
    )


def last_scans(
    options: CounterfactualsOptions, cohort: Cohort, card: ModelCard
) -> tuple[list[Record], list[Attributes], list[Any]]:
    """Return first scans of people, what their last scans show, and what reads those."""
    from latentdrift.data import longitudinal_pairs

    pairs = longitudinal_pairs(cohort, min_years=0.0, policy="first-last")
    pairs = sorted(pairs, key=lambda pair: -pair.years)[: options.count]
    targets = [known_attributes(pair.earlier, card) | known_attributes(pair.later, card) for pair in pairs]
    return [pair.earlier for pair in pairs], targets, [_reader(pair.later) for pair in pairs]


def truth_of(options: CounterfactualsOptions, record: Record, cohort: Cohort, wish: Attributes) -> Any:
    """Return what reads the image that the counterfactual should be, or None where nobody knows it."""
    if simulated(cohort):
        return simulators_truth(record, cohort, wish)
    found = [
        other
        for other in cohort
        if record.subject is not None
        and other.subject == record.subject
        and other.key != record.key
        and is_later(record, other)
        and all(agrees(other.attributes.get(name), value, options.tolerance) for name, value in wish.items())
    ]
    return _reader(found[0]) if found else None


def simulators_truth(record: Record, cohort: Cohort, wish: Attributes) -> Any:
    """Return what renders a simulated person under the wish; None where the wish is nothing the renderer knows."""
    import torch

    from latentdrift.data.simulate import true_counterfactual
    from latentdrift.data.simulate.kinds import kind_of
    from latentdrift.data.simulate.truth import simulated_subject

    person, _ = simulated_subject(cohort.root, record)
    if not set(wish) <= set(kind_of(person).attributes):
        return None
    attributes: dict[str, Any] = dict(wish)

    def render(read: Any) -> torch.Tensor:
        picture = torch.from_numpy(true_counterfactual(cohort.root, record, **attributes))
        return picture.expand(3, -1, -1) * 2 - 1

    return render


def is_later(record: Record, other: Record) -> bool:
    """Tell whether one scan comes after another of the same person, by days, age or session; else it is not known."""
    for name in ("days", "age"):
        first, second = record.attributes.get(name), other.attributes.get(name)
        if isinstance(first, int | float) and isinstance(second, int | float) and first != second:
            return second > first
    from latentdrift.data.splits import natural_key

    if record.session is None or other.session is None:
        return False
    return natural_key(other.session) > natural_key(record.session)


def agrees(value: Any, wanted: str | float, tolerance: float) -> bool:
    """Tell whether a value is the wanted one; numbers within the tolerance."""
    if isinstance(wanted, int | float) and isinstance(value, int | float):
        return abs(value - wanted) <= tolerance
    return bool(value == wanted)


def simulated(cohort: Cohort) -> bool:
    """Tell whether the simulator made a cohort."""
    return (cohort.root / "simulation.json").exists()


def label_of(record: Record, source: Attributes, target: Attributes) -> str:
    """Return whose row it is, and what changes."""
    changed = [f"{source.get(name, '?')} → {value}" for name, value in target.items() if source.get(name) != value]
    return "\n".join([record.subject or Path(record.key).stem, *changed])


def _reader(record: Record) -> Any:
    return lambda read: read(record.image)
