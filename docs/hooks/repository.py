"""Makes links from the documentation to other files of the repository work in the site, too.

A page of docs/ says `../benchmarks/README.md`, which is right where the repository is read. Such a file becomes a page
below `repository/`, and so do the files that it links to. Pictures are copied.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(\]\()(?!https?:|mailto:|#|<)([^)#\s]+)(#[^)\s]*)?(\))")
FENCE = re.compile(r"^(```|~~~).*?^\1[ \t]*$", re.MULTILINE | re.DOTALL)
LANGUAGES = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".sh": "bash", ".json": "json"}
OWN_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Files of the repository that have a place in the site of their own."""

BINARY = (".png", ".jpg", ".gif", ".svg", ".safetensors", ".ipynb")
SHOWN = 100_000
"""Longest file that is shown as a page; longer ones are copied."""


def root(config: MkDocsConfig) -> Path:
    """Return the repository."""
    return Path(config.docs_dir).parent


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what the pages link to outside docs/, and what that links to."""
    waiting = [
        outside
        for file in files.documentation_pages()
        for outside in linked(file.content_string, f"docs/{file.src_uri}")
    ]
    waiting += OWN_PAGES
    done: set[str] = set()
    while waiting:
        path = waiting.pop()
        if path in done:
            continue
        done.add(path)
        file = root(config) / path
        if not file.exists():
            continue  # the strict build complains of the link itself
        uri = address(path, config)
        if file.is_dir():
            names = sorted(one.name + "/" * one.is_dir() for one in file.iterdir() if one.name != "__pycache__")
            files.append(
                File.generated(config, uri, content="\n".join([f"# {path}", "", "```text", *names, "```", ""]))
            )
        elif not uri.endswith(".md"):
            files.append(File.generated(config, uri, abs_src_path=str(file)))
        elif file.suffix == ".md":
            content = file.read_text(encoding="utf-8")
            waiting += linked(content, path)
            files.append(File.generated(config, uri, content=content))
        else:
            content = file.read_text(encoding="utf-8")
            language = LANGUAGES.get(file.suffix, "text")
            shown = f"# {path}\n\n````{language}\n{content}\n````\n"
            files.append(File.generated(config, uri, content=shown))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links to their pages."""
    source = where(page.file.src_uri)
    here = posixpath.dirname(page.file.src_uri)

    def rewrite(found: re.Match[str]) -> str:
        path = resolve(found[2], source)
        if path is None:
            return found[0]
        target = path.removeprefix("docs/") if path.startswith("docs/") else address(path, config)
        if path.startswith("docs/") and path.endswith(BINARY[-1]):
            target = address(path, config)
        return f"{found[1]}{posixpath.relpath(target, here or '.')}{found[3] or ''}{found[4]}"

    return outside_fences(markdown, rewrite)


def outside_fences(markdown: str, rewrite: object) -> str:
    """Return a page with its links rewritten, except in blocks of code."""
    parts, last = [], 0
    for fence in FENCE.finditer(markdown):
        parts += [LINK.sub(rewrite, markdown[last : fence.start()]), fence[0]]  # type: ignore[call-overload]
        last = fence.end()
    return "".join([*parts, LINK.sub(rewrite, markdown[last:])])  # type: ignore[call-overload]


def where(uri: str) -> str:
    """Return the path in the repository of a page's source."""
    for path, own in OWN_PAGES.items():
        if uri == own:
            return path
    if uri.startswith("repository/"):
        return uri.removeprefix("repository/")
    return f"docs/{uri}"


def resolve(target: str, source: str) -> str | None:
    """Return the path in the repository that a link of a file leads to, or None where it leads out of it."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(source), target))
    return None if path.startswith("..") else path


def linked(markdown: str, source: str) -> list[str]:
    """Return the paths outside docs/, and the notebooks, that a file's links lead to."""
    found = (resolve(match[2], source) for match in LINK.finditer(FENCE.sub("", markdown)))
    return [path for path in found if path and (not path.startswith("docs/") or path.endswith(".ipynb"))]


def address(path: str, config: MkDocsConfig) -> str:
    """Return where in the site a file of the repository is."""
    if path in OWN_PAGES:
        return OWN_PAGES[path]
    file = root(config) / path
    if file.is_dir():
        return f"repository/{path}/files.md"
    if file.suffix == ".md":
        return f"repository/{path}"
    if file.suffix in BINARY or (file.exists() and file.stat().st_size > SHOWN):
        return f"repository/{path}"
    return f"repository/{path}.md"
