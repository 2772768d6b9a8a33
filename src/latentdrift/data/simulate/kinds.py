"""The kinds of cohort that can be simulated, behind one face: who is drawn, how rendered, what the table says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.data.simulate.chest.render import render_chest
from latentdrift.data.simulate.chest.subject import FINDINGS, SimulatedChest
from latentdrift.data.simulate.effects import DIAGNOSES, STRENGTH
from latentdrift.data.simulate.render import render
from latentdrift.data.simulate.scanners import scanner_of
from latentdrift.data.simulate.subject import SimulatedSubject
from latentdrift.data.simulate.visits import check_visits, follow_up
from latentdrift.errors import ConfigurationError, UnknownNameError

Subject = SimulatedSubject | SimulatedChest


@dataclass(frozen=True)
class Population:
    """Who a cohort is made of.

    Attributes:
        visits: of each subject; brain.
        years_between: the visits; brain.
        convert: whether the diagnosis may change from one visit to the next; brain.
        strength: factor on the effects of the diagnosis; brain.
        age_correlation: between age and the class, -1 to 1: a confounded cohort.
        scanners: names that are drawn from for each subject, and written to the table; brain.
        bedside: share of AP views; chest.
    """

    visits: int = 1
    years_between: float = 1.0
    convert: bool = True
    strength: float = STRENGTH
    age_correlation: float = 0.0
    scanners: tuple[str, ...] | None = None
    bedside: float = 0.0


@dataclass(frozen=True)
class Kind:
    """One kind of cohort.

    Attributes:
        name: "brain" or "chest".
        subject: class of its subjects.
        label: the attribute that is the class, and of which the truth is written.
        classes: its values.
        columns: of the table, besides file_name, subject and session.
        attributes: what the renderer can be asked for.
        settings: fields of `Population` that mean something here.
        note: what a file says about itself.
        draw: (index, seed, population) to the subject at every visit.
        render: (subject, class or None, size=, attributes) to the picture.
    """

    name: str
    subject: type[Subject]
    label: str
    classes: tuple[str, ...]
    columns: tuple[str, ...]
    attributes: tuple[str, ...]
    settings: tuple[str, ...]
    note: str
    draw: Callable[[int, int, Population], Sequence[Subject]]
    render: Callable[..., NDArray[np.float32]] = field(repr=False)

    def check(self, population: Population) -> None:
        """Raise `ConfigurationError` for a setting that means nothing for this kind, or cannot be."""
        default = Population()
        for name in vars(default):
            if name not in self.settings and getattr(population, name) != getattr(default, name):
                given = getattr(population, name)
                raise ConfigurationError(f"{name} is {given}, but a {self.name} cohort has no such setting.")
        check_visits(population.visits, population.years_between)
        if population.scanners is not None and not population.scanners:
            raise ConfigurationError("scanners is empty. Name at least one, or leave it out.")
        for scanner in population.scanners or ():
            scanner_of(scanner)

    def table(self, population: Population) -> tuple[str, ...]:
        """Return the columns of the cohort's table, besides file_name, subject and session."""
        return self.columns + (("scanner",) if population.scanners else ())


def _draw_brain(index: int, seed: int, population: Population) -> Sequence[Subject]:
    person = SimulatedSubject.draw(
        index, seed, strength=population.strength, age_correlation=population.age_correlation
    )
    if population.scanners:
        drawn = np.random.default_rng([seed, index, 6]).integers(len(population.scanners))
        person = replace(person, scanner=population.scanners[drawn])
    return follow_up(person, population.visits, population.years_between, convert=population.convert)


def _draw_chest(index: int, seed: int, population: Population) -> Sequence[Subject]:
    return [SimulatedChest.draw(index, seed, age_correlation=population.age_correlation, bedside=population.bedside)]


KINDS = MappingProxyType(
    {
        "brain": Kind(
            name="brain",
            subject=SimulatedSubject,
            label="diagnosis",
            classes=DIAGNOSES,
            columns=("age", "sex", "diagnosis"),
            attributes=("diagnosis", "age", "sex", "lesion_load", "scanner", "noise", "bias", "height"),
            settings=("visits", "years_between", "convert", "strength", "age_correlation", "scanners"),
            note="Simulated from the MNI152 template; not a patient.",
            draw=_draw_brain,
            render=render,
        ),
        "chest": Kind(
            name="chest",
            subject=SimulatedChest,
            label="finding",
            classes=FINDINGS,
            columns=("age", "sex", "view", "finding"),
            attributes=(
                "finding", "age", "sex", "view", "heart_size", "effusion", "side", "opacity", "lobe", "noise",
            ),
            settings=("age_correlation", "bedside"),
            note="Simulated from formulas; not a patient.",
            draw=_draw_chest,
            render=render_chest,
        ),
    }
)  # fmt: skip
"""The kinds by name."""


def kind_of(kind: str | Subject) -> Kind:
    """Return a kind by its name or one of its subjects.

    Raises:
        UnknownNameError: no such kind.
    """
    if isinstance(kind, SimulatedChest):
        return KINDS["chest"]
    if isinstance(kind, SimulatedSubject):
        return KINDS["brain"]
    if kind not in KINDS:
        raise UnknownNameError("kind of simulated cohort", kind, KINDS)
    return KINDS[kind]


def render_subject(subject: Subject, *, size: int = 128, **attributes: Any) -> NDArray[np.float32]:
    """Return a brain's slice or a chest's radiograph, (size, size) in [0, 1], under other attributes where given.

    Raises:
        UnknownNameError: an attribute or a value that this kind does not have.
        ConfigurationError: a number outside what the simulator covers.
    """
    kind = kind_of(subject)
    for name in attributes:
        if name not in kind.attributes:
            raise UnknownNameError(f"attribute of a simulated {kind.name}", name, kind.attributes)
    return kind.render(subject, size=size, **attributes)


def true_area(subject: Subject, *, size: int = 128, **attributes: Any) -> NDArray[np.bool_]:
    """Return where the subject's picture changes under other attributes, (size, size), were there no noise.

    Args:
        subject: a brain at one visit, or a chest.
        size: pixels of a side.
        attributes: as for `render_subject`.
    """
    own = render_subject(subject, size=size, noise=0)
    changed: NDArray[np.bool_] = render_subject(subject, size=size, **{"noise": 0, **attributes}) != own
    return changed
