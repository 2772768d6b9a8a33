"""The drift beside the weights it was trained with, and the warning when sampling uses another."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from latentdrift.drift.moments import LatentMoments
from latentdrift.drift.scheduler import CONFIG_KEY
from latentdrift.drift.state import DriftWarning
from latentdrift.drift.value import LatentDrift
from latentdrift.errors import DriftError

FILE_NAME = "latent_drift.json"
_SCHEDULER_CONFIG = Path("scheduler", "scheduler_config.json")


class DriftMismatchWarning(DriftWarning):
    """A model is sampled under another drift than it was trained under."""


def save_drift(folder: str | os.PathLike[str], drift: LatentDrift | None) -> Path:
    """Write `drift` to latent_drift.json in a model's folder, or take the file away for None; return its path.

    The file is written under a temporary name and renamed, so that there is never half a file.

    Raises:
        DriftError: the file cannot be written.
    """
    path = Path(folder, FILE_NAME)
    temporary: str | None = None
    try:
        if drift is None:
            path.unlink(missing_ok=True)
            return path
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=FILE_NAME + ".", suffix=".tmp", dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(drift.to_dict(), file, indent=2)
            file.write("\n")
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes files for the owner's eyes only; a model's folder is meant to be shared.
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
        raise DriftError(
            f"The drift could not be saved to {path}: {error.strerror}. Free space or choose a folder."
        ) from error
    return path


def load_drift(folder: str | os.PathLike[str]) -> LatentDrift | None:
    """Return the drift of a model's folder, or None: from latent_drift.json, else from its scheduler's configuration.

    Raises:
        DriftError: the file is damaged; the message names it.
    """
    for path, key in ((Path(folder, FILE_NAME), None), (Path(folder, _SCHEDULER_CONFIG), CONFIG_KEY)):
        if not path.is_file():
            continue
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
            data = data.get(key) if key else data
            if data is not None:
                return LatentDrift.from_dict(data)
        except (ValueError, AttributeError, OSError) as error:
            raise DriftError(f"{path} holds no drift that can be read: {error}") from error
    return None


def check_drift(trained: LatentDrift | None, used: LatentDrift | None) -> str | None:
    """Return what is wrong with sampling under `used` a model trained under `trained`, or None if they fit.

    What counts is the effective drift, delta_start - delta_forward. A model trained without a drift may be sampled
    under any `start`; one trained under `forward` needs none in sampling, where the rule does nothing anyway.

    Args:
        trained: the drift saved with the model (`load_drift`), None for an ordinary model.
        used: the drift of the scheduler that will sample (`drift_of`), None for an undrifted one.
    """
    trained = None if trained is not None and trained.is_zero else trained
    used = None if used is not None and used.is_zero else used
    if trained == used or (trained is None and used is not None and used.rule == "start"):
        return None
    if trained is not None and trained.rule == "forward" and trained.target == "drifted" and used is None:
        return None
    was, now = (str(drift) if drift else "no drift" for drift in (trained, used))
    if trained is not None:
        remedy = f"Sample under the model's own drift, or train it anew under {now}"
    else:
        remedy = f"Sample under no drift or under rule 'start', or train the model under {now}"
    return f"The model was trained under {was}, but is sampled under {now}{_difference(trained, used)}. {remedy}."


def _difference(trained: LatentDrift | None, used: LatentDrift | None) -> str:
    """The effective drift in use minus the one trained for: what the start and the added noise contribute."""
    parts = [(drift, sign) for drift, sign in ((used, 1), (trained, -1)) if drift is not None]
    if any(isinstance(drift.value, LatentMoments) for drift, _ in parts):
        return ""
    # The network knows only the noise it was trained on, so delta_forward is the trained drift's in both terms.
    try:
        gap = sum(torch.as_tensor(d.numbers, dtype=torch.float64).detach() * d.start_sign * s for d, s in parts)
    except RuntimeError:
        return " (their shapes do not fit each other)"
    shift = torch.as_tensor(gap)
    if shift.ndim == 3:
        shift = shift.mean((1, 2))
    text = ", ".join(f"{number:+.4g}" for number in shift.reshape(-1).tolist())
    return f": its start lies {text} from where it should, in units of the noise{' a channel' if shift.ndim else ''}"
