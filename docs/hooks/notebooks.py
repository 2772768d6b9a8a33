"""Shows the notebooks as pages: text as it is, code as code, what it printed and drew below it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def notebooks(config: MkDocsConfig) -> list[Path]:
    """Return the notebooks, in order."""
    return sorted(Path(config.docs_dir, "notebooks").glob("*.ipynb"))


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the notebooks in the place that mkdocs.yml keeps for them."""
    entries = [f"notebooks/{path.stem}.md" for path in notebooks(config)]
    for section in config.nav or []:
        for pages in section.values():
            for page in pages if isinstance(pages, list) else []:
                if isinstance(page, dict) and page.get("Notebooks") == "generated notebooks":
                    page["Notebooks"] = entries
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page, and the pictures, of each notebook."""
    import nbformat

    for path in notebooks(config):
        notebook = nbformat.read(path, as_version=4)
        lines: list[str] = []
        pictures: list[bytes] = []
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                lines += [cell.source, ""]
                continue
            lines += ["```python", cell.source, "```", ""]
            for output in cell.outputs:
                lines += shown(output, f"{path.stem}-{len(pictures)}.png", pictures)
        note = f"*This page is the notebook [{path.name}](../../docs/notebooks/{path.name}), which a test runs.*"
        title, *rest = "\n".join(lines).split("\n", 1)
        text = "\n".join([title, "", note, "", *rest])
        files.append(File.generated(config, f"notebooks/{path.stem}.md", content=text))
        for number, picture in enumerate(pictures):
            files.append(File.generated(config, f"notebooks/{path.stem}-{number}.png", content=picture))
    return files


def shown(output: Any, name: str, pictures: list[bytes]) -> list[str]:
    """Return the lines that show one output; a picture is added to `pictures` under `name`."""
    data = output.get("data", {})
    if "image/png" in data:
        pictures.append(base64.b64decode(data["image/png"]))
        return [f"![What the code above drew]({name})", ""]
    text = output.get("text") or data.get("text/plain")
    return ["```text", text.rstrip(), "```", ""] if text else []
