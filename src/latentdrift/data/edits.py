"""Two images with the instruction that leads from one to the other, as InstructPix2Pix learns from.

Brooks et al., "InstructPix2Pix", CVPR 2023 (arXiv 2211.09800) made such pairs with a language model and
Prompt-to-Prompt. Here they are two visits of a subject, a simulated image and its true counterfactual, or what a table
says.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from latentdrift.data.cohort import Cohort
from latentdrift.data.images import check_image
from latentdrift.data.pairs import longitudinal_pairs
from latentdrift.data.prompts.ages import AgeSpec, whole_years
from latentdrift.data.prompts.instructions import DIFFERENCE, FINDINGS, instruction
from latentdrift.data.records import CLASS_NAMES, Record, Value
from latentdrift.data.simulate.kinds import KINDS, Kind
from latentdrift.errors import ConfigurationError, DataError, NoPairsError, UnknownNameError

PAIR_KINDS = ("auto", "visits", "truth", "table")
SOURCE, INSTRUCTION = "source_file", "instruction"
TRUTH = "truth"

ALIKE = ("view", "modality", "plane", "slice", "position")
"""Attributes that two visits must have in common: how an image was taken is nothing to edit."""

_CUT = re.compile(r"_(?:axial|coronal|sagittal)[+-][\d.e+-]+$")
"""How `latentdrift prepare` ends the names of slices: those at one position belong together."""
_CUT_NAME = "(cut)"

REMEDY = (
    "Pairs are made of visits (several images of a subject, with days, a date or an age; min_years=0 also pairs visits "
    f"of the same age, in the order of their sessions), of a column {SOURCE!r} that names the picture before the edit, "
    "or of a simulated cohort with its truth."
)


@dataclass(frozen=True)
class EditPair:
    """One example of an edit.

    Attributes:
        source: the image before.
        target: the image after.
        instruction: what leads from one to the other, such as "turn this into a cognitively normal brain".
    """

    source: Record
    target: Record
    instruction: str


def edit_pairs(
    cohort: Cohort,
    *,
    kind: str = "auto",
    min_years: float = 0.5,
    max_years: float = math.inf,
    modality: str = "mri",
    style: str = "command",
    age: str = "number",
    attribute: str | None = None,
    both_ways: bool = False,
    seed: int = 0,
) -> list[EditPair]:
    """Return the examples of edits that a cohort holds.

    An instruction talks about the age and the class, where both images' are known and differ as they are written: 72.1
    and 72.9 are both 72. A pair of which nothing can be said is left out, because two scans that differ only in how the
    head lay teach a model to move heads. So are images without a partner.

    Args:
        cohort: where both images of a pair of visits come from.
        kind: "visits", every earlier with every later visit of a subject that has the same view, modality, plane, slice
            and position, and of slices made by `latentdrift prepare` the same cut; "truth", a simulated image with each
            of its true counterfactuals; "table", the picture that the column `source_file` names with the record, and
            the column `instruction`, where it is filled, as the instruction; "auto", the table if there is a
            `source_file`, else the truth if there is any, else the visits.
        min_years: least time between visits; 0 also takes visits of the same age, in the order of their sessions.
        max_years: most time between visits.
        modality: "mri" or "xray", for the wordings.
        style: "command" or "question".
        age: how ages are written; see `instruction`.
        attribute: the class; where None the cohort's label, else an attribute called diagnosis, findings and the like.
            The truth has a class of its own.
        both_ways: also from the later visit to the earlier, and from the truth to the image.
        seed: decides which pair gets which wording.

    Returns:
        Pairs in the order of the cohort, those of visits in the order of subjects and time. A source that only a table
        names has its path from the cohort's folder as its key, and no attributes; the instruction then names the
        target's class, else its age.

    Raises:
        UnknownNameError: a kind, modality, style or attribute that does not exist.
        ConfigurationError: limits or an age style that cannot be, or a table both ways.
        DataError: no pairs, none of which anything can be said, a source that cannot be used, an age that is no number.
    """
    if kind not in PAIR_KINDS:
        raise UnknownNameError("kind of edit pairs", kind, PAIR_KINDS)
    if attribute is not None and attribute not in cohort.attribute_names:
        raise UnknownNameError("attribute", attribute, cohort.attribute_names)
    wording = _Wording(modality, style, age, attribute or _class_of(cohort), seed)
    wording.say({}, {}, "")  # a setting that cannot be is refused before anything is read
    if kind == "auto":
        kind = "table" if SOURCE in cohort.attribute_names else "truth" if _truth_kind(cohort) else "visits"
    if kind == "table":
        if both_ways:
            raise ConfigurationError("both_ways: a table does not say how its edits are undone. Leave both_ways out.")
        return _spoken_of(cohort, wording, list(_of_table(cohort, wording)))
    if kind == "truth":
        simulated = _truth_kind(cohort)
        if simulated is None:
            raise NoPairsError(
                f"{_described(cohort)} has no {TRUTH}/NAME_CLASS.png for any of its images. Simulate it with the "
                f"truth, or take other pairs. {REMEDY}"
            )
        wording = replace(wording, attribute=simulated.label)
        found = list(_of_truth(cohort, simulated))
    else:
        found = list(_of_visits(cohort, min_years, max_years))
    if both_ways:
        found = [pair for source, target in found for pair in ((source, target), (target, source))]
    return _spoken_of(cohort, wording, [(source, target, None) for source, target in found])


@dataclass(frozen=True)
class _Wording:
    """How instructions are written, and of which class."""

    modality: str
    style: str
    age: str
    attribute: str | None
    seed: int

    def say(self, before: Mapping[str, Value], after: Mapping[str, Value], key: str) -> str:
        return instruction(
            before,
            after,
            modality=self.modality,
            style=self.style,
            age=self.age,
            attribute=self.attribute,
            key=key,
            seed=self.seed,
        )

    def between(self, source: Record, target: Record) -> str | None:
        """Return what leads from one to the other, or None where nothing to talk about differs."""
        before: dict[str, Value] = {}
        after: dict[str, Value] = {}
        for name in self._names():
            old, new = source.attributes.get(name), target.attributes.get(name)
            if old is not None and new is not None:
                before[name], after[name] = self._ages(target, old, new) if name == "age" else (old, new)
        key = f"{source.key} {target.key}"
        text = self.say(before, after, key)
        return None if text == self.say({}, {}, key) else text

    def naming(self, target: Record) -> str:
        """Return what leads to the target from an image of which nothing is known."""
        for name in self._names():
            value = target.attributes.get(name)
            if value is not None:
                return self.say({}, {name: value}, target.key)
        raise DataError(
            f"{target.key} has neither a class nor an age, so there is nothing to tell the model. Fill in a column "
            f"{INSTRUCTION!r}, or name the class by attribute=."
        )

    def _names(self) -> tuple[str, ...]:
        return (self.attribute, "age") if self.attribute else ("age",)

    def _ages(self, target: Record, before: Value, after: Value) -> tuple[Value, Value]:
        """Return two ages to talk about, the same where they are written alike."""
        try:
            if self.age.removesuffix("-words") == DIFFERENCE:
                # From 71.1 to 72.9 are two years, although the completed ones are 71 and 72.
                start, _ = whole_years(before), whole_years(after)
                return start, max(0, start + math.floor(float(after) - float(before) + 0.5))
            spec = AgeSpec.parse(self.age)
            return before, before if spec is not None and spec.write(before) == spec.write(after) else after
        except DataError as error:
            raise DataError(f"{target.key}: {error} Correct it, or open the cohort without that column.") from error


def _class_of(cohort: Cohort) -> str | None:
    """Return the class: the cohort's label, else an attribute of a class's name; sex and scanner are none."""
    if cohort.label in cohort.attribute_names:
        return cohort.label
    usual = (*CLASS_NAMES, *FINDINGS)
    named = [name for name in cohort.attribute_names if name.lower() in usual]
    return min(named, key=lambda name: usual.index(name.lower()), default=None)


def _spoken_of(cohort: Cohort, wording: _Wording, found: list[tuple[Record, Record, str | None]]) -> list[EditPair]:
    """Return the pairs with an instruction, their own or one of what differs."""
    pairs = []
    for source, target, given in found:
        text = given or wording.between(source, target)
        if text is not None:
            pairs.append(EditPair(source, target, text))
    if not found:
        raise NoPairsError(f"{_described(cohort)} has no pairs. {REMEDY}")
    if not pairs:
        class_ = f"the class {wording.attribute!r}" if wording.attribute else "a class (there is none; name it)"
        raise NoPairsError(
            f"{_described(cohort)} has {len(found)} pairs, but no edit to learn: within all of them the age, written "
            f"as {wording.age!r}, and {class_} are the same or not known. Take visits that are further apart, a finer "
            "age style, or name another class by attribute=."
        )
    return pairs


def _of_visits(cohort: Cohort, low: float, high: float) -> Iterator[tuple[Record, Record]]:
    cuts = [_CUT.search(Path(record.key).stem) for record in cohort]
    marked = [
        replace(record, attributes={**record.attributes, _CUT_NAME: cut[0]}) if cut else record
        for record, cut in zip(cohort, cuts, strict=True)
    ]
    alike = [name for name in ALIKE if name in cohort.attribute_names] + ([_CUT_NAME] if any(cuts) else [])
    try:
        pairs = longitudinal_pairs(marked, min_years=low, max_years=high, same_attributes=alike, policy="all")
    except DataError as error:
        within = f" Visits were paired within the same {', '.join(alike)}." if alike else ""
        raise NoPairsError(f"{_described(cohort)} has no pairs of visits. {error}{within} {REMEDY}") from error
    records = {record.key: record for record in cohort}
    for pair in pairs:
        yield records[pair.earlier.key], records[pair.later.key]


def _truth_kind(cohort: Cohort) -> Kind | None:
    """Return the kind of simulation of which some image's truth is there."""
    there = _truth_files(cohort)
    stems = {Path(record.key).stem for record in cohort} if there else set()
    for kind in KINDS.values():
        if any(f"{stem}_{value}.png" in there for stem in stems for value in kind.classes):
            return kind
    return None


def _truth_files(cohort: Cohort) -> frozenset[str]:
    return frozenset(path.name for path in (cohort.root / TRUTH).glob("*.png"))


def _of_truth(cohort: Cohort, kind: Kind) -> Iterator[tuple[Record, Record]]:
    there = _truth_files(cohort)
    for record in cohort:
        stem, own = Path(record.key).stem, record.attributes.get(kind.label)
        for value in kind.classes:
            name = f"{stem}_{value}.png"
            if value == own or name not in there:
                continue
            if own is None:
                raise DataError(
                    f"{record.key} has no {kind.label!r}, so what differs from {TRUTH}/{name} is not known. Open the "
                    "cohort with that column."
                )
            attributes = {**record.attributes, kind.label: value}
            target = Record(cohort.root / TRUTH / name, record.subject, record.session, attributes, f"{TRUTH}/{name}")
            yield record, target


def _of_table(cohort: Cohort, wording: _Wording) -> Iterator[tuple[Record, Record, str | None]]:
    if SOURCE not in cohort.attribute_names:
        raise DataError(f"{_described(cohort)} has no column {SOURCE!r}, or was opened without. {REMEDY}")
    records = {record.image.resolve(): record for record in cohort}
    reasons: dict[Path, str | None] = {}
    for record in cohort:
        if SOURCE not in record.attributes:
            continue
        path = _source_of(cohort.root, record, str(record.attributes[SOURCE]), reasons)
        known = records.get(path.resolve())
        given = record.attributes.get(INSTRUCTION)
        text = str(given) if given is not None else None if known else wording.naming(record)
        key = Path(os.path.relpath(path, cohort.root)).as_posix()
        yield known or Record(path, record.subject, record.session, {}, key), record, text


def _source_of(root: Path, record: Record, named: str, reasons: dict[Path, str | None]) -> Path:
    """Return the picture before the edit: in the cohort's folder or the working one, else beside as NAME-source.png.

    `latentdrift counterfactual` writes the latter, which stands in where the source is a scan or was moved.
    """
    target = record.image.resolve()
    # An edit of a.png in the working folder is a.png in the cohort's: a picture is not its own source.
    found = {
        path.resolve(): path
        for path in (root / named, Path(named))
        if os.path.isfile(path) and path.resolve() != target
    }
    if len(found) > 1:
        raise DataError(
            f"{record.key}: its {SOURCE} {named!r} is in {root} and in the working folder, two different files. Write "
            "the whole path."
        )
    beside = record.image.with_name(f"{record.image.stem}-source.png")
    tried = [*found.values(), *([beside] if beside.is_file() else [])]
    for path in tried:
        if path not in reasons:
            reasons[path] = check_image(path)
        if reasons[path] is None:
            return path
    why = f"{tried[0]}: {reasons[tried[0]]}" if tried else "there is no such file, other than the picture itself"
    raise DataError(
        f"{record.key}: its {SOURCE} {named!r} cannot be used ({why}). Write a picture's path, whole, or from {root} "
        "or the working folder; or leave the cell empty and open the cohort with missing='keep'."
    )


def _described(cohort: Cohort) -> str:
    subjects = len({record.subject for record in cohort} - {None})
    return f"The cohort {cohort.name!r} ({len(cohort)} images of {subjects or 'unknown'} subjects)"
