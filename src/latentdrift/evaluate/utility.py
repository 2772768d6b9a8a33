"""What images are worth for training: classifiers trained on real, synthetic and both, all tested on real images.

Every classifier is a cell, kept in a file under the hash of all that its answers depend on: an interrupted study goes
on where it stopped, and another one with more seeds or amounts trains only what is new.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import json
import time
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import softmax

from latentdrift.data import Cohort, Record
from latentdrift.data.files import write_text
from latentdrift.data.splits import assign
from latentdrift.errors import ConfigurationError, DataError, EvaluationError, UnknownNameError
from latentdrift.evaluate.counterfactuals import Estimate
from latentdrift.evaluate.delong import PairedTest, areas, seed_differences, seed_means
from latentdrift.models.classifier import ClassifierConfig, ClassScheme, build_network, make_scheme
from latentdrift.models.classifier.files import package_versions
from latentdrift.models.classifier.images import ImageSet, Tell, read_images
from latentdrift.models.classifier.roles import BLOCK, file_hashes
from latentdrift.models.classifier.training import fit, on_device
from latentdrift.models.loading import usable_device

Array = npt.NDArray[np.float64]
REAL, HALF, SYNTHETIC = "real", "half", "synthetic"
KINDS = (REAL, HALF, SYNTHETIC)
FORMAT = 1
"""Part of a cell's key; raised where the same settings would train otherwise."""
CELLS, RESULT_FILE = "cells", "utility.json"


@dataclass(frozen=True, kw_only=True)
class UtilityConfig:
    """Which classifiers are trained, and on what."""

    classifier: ClassifierConfig
    """What is told apart, and the training; its role and seed do not count."""
    kinds: tuple[str, ...] = KINDS
    """real; half, the same real images and as many synthetic ones; synthetic, as many as all real ones."""
    amounts: tuple[float, ...] = (1.0,)
    """Shares of the real training subjects that real and half have. A smaller share is part of every larger one."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One classifier each: who is in a share, what validates, the weights at the start, and the draws."""
    confidence: float = 0.95
    """Coverage of the intervals."""

    def __post_init__(self) -> None:
        for kind in self.kinds:
            if kind not in KINDS:
                raise UnknownNameError("kind of training images", kind, KINDS)
        for name in ("kinds", "amounts", "seeds"):
            if not getattr(self, name) or len(set(getattr(self, name))) < len(getattr(self, name)):
                raise ConfigurationError(f"{name} are {getattr(self, name)}; give at least one, and none twice.")
        if not all(0 < amount <= 1 for amount in self.amounts):
            raise ConfigurationError(f"amounts are {self.amounts}; give shares above 0, at most 1, such as 0.25 1.")
        if min(self.seeds) < 0 or not 0 < self.confidence < 1:
            raise ConfigurationError(f"seeds are {self.seeds}, confidence {self.confidence}; 0 or more, and 0 to 1.")

    def settings(self) -> list[Setting]:
        """Return what is trained on, real first, with little before much."""
        found = [Setting(k, amount) for k in (REAL, HALF) if k in self.kinds for amount in sorted(self.amounts)]
        return [*found, Setting(SYNTHETIC, 0.0)] if SYNTHETIC in self.kinds else found


@dataclass(frozen=True)
class Setting:
    """What one classifier a seed is trained on: the kind, and the share of the real training subjects, 0 to 1."""

    kind: str
    amount: float

    def __str__(self) -> str:
        share = f"{100 * self.amount:g}% of the real"
        return {REAL: share, HALF: f"{share}, as many synthetic", SYNTHETIC: SYNTHETIC}[self.kind]


@dataclass(frozen=True)
class Utility:
    """Areas under the ROC curve of one setting's classifiers: the mean over seeds, and each seed's.

    `real` and `synthetic` are images trained on, those that validate included: means over seeds.
    """

    setting: Setting
    auc: Estimate
    by_seed: tuple[float, ...]
    real: float = 0.0
    synthetic: float = 0.0


@dataclass(frozen=True)
class Comparison:
    """First minus second, on the same test images and under the same seeds; `p_holm` is for all comparisons at once."""

    first: Setting
    second: Setting
    test: PairedTest
    p_holm: float


@dataclass(frozen=True)
class UtilityResult:
    """A study's figures, and what to be careful about."""

    utilities: tuple[Utility, ...]
    comparisons: tuple[Comparison, ...]
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        utilities = [
            {**dataclasses.asdict(found.setting), "auc": self._plain(found.auc), "auc_by_seed": list(found.by_seed)}
            | {"real_images": found.real, "synthetic_images": found.synthetic}
            for found in self.utilities
        ]
        comparisons = [
            {"first": dataclasses.asdict(found.first), "second": dataclasses.asdict(found.second)}
            | {"difference": self._plain(found.test.difference), "p": found.test.p, "p_holm": found.p_holm}
            for found in self.comparisons
        ]
        return {**self.facts, "utilities": utilities, "comparisons": comparisons, "notes": list(self.notes)}

    def rows(self) -> list[dict[str, str]]:
        """Return a table of the settings: images are means over seeds."""
        return [
            {"trained on": str(found.setting), "real images": f"{found.real:g}"}
            | {"synthetic images": f"{found.synthetic:g}", **self._shown("AUC", found.auc, ".3f")}
            | {"seeds": str(len(found.by_seed)), "test subjects": str(found.auc.n)}
            for found in self.utilities
        ]

    def comparison_rows(self) -> list[dict[str, str]]:
        """Return a table of the comparisons."""
        return [
            {"trained on": str(found.first), "against": str(found.second)}
            | self._shown("difference of AUC", found.test.difference, "+.3f")
            | {"p": f"{found.test.p:.2g}", "p, Holm": f"{found.p_holm:.2g}"}
            for found in self.comparisons
        ]

    @staticmethod
    def _plain(estimate: Estimate) -> dict[str, float]:
        return {"value": estimate.value, "low": estimate.interval.low, "high": estimate.interval.high}

    def _shown(self, name: str, estimate: Estimate, form: str) -> dict[str, str]:
        ends = " to ".join(f"{end:{form}}" for end in estimate.interval)
        return {name: f"{estimate.value:{form}}", f"{self.facts.get('confidence', 0.95):.0%} interval": ends}


def compare_settings(
    probabilities: Mapping[Setting, Any],
    truth: npt.ArrayLike,
    subjects: Sequence[Hashable] | None = None,
    *,
    images: Mapping[Setting, Sequence[tuple[int, int]]] | None = None,
    confidence: float = 0.95,
) -> tuple[tuple[Utility, ...], tuple[Comparison, ...]]:
    """Return the areas of settings, and the comparisons among them.

    half is compared with real of the same share, and with real of twice the share, which is as many images; synthetic
    with the largest share of real. Intervals are for other test subjects and other seeds: see `delong.over_seeds`.

    Args:
        probabilities: (S, N, C) of each setting, S seeds in the same order.
        truth: classes, (N,), each among them.
        subjects: whose image it is, N; None for an image a subject.
        images: of each setting, how many real and synthetic ones each seed was trained on.
        confidence: coverage, between 0 and 1.

    Raises:
        EvaluationError: as `delong.areas`, or settings of different numbers of seeds.
    """
    stacks = {setting: np.asarray(values, dtype=np.float64) for setting, values in probabilities.items()}
    shapes = {values.shape for values in stacks.values()}
    if len(shapes) != 1:
        raise EvaluationError(f"Settings have outputs of shapes {sorted(shapes)}; give all of one shape (S, N, C).")
    found, seeds = areas(np.concatenate(list(stacks.values())), truth, subjects), shapes.pop()[0]
    utilities: list[Utility] = []
    by_seed = found.values.reshape(-1, seeds).tolist()
    for setting, estimate, values in zip(stacks, seed_means(found, seeds, confidence), by_seed, strict=True):
        counts = np.mean(images[setting], axis=0).tolist() if images else []
        utilities.append(Utility(setting, estimate, tuple(values), *counts))
    pairs, place = _compared(list(stacks)), {setting: i for i, setting in enumerate(stacks)}
    places = [(place[first], place[second]) for first, second in pairs]
    tests = zip(pairs, seed_differences(found, places, seeds, confidence), strict=True)
    return tuple(utilities), tuple(Comparison(*pair, *test) for pair, test in tests)


def measure_utility(
    real: Cohort,
    synthetic: Cohort,
    test: Cohort,
    config: UtilityConfig,
    out: str | Path,
    *,
    device: Any = None,
    tell: Tell = lambda *_: None,
) -> UtilityResult:
    """Train every cell that is not in `out` yet, test all on real images, and write `utility.json` there.

    Args:
        real: images to train on: those that the generating model was fine-tuned on, for a fair comparison.
        synthetic: images it made, with the attribute; each class is drawn as often as among the real ones, so that
            what all synthetic images have in common tells no class.
        test: real images that neither the model nor a classifier was trained on.
        config: kinds, amounts, seeds, and the classifiers.
        out: folder of the study; cells that are there already and fit are used.
        device: where to train; a GPU by default where there is one.
        tell: called with progress.

    Raises:
        DataError: too few images or subjects of a class, a test image or subject that is trained on, or a full disk.
        UnknownNameError, ConfigurationError, TrainingError, ModelError: as `train_classifier`.
    """
    folder, scheme = Path(out), make_scheme(real, config.classifier)
    notes: list[str] = []
    given = {"real": real, "synthetic": synthetic, "test": test}
    cohorts = {name: _of_class(name, cohort, scheme, notes) for name, cohort in given.items()}
    digests = {name: file_hashes(cohort) for name, cohort in cohorts.items()}
    _check_apart(cohorts, digests, notes)
    classes = {name: [scheme.index(v) for v in cohort.values(scheme.attribute)] for name, cohort in cohorts.items()}
    subjects = [record.subject or record.key for record in cohorts["test"]]
    people = Counter(k for k, _ in set(zip(classes["test"], subjects, strict=True)))
    for k, name in enumerate(scheme.classes):
        if people[k] < 2:
            raise DataError(f"The test images have {people[k]} subject(s) of {scheme.attribute} {name}; two at least.")
    place, gray = usable_device(device), real.is_gray()
    study = _Study(config, scheme, cohorts, classes, digests, folder / CELLS, place, gray, {}, tell)
    settings = config.settings()
    stacks: dict[Setting, list[Array]] = {setting: [] for setting in settings}
    counts: dict[Setting, list[tuple[int, int]]] = {setting: [] for setting in settings}
    for done, (seed, setting) in enumerate(itertools.product(config.seeds, settings)):
        tell(f"classifiers, {setting}, seed {seed}", done, len(settings) * len(config.seeds))
        chosen = study.draw(setting, seed, notes)
        counts[setting].append((len(chosen["real"]), len(chosen["synthetic"])))
        stacks[setting].append(study.cell(setting, seed, chosen))
    tell("classifiers, all tested", 1, 1)
    if len(config.seeds) == 1:
        notes.append("one seed: the intervals say nothing of other trainings")
    if cohorts["test"][0].subject is None:
        notes.append("the test images have no subjects: each counts as one, and the intervals may be too narrow")
    figures = compare_settings(stacks, classes["test"], subjects, images=counts, confidence=config.confidence)
    facts = {"attribute": scheme.attribute, "classes": list(scheme.classes), "confidence": config.confidence}
    facts |= {"seeds": list(config.seeds), "classifier": dataclasses.asdict(config.classifier)}
    facts |= {"test": {"images": len(subjects), "subjects": len(set(subjects))}, "versions": package_versions()}
    result = UtilityResult(*figures, facts, tuple(dict.fromkeys(notes)))
    write_text(folder / RESULT_FILE, json.dumps(result.to_dict(), indent=2) + "\n")
    return result


@dataclass(frozen=True)
class _Study:
    """Everything that the cells of one study share."""

    config: UtilityConfig
    scheme: ClassScheme
    cohorts: dict[str, Cohort]
    classes: dict[str, list[int]]
    digests: dict[str, list[str]]
    folder: Path
    device: Any
    gray: bool
    images: dict[str, ImageSet]
    tell: Tell

    def draw(self, setting: Setting, seed: int, notes: list[str]) -> dict[str, list[int]]:
        """Return the real and the synthetic images of a cell."""
        records, classes = self.cohorts["real"], self.classes["real"]
        real = draw_share(records, classes, setting.amount, seed) if setting.amount else []
        if setting.kind == REAL:
            return {"real": real, "synthetic": []}
        wanted, synthetic = Counter([classes[i] for i in real] or classes), list[int]()
        for k, count in sorted(wanted.items()):
            there, name = [i for i, c in enumerate(self.classes["synthetic"]) if c == k], self.scheme.classes[k]
            if len(there) < count:
                notes.append(f"{setting}: {len(there)} synthetic images of {name} are all there are, not {count}")
            synthetic += [there[i] for i in np.random.default_rng([seed, k]).permutation(len(there))[:count]]
        return {"real": real, "synthetic": sorted(synthetic)}

    def cell(self, setting: Setting, seed: int, chosen: Mapping[str, list[int]]) -> Array:
        """Return the probabilities (N, C) that a cell's classifier gives the test images, trained now or before."""
        parts = {name: self._divide(name, indices, seed, setting) for name, indices in chosen.items() if indices}
        roles, known = (
            ("train", "validation"),
            {n: list(zip(self.digests[n], self.classes[n], strict=True)) for n in parts},
        )
        used = [[[known[n][i] for i in part[role]] for n, part in parts.items()] for role in roles]
        plain = {n: v for n, v in dataclasses.asdict(self.config.classifier).items() if n not in ("role", "seed")}
        about = [FORMAT, plain, seed, self.gray, [str(c) for c in self.scheme.classes], used, self.digests["test"]]
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        path, shape = self.folder / f"{key}.json", (len(self.digests["test"]), len(self.scheme.classes))
        with suppress(OSError, ValueError, KeyError, TypeError):  # missing, or damaged: trained again
            kept = np.array(json.loads(path.read_text(encoding="utf-8"))["probabilities"], dtype=np.float64)
            if kept.shape == shape and np.isfinite(kept).all():
                return kept
        started = time.monotonic()
        train, validation = (self._pixels({name: part[role] for name, part in parts.items()}) for role in roles)
        probabilities, history = self._train(train, validation, seed)
        facts = {**dataclasses.asdict(setting), "seed": seed, "images": {name: len(i) for name, i in chosen.items()}}
        facts |= {"seconds": round(time.monotonic() - started, 1), "versions": package_versions(), "history": history}
        write_text(path, json.dumps({**facts, "probabilities": probabilities.tolist()}, indent=1) + "\n")
        return probabilities

    def _train(self, train: ImageSet, validation: ImageSet, seed: int) -> tuple[Array, Any]:
        """Return the test images' probabilities (N, C) by a classifier trained now, and its losses."""
        given = dataclasses.replace(self.config.classifier, seed=seed)
        shape: dict[str, Any] = {"channels": 1 if self.gray else 3, "size": given.size, "pretrained": given.pretrained}
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            network = build_network(given.network, len(self.scheme.classes), **shape)
            history = fit(network.to(self.device), train, validation, given, seed, self.tell)
        network.eval()
        tested = self._pixels({"test": range(len(self.classes["test"]))})
        return np.asarray(softmax(tested.logits(on_device(network)), axis=1)), history

    def _pixels(self, chosen: Mapping[str, Sequence[int]]) -> ImageSet:
        """Return the chosen images of each cohort in one set, and read cohorts that were not needed before."""
        for name in chosen.keys() - self.images.keys():
            tell, size = functools.partial(self.tell, f"{name} images"), self.config.classifier.size
            self.images[name] = read_images(self.cohorts[name], self.scheme, size=size, gray=self.gray, tell=tell)
        parts = [(self.images[name], list(indices)) for name, indices in chosen.items()]
        people = tuple(whole.subjects[i] for whole, indices in parts for i in indices)
        pixels, truth = (torch.cat([getattr(w, n)[i] for w, i in parts]) for n in ("pixels", "truth"))
        return ImageSet(pixels, truth, people)

    def _divide(self, name: str, indices: list[int], seed: int, setting: Setting) -> dict[str, list[int]]:
        """Return the images that train and those that stop the training, without a subject in both."""
        share, found = self.config.classifier.validation, [self.classes[name][i] for i in indices]
        records = [self.cohorts[name][i] for i in indices]
        parts, _ = assign(records, found, {"train": 1 - share, "validation": share}, seed, BLOCK)
        for role, members in parts.items():
            for k in set(range(len(self.scheme.classes))) - {found[i] for i in members}:
                where = f"{setting}, seed {seed}: none of {len(members)} {name} {role} images"
                what = f"is of {self.scheme.attribute} {self.scheme.classes[k]}"
                raise DataError(f"{where} {what}. Use larger amounts, a larger validation share, or more images.")
        return {role: [indices[i] for i in members] for role, members in parts.items()}


def draw_share(records: Sequence[Record], classes: Sequence[int], share: float, seed: int) -> list[int]:
    """Return the images, in order, of a share of each class's subjects, at least two; smaller shares are in larger."""
    members: dict[Hashable, list[int]] = {}
    for i, record in enumerate(records):
        members.setdefault(record.subject if record.subject is not None else (record.key,), []).append(i)
    by_class: dict[int, list[list[int]]] = {}
    for indices in members.values():
        # A subject of several classes is dealt out once, with the class it has most images of.
        by_class.setdefault(Counter(classes[i] for i in indices).most_common(1)[0][0], []).append(indices)
    found: list[int] = []
    for k, groups in by_class.items():
        count = max(2, round(share * len(groups)))
        found += [i for g in np.random.default_rng([seed, k]).permutation(len(groups))[:count] for i in groups[g]]
    return sorted(found)


def _compared(settings: Sequence[Setting]) -> list[tuple[Setting, Setting]]:
    real = [setting for setting in settings if setting.kind == REAL]
    most = max((setting.amount for setting in real), default=0.0)
    sought = {s: {REAL: set[float](), HALF: {s.amount, 2 * s.amount}, SYNTHETIC: {most}}[s.kind] for s in settings}
    return [(one, other) for one in settings for other in real if other.amount in sought[one]]


def _of_class(name: str, cohort: Cohort, scheme: ClassScheme, notes: list[str]) -> Cohort:
    """Return the images of a class, with a note on the others."""
    kept = [record for record in cohort if scheme.find(record.attributes.get(scheme.attribute)) is not None]
    if len(kept) < len(cohort):
        notes.append(f"{name}: {len(cohort) - len(kept)} images left out: their {scheme.attribute} is of no class")
    if not kept:
        raise DataError(f"No {name} image has a {scheme.attribute} of {', '.join(map(str, scheme.classes))}.")
    return Cohort(kept, cohort.root, cohort.name, cohort.label)


def _check_apart(cohorts: Mapping[str, Cohort], digests: Mapping[str, list[str]], notes: list[str]) -> None:
    """Raise DataError if a test image or subject is trained on; note training images among the synthetic ones."""
    tested, people = set(digests["test"]), {record.subject for record in cohorts["test"]} - {None}
    for name in ("real", "synthetic"):
        known = zip(cohorts[name], digests[name], strict=True)
        same = [record.key for record, digest in known if digest in tested or record.subject in people]
        if same:
            what = f"{len(same)} {name} training images are test images, or of a subject that is tested"
            raise DataError(f"{what}, the first is {same[0]}. Remove them.")
    copies = len(set(digests["synthetic"]) & set(digests["real"]))
    if copies:
        notes.append(f"{copies} synthetic files are copies of real training images")
