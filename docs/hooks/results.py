"""Lists what is in docs/results: a row a result, with its tables, figures and the pages that speak of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

KINDS = {".md": "table", ".html": "page", ".json": "figures", ".csv": "CSV", ".tex": "LaTeX", ".png": "picture"}
"""What the files of one result are called, in the order in which they are named."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the page."""
    folder = Path(config.docs_dir, "results")
    pages = {
        file.src_uri: text(file) for file in files.documentation_pages() if not file.src_uri.startswith("results/")
    }
    groups: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix in KINDS:
            groups.setdefault(path.stem.removesuffix("-samples").removesuffix("-relatives"), []).append(path)
    lines = [
        "# All results",
        "",
        "Measured with the code of this repository, on two processor cores unless a file says otherwise. The figures "
        "are files that commands wrote; each names its settings. What they say is on the pages that link to them.",
        "",
        "| result | files | settings | read on |",
        "|---|---|---|---|",
    ]
    for stem, paths in groups.items():
        paths.sort(key=lambda path: list(KINDS).index(path.suffix))
        links = ", ".join(f"[{KINDS[path.suffix]}]({path.name})" for path in paths)
        where = [
            f"[{title(content)}](../{uri})"
            for uri, content in pages.items()
            if any(f"results/{path.name}" in content for path in paths)
        ]
        lines.append(f"| {stem} | {links} | {facts(paths)} | {', '.join(where)} |")
    files.append(File.generated(config, "results/overview.md", content="\n".join([*lines, ""])))
    return files


def text(file: File) -> str:
    """Return a page's source."""
    return file.content_string


def title(content: str) -> str:
    """Return a page's first heading."""
    return next((line[2:] for line in content.splitlines() if line.startswith("# ")), "page")


def facts(paths: list[Path]) -> str:
    """Return in a few words what a result was measured on, from its JSON file."""
    for path in paths:
        if path.suffix == ".json":
            found: Any = json.loads(path.read_text(encoding="utf-8"))
            settings = found.get("config") or found.get("settings") or {} if isinstance(found, dict) else {}
            short = {
                key: value for key, value in settings.items() if isinstance(value, str | int | float) and str(value)
            }
            return ", ".join(f"{key} {value}".replace("|", "/") for key, value in list(short.items())[:5])
    return ""
