"""The state of a training in one file, whole or not at all."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from latentdrift.errors import TrainingError

FOLDER = "checkpoints"


def newest_checkpoint(run: Path) -> Path | None:
    """Return the newest checkpoint of a run folder, or None."""
    found = sorted((run / FOLDER).glob("step-*.pt"))
    return found[-1] if found else None


def save_checkpoint(run: Path, step: int, state: dict[str, Any]) -> Path:
    """Write the state of `step`, then drop the checkpoints before.

    Raises:
        TrainingError: the disk is full or not writable; the checkpoint before is kept.
    """
    folder = run / FOLDER
    path, partial = folder / f"step-{step:07d}.pt", folder / "checkpoint.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        torch.save(state, partial)
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch's own writer reports a full disk as RuntimeError
        raise TrainingError(
            f"The checkpoint of step {step} cannot be written to {folder}: {error}. The one before is kept; free space "
            "and run the same command again to go on from it."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()
    for former in folder.glob("step-*.pt"):
        if former != path:
            former.unlink()
    return path


def load_checkpoint(path: Path, device: torch.device) -> dict[str, Any]:
    """Return the state that `save_checkpoint` wrote.

    Raises:
        TrainingError: the file is damaged.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        # torch's own message advises to trust the file, which is no remedy for a damaged one.
        raise TrainingError(f"{path} cannot be read ({type(error).__name__}). Delete it to start anew.") from error
    return state
