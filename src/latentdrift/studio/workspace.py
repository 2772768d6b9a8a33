"""The one folder that the studio reads models, cohorts and runs from, and what is in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from latentdrift.errors import ConfigurationError

DEEP = 3
"""Folders within folders that are looked through."""

MOST = 500
"""Folders that are looked at; a home folder as workspace should not take minutes."""

MODEL, CLASSIFIER, TABLES = "model_index.json", "classifier.json", ("metadata.csv", "metadata.jsonl")
SKIPPED = frozenset(
    {"node_modules", "__pycache__", "site-packages", "model", "checkpoints", "images", "samples", "logs"}
)


@dataclass(frozen=True)
class Workspace:
    """A folder, and the rule that nothing outside it is read or written."""

    root: Path

    @classmethod
    def of(cls, folder: Path) -> Workspace:
        """Return the workspace of a folder that exists.

        Raises:
            ConfigurationError: it is none.
        """
        if not folder.is_dir():
            raise ConfigurationError(f"The workspace {folder} is no folder. Make it, or give another --workspace.")
        return cls(folder.resolve())

    def inside(self, name: str, what: str = "path") -> Path:
        """Return the path that a field names, relative to the workspace; links are followed before it is judged.

        Raises:
            ConfigurationError: an empty name, what the system takes for no path, or a path outside the workspace.
        """
        text = name.strip()
        if not text or "\0" in text:
            raise ConfigurationError(f"The {what} is empty. Choose one, or write its path in the workspace.")
        try:
            path = (self.root / text).resolve()
            path.exists()
        except (OSError, ValueError, RuntimeError) as error:  # too long, no letters of a name, links in a circle
            raise ConfigurationError(
                f"The {what} {shortened(text)!r} cannot be a path: {reason(error)}. Choose another name."
            ) from error
        if not path.is_relative_to(self.root):
            raise ConfigurationError(
                f"The {what} {shortened(text)!r} is outside the studio's workspace. Choose one inside it."
            )
        return path

    def holds(self, path: Path) -> bool:
        """Tell whether a path stays in the workspace once links are followed."""
        try:
            return path.resolve().is_relative_to(self.root)
        except (OSError, RuntimeError):  # links in a circle
            return False

    def has_file(self, path: Path) -> bool:
        """Tell whether a path is a file of the workspace: a link that leads out of it is none."""
        return self.holds(path) and path.is_file()

    def existing(self, name: str, what: str = "folder") -> Path:
        """Return a path inside the workspace that exists.

        Raises:
            ConfigurationError: it does not exist, or lies outside.
        """
        path = self.inside(name, what)
        if not path.exists():
            raise ConfigurationError(f"The {what} {name.strip()!r} does not exist in the workspace. Check its name.")
        return path

    def new(self, name: str) -> Path:
        """Return the path of a folder to be made, or of a run to go on with.

        Raises:
            ConfigurationError: it is the workspace itself, lies outside, or begins with a dash or a dot.
        """
        path = self.inside(name, "output folder")
        if path == self.root or any(part.startswith(("-", ".")) for part in path.relative_to(self.root).parts):
            raise ConfigurationError(f"{name!r} is no name for a folder of results; write one such as runs/mine.")
        return path

    def name_of(self, path: Path) -> str:
        """Return a path as fields show it: relative to the workspace."""
        return path.relative_to(self.root).as_posix()

    def models(self) -> list[str]:
        """Return run folders and diffusers folders."""
        found = [one for one in self.folders() if any((one / place / MODEL).is_file() for place in ("", "model"))]
        return [self.name_of(one) for one in found]

    def classifiers(self) -> list[str]:
        """Return folders of `latentdrift classifier train`."""
        return [self.name_of(one) for one in self.folders() if (one / CLASSIFIER).is_file()]

    def cohorts(self) -> list[str]:
        """Return folders with a table of images."""
        return [self.name_of(one) for one in self.folders() if any((one / name).is_file() for name in TABLES)]

    def folders(self) -> Iterator[Path]:
        """Yield the workspace and the folders in it, by name, as deep as is looked; links and hidden ones are left."""
        waiting, seen = [(self.root, 0)], 0
        while waiting and seen < MOST:
            folder, depth = waiting.pop(0)
            seen += 1
            yield folder
            if depth == DEEP:
                continue
            try:
                with os.scandir(folder) as entries:
                    below = sorted(
                        entry.name
                        for entry in entries
                        if entry.is_dir(follow_symlinks=False)
                        and not entry.name.startswith(".")
                        and entry.name not in SKIPPED
                    )
            except OSError:
                continue  # somebody else's folder
            waiting += [(folder / name, depth + 1) for name in below]


def shortened(text: str, most: int = 80) -> str:
    """Return a name as messages show it: pages of it would hide what the message says."""
    return text if len(text) <= most else f"{text[:most]}…"


def reason(error: Exception) -> str:
    """Return why the system refuses a path, without the path."""
    return (error.strerror if isinstance(error, OSError) else None) or "it is none"
