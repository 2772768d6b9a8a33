"""A simulated cohort on disk, as an ordinary imagefolder with the parameters beside it."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.cohort import Cohort
from latentdrift.data.images import write_png
from latentdrift.data.records import Record
from latentdrift.data.simulate.render import render
from latentdrift.data.simulate.subject import DIAGNOSES, SimulatedSubject
from latentdrift.errors import ConfigurationError, DataError

SIDECAR = "simulation.json"
VERSION = 1
"""Raised whenever the same parameters give other images."""

SESSION = "visit-1"


def simulate_cohort(
    folder: str | Path,
    subjects: int = 60,
    seed: int = 0,
    size: int = 128,
    *,
    truth: bool = True,
    progress: Callable[[int, int], None] | None = None,
) -> Cohort:
    """Write a simulated cohort, one slice a subject, and return it opened.

    The folder gets images/, metadata.csv (file_name, subject, session, age, sex, diagnosis), simulation.json with
    every subject's parameters, and with `truth` the folder truth/ with each subject under the two other diagnoses.

    Args:
        folder: must not exist, or be empty; it appears only when complete.
        subjects: how many; the diagnoses take turns.
        seed: same seed, same bytes. A larger cohort begins with the subjects of a smaller one.
        size: pixels of a side.
        truth: also write the counterfactual images, which triples the time; `true_counterfactual` renders them on
            demand without.
        progress: called with the number of subjects done and in all.

    Raises:
        ConfigurationError: fewer than 1 subject, a size that cannot be, or nilearn is missing.
        DataError: the folder is in use or cannot be written.
    """
    root = Path(folder)
    if subjects < 1:
        raise ConfigurationError(f"A cohort has at least 1 subject, not {subjects}.")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise DataError(f"{root} exists and is not empty. Choose another folder or remove it.")
    people = [SimulatedSubject.draw(index, seed) for index in range(subjects)]
    partial = root.absolute().with_name(f".{root.absolute().name}.{os.getpid()}.partial")
    try:
        partial.mkdir(parents=True)
        for done, person in enumerate(people):
            if progress is not None:
                progress(done, subjects)
            _write(partial / _file_name(person), person, person.diagnosis, size)
            for other in DIAGNOSES if truth else ():
                if other != person.diagnosis:
                    _write(partial / "truth" / f"{person.name}_{other}.png", person, other, size)
        _write_tables(partial, people, seed, size)
        if root.exists():
            root.rmdir()
        os.replace(partial, root)
    except OSError as error:
        raise DataError(f"{root} cannot be written: {error.strerror}. Free space or choose another folder.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    if progress is not None:
        progress(subjects, subjects)
    return Cohort.open(root, label="diagnosis")


def true_counterfactual(
    cohort_folder: str | Path, record: Record, diagnosis: str, *, age: float | None = None
) -> NDArray[np.float32]:
    """Return the record's slice under another diagnosis (and age), all else equal: (H, W) in [0, 1].

    Raises:
        DataError: the folder is no simulated cohort, of another version, or without this record's subject.
        UnknownNameError: no such diagnosis.
    """
    person, size = simulated_subject(cohort_folder, record)
    return render(person, diagnosis, age, size=size)


def simulated_subject(cohort_folder: str | Path, record: Record) -> tuple[SimulatedSubject, int]:
    """Return the parameters a record was rendered from, and the size in pixels. Raises as `true_counterfactual`."""
    path = Path(cohort_folder) / SIDECAR
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise DataError(f"{path} is of version {found['version']}, this simulator of {VERSION}. Simulate it again.")
        known = {name: found["subjects"][name] for name in found["subjects"]}
        size = int(found["size"])
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: only simulated cohorts have true counterfactuals.") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read as a simulation's parameters ({error}). Simulate it again.") from error
    if record.subject not in known:
        raise DataError(f"{path} has no subject {record.subject!r}. Is the record from another cohort?")
    wanted = {field.name for field in fields(SimulatedSubject)}
    try:
        person = SimulatedSubject(**{name: value for name, value in known[record.subject].items() if name in wanted})
    except (TypeError, AttributeError) as error:
        raise DataError(f"{path}: the parameters of {record.subject} are damaged. Simulate it again.") from error
    return person, size


def _file_name(person: SimulatedSubject) -> str:
    return f"images/{person.name}.png"


def _write(path: Path, person: SimulatedSubject, diagnosis: str, size: int) -> None:
    pixels = np.rint(render(person, diagnosis, size=size) * 255).astype(np.uint8)
    text = {
        "Source": "latentdrift simulation",
        "Subject": person.name,
        "Diagnosis": diagnosis,
        "Age": f"{person.age:g}",
    }
    write_png(path, pixels, text=text, synthetic=True)


def _write_tables(folder: Path, people: list[SimulatedSubject], seed: int, size: int) -> None:
    with (folder / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "subject", "session", "age", "sex", "diagnosis"])
        for person in people:
            writer.writerow([_file_name(person), person.name, SESSION, f"{person.age:g}", person.sex, person.diagnosis])
    content = {
        "version": VERSION,
        "seed": seed,
        "size": size,
        "note": "Simulated from the MNI152 template; not a patient.",
        "subjects": {person.name: person.to_dict() for person in people},
    }
    (folder / SIDECAR).write_text(json.dumps(content, indent=1), encoding="utf-8")
