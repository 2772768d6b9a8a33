"""A classifier's folder: model.safetensors and classifier.json, written whole or not at all."""

from __future__ import annotations

import json
import math
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift import __version__
from latentdrift.errors import ConfigurationError, ModelError
from latentdrift.models.classifier.classes import ClassScheme
from latentdrift.models.classifier.classifier import Classifier
from latentdrift.models.classifier.network import build_network
from latentdrift.models.loading import usable_device

if TYPE_CHECKING:
    import torch

WEIGHTS_FILE, FACTS_FILE = "model.safetensors", "classifier.json"
FORMAT = 1
"""Raised whenever older versions could not read the folder."""

PACKAGES = ("torch", "torchvision", "timm", "monai", "torchxrayvision", "numpy")


def package_versions() -> dict[str, str]:
    """Return the versions of what a classifier depends on; packages that are missing are left out."""
    found = {"python": platform.python_version(), "latentdrift": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def check_free(folder: Path) -> None:
    """Raise ConfigurationError if there is something at a folder's place: no classifier is written over."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigurationError(f"{folder} is not empty. Choose another --out, or delete it.")


def save_classifier(classifier: Classifier, folder: str | Path, facts: Mapping[str, Any]) -> Path:
    """Write a classifier; return its folder.

    Args:
        classifier: what to write.
        folder: a new or empty folder.
        facts: what `classifier.json` holds beside what loading needs; `network` among them, the network's name.

    Raises:
        ConfigurationError: the folder holds something.
        ModelError: the disk is full or not writable; nothing is left behind.
    """
    from safetensors.torch import save_model

    target = Path(folder)
    check_free(target)
    partial = target.with_name(target.name + ".partial")
    scheme = classifier.scheme
    described = {
        "format": FORMAT,
        "attribute": scheme.attribute,
        "classes": list(scheme.classes),
        "bins": list(scheme.bins),
        "separator": scheme.separator,
        "role": classifier.role,
        "network": facts["network"],
        "size": classifier.size,
        "gray": classifier.gray,
        "temperature": classifier.temperature,
        **facts,
        "trained_on": sorted(classifier.trained_on),
    }
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_model(classifier.network, str(partial / WEIGHTS_FILE))
        # safetensors makes files for the owner's eyes only; a model's folder is meant to be shared.
        (partial / WEIGHTS_FILE).chmod(partial.stat().st_mode & 0o666)
        (partial / FACTS_FILE).write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")
        partial.replace(target)
    except Exception as error:
        # safetensors reports a full disk as an error of its own, not as OSError.
        raise ModelError(f"{target} cannot be written: {error}. Free space or choose another place.") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    classifier.path, classifier.facts = target, described
    return target


def load_classifier(path: str | Path, device: str | torch.device | None = None) -> Classifier:
    """Return the classifier of a folder, frozen and in evaluation mode.

    Args:
        path: folder of `latentdrift classifier train`.
        device: where to put it; a GPU by default where there is one.

    Raises:
        ModelError: no classifier there, a damaged one, or one whose network's package is missing.
        ConfigurationError: a device that this machine has not.
    """
    from safetensors.torch import load_model

    folder = Path(path)
    facts_file, weights_file = folder / FACTS_FILE, folder / WEIGHTS_FILE
    for file in (facts_file, weights_file):
        if not file.is_file():
            raise ModelError(
                f"{folder} holds no classifier: there is no {file.name} in it. Give a folder that `latentdrift "
                "classifier train` made."
            )
    place = usable_device(device)
    try:
        facts = json.loads(facts_file.read_text(encoding="utf-8"))
        if facts["format"] != FORMAT:
            raise ModelError(
                f"{facts_file} is of format {facts['format']}; this version of latentdrift reads {FORMAT}."
            )
        scheme = ClassScheme(
            str(facts["attribute"]), tuple(facts["classes"]), tuple(facts["bins"]), str(facts["separator"])
        )
        temperature, size, gray = float(facts["temperature"]), int(facts["size"]), bool(facts["gray"])
        name, role, trained_on = str(facts["network"]), str(facts["role"]), frozenset(facts["trained_on"])
        if not 0 < temperature < math.inf:
            raise ValueError(f"a temperature of {temperature}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise ModelError(f"{facts_file} is damaged: {reason}. Restore it, or train the classifier again.") from error
    network = build_network(name, len(scheme.classes), channels=1 if gray else 3, size=size)
    try:
        load_model(network, str(weights_file))
    except Exception as error:  # safetensors' own errors, and torch's where shapes differ
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ModelError(f"{weights_file} is damaged ({reason}). Restore it, or train the classifier again.") from error
    classifier = Classifier(
        network,
        scheme,
        role=role,
        size=size,
        gray=gray,
        temperature=temperature,
        trained_on=trained_on,
        path=folder,
        facts=facts,
    )
    return classifier.to(place)
