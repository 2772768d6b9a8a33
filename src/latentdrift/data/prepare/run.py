"""All scans of a source, in parallel; what is done is not done again."""

from __future__ import annotations

import csv
import functools
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from latentdrift.data.cohort import Cohort
from latentdrift.data.files import write_text
from latentdrift.data.prepare.config import PrepareConfig
from latentdrift.data.prepare.convert import Converted, convert_scan, plain
from latentdrift.data.prepare.geometry import GEOMETRY, PREPARATION
from latentdrift.data.prepare.ledger import Ledger
from latentdrift.data.scan import Refusal, Scan
from latentdrift.data.source import DataSource, Listing
from latentdrift.errors import DataError

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
Progress = Callable[[int, int], None]
DIED = "the process that read it died: the file is damaged, or needs more memory than there is."


@dataclass(frozen=True)
class Preparation:
    """What preparing gave.

    Attributes:
        cohort: the images, opened.
        refused: scans, slices and table lines that could not be used, and why.
        resumed: scans that a former run had done.
    """

    cohort: Cohort
    refused: tuple[Refusal, ...]
    resumed: int


def prepare_cohort(
    source: DataSource,
    root: str | Path,
    out: str | Path,
    config: PrepareConfig | None = None,
    *,
    limit: int | None = None,
    progress: Progress | None = None,
) -> Preparation:
    """Write the scans of a source as a cohort of square images and return it.

    `out` gets images/, metadata.csv (file_name, subject, session and the source's attributes), geometry.jsonl (how each
    image goes back into its scan), refused.csv and prepare.json. A run that was stopped goes on where it was; scans
    whose files and settings have not changed are not read again.

    Args:
        source: a data source.
        root: the source's folder.
        out: folder to make or to go on with.
        config: settings.
        limit: use only so many scans, spread evenly over the source.
        progress: called with the numbers of scans done and in all.

    Raises:
        DataError: the layout is not the source's, nothing can be used, or the disk is full.
    """
    root, out, config = Path(root), Path(out), config or PrepareConfig()
    if not root.is_dir():
        raise DataError(f"{root} is not a folder. Give the folder of the source by --root.")
    if out.resolve() == root.resolve():
        raise DataError(f"{out} is the source's own folder. Give another by --out.")
    listing = writable(without_twins(outside(out, source.list_scans(root))))
    scans = spread(listing.scans, limit)
    if not scans:
        reasons = "".join(f"\n  {refusal.name}: {refusal.reason}" for refusal in listing.refused[:5])
        raise DataError(f"{root} holds no scan that can be used ({len(listing.refused)} refused).{reasons}")
    try:
        ledger = Ledger(out, config)
        ledger.begin()
        done = {scan.key: former for scan in scans if (former := ledger.recall(scan)) is not None}
        resumed, left = len(done), [scan for scan in scans if scan.key not in done]
        tell = progress or (lambda *_: None)
        tell(resumed, len(scans))
        work = functools.partial(convert_scan, root=root, out=out, config=config, modality=source.modality)
        by_key = {scan.key: scan for scan in left}
        try:
            for converted in convert_all(work, left, config.workers or os.cpu_count() or 1):
                ledger.add(by_key[converted.key], converted)
                done[converted.key] = converted
                tell(len(done), len(scans))
        finally:
            ledger.close()
        refused = [*listing.refused]
        for scan in scans:
            refused += [Refusal(scan.key, printable(reason)) for reason in done[scan.key].refused]
        write_tables(out, root, source, scans, done, refused, config)
        ledger.close(compact=True)
    except OSError as error:
        raise DataError(
            f"{out} cannot be written: {error.strerror or error}. Free space, or choose another --out; run the same "
            "command again to go on."
        ) from error
    if not any(done[scan.key].rows for scan in scans):
        reasons = "".join(f"\n  {refusal.name}: {refusal.reason}" for refusal in refused[:5])
        raise DataError(
            f"None of the {len(scans)} scans in {root} could be used; {out / 'refused.csv'} says why.{reasons}"
        )
    return Preparation(Cohort.open(out, missing="keep", label=source.label_of(scans)), tuple(refused), resumed)


def outside(out: Path, listing: Listing) -> Listing:
    """Return the listing without what a former run has written, where the cohort's folder is inside the source's."""
    inner = os.path.join(os.path.abspath(out), "")
    scans = (scan for scan in listing.scans if not any(os.path.abspath(path).startswith(inner) for path in scan.files))
    return Listing(tuple(scans), listing.refused)


def without_twins(listing: Listing) -> Listing:
    """Return the listing with every key once; later scans of a key that is taken are refused."""
    counts: Counter[str] = Counter()
    kept, refused = [], list(listing.refused)
    for scan in listing.scans:
        counts[scan.key] += 1
        if counts[scan.key] == 1:
            kept.append(scan)
        else:
            refused.append(Refusal(scan.key, "it is listed twice; the first is used."))
    return Listing(tuple(kept), tuple(refused))


def writable(listing: Listing) -> Listing:
    """Return the listing without scans of which a table in UTF-8 cannot tell; names of refused ones made printable."""
    kept, refused = [], [Refusal(printable(one.name), printable(one.reason)) for one in listing.refused]
    for scan in listing.scans:
        told = "".join(map(str, (scan.key, scan.subject, scan.session, *scan.attributes, *scan.attributes.values())))
        if printable(told) == told:
            kept.append(scan)
        else:
            refused.append(
                Refusal(printable(scan.key), "its name, or what a table says of it, is not UTF-8. Rename it.")
            )
    return Listing(tuple(kept), tuple(refused))


def printable(text: str) -> str:
    """Return a text with what UTF-8 cannot hold (bytes of file names in other encodings) as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def spread(scans: Sequence[Scan], limit: int | None) -> Sequence[Scan]:
    """Return at most `limit` scans, evenly spread."""
    if limit is None or limit >= len(scans):
        return scans
    if limit < 1:
        raise DataError(f"The limit is {limit}; at least 1 scan is needed.")
    return [scans[index * len(scans) // limit] for index in range(limit)]


def convert_all(work: Callable[[Scan], Converted], scans: Sequence[Scan], workers: int) -> Iterator[Converted]:
    """Yield every scan as it is done. A worker that dies costs the scan it was at, and no other."""
    waiting = list(reversed(scans))
    if min(workers, len(waiting)) <= 1:
        yield from map(work, scans)
        return
    # Fresh processes, not forks: those would inherit the locks of threads that libraries have started.
    context = get_context("spawn")
    while waiting:
        running: dict[Future[Converted], Scan] = {}
        with one_thread_each(), ProcessPoolExecutor(min(workers, len(waiting)), mp_context=context) as pool:
            try:
                while waiting or running:
                    while waiting and len(running) < 2 * workers:
                        scan = waiting.pop()
                        running[pool.submit(work, scan)] = scan
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        converted = future.result()
                        del running[future]
                        yield converted
            except BrokenProcessPool:
                # Nobody can tell which of those under way it was: each gets a process of its own.
                suspects = list(running.values())
                for scan in suspects:
                    yield alone(work, scan, context)


@contextmanager
def one_thread_each() -> Iterator[None]:
    """Have processes that start meanwhile calculate with one thread, unless the user has set another number.

    Linear algebra else starts a thread a core in each of as many processes.
    """
    added = {name: "1" for name in THREADS if name not in os.environ}
    os.environ.update(added)
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)


def alone(work: Callable[[Scan], Converted], scan: Scan, context: Any) -> Converted:
    """Convert one scan in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(work, scan).result()
        except BrokenProcessPool:
            return Converted(scan.key, refused=(DIED,), lasting=False)


def write_tables(
    out: Path,
    root: Path,
    source: DataSource,
    scans: Sequence[Scan],
    done: dict[str, Converted],
    refused: Sequence[Refusal],
    config: PrepareConfig,
) -> None:
    """Write metadata.csv, geometry.jsonl, refused.csv and prepare.json, each whole or not at all."""
    names = list(dict.fromkeys(name for scan in scans for name in scan.attributes))
    identity = [name for name in ("subject", "session") if any(getattr(scan, name) is not None for scan in scans)]
    names = [name for name in names if name not in ("file_name", "subject", "session")]
    table, geometry = [], []
    for scan in scans:
        for row in done[scan.key].rows:
            cells = [getattr(scan, name) for name in identity] + [scan.attributes.get(name) for name in names]
            table.append([row["file_name"], *("" if cell is None else cell for cell in cells)])
            geometry.append(json.dumps({**row, "root": str(root.resolve())}, default=plain))
    write_csv(out / "metadata.csv", ["file_name", *identity, *names], table)
    write_csv(out / "refused.csv", ["name", "reason"], [[refusal.name, refusal.reason] for refusal in refused])
    write_text(out / GEOMETRY, "".join(line + "\n" for line in geometry))
    facts = {
        "source": type(source).title,
        "root": str(root.resolve()),
        "settings": asdict(config),
        "source_settings": asdict(source.config),
        "scans": len(scans),
        "images": len(table),
        "refused": len(refused),
    }
    write_text(out / PREPARATION, json.dumps(facts, indent=2, default=plain) + "\n")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table, whole or not at all."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    write_text(path, text.getvalue())
