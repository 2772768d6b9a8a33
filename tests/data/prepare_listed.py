"""Scans that a JSON file lists. Run as a program it prepares them in a process whose memory has a ceiling."""

from __future__ import annotations

import json
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from latentdrift.data.prepare import Preparation, PrepareConfig, prepare_cohort
from latentdrift.data.scan import Scan
from latentdrift.data.source import DataSource, Listing

CONFIG = PrepareConfig(size=32, workers=1, time_limit_s=60)


@dataclass(frozen=True)
class NoSettings:
    """Nothing to set."""


class Listed(DataSource):
    """The scans of a JSON file: [key, paths] each. Nothing is looked at before it is read."""

    config_class = NoSettings
    title = "Listed files"
    needs = "a list"

    def __init__(self, listing: Path) -> None:
        super().__init__()
        self.listing = listing

    def list_scans(self, root: Path) -> Listing:
        rows = json.loads(self.listing.read_text())
        return Listing(tuple(Scan(key, tuple(map(Path, paths)), subject="s") for key, paths in rows))


def prepare_listed(listing: Path, root: Path, out: Path) -> Preparation:
    return prepare_cohort(Listed(listing), root, out, CONFIG)


def peak_mib() -> float:
    """Return the most memory that this process has had."""
    # The system's `ru_maxrss` begins with that of the process that started this one.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    listing, root, out, result = map(Path, sys.argv[1:5])
    ceiling = int(sys.argv[5])
    resource.setrlimit(resource.RLIMIT_AS, (ceiling, ceiling))
    began = time.perf_counter()
    made = prepare_listed(listing, root, out)
    found = {
        "refused": [[refusal.name, refusal.reason] for refusal in made.refused],
        "peak_mib": peak_mib(),
        "seconds": time.perf_counter() - began,
    }
    result.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
