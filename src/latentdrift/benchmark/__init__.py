"""The paper's tables and ours, as configurations that can be resumed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Cell, Column, benchmark, open_benchmark

if TYPE_CHECKING:
    from latentdrift.benchmark.data import BenchmarkData
    from latentdrift.benchmark.results import write_results
    from latentdrift.benchmark.runner import run_cells, run_workers
    from latentdrift.benchmark.summary import summarise
    from latentdrift.benchmark.workshop import Workshop

_HOME = {
    "BenchmarkData": "data",
    "Workshop": "workshop",
    "run_cells": "runner",
    "run_workers": "runner",
    "summarise": "summary",
    "write_results": "results",
}

__all__ = [
    "Benchmark",
    "BenchmarkConfig",
    "BenchmarkData",
    "Cell",
    "Column",
    "Workshop",
    "benchmark",
    "open_benchmark",
    "run_cells",
    "run_workers",
    "summarise",
    "write_results",
]


def __getattr__(name: str) -> Any:
    # Models and editors are imported when a benchmark runs, not when its flags are listed.
    if name in _HOME:
        return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
