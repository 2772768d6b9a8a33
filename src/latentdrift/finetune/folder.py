"""The run folder: what a result depends on, which image went where, and the losses."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from latentdrift.data import Cohort
from latentdrift.data.provenance.marks import package_versions
from latentdrift.drift import LatentDrift
from latentdrift.errors import TrainingError
from latentdrift.finetune.checkpoint import newest_checkpoint
from latentdrift.models.card import CARD_FILE

RUN_FILE = "run.json"


def describe_run(
    cohort: Cohort,
    base: str | Path,
    method: str,
    drift: str | float | LatentDrift | None,
    rule: str,
    template: str | Mapping[str, Any],
    config: Any,
    settings: Any,
    fractions: Mapping[str, float],
) -> dict[str, Any]:
    """Return what `run.json` holds: everything the result depends on."""
    return {
        "base": str(base),
        "method": method,
        "drift": drift.to_dict() if isinstance(drift, LatentDrift) else drift,
        "rule": rule,
        "template": template,
        "training": dataclasses.asdict(config),
        "method_settings": dataclasses.asdict(settings),
        "fractions": dict(fractions),
        "data": {"name": cohort.name, "images": len(cohort), "content_hash": cohort.content_hash()},
        "versions": package_versions(),
    }


def has_finished(out: Path, facts: Mapping[str, Any]) -> bool:
    """Return whether `out` holds this very run, finished.

    A run with other settings that was stopped before its first checkpoint has nothing to lose, and may begin anew.

    Raises:
        TrainingError: the folder holds another run, or something else.
    """
    path = out / RUN_FILE
    if not path.exists():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise TrainingError(f"{out} is not empty and holds no run. Choose another --out.")
        return False
    try:
        former = json.loads(path.read_text())
    except ValueError as error:
        raise TrainingError(f"{path} is damaged ({error}). Choose another --out, or delete the folder.") from error
    # Other programs write a run.json too; what stands beside theirs is not ours to replace.
    if not isinstance(former, dict) or not former.keys() >= {"base", "method", "training"}:
        raise TrainingError(f"{path} is of no fine-tuning of latentdrift. Choose another --out.")
    finished = (out / "model" / CARD_FILE).exists()
    if not finished and newest_checkpoint(out) is None:
        return False
    changed = list(differences(former, json.loads(json.dumps(facts))))
    if changed:
        raise TrainingError(
            f"{out} holds a run with other settings ({'; '.join(changed)}). Choose another --out, or delete the folder."
        )
    return finished


def differences(former: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield what `now` has otherwise than `former`; versions of packages and what data are called do not count."""
    for name, value in now.items():
        before = former.get(name)
        if f"{prefix}{name}" in ("versions", "data.name") or before == value:
            continue
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            yield from differences(before, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}: {str(before)[:80]} there, {str(value)[:80]} now"


def begin_run(out: Path, facts: Mapping[str, Any], parts: Mapping[str, Cohort], drift: LatentDrift | None) -> None:
    """Write `run.json` and `split.csv` (file_name, part); what an earlier run without a checkpoint left is removed.

    Raises:
        TrainingError: the folder cannot be written.
    """
    with explained_disk(out):
        out.mkdir(parents=True, exist_ok=True)
        for left in out.glob(".adapter-*"):
            shutil.rmtree(left, ignore_errors=True)
        if newest_checkpoint(out) is None:
            for name in ("logs", "samples"):
                shutil.rmtree(out / name, ignore_errors=True)
            (out / "losses.csv").unlink(missing_ok=True)
        used = None if drift is None else drift.to_dict()
        write_whole(out / RUN_FILE, json.dumps({**facts, "drift_used": used}, indent=2) + "\n")
        rows = [csv_line(record.key, name) for name, part in parts.items() for record in part]
        write_whole(out / "split.csv", "\n".join(["file_name,part", *rows]) + "\n")


def write_losses(
    out: Path,
    losses: Sequence[float],
    validations: Sequence[tuple[int, float]],
    drifts: Sequence[Sequence[float]] = (),
) -> None:
    """Write `losses.csv` (step, loss, validation_loss, and of a learned drift the numbers after each step).

    Raises:
        TrainingError: the folder cannot be written.
    """
    by_step = dict(validations)
    names = [f"drift_{index}" for index in range(len(drifts[0]))] if drifts else []
    lines = [",".join(["step", "loss", "validation_loss", *names])]
    for i, loss in enumerate(losses, 1):
        numbers = [f"{number:.6g}" for number in drifts[i - 1]] if drifts else []
        lines.append(",".join([str(i), f"{loss:.6f}", str(by_step.get(i, "")), *numbers]))
    with explained_disk(out):
        write_whole(out / "losses.csv", "\n".join(lines) + "\n")


def csv_line(*cells: str) -> str:
    """Return cells as a line of CSV, quoted where needed."""
    return ",".join(f'"{c.replace(chr(34), chr(34) * 2)}"' if set(c) & set(',"\n\r') else c for c in cells)


def write_whole(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
    finally:
        with suppress(OSError):
            partial.unlink()


@contextmanager
def explained_disk(out: Path) -> Iterator[None]:
    """Turn a disk that is full or not writable into a `TrainingError` with the remedy."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            f"The run folder {out} cannot be written: {error.strerror or error}. Free space and run the same command "
            "again, or choose another --out."
        ) from error
