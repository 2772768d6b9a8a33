"""The most memory that this process has had."""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

import torch


def peak_memory() -> dict[str, int]:
    """Return the largest resident size in bytes, and on a GPU the most that torch had allocated there.

    Processes that a data loader starts are not in it.
    """
    found = {"peak_bytes": resident()}
    if torch.cuda.is_available():
        found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
    return found


def resident() -> int:
    status = Path("/proc/self/status")
    # Linux hands `ru_maxrss` on to the program that a process becomes, so it would be at least that of the benchmark,
    # which has a model of its own in memory; VmHWM begins anew.
    found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE) if status.exists() else None
    if found is not None:
        return int(found[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
