"""What can go wrong, as a tree.

LatentDriftError
├── ConfigurationError      a setting that cannot be: an unknown name, a value out of range
│   └── UnknownNameError    a name nobody registered, with the closest ones that exist
├── DataError               files, tables, images, splits
│   └── NoPairsError        a cohort, or a part of one, without two images of which one is the other's edit
├── DriftError              a drift of the wrong shape, NaN, or not usable with this scheduler
├── ModelError              a folder that is no model, of another architecture, or not to be had
├── TrainingError           fine-tuning that cannot start, go on, or be saved
│   └── OutOfMemoryError    with the settings that need less
└── EvaluationError         image sets that cannot be compared

Every message says what was wrong, with which file or value, and what to do. The console command prints it and exits
with status 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LatentDriftError(Exception):
    """Base of everything this package raises on purpose."""


class ConfigurationError(LatentDriftError, ValueError):
    """A setting that cannot be."""


class UnknownNameError(ConfigurationError):
    """A name that nobody registered; the message lists the closest ones, or all."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"Known: {', '.join(known) or 'none'}."
        super().__init__(f"There is no {kind} {name!r}. {hint}")
        self.kind, self.name, self.known = kind, name, tuple(known)


class DataError(LatentDriftError):
    """Files, tables, images or splits that cannot be used as they are."""


class NoPairsError(DataError):
    """Images without partners to be edited into."""


class DriftError(LatentDriftError, ValueError):
    """A drift that cannot be applied."""


class ModelError(LatentDriftError):
    """A model that cannot be found, read or used here."""


class TrainingError(LatentDriftError):
    """Fine-tuning that cannot start, go on, or be saved."""


class OutOfMemoryError(TrainingError):
    """The device's memory is too small for these settings."""


class EvaluationError(LatentDriftError):
    """Image sets that cannot be compared."""
