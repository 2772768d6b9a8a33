"""Files below a root, found by one walk or asked for by name; none outside it is ever returned."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path

from latentdrift.data.scan import Refusal
from latentdrift.errors import DataError

_DOUBTFUL = re.compile(r"^/|\.\.|[\\\0:]|//|/$|^\./|/\./|^$")
_OUTSIDE = "leads out of the folder by a symbolic link. Give the folder that it leads to, or copy the files"


class Folder:
    """A root whose files are asked for by relative name.

    Folders are resolved once, so that a hundred thousand files in few folders cost one `lstat` each.

    Raises:
        DataError: `root` is not a folder.
    """

    def __init__(self, root: Path) -> None:
        if not root.is_dir():
            raise DataError(f"{root} is not a folder. Give the folder that holds the data set.")
        self.root = root
        self._real = os.path.realpath(root)
        self._folders = {"": self._real}

    def file(self, name: str) -> Path:
        """Return the path of a file.

        Raises:
            DataError: the name or a symbolic link leaves the root, or there is no such file, or nothing in it.
        """
        name = relative_name(name)
        folder, _, last = name.rpartition("/")
        try:
            real = os.path.join(self._resolve(folder), last)
            status = os.lstat(real)
            if stat.S_ISLNK(status.st_mode):
                real = self._inside(os.path.realpath(real, strict=True), name)
                status = os.stat(real)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DataError(f"there is no file {name}") from error
        except OSError as error:
            raise DataError(f"{name:.200} cannot be reached: {error.strerror}") from error
        except ValueError as error:  # half a character, as JSON can escape it
            raise DataError(f"{name!r:.200} can be no file's name") from error
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{name} is not a file")
        if status.st_size == 0:
            raise DataError(f"{name} is empty. Get the file again")
        return self.root / name

    def _resolve(self, folder: str) -> str:
        known = self._folders.get(folder)
        if known is not None:
            return known
        real, done = self._real, ""
        for part in folder.split("/"):
            done = f"{done}/{part}" if done else part
            known = self._folders.get(done)
            if known is None:
                known = os.path.join(real, part)
                if stat.S_ISLNK(os.lstat(known).st_mode):
                    known = self._inside(os.path.realpath(known, strict=True), done)
                self._folders[done] = known
            real = known
        return real

    def _inside(self, real: str, name: str) -> str:
        if real != self._real and not real.startswith(os.path.join(self._real, "")):
            raise DataError(f"{name} {_OUTSIDE}")
        return real


def relative_name(name: str) -> str:
    """Return a relative path of a table in its normal form, with "/".

    Raises:
        DataError: it is empty, absolute, or leaves the folder.
    """
    if not _DOUBTFUL.search(name):
        return name
    parts = [part for part in re.split(r"[\\/]", name) if part not in ("", ".")]
    if name[:1] in ("/", "\\") or ".." in parts or "\0" in name or re.match(r"[A-Za-z]:", name) or not parts:
        raise DataError(f"the path {name!r:.200} leaves the folder; it must be relative and stay inside")
    return "/".join(parts)


def walk(root: Path) -> tuple[list[str], list[Refusal]]:
    """Return the relative names of all files below `root`, sorted, and what cannot be entered.

    Names that begin with a dot are skipped. Links to folders inside are not followed (their files are found anyway).

    Raises:
        DataError: `root` is not a folder.
    """
    folder = Folder(root)
    found: list[str] = []
    refused: list[Refusal] = []
    waiting = [""]
    while waiting:
        inner = waiting.pop()
        try:
            with os.scandir(root / inner) as entries:
                for entry in entries:
                    if entry.name.startswith("."):
                        continue
                    name = f"{inner}/{entry.name}" if inner else entry.name
                    if entry.is_symlink():
                        _follow(folder, entry, name, found, refused)
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append(name)
                    elif entry.is_file(follow_symlinks=False):
                        found.append(name)
        except OSError as error:
            refused.append(Refusal(inner or str(root), f"the folder cannot be read: {error.strerror}"))
    return sorted(found), sorted(refused, key=lambda one: one.name)


def find_near(root: Path, wanted: Callable[[str], object], depth: int = 2) -> list[str]:
    """Return the relative names of files at most `depth` folders below `root` whose own name is wanted, sorted.

    The folders of single patients are not searched, nor are links to folders.

    Raises:
        DataError: `root` is not a folder, or such a file is a link that leads out of it.
    """
    folder = Folder(root)
    found: list[str] = []
    waiting = [("", 0)]
    while waiting:
        inner, level = waiting.pop()
        try:
            with os.scandir(root / inner) as entries:
                for entry in entries:
                    name = f"{inner}/{entry.name}" if inner else entry.name
                    if _is_file(entry):
                        if wanted(entry.name) and not entry.name.startswith("."):
                            if entry.is_symlink():
                                folder.file(name)
                            found.append(name)
                    elif level < depth and not _PATIENT.match(entry.name) and entry.is_dir(follow_symlinks=False):
                        waiting.append((name, level + 1))
        except OSError:
            continue  # a folder that cannot be entered holds no table we could read; a missing table is said later
    return sorted(found)


_PATIENT = re.compile(r"\.|p\d+$|patient\d+$|sub-|OAS\d|\d{3}_S_\d+$")


def _is_file(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_file()
    except OSError:  # a link to itself; the others in its folder are looked at all the same
        return False


def _follow(folder: Folder, entry: os.DirEntry[str], name: str, found: list[str], refused: list[Refusal]) -> None:
    """Take a linked file that is inside the root; name a link that leads out of it."""
    try:
        if entry.is_dir():
            folder._inside(os.path.realpath(entry.path), name)
        else:
            folder.file(name)
            found.append(name)
    except DataError as error:
        refused.append(Refusal(name, str(error)))
    except OSError as error:  # a link to itself
        refused.append(Refusal(name, f"the link cannot be followed: {error.strerror}"))
