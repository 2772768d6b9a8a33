"""`latentdrift prepare`."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress
from latentdrift.data.prepare.config import PrepareConfig

if TYPE_CHECKING:
    from latentdrift.data import Cohort
    from latentdrift.data.prepare import Preparation

USAGE = """usage: latentdrift prepare SOURCE --root FOLDER --out FOLDER [OPTIONS]

Bring a data set, as it is distributed, to a cohort of square images: metadata.csv, images, where each goes back to, and
what was refused and why.

sources:
{sources}

`latentdrift prepare SOURCE --help` tells which files a source needs, and its settings.
"""

DESCRIPTION = """{title}

Needs below --root: {needs}

Volumes are cut along their own voxel planes, scaled by one intensity range each, and made square without distortion. A
run that was stopped goes on when the same command is given again."""

MOST_VALUES = 20


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """Bring a data set to a cohort of square images."""

    root: Path
    """The source's folder."""
    out: Path
    """Folder to make, or to go on with."""
    limit: int | None = None
    """Use only so many scans, spread evenly over the source."""
    json: bool = False
    """Print the result as JSON."""
    quiet: bool = False
    """Show no progress."""
    images: PrepareConfig = field(default_factory=PrepareConfig)


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    from latentdrift.data.source import data_source

    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, data_source.names())) + 2
        lines = [f"  {name:<{width}}{data_source.get(name).title}" for name in data_source.names()]
        print(USAGE.format(sources="\n".join(lines)), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    source_class = data_source.get(arguments[0])
    config = source_class.config_class
    options_class = dataclasses.make_dataclass(
        "PrepareOptions",
        [("source", config, field(default_factory=config))],
        bases=(PrepareOptions,),
        frozen=True,
        kw_only=True,
    )
    description = DESCRIPTION.format(title=source_class.title, needs=source_class.needs)
    options: Any = parse_options(options_class, arguments[1:], f"prepare {arguments[0]}", description)
    from latentdrift.data.prepare import prepare_cohort

    with progress(options.quiet) as tell:
        made = prepare_cohort(
            source_class(options.source),
            options.root,
            options.out,
            options.images,
            limit=options.limit,
            progress=lambda done, total: tell("scans", done, total),
        )
    page = write_report(made, options.out, source_class.title)
    print_result(
        {
            "folder": options.out,
            "images": len(made.cohort),
            "subjects": len({record.subject for record in made.cohort if record.subject is not None}),
            "refused": f"{len(made.refused)}, see {options.out / 'refused.csv'}" if made.refused else "0",
            "done before": made.resumed,
            "report": page,
        },
        options.json,
    )
    return 0


def write_report(made: Preparation, out: Path, title: str) -> Path:
    """Write the contact sheet and the page that tells what is in the cohort; return the page."""
    from latentdrift.data import ImageTransform
    from latentdrift.report import Picture, Section, Table, image_grid, write_page

    cohort = made.cohort
    chosen = [cohort[index * len(cohort) // min(48, len(cohort))] for index in range(min(48, len(cohort)))]
    transform = ImageTransform(size=96)
    images = [transform.read(record.image) for record in chosen]
    sheet = image_grid(out / "contact-sheet.png", [images[start : start + 8] for start in range(0, len(images), 8)])
    subjects = {record.subject for record in cohort if record.subject is not None}
    summary = f"{len(cohort)} images of {len(subjects) or 'unknown'} subjects; {len(made.refused)} refused."
    reasons = Counter(refusal.reason.split(":")[0][:80] for refusal in made.refused)
    sections = [
        Section("Contact sheet", [Picture(sheet, f"{len(chosen)} images, spread evenly over the cohort.")]),
        Section("Counts", [Table(rows, caption) for caption, rows in counts(cohort).items()] or ["No attributes."]),
    ]
    if made.refused:
        listed = [{"name": refusal.name, "reason": refusal.reason} for refusal in made.refused[:200]]
        more = "" if len(made.refused) <= 200 else f" The first 200 of {len(made.refused)}; all are in refused.csv."
        sections.append(
            Section(
                "Refused",
                [
                    Table(
                        [{"reason": reason, "number": number} for reason, number in reasons.most_common(20)], "Reasons"
                    ),
                    Table(listed, "What was refused, and why." + more),
                ],
            )
        )
    return write_page(out / "report.html", f"Prepared: {title}", sections, summary=summary)


def counts(cohort: Cohort) -> Mapping[str, list[dict[str, Any]]]:
    """Return a table for every attribute: images and subjects a value; numbers in tens."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in cohort.attribute_names:
        images: Counter[str] = Counter()
        people: dict[str, set[str]] = {}
        for record in cohort:
            value = record.attributes.get(name)
            text = "(missing)" if value is None else bin_of(value)
            images[text] += 1
            people.setdefault(text, set()).add(record.subject or record.key)
        if len(images) <= MOST_VALUES:
            tables[name] = [
                {name: text, "images": number, "subjects": len(people[text])} for text, number in sorted(images.items())
            ]
    return tables


def bin_of(value: Any) -> str:
    """Return a value as a row's name: whole numbers below 10 and words as they are, other numbers in tens."""
    if isinstance(value, int | float) and not (float(value).is_integer() and abs(value) < 10):
        low = int(value // 10) * 10
        return f"{low} to {low + 9}"
    return str(value)
