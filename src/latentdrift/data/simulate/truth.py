"""From a record of a simulated cohort back to who it shows, and to the same person under other attributes."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.records import Record
from latentdrift.data.simulate.cohort import SIDECAR, VERSION, session_of
from latentdrift.data.simulate.kinds import Kind, Subject, kind_of, render_subject
from latentdrift.data.simulate.scanners import Scanner
from latentdrift.errors import ConfigurationError, DataError


def true_counterfactual(
    cohort_folder: str | Path,
    record: Record,
    diagnosis: str | None = None,
    *,
    age: float | None = None,
    sex: str | None = None,
    scanner: str | Scanner | None = None,
    **attributes: Any,
) -> NDArray[np.float32]:
    """Return the record's picture under other attributes, where given, all else equal: (H, W) in [0, 1].

    Noise, shading and everything else about the scan are those of the record.

    Args:
        cohort_folder: where `simulate_cohort` wrote the cohort.
        record: one of the cohort's; its session says which visit.
        diagnosis: the class: a diagnosis for a brain, a finding for a chest.
        age: years.
        sex: "F" or "M".
        scanner: a name in `SCANNERS` or a `Scanner`; brain only.
        attributes: what else `render` or `render_chest` takes: lesion_load, noise, bias and height, or finding, view,
            heart_size, effusion, side, opacity, lobe and noise.

    Raises:
        DataError: the folder is no simulated cohort, of another version, or without this record's subject or visit.
        UnknownNameError: no such class, sex, scanner or attribute.
        ConfigurationError: a number outside what the simulator covers.
    """
    person, size = simulated_subject(cohort_folder, record)
    label = kind_of(person).label
    wanted = {"age": age, "sex": sex, "scanner": scanner}
    if diagnosis is not None:
        if label in attributes:
            raise ConfigurationError(f"The {label} is given twice: {diagnosis!r} and {attributes[label]!r}.")
        wanted[label] = diagnosis
    given = {name: value for name, value in wanted.items() if value is not None}
    return render_subject(person, size=size, **given, **attributes)


def simulated_subject(cohort_folder: str | Path, record: Record) -> tuple[Any, int]:
    """Return the `SimulatedSubject` or `SimulatedChest` a record was rendered from, and the size in pixels.

    Raises:
        DataError: the folder is no simulated cohort, of another version, or without this record's subject or visit.
    """
    path = Path(cohort_folder) / SIDECAR
    try:
        status = path.stat()
        kind, size, known = _parameters(path, status.st_mtime_ns, status.st_size)
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist: only simulated cohorts have true counterfactuals.") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path} cannot be read as a simulation's parameters ({error}). Simulate it again.") from error
    if record.subject not in known:
        raise DataError(f"{path} has no subject {record.subject!r}. Is the record from another cohort?")
    visits, session = known[record.subject], session_of(0) if record.session is None else record.session
    if session not in visits:
        raise DataError(f"{path} has no session {session!r} of {record.subject}. Is the record from another cohort?")
    return _subject(path, kind, visits[session], record.subject), size


@lru_cache(maxsize=4)
def _parameters(path: Path, changed: int, length: int) -> tuple[Kind, int, dict[str, dict[str, Any]]]:
    """Return the kind, the size and the parameters by subject and session; read again when the file has changed."""
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["version"] != VERSION:
        raise DataError(f"{path} is of version {found['version']}, this simulator of {VERSION}. Simulate it again.")
    return kind_of(found["kind"]), int(found["size"]), {name: dict(one) for name, one in found["subjects"].items()}


def _subject(path: Path, kind: Kind, parameters: Any, name: str) -> Subject:
    wanted = {field.name for field in fields(kind.subject)}
    try:
        return kind.subject(**{key: value for key, value in parameters.items() if key in wanted})
    except (TypeError, AttributeError, ValueError) as error:
        raise DataError(f"{path}: the parameters of {name} are damaged. Simulate it again.") from error
