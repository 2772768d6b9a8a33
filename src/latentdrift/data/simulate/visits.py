"""Several visits of one person: ages, conversions, and how far the disease has gone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from latentdrift.data.simulate.effects import CONVERSION_A_YEAR, DIAGNOSES, PROGRESS_A_YEAR
from latentdrift.data.simulate.subject import SimulatedSubject
from latentdrift.errors import ConfigurationError

LONGEST = 10.0
"""Years from the first visit to the last that the simulator covers."""


def follow_up(
    person: SimulatedSubject, visits: int = 1, years_between: float = 1.0, *, convert: bool = True
) -> list[SimulatedSubject]:
    """Return the person at each visit; the first is `person` itself, and more visits begin with the same.

    Each person has a rate of decline of their own, log-normal around 1 with a deviation of 0.3. It multiplies the
    years by which the anatomy ages and the progress of the disease. The probability of converting within a year is
    that of `effects.CONVERSION_A_YEAR`; the severity climbs towards a conversion in a straight line, so no visit jumps.
    Every visit has a scan, so noise and shading, of its own.

    Raises:
        ConfigurationError: no visit, no time between them, or more than ten years in all.
    """
    check_visits(visits, years_between)
    rng = np.random.default_rng([person.seed, 5])
    decline = float(np.exp(rng.normal(0, 0.3)))
    # Drawn for as many visits as could be, so that the first ones do not depend on how many there are.
    chances = rng.random(int(LONGEST / years_between) + 1)
    stages = [DIAGNOSES.index(person.diagnosis)]
    turns = []
    for visit in range(1, len(chances)):
        diagnosis = DIAGNOSES[stages[-1]]
        a_year = CONVERSION_A_YEAR.get(diagnosis, 0.0) if convert else 0.0
        turned = chances[visit] < 1 - (1 - a_year) ** years_between
        turns += [visit] if turned else []
        stages.append(stages[-1] + turned)
    return [_visit(person, visit, years_between, decline, stages, turns) for visit in range(visits)]


def check_visits(visits: int, years_between: float) -> None:
    """Raise `ConfigurationError` unless these visits can be."""
    if visits < 1:
        raise ConfigurationError(f"A subject has at least 1 visit, not {visits}.")
    if not 0.1 <= years_between <= LONGEST:
        raise ConfigurationError(f"years_between is {years_between}; the simulator takes 0.1 to {LONGEST:g}.")
    if (visits - 1) * years_between > LONGEST:
        raise ConfigurationError(
            f"{visits} visits {years_between:g} years apart are more than {LONGEST:g} years. Give fewer or closer ones."
        )


def _visit(
    person: SimulatedSubject, visit: int, years_between: float, decline: float, stages: list[int], turns: list[int]
) -> SimulatedSubject:
    """Return the person at a visit, counted from 0; `turns` are the visits at which the diagnosis is a new one."""
    if visit == 0:
        return person
    years = visit * years_between
    before = max([0, *(turn for turn in turns if turn <= visit)])
    after = next((turn for turn in turns if turn > visit), None)
    start = person.severity if before == 0 else 0.0
    if after is not None:
        severity = start + (1 - start) * (visit - before) / (after - before)
    else:
        progress = PROGRESS_A_YEAR[DIAGNOSES[stages[visit]]] * decline * (visit - before) * years_between
        # Whoever keeps a diagnosis has not reached the next one.
        severity = start + progress if stages[visit] == len(DIAGNOSES) - 1 else min(0.95, start + progress)
    return replace(
        person,
        age=round(person.age + years, 2),
        diagnosis=DIAGNOSES[stages[visit]],
        severity=round(severity, 4),
        ahead=round(person.ahead + (decline - 1) * years, 4),
        scan=person.scan + visit,
    )
