"""Who is on which slice: the data set does not say, but its file numbers do.

Within a stage, files are numbered round by round: every subject's lowest slice first, then every subject's next one. A
stage has as many subjects as OASIS has people of that rating (Marcus et al., Journal of Cognitive Neuroscience, 2007:
70, 28 and 2 with clinical dementia ratings of 0.5, 1 and 2; 100 here without dementia), so the number modulo that count
is the subject. It shows in the pixels: slices whose numbers differ by the count correlate at 0.99, by one more or less
at 0.9. In the last rounds, where some subjects have no slice left, the slice goes to the subject of the most similar
one.

A split that does not know this has every held-out person in the training part.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

SUBJECTS = {"NonDemented": 100, "VeryMildDemented": 70, "MildDemented": 28, "ModerateDemented": 2}
SAME_PERSON = 0.96
"""Correlation of two slices of 64 pixels a side; neighbours of one person are at 0.97 and more, others' below 0.96."""


def slice_vector(path: Path) -> np.ndarray:
    """Return a slice as a vector of mean 0 and length 1, so that a product is a correlation."""
    with Image.open(path) as file:
        pixels = np.asarray(file.convert("L").resize((64, 64)), dtype=np.float64).ravel()
    pixels -= pixels.mean()
    return pixels / np.linalg.norm(pixels)


def subjects_of(data: Path) -> dict[str, str]:
    """Return the subject of every file of the data set's metadata.csv."""
    stages: dict[str, dict[int, str]] = defaultdict(dict)
    with (data / "metadata.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            number = re.search(r"(\d+)\.\w+$", row["file_name"])
            assert number is not None, f"{row['file_name']} has no number"
            stages[row["stage"]][int(number[1])] = row["file_name"]
    found = {}
    for stage, files in stages.items():
        count = SUBJECTS[stage]
        numbers = sorted(files)
        vectors = np.stack([slice_vector(data / files[number]) for number in numbers])
        place = {number: index for index, number in enumerate(numbers)}
        subject: dict[int, int] = {}
        for number in numbers:
            before = number - count
            while before >= 0 and before not in place:
                before -= count
            if before < 0:
                subject[number] = number % count
            elif number - before > count or vectors[place[number]] @ vectors[place[before]] >= SAME_PERSON:
                subject[number] = subject[before]
            else:
                known = [other for other in numbers if other in subject]
                nearest = int(np.argmax(vectors[[place[other] for other in known]] @ vectors[place[number]]))
                subject[number] = subject[known[nearest]]
        found |= {files[number]: f"{stage}-{subject[number]:03d}" for number in numbers}
    return found


def write_cohort(data: Path, out: Path) -> Path:
    """Write a cohort that links to the images and names the subject of each; return its folder."""
    subjects = subjects_of(data)
    out.mkdir(parents=True, exist_ok=True)
    with (data / "metadata.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        link = out / row["file_name"]
        link.parent.mkdir(exist_ok=True)
        if not link.exists():
            os.symlink((data / row["file_name"]).resolve(), link)
    with (out / "metadata.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["file_name", "subject", "stage"])
        writer.writerows([row["file_name"], subjects[row["file_name"]], row["stage"]] for row in rows)
    return out
