"""The folders of results in a workspace: of what kind, under which drift, whether finished, and their pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from latentdrift.errors import DataError
from latentdrift.studio.workspace import Workspace

KINDS: Mapping[str, str] = {
    "run.json": "finetune",
    "classifier.json": "classifier",
    "search.json": "search",
    "trials.jsonl": "search",
    "result.json": "counterfactual",
    "evaluation.json": "evaluate",
    "privacy.json": "audit privacy",
    "utility.json": "utility",
    "prepare.json": "prepare",
    "manifest.json": "images",
    "model_index.json": "model",
}
"""By the file that a command leaves; the first there is counts."""

PAGES = ("page.html", "report.html", "index.html")
PICTURES = 12
"""Pictures shown of a run."""

LARGEST = 30_000_000
"""Bytes of a page that is shown inside the studio's."""


@dataclass(frozen=True)
class Run:
    """One folder of results."""

    name: str
    kind: str
    drift: str
    status: str
    folder: Path
    workspace: Workspace

    def page(self) -> Path | None:
        """Return its HTML page, if it has one."""
        return next((self.folder / name for name in PAGES if self.workspace.has_file(self.folder / name)), None)

    def pictures(self) -> list[Path]:
        """Return pictures that sum it up: those in the folder itself, then the newest sample sheets."""
        own = sorted(path for path in self.folder.glob("*.png") if self.workspace.has_file(path))
        first = [path for path in own if not path.stem.endswith(("-source", "-difference"))]
        samples = [path for path in sorted((self.folder / "samples").glob("*.png")) if self.workspace.has_file(path)]
        samples = samples[-2:]
        return [*samples, *first][:PICTURES]


def list_runs(workspace: Workspace) -> list[Run]:
    """Return the folders of results in a workspace, by name."""
    return [run for run in (describe(workspace, folder) for folder in workspace.folders()) if run is not None]


def describe(workspace: Workspace, folder: Path) -> Run | None:
    """Return what a folder holds, None for no results."""
    marker = next((name for name in KINDS if workspace.has_file(folder / name)), None)
    if marker is None:
        return None
    kind, facts = KINDS[marker], _facts(folder / marker)
    if marker == "result.json" and ("axis" in facts or "ladder" in facts):
        kind = "ladder"
    drift, status = _drift(workspace, folder, facts), _status(folder, marker)
    return Run(workspace.name_of(folder), kind, drift, status, folder, workspace)


def runs_table(runs: list[Run]) -> list[list[str]]:
    """Return name, kind, drift and status, a row a run."""
    return [[run.name, run.kind, run.drift, run.status] for run in runs]


def page_frame(run: Run) -> str:
    """Return a run's page as a frame (HTML) that runs no script and reaches nothing, or a sentence that there is none.

    Raises:
        DataError: the page cannot be read.
    """
    page = run.page()
    if page is None:
        return '<p class="quiet">This run has no page.</p>'
    try:
        if page.stat().st_size > LARGEST:
            name, place = escape(page.name), escape(run.name)
            return f'<p class="quiet">{name} is too large to be shown here; open it from {place}.</p>'
        text = page.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{run.name}/{page.name} cannot be read: {error.strerror}.") from error
    title = f"Page of the run {run.name}"
    return f'<iframe class="page" sandbox title="{escape(title)}" srcdoc="{escape(text)}"></iframe>'


def _facts(path: Path) -> dict[str, Any]:
    if path.suffix != ".json":
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _drift(workspace: Workspace, folder: Path, facts: Mapping[str, Any]) -> str:
    """Return the drift in words, as far as the folder says."""
    from latentdrift.drift import LatentDrift, load_drift
    from latentdrift.errors import LatentDriftError

    used = facts.get("drift_used", facts.get("drift"))
    if isinstance(used, Mapping) and "used" in used:
        return str(used["used"])
    try:
        if isinstance(used, Mapping):
            return str(LatentDrift.from_dict(dict(used)))
        for place in (folder, folder / "model"):
            saved = load_drift(place) if place.is_dir() and workspace.holds(place) else None
            if saved is not None:
                return str(saved)
    except LatentDriftError:
        return "damaged"
    if used is None and (folder / "run.json").is_file():
        return str(facts.get("drift") or "none")
    return "–" if used is None else str(used)


def _status(folder: Path, marker: str) -> str:
    if marker == "run.json":
        from latentdrift.finetune.checkpoint import newest_checkpoint

        if any((folder / "model" / name).exists() for name in ("latentdrift.json", "model_index.json")):
            return "finished"
        return "can go on" if newest_checkpoint(folder) is not None else "begun"
    return "can go on" if marker == "trials.jsonl" else "finished"
