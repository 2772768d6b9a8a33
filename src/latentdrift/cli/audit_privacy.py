"""`latentdrift audit privacy`."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import Tell, print_result, progress
from latentdrift.errors import ConfigurationError

if TYPE_CHECKING:
    from latentdrift.data import Cohort
    from latentdrift.evaluate.privacy import CopyFigures, Found, Looks, Membership
    from latentdrift.evaluate.privacy.parts import Parts

DESCRIPTION = """Ask whether synthetic images give away the images that their model was trained on.

Every synthetic image is compared with all training images, and so is every held-out real image, which shows what chance
looks like: by pixels, by pixels and SSIM after small shifts, and by features. Copies are images much nearer to a
training image than that one's neighbours are. Membership inference asks whether one can tell who was in the training,
from the images and, with --model, from the model's loss. Finding nothing is no proof of privacy."""

STATEMENT = (
    "The images called synthetic on this page show no patient and must not be used for diagnosis. Those called "
    "training or held-out are the data set's own: whoever sees the page sees the data, and its terms hold for the page."
)
PAIRS = (
    "The ratio is the distance to the training image over that image's mean distance to its neighbours of other "
    "subjects. Look at the pairs: a number does not know what matters in them."
)
LARGEST = 128
"""Pixels of a side at which images are compared by default, at most."""


@dataclass(frozen=True, kw_only=True)
class PrivacyOptions:
    """Ask whether synthetic images give away the images that their model was trained on."""

    synthetic: Path
    """Folder of the model's images, such as `latentdrift generate` makes."""
    data: Path
    """Folder of the cohort that the model was trained on."""
    split: Path | None = None
    """split.csv of the run, or the run folder; that of --model by default. All parts but train are held out."""
    model: str | None = None
    """Run folder or model whose loss is asked, too; without it, the images alone are."""
    extractor: str = "default"
    """Features compared: inception, efficientnet-lite0, default (the first whose weights are at hand), or none."""
    weights: Path | None = None
    """File with the extractor's weights."""
    size: int | None = None
    """Side in pixels at which images are compared; that of the synthetic ones by default, at most 128."""
    shift: int = 3
    """Largest shift in pixels that is undone."""
    candidates: int = 10
    """Nearest training images by pixels, and as many by features, on which shift and SSIM are tried."""
    factor: float = 0.5
    """A copy is nearer to a training image than this times that one's mean distance to its neighbours."""
    most: int = 500
    """Most training images, and most held-out ones, whose loss is measured, drawn at random."""
    noises: int = 2
    """Noises at each of the five timesteps of the loss."""
    pairs: int = 12
    """Closest pairs to show."""
    out: Path | None = None
    """Folder for privacy.json, figures.csv, images.csv, page.html and the pictures of the closest pairs."""
    batch_size: int = 16
    """Images at once."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    seed: int = 0
    """Seed of resamples, noises and of what is drawn."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    options = parse_options(PrivacyOptions, arguments, "audit privacy", DESCRIPTION)
    for flag in ("most", "pairs", "batch_size"):
        if getattr(options, flag) < 1:
            raise ConfigurationError(f"--{flag.replace('_', '-')} is {getattr(options, flag)}; at least 1 is needed.")
    from latentdrift.cli.whole_folder import AUDITS, check_out
    from latentdrift.evaluate.images import open_images
    from latentdrift.evaluate.privacy import NearestConfig, copy_figures, measure_figures, nearest_images
    from latentdrift.evaluate.privacy.findings import baseline_warnings, verdict
    from latentdrift.evaluate.privacy.losses import LossConfig

    if options.out is not None:
        check_out(options.out, AUDITS)
    config = NearestConfig(candidates=options.candidates, shift=options.shift)
    losses = LossConfig(noises=options.noises, batch_size=options.batch_size, seed=options.seed)
    made = open_images(options.synthetic, "synthetic")
    parts = open_parts(options)
    training, held_out, warnings = parts.training, parts.held_out, list(parts.warnings)
    with progress(options.quiet) as tell:
        synthetic, members, others = read_sets(options, made, training, held_out, tell)
        found = nearest_images(synthetic, members, config, progress=lambda a, b: tell("synthetic neighbours", a, b))
        baseline = nearest_images(others, members, config, progress=lambda a, b: tell("held-out neighbours", a, b))
        figures = measure_figures(found, baseline, others.people(), seed=options.seed)
        copies = copy_figures(found, baseline, members, factor=options.factor)
        attacks = image_attacks(synthetic, members, others)
        if options.model is not None:
            attacks.append(model_attack(options, losses, training, held_out, warnings, tell))
    warnings += baseline_warnings(others, baseline.by["pixel"].distance, figures)
    findings = verdict(figures, copies, attacks)
    record = {
        "verdict": findings[0],
        "findings": findings[1:],
        "images": {"synthetic": len(synthetic), "training": len(members), "held_out": len(others)},
        "size": int(synthetic.pixels.shape[1]),
        "nearest": [one.to_dict() for one in figures],
        "copies": [one.to_dict() for one in copies],
        "membership": [one.to_dict() for one in attacks],
        "warnings": warnings,
        "settings": dataclasses.asdict(options),
    }
    files = []
    if options.out is not None:
        files = write_folder(options, record, (synthetic, members, others), (found, baseline), copies)
    print_result({**record, "files": files} if options.json else told(record, files), options.json)
    return 0


def open_parts(options: PrivacyOptions) -> Parts:
    """Return the training and the held-out images.

    Raises:
        ConfigurationError: no split.
        DataError: see `audit_parts`.
    """
    from latentdrift.evaluate.privacy.parts import audit_parts

    own = None if options.model is None else Path(options.model) / "split.csv"
    own = own if own is not None and own.is_file() else None
    place = options.split or own
    if place is None:
        raise ConfigurationError("Give --split RUN/split.csv: what was trained on must be known.")
    return audit_parts(options.data, place / "split.csv" if place.is_dir() else place, own)


def read_sets(
    options: PrivacyOptions, made: Any, training: Cohort, held_out: Cohort, tell: Tell
) -> tuple[Looks, Looks, Looks]:
    """Return the looks of synthetic, training and held-out images."""
    from latentdrift.evaluate.features import load_extractor
    from latentdrift.evaluate.privacy import read_looks
    from latentdrift.models.loading import usable_device

    size = min(LARGEST, max(max(pair) for pair in made.sizes)) if options.size is None else options.size
    device = str(usable_device(options.device))
    network = None
    if options.extractor != "none":
        network = load_extractor(options.extractor, weights=options.weights, device=device)

    def read(name: str, files: Sequence[Path], names: Sequence[str], subjects: Sequence[str | None] = ()) -> Looks:
        return read_looks(
            files,
            size,
            network,
            names=names,
            subjects=subjects,
            batch_size=options.batch_size,
            progress=lambda done, total: tell(f"{name} images", done, total),
        )

    def read_cohort(name: str, cohort: Cohort) -> Looks:
        return read(name, [r.image for r in cohort], [r.key for r in cohort], [r.subject for r in cohort])

    synthetic = read("synthetic", made.files, made.names)
    return synthetic, read_cohort("training", training), read_cohort("held-out", held_out)


def image_attacks(synthetic: Looks, members: Looks, others: Looks) -> list[Membership]:
    """Return the attacks that need the images alone."""
    from latentdrift.evaluate.privacy import distance_attack

    measures = ["pixel"] if synthetic.features is None else ["pixel", "feature"]
    return [distance_attack(members, others, synthetic, measure) for measure in measures]


def model_attack(
    options: PrivacyOptions, config: Any, training: Cohort, held_out: Cohort, warnings: list[str], tell: Tell
) -> Membership:
    """Return the attack on the model's loss."""
    from latentdrift.cli.models import open_model
    from latentdrift.data import PromptTemplate
    from latentdrift.evaluate.privacy import loss_attack
    from latentdrift.evaluate.privacy.losses import denoising_losses, file_latents
    from latentdrift.models import check_from_noise

    pipeline, said = open_model(str(options.model), options.device, "saved")
    check_from_noise(pipeline)
    warnings += said
    card = pipeline.latentdrift_card
    if card is None:
        warnings.append(f"{options.model} does not say how images are captioned: its loss is at an empty caption.")

    def measure(name: str, cohort: Cohort) -> tuple[Any, list[Hashable]]:
        drawn = cohort.take(options.most, seed=options.seed) if len(cohort) > options.most else cohort
        captions = [""] * len(drawn) if card is None else PromptTemplate.restore(card.template).captions(drawn)
        latents = file_latents(pipeline, [record.image for record in drawn], options.batch_size)
        losses = denoising_losses(
            pipeline,
            latents,
            captions,
            config,
            progress=lambda done, total: tell(f"loss of {name} images", done, total),
        )
        return losses, [record.subject or ("unknown", record.key) for record in drawn]

    (inside, people), (outside, others) = measure("training", training), measure("held-out", held_out)
    return loss_attack(inside, outside, config.timesteps(pipeline), people, others)


def option_words(options: Mapping[str, Any]) -> list[str]:
    """Return the flags that differ from their defaults, to repeat the audit with."""
    defaults = {field.name: field.default for field in dataclasses.fields(PrivacyOptions)}
    hidden = {"json", "quiet"}
    words = []
    for name, value in options.items():
        if name not in hidden and value != defaults[name]:
            words += [f"--{name.replace('_', '-')}", str(value)]
    return words


def told(record: Mapping[str, Any], files: Sequence[str]) -> dict[str, Any]:
    """Return what is printed."""
    images = ", ".join(f"{name.replace('_', '-')} {count}" for name, count in record["images"].items())
    return {
        "verdict": record["verdict"],
        "findings": record["findings"],
        "images": f"{images}; compared at {record['size']} pixels",
        "files": list(files),
        "warnings": record["warnings"],
    }


def write_folder(
    options: Any,
    record: Mapping[str, Any],
    sets: tuple[Looks, Looks, Looks],
    found: tuple[Found, Found],
    copies: Sequence[CopyFigures],
) -> list[str]:
    """Write all files, whole or not at all, and return their names.

    Args:
        options: `PrivacyOptions`.
        record: what goes into privacy.json.
        sets: synthetic, training and held-out images.
        found: the nearest training images of synthetic and held-out ones.
        copies: by each measure.
    """
    from latentdrift.cli.folders import write_json, write_table
    from latentdrift.cli.whole_folder import AUDITS, whole_folder
    from latentdrift.evaluate.privacy.findings import CONFIDENCE, NAMES, figure_rows, image_rows
    from latentdrift.report import Notice, Picture, Repeat, Section, Table, write_page

    synthetic, training, held_out = sets
    with whole_folder(options.out, last="privacy.json", stale="pairs-*.png", own=AUDITS) as folder:
        rows = figure_rows(record)
        write_table(folder / "figures.csv", rows)
        write_table(folder / "images.csv", image_rows(synthetic, training, found[0], copies))
        sheets: list[Any] = []
        for one in copies:
            for name, looks, near, ratios in (
                ("synthetic", synthetic, found[0], one.ratios),
                ("held-out", held_out, found[1], one.held_out_ratios),
            ):
                path = folder / f"pairs-{one.measure}-{name}.png"
                write_sheet(path, looks, training, near, one.measure, ratios, options.pairs, name)
                caption = f"The {name} images with the smallest ratios by {NAMES[one.measure]}"
                caption += "." if name == "synthetic" else ": what chance looks like."
                sheets.append(Picture(path, caption))
        medians = [
            {
                "distance": one["unit"],
                "median, synthetic": one["synthetic_median"],
                "median, held-out": one["held_out_median"],
            }
            for one in record["nearest"]
        ]
        command = shlex.join(["latentdrift", "audit", "privacy", *option_words(record["settings"])])
        found_list = "\n".join(f"- {text}" for text in record["findings"])
        sections = [
            Section("Findings", [found_list, Notice(record["warnings"])]),
            Section(
                "Figures",
                [
                    Table(rows, f"low and high: {CONFIDENCE:.0%} intervals."),
                    Table(medians, "Distances to the nearest training image."),
                ],
            ),
            Section("The closest pairs", [PAIRS, *sheets]),
            Section("How to repeat it", [Repeat([command], settings={"seed": options.seed, **record["images"]})]),
        ]
        write_page(
            folder / "page.html", "Privacy audit", sections, summary=f"**{record['verdict']}**", statement=STATEMENT
        )
        write_json(folder / "privacy.json", record)
        names = sorted(path.name for path in folder.iterdir())
    return [str(options.out / name) for name in names]


def write_sheet(
    path: Any, looks: Looks, training: Looks, near: Found, measure: str, ratios: Any, most: int, name: str
) -> None:
    """Write the pairs with the smallest ratios as a picture."""
    import numpy as np

    from latentdrift.evaluate.privacy.findings import NAMES
    from latentdrift.report.pairs_sheet import LikePair, pairs_sheet

    nearest = near.by[measure]
    pairs = [
        LikePair(
            looks.pixels[i],
            training.pixels[nearest.index[i]],
            f"{shortened(looks.name(i))}\n{shortened(training.name(int(nearest.index[i])))}\nratio {ratios[i]:.3f}",
        )
        for i in map(int, np.argsort(ratios, kind="stable")[:most])
    ]
    pairs_sheet(path, pairs, names=(name, "training"), title=f"Nearest by {NAMES[measure]}")


def shortened(name: str, most: int = 28) -> str:
    """Return a name of at most so many letters, its end kept."""
    return name if len(name) <= most else "…" + name[1 - most :]
