"""Answers and key → arrays to analyse, and a table of every answer beside the truth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from latentdrift.errors import DataError
from latentdrift.evaluate.readers import ReaderAnswers, Repeats
from latentdrift.studio.reader_study.answers import Answer
from latentdrift.studio.reader_study.study import Study, Truth


def unblind(study: Study, key: Mapping[str, Truth], given: Sequence[Answer]) -> ReaderAnswers:
    """Return the answers as arrays; of an image shown twice the first showing counts, and both are kept as repeats.

    Raises:
        DataError: answers of another study, or none.
        EvaluationError: answers that cannot be analysed.
    """
    if not given:
        raise DataError("There is no answer yet. Analyse when readers have answered.")
    names = {reader.name: place for place, reader in enumerate(study.readers)}
    images = {name: place for place, name in enumerate(study.images)}
    classes = {name: place for place, name in enumerate(study.classes)}
    shape = (len(names), len(images))
    rating, quality, seconds, diagnosis = (np.full(shape, np.nan) for _ in range(4))
    twice: list[tuple[int, Answer, Answer]] = []
    first: dict[tuple[str, str], Answer] = {}
    for one in sorted(given, key=lambda answer: (answer.reader, answer.position)):
        if one.reader not in names or one.image not in images:
            raise DataError(f"The answers are of another study: it has no {one.reader} who saw {one.image}.")
        before = first.setdefault((one.reader, one.image), one)
        if before is not one:
            twice.append((names[one.reader], before, one))
            continue
        place = names[one.reader], images[one.image]
        rating[place], quality[place], seconds[place] = one.rating, one.quality, one.seconds
        diagnosis[place] = classes.get(one.diagnosis or "", np.nan)
    truths = [key[name] for name in study.images]
    repeats = None
    if twice:

        def both(value: Any) -> tuple[Any, Any]:
            return tuple(np.array([float(value(pair[side])) for pair in twice]) for side in (1, 2))  # type: ignore[return-value]

        repeats = Repeats(
            np.array([reader for reader, _, _ in twice]),
            both(lambda one: one.rating),
            both(lambda one: one.quality),
            both(lambda one: classes.get(one.diagnosis or "", np.nan)),
        )
    subjects = [truth.subject for truth in truths]
    # Where some subject is in several images; an image without a subject is one by itself.
    known = [name for name in subjects if name is not None]
    clusters = None
    if len(set(known)) < len(known):
        clusters = tuple(name or image for name, image in zip(subjects, study.images, strict=True))
    return ReaderAnswers(
        tuple(names),
        np.array([bool(truth.arm) for truth in truths]),
        rating,
        quality,
        seconds,
        study.classes,
        diagnosis,
        np.array([classes.get(truth.shown or "", np.nan) for truth in truths]),
        clusters,
        tuple(truth.arm for truth in truths),
        repeats,
    )


def answer_rows(key: Mapping[str, Truth], given: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return a row an answer, with the truth."""
    rows = []
    for one in given:
        truth = key[one.image]
        rows.append(
            {
                "reader": one.reader,
                "position": one.position + 1,
                "image": one.image,
                "kind": "synthetic" if truth.arm else "real",
                "set": truth.arm,
                "rating": one.rating,
                "shown": truth.shown or "",
                "diagnosis": one.diagnosis or "",
                "quality": one.quality,
                "seconds": round(one.seconds, 3),
                "changes": one.revision - 1,
                "comment": one.comment,
                "file": truth.file,
            }
        )
    return rows
