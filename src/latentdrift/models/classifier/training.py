"""Train a classifier on one role's images: balanced classes, early stopping, calibration, figures on the test part."""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.special import softmax
from torch import nn

from latentdrift.data import Cohort
from latentdrift.errors import TrainingError
from latentdrift.models.classifier.calibration import fit_temperature, negative_log_likelihood
from latentdrift.models.classifier.classes import make_scheme
from latentdrift.models.classifier.classifier import Classifier
from latentdrift.models.classifier.config import ROLES, ClassifierConfig
from latentdrift.models.classifier.files import check_free, package_versions, save_classifier
from latentdrift.models.classifier.images import Autoencoder, ImageSet, Tell, read_images
from latentdrift.models.classifier.network import build_network
from latentdrift.models.classifier.roles import divide
from latentdrift.models.loading import usable_device

LARGEST_GRADIENT = 1.0
WARM_UP = 0.05
"""Share of the steps in which the learning rate rises."""

Array = npt.NDArray[np.float64]


class Measure(Protocol):
    """Computes a classifier's figures, as `latentdrift.evaluate.auc.classifier_figures` does."""

    def __call__(
        self, probabilities: Array, truth: npt.NDArray[np.int64], subjects: tuple[str, ...], *, uncalibrated: Array
    ) -> Mapping[str, Any]:
        """Return figures by name, for JSON, of probabilities (N, K), classes (N,) and N subjects."""


def train_classifier(
    cohort: Cohort,
    out: str | Path,
    config: ClassifierConfig,
    *,
    split: str | Path | None = None,
    autoencoder: str | Path | None = None,
    measure: Measure | None = None,
    device: str | torch.device | None = None,
    tell: Tell = lambda *_: None,
) -> Classifier:
    """Train, calibrate, measure and save a classifier; return it.

    Args:
        cohort: images with the attribute; images without it, or of no class, are left out.
        out: a new or empty folder, for model.safetensors and classifier.json.
        config: the attribute, its classes, the role, the network and the training.
        split: `split.csv` of a fine-tuning run whose test and validation images are not to be trained on.
        autoencoder: a diffusion model whose autoencoder every image is also seen through, so that its blur, which all
            made images have, tells the classifier nothing.
        measure: computes the figures on the test part; without, there are none.
        device: where to train; a GPU by default where there is one.
        tell: called with progress.

    Raises:
        ConfigurationError: settings that cannot be, or a folder that holds something.
        DataError: too few images or subjects of a class, images that cannot be read, a split of other images.
        ModelError: a package, model or folder that is not to be had.
        TrainingError: the loss is not finite.
    """
    target = Path(out)
    check_free(target)
    scheme = make_scheme(cohort, config)
    place = usable_device(device)
    gray = cohort.is_gray()
    # The roles differ in their weights at the start and their draws too, not in their images alone.
    seed = config.seed * len(ROLES) + ROLES.index(config.role)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build_network(
            config.network,
            len(scheme.classes),
            channels=1 if gray else 3,
            size=config.size,
            pretrained=config.pretrained,
        )
    parts = divide(cohort, scheme, config, split)
    through = None if autoencoder is None else Autoencoder.load(autoencoder, place)
    train, validation, test = (
        read_images(
            part,
            scheme,
            size=config.size,
            gray=gray,
            autoencoder=through,
            tell=lambda done, total, name=name: tell(f"{name} images", done, total),  # type: ignore[misc]
        )
        for name, part in (("training", parts.train), ("validation", parts.validation), ("test", parts.test))
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        history = fit(network.to(place), train, validation, config, seed, tell)
    classifier = Classifier(
        network, scheme, role=config.role, size=config.size, gray=gray, trained_on=parts.hashes, path=target
    )
    said, truth = all_logits(classifier, validation)
    classifier.temperature = fit_temperature(said, truth)
    facts = {
        "network": config.network,
        "seed": config.seed,
        "settings": dataclasses.asdict(config),
        "autoencoder": None if autoencoder is None else str(autoencoder),
        "data": {"name": cohort.name, "images": len(cohort), "content_hash": cohort.content_hash()},
        "split": {
            "strategy": parts.strategy,
            "notes": list(parts.notes),
            "images": {"train": len(train), "validation": len(validation), "test": len(test)},
        },
        "history": history,
        "validation_nll": {
            "before": negative_log_likelihood(said, truth),
            "after": negative_log_likelihood(said, truth, classifier.temperature),
        },
        "test": {} if measure is None else figures_on(classifier, test, measure),
        "test_through_autoencoder": (
            {} if measure is None or through is None else figures_on(classifier, test, measure, copies=True)
        ),
        "versions": package_versions(),
    }
    save_classifier(classifier, target, facts)
    return classifier


def fit(
    network: nn.Module, train: ImageSet, validation: ImageSet, config: ClassifierConfig, seed: int, tell: Tell
) -> list[dict[str, float]]:
    """Train a network in place, to the weights of its best pass; return the losses of each pass.

    Classes are drawn equally often, and the validation loss is the mean over classes: a rare class counts as much.

    Raises:
        TrainingError: the loss is not finite.
    """
    generator = torch.Generator().manual_seed(seed)
    device = next(network.parameters()).device
    batch_size = min(config.batch_size, len(train))
    steps = math.ceil(len(train) / batch_size)
    weights = (1 / torch.bincount(train.truth).double())[train.truth]
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    total, rising = steps * config.epochs, max(1, round(WARM_UP * steps * config.epochs))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / rising) * 0.5 * (1 + math.cos(math.pi * step / total))
    )
    history: list[dict[str, float]] = []
    best, kept, stale = math.inf, copy.deepcopy(network.state_dict()), 0
    for epoch in range(config.epochs):
        network.train()
        losses = 0.0
        drawn = torch.multinomial(weights, steps * batch_size, replacement=True, generator=generator)
        for indices in drawn.split(batch_size):
            images = config.views(train.drawn(indices, generator), generator).to(device)
            loss = F.cross_entropy(network(images), train.truth[indices].to(device))
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), LARGEST_GRADIENT)
            optimizer.step()
            schedule.step()
            losses += float(loss.detach())
        network.eval()
        found = balanced_loss(*all_logits(network, validation))
        if not math.isfinite(found) or not math.isfinite(losses):
            raise TrainingError(
                f"The classifier's loss is not finite after pass {epoch + 1}. Use a smaller --learning-rate."
            )
        history.append({"loss": losses / steps, "validation_loss": found})
        tell(f"training, validation loss {found:.3f}", epoch + 1, config.epochs)
        stale += 1
        if found < best:
            best, kept, stale = found, copy.deepcopy(network.state_dict()), 0
        if stale >= config.patience:
            break
    network.load_state_dict(kept)
    return history


def all_logits(network: nn.Module, images: ImageSet) -> tuple[Array, npt.NDArray[np.int64]]:
    """Return logits (N, K) and classes (N,) of the images, and after them of their copies where there are any."""
    found, truth = [images.logits(on_device(network))], images.truth.numpy()
    if images.copies is None:
        return found[0], truth
    return np.concatenate([*found, images.logits(on_device(network), copies=True)]), np.tile(truth, 2)


def on_device(network: nn.Module) -> Any:
    """Return a function that gives a network its images where its weights are."""
    device = next(network.parameters()).device
    return lambda images: network(images.to(device))


def balanced_loss(logits: Array, truth: npt.NDArray[np.int64]) -> float:
    """Return the negative log likelihood in nats, each class weighing the same."""
    return float(np.mean([negative_log_likelihood(logits[truth == k], truth[truth == k]) for k in np.unique(truth)]))


def figures_on(classifier: Classifier, images: ImageSet, measure: Measure, *, copies: bool = False) -> dict[str, Any]:
    """Return the figures of calibrated probabilities on images, or on their copies."""
    logits = images.logits(classifier, copies=copies)
    return dict(
        measure(
            softmax(logits, axis=1),
            images.truth.numpy(),
            images.subjects,
            uncalibrated=softmax(logits * classifier.temperature, axis=1),
        )
    )
