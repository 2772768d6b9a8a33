"""`latentdrift benchmark NAME`: finds the benchmark; its config's fields are flags."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.cli.options import parse_options
from latentdrift.cli.show import print_result, progress

if TYPE_CHECKING:
    from latentdrift.benchmark import Benchmark

USAGE = """usage: latentdrift benchmark NAME [OPTIONS]

Measure a table of the paper (arXiv 2412.20651), or one of ours, on your data or on simulated images. Cells are kept as
they end: give the command again after an interruption, with more seeds, or on another machine that shares the folder.

benchmarks:
{kinds}

`latentdrift benchmark NAME --help` lists the settings of one.
"""


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """Measure a table."""

    out: Path
    """Folder of models, samples and cells, and of the results: JSON, Markdown, LaTeX, CSV, a plot, and a page."""
    results: Path | None = None
    """Another folder for the results."""
    workers: int = 1
    """Processes at once; several share the GPUs in turns, or the processor's threads."""
    device: str | None = None
    """cpu, cuda, mps; a GPU by default where there is one."""
    report_only: bool = False
    """Measure nothing more; write the results of what there is."""
    show_real: bool = True
    """Show held-out real images beneath the samples; --no-show-real where results are to be handed on and the data are
    not."""
    json: bool = False
    """Print the rows as JSON."""
    quiet: bool = False
    """Show no progress."""


def kind_names() -> list[str]:
    """Return the benchmarks that there are."""
    from latentdrift.benchmark import benchmark

    return benchmark.names()


def main(arguments: Sequence[str]) -> int:
    """Run the subcommand."""
    from latentdrift.benchmark import benchmark

    names = benchmark.names()
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, names)) + 2
        told = (f"  {name:<{width}}{(benchmark.get(name).__doc__ or '').strip().rstrip('.')}" for name in names)
        print(USAGE.format(kinds="\n".join(told)), file=sys.stdout if arguments else sys.stderr)
        return 0 if arguments else 2
    return run(arguments[0], arguments)


def run(name: str, arguments: Sequence[str]) -> int:
    """Measure one benchmark."""
    from latentdrift.benchmark import BenchmarkData, benchmark, open_benchmark

    kind = benchmark.get(name)
    options_class = dataclasses.make_dataclass(
        "BenchmarkOptions",
        [("cohort", BenchmarkData), ("settings", kind.config_class)],
        bases=(BenchmarkOptions,),
        frozen=True,
        kw_only=True,
    )
    options: Any = parse_options(options_class, arguments[1:], f"benchmark {name}", kind.__doc__ or "")
    plan = open_benchmark(name, options.settings)
    return measure(plan, options, shlex.join(["latentdrift", "benchmark", *arguments]))


def measure(plan: Benchmark, options: Any, command: str) -> int:
    """Measure what is missing, write the results, and print them."""
    from latentdrift.benchmark import Workshop, run_cells, run_workers, summarise, write_results
    from latentdrift.benchmark.runner import described, finished, problems, recalled
    from latentdrift.benchmark.tables import table_rows
    from latentdrift.errors import ConfigurationError

    if options.workers < 1:
        raise ConfigurationError(f"--workers is {options.workers}; at least 1 is needed.")
    with progress(options.quiet) as tell:
        workshop = Workshop(options.cohort, options.settings, options.out, options.device, tell)
        cells = plan.cells(options.cohort)
        if not options.report_only:
            _ = workshop.parts  # a cohort that cannot be used is told before anything is started
            if options.workers > 1:
                left = len(cells) - len(finished(recalled(plan, workshop)))
                if left:
                    devices = devices_of(min(options.workers, left), options.device)
                    run_workers(plan.name, options.settings, options.cohort, options.out, devices)
                found = recalled(plan, workshop)
            else:
                found = run_cells(plan, workshop)
        else:
            found = recalled(plan, workshop)
        files = write_results(plan, workshop, found, command, options.results, show_real=options.show_real)
    rows = summarise(plan, finished(found))
    failed = problems(found)
    known = [one.cell for one in found]
    missing = [described(cell) for cell in cells if cell not in known]
    if options.json:
        told = {"rows": [row.to_dict() for row in rows], "missing": missing, "failed": failed}
        print_result({**told, "files": files}, True)
    else:
        for row in table_rows(plan, options.cohort, rows, workshop.extractor.name):
            print("; ".join(f"{name} {value}" for name, value in row.items() if value))
        print_result({"missing": missing, "failed": failed, "page": files["html"]}, False)
    return 1 if failed else 0


def devices_of(workers: int, device: str | None) -> list[str | None]:
    """Return a device a worker: the GPUs in turns where there are any and none was named."""
    import torch

    count = torch.cuda.device_count()
    if device is None and count:
        return [f"cuda:{index % count}" for index in range(workers)]
    return [device] * workers
