"""`latentdrift prepare`."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress
from latentdrift.data.prepare.config import PrepareConfig

if TYPE_CHECKING:
    from latentdrift.data import Cohort
    from latentdrift.data.prepare import Preparation
    from latentdrift.data.records import Value
    from latentdrift.data.scan import Refusal

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
"""Rows of a table of counts; attributes with more values have none."""

MOST_REFUSED = 200
"""Refused scans that the page lists."""


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


def kind_names() -> list[str]:
    """Return the sources that there are."""
    from latentdrift.data.source import data_source

    return data_source.names()


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
    from latentdrift.cli.whole_folder import check_out
    from latentdrift.data.prepare import prepare_cohort
    from latentdrift.data.prepare.geometry import PREPARATION
    from latentdrift.data.prepare.ledger import LEDGER

    # A run that was stopped has left its ledger, and nothing else that tells.
    check_out(options.out, {PREPARATION: "settings", LEDGER: None})
    with progress(options.quiet) as tell:
        made = prepare_cohort(
            source_class(options.source),
            options.root,
            options.out,
            options.images,
            limit=options.limit,
            progress=lambda done, total: tell("scans", done, total),
        )
    page = write_report(made, options.root, options.out, source_class.title)
    print_result(
        {
            "folder": options.out,
            "images": len(made.cohort),
            "subjects": len({record.subject for record in made.cohort if record.subject is not None}),
            "refused": len(made.refused),
            "reasons": options.out / "refused.csv",
            "done before": made.resumed,
            "report": page,
        },
        options.json,
    )
    return 0


def write_report(made: Preparation, root: Path, out: Path, title: str) -> Path:
    """Write the contact sheet and the page that tells what is in the cohort; return the page."""
    from latentdrift.data import ImageTransform
    from latentdrift.report import Picture, Section, Table, image_grid, write_page
    from latentdrift.report.page import OF_THE_SOURCE

    cohort = made.cohort
    chosen = [cohort[index * len(cohort) // min(48, len(cohort))] for index in range(min(48, len(cohort)))]
    transform = ImageTransform(size=96)
    images = [transform.read(record.image) for record in chosen]
    sheet = image_grid(out / "contact-sheet.png", [images[start : start + 8] for start in range(0, len(images), 8)])
    subjects = {record.subject for record in cohort if record.subject is not None}
    summary = f"{len(cohort)} images of {len(subjects) or 'unknown'} subjects; {len(made.refused)} refused."
    reasons = Counter(kind_of(refusal, root) for refusal in made.refused)
    sections = [
        Section("Contact sheet", [Picture(sheet, f"{len(chosen)} images, spread evenly over the cohort.")]),
        Section("Counts", [Table(rows) for rows in counts(cohort).values()] or ["No attributes."]),
    ]
    if made.refused:
        below = f"{root}/"
        listed = [{"name": one.name, "reason": one.reason.replace(below, "")} for one in made.refused[:MOST_REFUSED]]
        cut = len(made.refused) > MOST_REFUSED
        more = f" The first {MOST_REFUSED} of {len(made.refused)}; all are in refused.csv." if cut else ""
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
    return write_page(out / "report.html", f"Prepared: {title}", sections, summary=summary, statement=OF_THE_SOURCE)


def kind_of(refusal: Refusal, root: Path) -> str:
    """Return what scans that were refused for the same reason have in common: no path, no number, the first clause."""
    said = refusal.reason.replace(f"{root}/{refusal.name}", "")
    said = re.sub(rf"\S*/\S*|(?<!\S){re.escape(refusal.name)}(?!\w)", "", said).strip(" :,.")
    clause = re.split(r"[:;(]|\. ", said)[0]
    return re.sub(r"[-+]?\d[\d,.]*", "…", clause).strip(" .,")[:80] or said[:80]


def counts(cohort: Cohort) -> Mapping[str, list[dict[str, Any]]]:
    """Return a table for every attribute: images and subjects a value; many numbers in tens."""
    tables: dict[str, list[dict[str, Any]]] = {}
    for name in cohort.attribute_names:
        values = {record.attributes[name] for record in cohort if name in record.attributes}
        tens = all(isinstance(value, int | float) for value in values) and not are_few(values)
        images: Counter[Value | None] = Counter()
        people: dict[Value | None, set[str]] = {}
        for record in cohort:
            value = record.attributes.get(name)
            if tens and value is not None:
                value = float(value) // 10 * 10
            images[value] += 1
            people.setdefault(value, set()).add(record.subject or record.key)
        if len(images) <= MOST_VALUES:
            # Numbers in their order, then words in theirs, then what is missing.
            order = sorted(images, key=lambda v: (v is None, isinstance(v, str), v if v is not None else 0))
            tables[name] = [
                {name: told(value, tens), "images": images[value], "subjects": len(people[value])} for value in order
            ]
    return tables


def are_few(values: Collection[Value]) -> bool:
    """Tell whether numbers are codes or grades, each a row of its own: small whole ones, or hardly any."""
    return len(values) <= 5 or all(float(value).is_integer() and abs(float(value)) < 10 for value in values)


def told(value: Value | None, tens: bool) -> str:
    """Return a value as a row's name."""
    if value is None:
        return "(missing)"
    return f"{value:.0f} to {float(value) + 9:.0f}" if tens else str(value)
