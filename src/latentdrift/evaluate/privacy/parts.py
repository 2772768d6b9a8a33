"""Who was in the training and who was not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from latentdrift.data import Cohort
from latentdrift.errors import DataError
from latentdrift.models.classifier.roles import read_split

TRAIN = "train"


@dataclass(frozen=True)
class Parts:
    """The two sides of an audit."""

    training: Cohort
    held_out: Cohort
    """Of people who are not in the training, where they are known."""
    warnings: tuple[str, ...]
    """What is to be known of them."""


def audit_parts(data: Path, split: Path, trained: Path | None = None) -> Parts:
    """Return the training and the held-out images of a split.

    All parts but `train` are held out. Held-out images of people who are in the training, too, are left out: they are
    no strangers to it.

    Args:
        data: folder of the cohort.
        split: split.csv of a run of `latentdrift finetune`.
        trained: split.csv of the model that is audited, to compare.

    Raises:
        DataError: a split that cannot be read, of another cohort, or with fewer than two images on a side.
    """
    parts = read_split(split)
    cohort = Cohort.open(data, missing="keep")
    warnings = []
    if trained is not None and read_split(trained) != parts:
        warnings.append(f"{split} is not the split of the model, {trained}: its members are not these.")
    inside = [record for record in cohort if parts.get(record.key) == TRAIN]
    outside = [record for record in cohort if parts.get(record.key, TRAIN) != TRAIN]
    known = {record.subject for record in inside} - {None}
    strangers = [record for record in outside if record.subject not in known]
    if len(strangers) < len(outside):
        count = len(outside) - len(strangers)
        warnings.append(f"{count} held-out images left out: their subjects are in the training.")
    for name, records in (("training", inside), ("held-out", strangers)):
        if len(records) < 2:
            raise DataError(
                f"{split} and {data} have {len(records)} {name} image(s) together; two at least are needed. Give the "
                "cohort and the split of one run, with a part for training and another that was held out."
            )
    if any(record.subject is None for record in (*inside, *strangers)):
        warnings.append(
            "Not all subjects are known. Held-out images may show people of the training, which makes them near to it "
            "and the audit too lenient; and intervals take each such image for a person."
        )
    return Parts(
        Cohort(inside, cohort.root, f"{cohort.name}, training", cohort.label),
        Cohort(strangers, cohort.root, f"{cohort.name}, held out", cohort.label),
        tuple(warnings),
    )
