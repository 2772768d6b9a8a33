"""Measure every cell that is not measured yet, in one process or several, and survive interruption."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from latentdrift.benchmark.data import BenchmarkData
from latentdrift.benchmark.plan import Benchmark, BenchmarkConfig, Cell, in_words, open_benchmark
from latentdrift.benchmark.workshop import InHandError, Workshop
from latentdrift.data.files import write_text
from latentdrift.errors import LatentDriftError

CELLS = "cells"


@dataclass(frozen=True)
class Measured:
    """A cell and what was found, or why nothing was."""

    cell: Cell
    figures: dict[str, dict[str, float]]
    facts: dict[str, Any]
    pictures: tuple[str, ...] = ()
    problem: str | None = None


def run_cells(plan: Benchmark, workshop: Workshop) -> list[Measured]:
    """Measure what is missing, and return all cells in order.

    A cell that another process has in hand, or whose model another one trains, is left, and waited for at the end. One
    that fails is told, and the others go on; it is tried again by the next call.
    """
    cells, waiting = plan.cells(workshop.data), []
    for done, cell in enumerate(cells):
        workshop.tell(f"cells, {described(cell)}", done, len(cells))
        if not measure_cell(plan, workshop, cell, wait=False):
            waiting.append(cell)
    for cell in waiting:
        measure_cell(plan, workshop, cell, wait=True)
    workshop.tell("cells, all measured", len(cells), len(cells))
    return recalled(plan, workshop)


def recalled(plan: Benchmark, workshop: Workshop) -> list[Measured]:
    """Return the cells that were measured, those that failed too, in order."""
    return [found for cell in plan.cells(workshop.data) if (found := recall(plan, workshop, cell)) is not None]


def measure_cell(plan: Benchmark, workshop: Workshop, cell: Cell, *, wait: bool) -> bool:
    """Measure a cell, or find it measured.

    False if `wait` is False and another process has the cell in hand, or something that it needs.
    """
    path = cell_file(plan, workshop, cell)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=-1 if wait else 0):
            known = recall(plan, workshop, cell)
            if known is not None and (known.problem is None or wait):
                return True
            began, problem, figures = time.monotonic(), None, {}
            try:
                with workshop.waiting(wait):
                    figures = plan.measure(cell.settings, cell.seed, workshop)
            except InHandError:
                workshop.pictures()  # of a part of the cell
                return False
            except LatentDriftError as error:
                problem = f"{type(error).__name__}: {error}"
            except Exception:
                problem = traceback.format_exc(limit=8)
            record = {
                "row": cell.row,
                "settings": dict(cell.settings),
                "seed": cell.seed,
                "seconds": round(time.monotonic() - began, 1),
                "figures": figures,
                "pictures": workshop.pictures(),
                **({"problem": problem} if problem else {}),
            }
            write_text(path, json.dumps(record, indent=2, default=str) + "\n")
            return True
    except Timeout:
        return False


def recall(plan: Benchmark, workshop: Workshop, cell: Cell) -> Measured | None:
    """Return a cell that was measured, or None; a damaged file counts as none."""
    try:
        found = json.loads(cell_file(plan, workshop, cell).read_text(encoding="utf-8"))
        return Measured(
            cell,
            {name: {k: float(v) for k, v in value.items()} for name, value in found["figures"].items()},
            {"seconds": float(found["seconds"])},
            tuple(found.get("pictures", ())),
            found.get("problem"),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def cell_file(plan: Benchmark, workshop: Workshop, cell: Cell) -> Path:
    """Return the file of a cell."""
    return workshop.folder / CELLS / f"{plan.name}-{plan.key(cell, workshop.parts.facts)}.json"


def described(cell: Cell) -> str:
    """Return a cell's row and seed in words."""
    return ", ".join(filter(None, (in_words(cell.row), f"seed {cell.seed}")))


def run_workers(
    name: str, config: BenchmarkConfig, data: BenchmarkData, folder: Path, devices: Sequence[str | None]
) -> None:
    """Run one process a device, each taking the cells that no other has; returns when all are done.

    On processors each takes its share of the threads.

    Raises:
        LatentDriftError: a process ended without having finished.
    """
    import multiprocessing

    import torch

    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // len(devices))
    workers = [
        context.Process(target=work, args=(name, config, data, folder, device, threads), name=f"worker {number}")
        for number, device in enumerate(devices)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ended = {worker.name: worker.exitcode for worker in workers if worker.exitcode}
    if ended:
        raise LatentDriftError(
            f"{', '.join(f'{name} ended with status {code}' for name, code in ended.items())}. What was measured is "
            "kept: give the command again, with fewer workers if memory was short."
        )


def work(
    name: str, config: BenchmarkConfig, data: BenchmarkData, folder: Path, device: str | None, threads: int
) -> None:
    """Measure cells in this process."""
    import torch

    torch.set_num_threads(threads)
    run_cells(open_benchmark(name, config), Workshop(data, config, folder, device, _say))


def _say(what: str, done: int, total: int) -> None:
    if what.startswith("cells"):
        print(f"{what}: {done} of {total}", flush=True)


def problems(found: Sequence[Measured]) -> list[str]:
    """Return what went wrong, a line a cell."""
    return [f"{described(one.cell)}: {one.problem}" for one in found if one.problem is not None]


def finished(found: Sequence[Measured]) -> list[Measured]:
    """Return the cells that have figures."""
    return [one for one in found if one.problem is None]


def facts_of(found: Sequence[Measured]) -> Mapping[str, Any]:
    """Return how long it took, hours of work."""
    return {"hours": round(sum(one.facts["seconds"] for one in found) / 3600, 2), "cells": len(found)}
