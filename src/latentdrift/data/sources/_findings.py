"""Findings of chest X-rays: what an uncertain one is taken for, and classes that exclude each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from latentdrift.data.records import Value
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError

FINDINGS = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion", "Edema",
    "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture",
    "Support Devices",
)  # fmt: skip
"""The observations of the CheXpert labeller, in the order of its tables (Irvin et al., AAAI 2019, arXiv 1901.07031)."""

UNCERTAIN = ("u-zeros", "u-ones", "u-ignore", "u-keep", "u-drop")
EXCLUSIVE = ("classes", "findings")
PAPER_CLASSES = ("healthy", "cardiomegaly", "pleural effusion", "pneumonia")
HEALTHY = "No Finding"
NO_ILLNESS = frozenset({HEALTHY, "Support Devices"})
NONE_STATED = "None Stated"

FRONTAL = frozenset({"AP", "PA"})
LATERAL = frozenset({"Lateral", "LATERAL", "LL", "RL"})


@dataclass(frozen=True)
class ClassesConfig:
    """Which classes an X-ray may have."""

    classes: tuple[str, ...] = ()
    """Keep images of exactly one of these classes and call it `label`: findings, "healthy" (No Finding), or the single
    word "paper" for healthy, cardiomegaly, pleural effusion and pneumonia. Without, all images are kept."""
    exclusive: str = "classes"
    """What an image of a class must be free of: "classes", the other classes; "findings", every other finding."""

    def __post_init__(self) -> None:
        if self.exclusive not in EXCLUSIVE:
            raise UnknownNameError("way to exclude", self.exclusive, EXCLUSIVE)


@dataclass(frozen=True)
class FindingsConfig(ClassesConfig):
    """What becomes of the labels 1, 0, -1 and empty."""

    uncertain: str = "u-ignore"
    """What an uncertain finding (-1) is: "u-zeros", absent; "u-ones", present; "u-ignore", not known, so that the image
    is in no class which depends on it; "u-keep", written as possible; "u-drop", a reason to leave the image out."""
    uncertain_for: tuple[str, ...] = ()
    """Another rule for single findings, such as "Atelectasis=u-ones"."""
    finding_attributes: tuple[str, ...] = ()
    """Findings that also become attributes of their own, with the values yes, no and uncertain."""


class Classes:
    """Class names of a configuration, in the words of a data set.

    Args:
        config: the classes.
        vocabulary: the findings as the data set writes them.

    Raises:
        UnknownNameError: a class that is no finding of the data set.
        ConfigurationError: a class twice.
    """

    def __init__(self, config: ClassesConfig, vocabulary: Sequence[str]) -> None:
        names = PAPER_CLASSES if config.classes == ("paper",) else config.classes
        self.exclusive = config.exclusive
        self.labels = dict(_resolve(name, vocabulary) for name in names)
        if len(self.labels) < len(names):
            raise ConfigurationError(f"The classes {', '.join(names)} name one finding twice.")

    def label(self, present: frozenset[str], unsure: frozenset[str] = frozenset()) -> str | None:
        """Return the class of an image with these findings present and these not known, or None."""
        found = [name for name in self.labels if name in present]
        if len(found) != 1 or unsure & self.labels.keys():
            return None
        others = (present | unsure) - NO_ILLNESS - {found[0]}
        # An image of "No Finding" that has one after all contradicts itself under either rule.
        if others and (self.exclusive == "findings" or found[0] == HEALTHY):
            return None
        return self.labels[found[0]]


class LabelledFindings:
    """Labels of CheXpert's kind (1, 0, -1, empty) to attributes, by the rules of a configuration.

    Raises:
        UnknownNameError: a rule, finding or class that does not exist; the message has close ones.
        ConfigurationError: a rule for one finding that is not written NAME=RULE.
    """

    def __init__(self, config: FindingsConfig) -> None:
        self.classes = Classes(config, FINDINGS)
        self.own = {name: _resolve(name, FINDINGS)[0] for name in config.finding_attributes}
        self.rules = dict.fromkeys(FINDINGS, _rule(config.uncertain))
        for text in config.uncertain_for:
            name, separator, rule = text.partition("=")
            if not separator:
                raise ConfigurationError(f"{text!r} is no rule for a finding; write it such as Atelectasis=u-ones.")
            self.rules[_resolve(name, FINDINGS)[0]] = _rule(rule)
        self._known: dict[tuple[str, ...], Mapping[str, Value] | None] = {}

    def attributes(self, cells: tuple[str, ...]) -> Mapping[str, Value] | None:
        """Return `findings`, with classes `label`, and the findings' own attributes; None leaves the image out.

        Args:
            cells: one for each of `FINDINGS`, in their order.

        Raises:
            DataError: a cell that is not 1, 0, -1 or empty.
        """
        # There are some thousand different rows among hundreds of thousands.
        if cells not in self._known:
            self._known[cells] = self._attributes(cells)
        return self._known[cells]

    def _attributes(self, cells: tuple[str, ...]) -> Mapping[str, Value] | None:
        present, possible, unknown, said = [], [], [], dict[str, str]()
        for name, cell in zip(FINDINGS, cells, strict=True):
            state = _STATES.get(cell)
            if state is None:
                raise DataError(f"{name} is {cell!r:.40}, not 1, 0, -1 or empty")
            if state == "uncertain":
                state = {"u-zeros": "no", "u-ones": "yes"}.get(self.rules[name], self.rules[name])
            if state == "u-drop":
                return None
            if state == "yes":
                present.append(name)
            elif state == "u-keep":
                possible.append(name)
            elif state == "u-ignore":
                unknown.append(name)
            if state in ("yes", "no", "u-keep"):
                said[name] = "uncertain" if state == "u-keep" else state
        listed = present + [f"Possible {name}" for name in possible]
        found: dict[str, Value] = {"findings": "|".join(listed) or NONE_STATED}
        if self.classes.labels:
            label = self.classes.label(frozenset(present), frozenset(possible + unknown))
            if label is None:
                return None
            found["label"] = label
        for name in self.own.values():
            if name in said:
                found[name.lower().replace(" ", "_")] = said[name]
        return found


def view_is_wanted(view: str, wanted: Sequence[str]) -> bool:
    """Tell whether a view is among the wanted, which may also be "frontal", "lateral" or "all"."""
    return (
        "all" in wanted
        or view in wanted
        or ("frontal" in wanted and view in FRONTAL)
        or ("lateral" in wanted and view in LATERAL)
    )


def check_views(wanted: Sequence[str], known: Sequence[str]) -> None:
    """Raise `UnknownNameError` for a view that the data set does not have, `ConfigurationError` for none."""
    if not wanted:
        raise ConfigurationError("No view is wanted. Name one, or all.")
    for view in wanted:
        if view not in ("all", "frontal", "lateral", *known):
            raise UnknownNameError("view", view, ("all", "frontal", "lateral", *known))


_STATES = {
    **dict.fromkeys(("1", "1.0"), "yes"),
    **dict.fromkeys(("0", "0.0"), "no"),
    **dict.fromkeys(("-1", "-1.0"), "uncertain"),
    "": "",
}


def _rule(name: str) -> str:
    if name not in UNCERTAIN:
        raise UnknownNameError("rule for uncertain findings", name, UNCERTAIN)
    return name


def _resolve(name: str, vocabulary: Sequence[str]) -> tuple[str, str]:
    """Return a finding as the data set writes it, and as a label writes it in all data sets."""
    wanted = name.strip().casefold().replace("_", " ")
    wanted = {"healthy": "no finding", "effusion": "pleural effusion"}.get(wanted, wanted)
    for finding in vocabulary:
        plain = finding.replace("_", " ")
        plain = "Pleural Effusion" if plain == "Effusion" else plain
        if plain.casefold() == wanted:
            return finding, "Healthy" if finding == HEALTHY else plain
    raise UnknownNameError("finding", name, (*vocabulary, "healthy"))
