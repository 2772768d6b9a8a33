"""What is done: one line a scan, added as it is finished, so that a run can be stopped at any moment."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from latentdrift.data.prepare.config import PrepareConfig
from latentdrift.data.prepare.convert import Converted, plain
from latentdrift.data.scan import Scan

LEDGER = ".prepared.jsonl"


class Ledger:
    """The lines of former runs, and those that this one adds.

    Args:
        out: the cohort's folder.
        config: settings of this run.
    """

    def __init__(self, out: Path, config: PrepareConfig) -> None:
        self.path, self.config = out / LEDGER, config
        self._lines: dict[str, dict[str, Any]] = {}
        self._file: IO[str] | None = None
        try:
            with self.path.open(encoding="utf-8", errors="replace") as file:
                for line in file:
                    self._read(line)
        except FileNotFoundError:
            pass

    def _read(self, line: str) -> None:
        try:
            found = json.loads(line)
            self._lines[found["key"]] = found
        except (ValueError, KeyError, TypeError):
            pass  # the last line of a run that was killed; its scan is done anew

    def recall(self, scan: Scan) -> Converted | None:
        """Return what a former run made of a scan, if it, the settings and the images are as they were."""
        found = self._lines.get(scan.key)
        if found is None or found.get("fingerprint") != scan_fingerprint(scan, self.config):
            return None
        try:
            rows, refused = tuple(found["rows"]), tuple(found["refused"])
            whole = found["lasting"] and all((self.path.parent / row["file_name"]).is_file() for row in rows)
        except (KeyError, TypeError):
            return None  # written by another version; the scan is done anew
        return Converted(scan.key, rows, refused) if whole else None

    def begin(self) -> None:
        """Make the file where there is none: it tells that the folder is one to go on with, before any scan is done."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def add(self, scan: Scan, converted: Converted) -> None:
        """Write down that a scan is done."""
        line = {"fingerprint": scan_fingerprint(scan, self.config), **asdict(converted)}
        self._lines[scan.key] = line
        if self._file is None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("a", encoding="utf-8")
            self._file.write("\n")  # ends a line that was cut short
        self._file.write(json.dumps(line, default=plain) + "\n")
        self._file.flush()

    def close(self, compact: bool = False) -> None:
        """End writing; `compact` leaves one line a scan, of those outside this run too."""
        if self._file is not None:
            self._file.close()
            self._file = None
        if not compact:
            return
        partial = self.path.with_name(f"{LEDGER}.{os.getpid()}.partial")
        with partial.open("w", encoding="utf-8") as file:
            for line in self._lines.values():
                file.write(json.dumps(line, default=plain) + "\n")
        partial.replace(self.path)


def scan_fingerprint(scan: Scan, config: PrepareConfig) -> str:
    """Return what must be unchanged for a converted scan to be taken as it is."""
    files = []
    for path in scan.files:
        try:
            status = path.stat()
            files.append((str(path), status.st_size, status.st_mtime_ns))
        except OSError:
            files.append((str(path), -1, -1))
    return hashlib.sha256(json.dumps([config.fingerprint(), files]).encode()).hexdigest()[:24]
