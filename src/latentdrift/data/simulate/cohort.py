"""A simulated cohort on disk, as an ordinary imagefolder with the parameters beside it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from latentdrift.data.cohort import Cohort
from latentdrift.data.images import write_png
from latentdrift.data.simulate.effects import STRENGTH
from latentdrift.data.simulate.kinds import Kind, Population, Subject, kind_of
from latentdrift.errors import ConfigurationError, DataError

SIDECAR = "simulation.json"
VERSION = 2
"""Raised whenever the same parameters give other images."""


def simulate_cohort(
    folder: str | Path,
    subjects: int = 60,
    seed: int = 0,
    size: int = 128,
    *,
    truth: bool = True,
    progress: Callable[[int, int], None] | None = None,
    kind: str = "brain",
    visits: int = 1,
    years_between: float = 1.0,
    convert: bool = True,
    strength: float = STRENGTH,
    age_correlation: float = 0.0,
    scanners: Sequence[str] | None = None,
    bedside: float = 0.0,
    workers: int = 1,
) -> Cohort:
    """Write a simulated cohort, one picture a visit, and return it opened.

    The folder gets images/, metadata.csv (file_name, subject, session, age, sex, diagnosis; for a chest age, sex, view,
    finding), simulation.json with every subject's parameters, and with `truth` the folder truth/ with each picture
    under the other diagnoses or findings.

    Args:
        folder: must not exist, or be empty; it appears only when complete.
        subjects: how many; the diagnoses, or the findings, take turns.
        seed: same seed, same bytes, whatever the number of workers. A larger cohort begins with the subjects of a
            smaller one, and more visits with the same ones.
        size: pixels of a side.
        truth: also write the counterfactual images, which multiplies the time by the number of classes;
            `true_counterfactual` renders them on demand without.
        progress: called with the number of subjects done and in all.
        kind: "brain" or "chest".
        visits: of each subject, brain only.
        years_between: the visits.
        convert: whether the diagnosis may change between visits.
        strength: factor on the effects of the diagnosis, 1 being the published size; brain only.
        age_correlation: between age and the diagnosis, or there being a finding, -1 to 1: a confounded cohort.
        scanners: names from `SCANNERS`, drawn for each subject and written to the table; brain only.
        bedside: share of AP views, chest only.
        workers: processes that render; each first prepares the anatomy for a few seconds.

    Raises:
        ConfigurationError: fewer than 1 subject, a size or setting that cannot be, or nilearn is missing.
        UnknownNameError: no such kind or scanner.
        DataError: the folder is in use or cannot be written.
    """
    root = Path(folder)
    chosen = kind_of(kind)
    population = Population(
        visits,
        years_between,
        convert,
        strength,
        age_correlation,
        None if scanners is None else tuple(scanners),
        bedside,
    )
    chosen.check(population)
    if subjects < 1:
        raise ConfigurationError(f"A cohort has at least 1 subject, not {subjects}.")
    if workers < 1:
        raise ConfigurationError(f"workers is {workers}; at least 1 process renders.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists and is not empty. Choose another folder or remove it.")
    people = [chosen.draw(index, seed, population) for index in range(subjects)]
    unfinished = root.absolute().with_name(f".{root.absolute().name}.{os.getpid()}.partial")
    try:
        unfinished.mkdir(parents=True)
        write = partial(_write_subject, unfinished, kind=chosen.name, size=size, truth=truth)
        for done, _ in enumerate(_each(write, people, workers)):
            if progress is not None and done < subjects:
                progress(done, subjects)
        _write_tables(unfinished, chosen, people, population, seed, size)
        if root.exists():
            root.rmdir()
        os.replace(unfinished, root)
    except OSError as error:
        raise DataError(f"{root} cannot be written: {error.strerror}. Free space or choose another folder.") from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    if progress is not None:
        progress(subjects, subjects)
    return Cohort.open(root, label=chosen.label)


def _each(
    write: Callable[[Sequence[Subject]], None], people: Sequence[Sequence[Subject]], workers: int
) -> Iterator[None]:
    """Yield before the first subject and after each, in order."""
    yield
    if min(workers, len(people)) == 1:
        for visits in people:
            write(visits)
            yield
        return
    # Fresh processes, not forks: those would inherit the locks of threads that libraries have started.
    pool = ProcessPoolExecutor(min(workers, len(people)), mp_context=get_context("spawn"))
    try:
        yield from pool.map(write, people)
    except BrokenProcessPool as error:
        raise DataError(
            f"A process that simulates was ended from outside. Use fewer than {workers} workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def session_of(visit: int) -> str:
    """Return the session's name of a visit, counted from 0."""
    return f"visit-{visit + 1}"


def _stem(person: Subject, visit: int) -> str:
    return person.name if visit == 0 else f"{person.name}_{session_of(visit)}"


def _write_subject(folder: Path, visits: Sequence[Subject], *, kind: str, size: int, truth: bool) -> None:
    chosen = kind_of(kind)
    for visit, person in enumerate(visits):
        own = getattr(person, chosen.label)
        _write(folder / "images" / f"{_stem(person, visit)}.png", chosen, person, own, size)
        for other in chosen.classes if truth else ():
            if other != own:
                _write(folder / "truth" / f"{_stem(person, visit)}_{other}.png", chosen, person, other, size)


def _write(path: Path, kind: Kind, person: Subject, value: str, size: int) -> None:
    pixels = np.rint(kind.render(person, value, size=size) * 255).astype(np.uint8)
    text = {
        "Source": "latentdrift simulation",
        "Subject": person.name,
        kind.label.capitalize(): value,
        "Age": f"{person.age:g}",
    }
    write_png(path, pixels, text=text, synthetic=True)


def _write_tables(
    folder: Path, kind: Kind, people: Sequence[Sequence[Subject]], population: Population, seed: int, size: int
) -> None:
    columns = kind.table(population)
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "subject", "session", *columns])
        for visits in people:
            for visit, person in enumerate(visits):
                values = [getattr(person, name) for name in columns]
                cells = [f"{value:g}" if isinstance(value, float) else value for value in values]
                writer.writerow([f"images/{_stem(person, visit)}.png", person.name, session_of(visit), *cells])
    content = {
        "version": VERSION,
        "kind": kind.name,
        "seed": seed,
        "size": size,
        "note": kind.note,
        "subjects": {
            visits[0].name: {session_of(visit): person.to_dict() for visit, person in enumerate(visits)}
            for visits in people
        },
    }
    (folder / SIDECAR).write_text(json.dumps(content, indent=1), encoding="utf-8")
