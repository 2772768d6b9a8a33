"""One self-contained HTML page: images inside, style inside, nothing fetched from anywhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata, resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.data.files import replacing
from latentdrift.errors import DataError

if TYPE_CHECKING:
    from markupsafe import Markup

STATEMENT = (
    "The generated images on this page are synthetic. They show no patient and must not be used for diagnosis, "
    "treatment or any other clinical decision."
)
"""Stands above everything on pages of generated images."""

OF_THE_SOURCE = (
    "The images on this page are the data set's own, no generated ones. Whoever sees the page sees the data: its terms "
    "hold for the page too."
)
"""Stands above everything on pages that show data and nothing generated."""

REPORTED_PACKAGES = ("latentdrift", "torch", "diffusers", "transformers", "accelerate", "peft", "numpy", "torchmetrics")


@dataclass(frozen=True)
class Table:
    """A table; the columns are the keys of all rows, in the order in which they first appear."""

    rows: Sequence[Mapping[str, Any]]
    caption: str = ""
    folded: str = ""
    """If given, the table is closed, and this is what opens it."""


@dataclass(frozen=True)
class Picture:
    """An image, a PNG, JPEG or WebP file or its bytes."""

    image: str | Path | bytes
    caption: str = ""
    alt: str = ""
    """What a reader who cannot see it is told; the caption if empty."""


@dataclass(frozen=True)
class Notice:
    """Things to be careful about, in a box; nothing is shown where there are none."""

    messages: Sequence[str]
    heading: str = "Take care"


@dataclass(frozen=True)
class Repeat:
    """How to make the page again: commands, and the versions they ran under."""

    commands: Sequence[str]
    versions: Mapping[str, str] = field(default_factory=lambda: package_versions())
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Seeds, hashes of the data, durations and the like."""


@dataclass(frozen=True)
class Section:
    """A heading and what stands below it: text in light Markdown (see `render_text`), or one of the classes above."""

    heading: str
    blocks: Sequence[str | Table | Picture | Notice | Repeat]


def write_page(
    path: str | Path, title: str, sections: Sequence[Section], *, summary: str = "", statement: str = STATEMENT
) -> Path:
    """Write one HTML file that needs no other, and return its path.

    Args:
        path: file to write, whole or not at all.
        title: of the page.
        sections: in order.
        summary: light Markdown below the title.
        statement: what stands above everything.

    Raises:
        DataError: a picture that cannot be read, or a page that cannot be written.
    """
    from jinja2 import Environment, StrictUndefined

    template = resources.files("latentdrift.report").joinpath("page.html.j2").read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(text=render_text, cell=_cell, source=_source, number=_is_number)
    environment.tests["text"] = lambda block: isinstance(block, str)
    for kind in (Table, Picture, Notice, Repeat):
        environment.tests[kind.__name__.lower()] = lambda block, kind=kind: isinstance(block, kind)
    environment.globals["columns"] = lambda rows: list(dict.fromkeys(key for row in rows for key in row))
    for section in sections:
        for block in section.blocks:
            if not isinstance(block, str | Table | Picture | Notice | Repeat):
                raise DataError(f"A page cannot show {type(block).__name__!r} (section {section.heading!r}).")
    html = environment.from_string(template).render(
        title=title, summary=summary, sections=sections, statement=statement
    )
    with replacing(path) as part:
        part.write_text(html, encoding="utf-8")
    return Path(path)


def render_text(text: str) -> Markup:
    """Return light Markdown as HTML: paragraphs, `- ` lists, `code`, **strong** and *emphasis*; all else is escaped."""
    from markupsafe import Markup, escape

    def inline(piece: str) -> str:
        # Code first, and apart: stars inside it are no emphasis.
        parts = re.split(r"(`[^`]+`)", piece)
        done = []
        for part in parts:
            if len(part) > 2 and part.startswith("`") and part.endswith("`"):
                done.append(f"<code>{escape(part[1:-1])}</code>")
                continue
            safe = str(escape(part))
            safe = re.sub(r"\*\*(?=\S)(.+?)(?<=\S)\*\*", r"<strong>\1</strong>", safe, flags=re.S)
            done.append(re.sub(r"\*(?=[^\s*])(.+?)(?<=[^\s*])\*", r"<em>\1</em>", safe, flags=re.S))
        return "".join(done)

    found = []
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        lines = paragraph.strip().split("\n")
        start = next((i for i, line in enumerate(lines) if line.lstrip().startswith("- ")), len(lines))
        if lines[:start] and paragraph.strip():
            found.append(f"<p>{inline(chr(10).join(lines[:start]))}</p>")
        if lines[start:]:
            items = re.split(r"(?m)^\s*- ", "\n".join(lines[start:]))[1:]
            found.append("<ul>" + "".join(f"<li>{inline(item.strip())}</li>" for item in items) + "</ul>")
    # Every piece was escaped above; only our own tags are left.
    return Markup("\n".join(found))


def package_versions(names: Sequence[str] = REPORTED_PACKAGES) -> dict[str, str]:
    """Return the versions of Python and of those packages that are installed."""
    import platform

    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _source(image: str | Path | bytes) -> str:
    """Return the data URI of an image."""
    if isinstance(image, bytes):
        data, name = image, "the image"
    else:
        name = str(image)
        try:
            data = Path(image).read_bytes()
        except OSError as error:
            raise DataError(f"{name} cannot be put on the page ({error}). Make the picture first.") from error
    kinds = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpeg", b"RIFF": "webp"}
    kind = next((found for start, found in kinds.items() if data.startswith(start)), None)
    if kind is None:
        raise DataError(f"{name} is no PNG, JPEG or WebP image and cannot be put on the page.")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
