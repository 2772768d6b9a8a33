"""Two visits of one subject with the years between: what an aging edit starts from, and the real later scan."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Generic, TypeVar

from latentdrift.data.records import Record, Value
from latentdrift.data.scan import Scan
from latentdrift.data.splits import natural_key
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

Visit = TypeVar("Visit", Record, Scan)

POLICIES = ("first-last", "consecutive", "all")
DAYS_IN_A_YEAR = 365.25
DAYS, DATES, AGE = "days", ("date", "scan_date", "acquisition_date", "study_date"), "age"


@dataclass(frozen=True)
class Pair(Generic[Visit]):
    """Two visits of one subject.

    Attributes:
        earlier: the first visit's image.
        later: the second's, taken after it.
        years: the time between.
        measured: the attribute that `years` is from: "days" since any fixed day, a date, or "age", which is as coarse
            as it is written (whole years: up to a year off).
        changed: attributes that differ, each with the earlier and the later value, None where one visit lacks it; days
            and dates are not among them, `age` is.
    """

    earlier: Visit
    later: Visit
    years: float
    measured: str
    changed: Mapping[str, tuple[Value | None, Value | None]] = field(default_factory=dict, hash=False)


def longitudinal_pairs(
    visits: Iterable[Visit],
    *,
    min_years: float = 0.5,
    max_years: float = math.inf,
    same_attributes: Sequence[str] = (),
    policy: str = "first-last",
) -> list[Pair[Visit]]:
    """Return the pairs of all subjects, in the order of the subjects' names and then of time.

    The time of a visit is its attribute `days`, else a date (date, scan_date, acquisition_date, study_date; written
    2011-03-20), else `age`; for each subject the first of these that all the visits have. Of several images of one
    session the first by name stands for it.

    Args:
        visits: a cohort, or the scans of a listing. Those without a subject are passed over.
        min_years: least time between the visits.
        max_years: most time between them.
        same_attributes: attributes that must be alike in both, such as a view or the position of a slice; visits are
            paired within each combination of their values.
        policy: "first-last", one pair: of those within the limits the one with the most time between, so the first and
            the last visit where that is allowed, and the earliest of several as long; "consecutive", neighbouring
            visits; "all", every earlier with every later.

    Raises:
        ConfigurationError: limits that exclude each other or are no numbers.
        UnknownNameError: a policy, or an attribute that no visit has.
        DataError: no subject has two visits with a known time, or none within the limits (the message has the times).
    """
    if policy not in POLICIES:
        raise UnknownNameError("policy for pairs", policy, POLICIES)
    if not 0 <= min_years <= max_years:
        raise ConfigurationError(
            f"The years between are {min_years} to {max_years}; write 0 or more, and the less first."
        )
    listed = list(visits)
    known = {name for visit in listed for name in visit.attributes}
    for name in same_attributes:
        if name not in known:
            raise UnknownNameError("attribute", name, known)
    groups: dict[tuple[object, ...], list[Visit]] = {}
    for visit in listed:
        if visit.subject is not None:
            alike: tuple[Value | None, ...] = tuple(visit.attributes.get(name) for name in same_attributes)
            groups.setdefault((visit.subject, *alike), []).append(visit)
    pairs: list[Pair[Visit]] = []
    spans: list[float] = []
    for _, group in sorted(groups.items(), key=lambda item: [natural_key(str(part)) for part in item[0]]):
        measured, times = _times(group)
        if measured is None or len(times) < 2:
            continue
        spans += [later - earlier for (earlier, _), (later, _) in itertools.pairwise(times)]
        spans.append(times[-1][0] - times[0][0])
        pairs += _chosen(times, measured, min_years, max_years, policy)
    if not spans:
        subjects = len({visit.subject for visit in listed} - {None})
        raise DataError(
            f"None of {subjects} subjects ({len(listed)} images) has two visits of known time. Pairs need a subject, a "
            "session, and one of the attributes days, date or age."
        )
    if not pairs:
        raise DataError(
            f"No two visits are {min_years:g} to {max_years:g} years apart; the times between are {min(spans):.2f} to "
            f"{max(spans):.2f} years. Widen the limits."
        )
    return pairs


def _chosen(
    times: list[tuple[float, Visit]], measured: str, low: float, high: float, policy: str
) -> Iterator[Pair[Visit]]:
    candidates = itertools.pairwise(times) if policy == "consecutive" else itertools.combinations(times, 2)
    # A tolerance far below a day: 730.5 days are two years, whatever the rounding.
    within = [(a, b) for a, b in candidates if low - 1e-9 <= b[0] - a[0] <= high + 1e-9]
    if policy == "first-last" and within:
        # The earliest of those that last longest: `max` keeps the first.
        within = [max(within, key=lambda pair: round(pair[1][0] - pair[0][0], 9))]
    for (start, earlier), (end, later) in within:
        yield Pair(earlier, later, end - start, measured, _changed(earlier, later))


def _times(group: list[Visit]) -> tuple[str | None, list[tuple[float, Visit]]]:
    """Return the attribute that tells the time and (years, visit) of each session, in order of time."""
    for name in (DAYS, *DATES, AGE):
        years = [_years(name, visit) for visit in group]
        if all(when is not None for when in years):
            break
    else:
        return None, []
    timed = sorted(
        ((when, visit) for when, visit in zip(years, group, strict=True) if when is not None),
        key=lambda one: (one[0], natural_key(one[1].session or ""), natural_key(one[1].key)),
    )
    sessions: dict[object, tuple[float, Visit]] = {}
    for when, visit in timed:
        sessions.setdefault(visit.session if visit.session is not None else when, (when, visit))
    return name, list(sessions.values())


def _years(name: str, visit: Record | Scan) -> float | None:
    value = visit.attributes.get(name)
    if name in DATES:
        try:
            return None if value is None else date.fromisoformat(str(value)[:10]).toordinal() / DAYS_IN_A_YEAR
        except ValueError as error:
            raise DataError(f"{visit.key}: {name} is {value!r}, not a date such as 2011-03-20.") from error
    if value is None or isinstance(value, str) or not math.isfinite(value):
        return None
    return value / DAYS_IN_A_YEAR if name == DAYS else float(value)


def _changed(earlier: Record | Scan, later: Record | Scan) -> dict[str, tuple[Value | None, Value | None]]:
    names = dict.fromkeys((*earlier.attributes, *later.attributes))
    both = {name: (earlier.attributes.get(name), later.attributes.get(name)) for name in names}
    return {n: (a, b) for n, (a, b) in both.items() if a != b and n not in (DAYS, *DATES)}
