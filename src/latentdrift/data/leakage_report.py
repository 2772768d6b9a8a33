"""What an audit for leakage found: counts for every two parts of a cohort, and the closest pairs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from latentdrift.data.records import Record

SHOWN = 5
PAIR_COLUMNS = (
    "first_part",
    "second_part",
    "first",
    "second",
    "distance",
    "correlation",
    "similarity",
    "identical",
    "same_subject",
    "first_path",
    "second_path",
)
"""Names of what `LeakageReport.rows` returns."""


@dataclass(frozen=True)
class NearPair:
    """Two images that are the same or nearly.

    Attributes:
        first, second: the records.
        distance: bits in which the perceptual hashes differ, of 64.
        correlation: of the 64 x 64 thumbnails.
        identical: the files are the same, byte by byte.
        similarity: cosine of the features, where features were compared.
        same_subject: True or False, or None where a subject is not known.
    """

    first: Record
    second: Record
    distance: int
    correlation: float
    identical: bool
    similarity: float | None = None

    @property
    def same_subject(self) -> bool | None:
        """Whether both show the same subject; None where that is not known."""
        subjects = (self.first.subject, self.second.subject)
        return None if None in subjects else subjects[0] == subjects[1]


@dataclass(frozen=True)
class Overlap:
    """What two parts share.

    Attributes:
        first, second: names of the parts.
        images: how many images each has.
        subjects: identifiers in both.
        subject_images: how many images of these subjects each has.
        subjects_unknown: images without a subject in each, of which nothing can be said.
        identical: pairs of files that are the same.
        near: pairs that are nearly the same, the identical ones included.
        touched: images in each part with at least one such partner in the other.
        pairs: the closest pairs, nearest first; `near` counts all.
    """

    first: str
    second: str
    images: tuple[int, int]
    subjects: tuple[str, ...]
    subject_images: tuple[int, int]
    subjects_unknown: tuple[int, int]
    identical: int
    near: int
    touched: tuple[int, int]
    pairs: tuple[NearPair, ...] = field(repr=False, default=())

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.subjects and not self.near

    def sentence(self) -> str:
        """Return the finding in words."""
        said = []
        if self.subjects:
            more = ", …" if len(self.subjects) > SHOWN else ""
            said.append(f"{len(self.subjects)} subjects are in both ({', '.join(self.subjects[:SHOWN])}{more})")
        if self.identical:
            said.append(f"{self.identical} pairs of files are identical")
        if self.near:
            share = self.touched[1] / self.images[1]
            said.append(
                f"{self.touched[1]} of {self.images[1]} images of {self.second} ({share:.1%}) have a near-duplicate in "
                f"{self.first} ({self.near} pairs)"
            )
        if not said:
            said.append("no shared subject, no near-duplicate")
        if any(self.subjects_unknown):
            said.append("subjects are not known for all images, so an overlap of subjects is not ruled out")
        return f"{self.first} and {self.second}: {'; '.join(said)}."


@dataclass(frozen=True)
class LeakageReport:
    """What every two parts share, and how it was looked for.

    Attributes:
        overlaps: one for every two parts.
        blank: keys of constant images, by part; these are compared byte by byte only.
        method: how near-duplicates were looked for, in words.
    """

    overlaps: tuple[Overlap, ...]
    blank: Mapping[str, tuple[str, ...]]
    method: str

    @property
    def clean(self) -> bool:
        """Whether nothing was found between any two parts."""
        return all(overlap.clean for overlap in self.overlaps)

    def verdict(self) -> str:
        """Return the verdict in one line."""
        if self.clean:
            known = not any(any(overlap.subjects_unknown) for overlap in self.overlaps)
            return "clean: " + (
                "no subject and no near-duplicate is in two parts."
                if known
                else "no near-duplicate is in two parts, but subjects are not known for all images."
            )
        subjects = sum(len(overlap.subjects) for overlap in self.overlaps)
        near = sum(overlap.near for overlap in self.overlaps)
        return f"leakage: {subjects} subjects and {near} pairs of near-duplicates are in two parts."

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, for JSON; pairs are in `rows`."""
        return {
            "verdict": self.verdict(),
            "clean": self.clean,
            "method": self.method,
            "blank": {name: list(keys) for name, keys in self.blank.items()},
            "overlaps": [
                {
                    "first": overlap.first,
                    "second": overlap.second,
                    "images": list(overlap.images),
                    "shared_subjects": list(overlap.subjects),
                    "images_of_shared_subjects": list(overlap.subject_images),
                    "images_without_subject": list(overlap.subjects_unknown),
                    "identical_pairs": overlap.identical,
                    "near_duplicate_pairs": overlap.near,
                    "images_with_near_duplicate": list(overlap.touched),
                    "listed_pairs": len(overlap.pairs),
                }
                for overlap in self.overlaps
            ],
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return one row a listed pair, for a table."""
        return [
            {
                "first_part": overlap.first,
                "second_part": overlap.second,
                "first": pair.first.key,
                "second": pair.second.key,
                "distance": pair.distance,
                "correlation": round(pair.correlation, 5),
                "similarity": None if pair.similarity is None else round(pair.similarity, 5),
                "identical": pair.identical,
                "same_subject": pair.same_subject,
                "first_path": str(pair.first.image),
                "second_path": str(pair.second.image),
            }
            for overlap in self.overlaps
            for pair in overlap.pairs
        ]
