"""What a classifier trained on the images in question looks at: the vector before its last layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.errors import ConfigurationError, ModelError
from latentdrift.evaluate.features.base import FamilyExtractor, extractor_family

if TYPE_CHECKING:
    import torch


@extractor_family("judge")
class Judge(FamilyExtractor):
    """Penultimate features of a classifier, asked for by its folder: judge:FOLDER.

    They tell sets apart by what tells the classes apart, and are blind to much else. A judge was trained on real
    images: those of its training set are closer to each other than they would be to fresh ones; compare with others.

    Raises:
        ModelError: the folder holds no classifier, or one that ends in no linear layer.
        ConfigurationError: a weights file, which a folder does not need.
    """

    example = "FOLDER"

    @classmethod
    def available(cls) -> bool:
        """Say whether the folder holds a classifier."""
        return (Path(cls.variant) / "classifier.json").is_file()

    def _load(self, weights: Path | None) -> torch.nn.Module:
        import torch

        from latentdrift.models.classifier import load_classifier

        if weights is not None:
            raise ConfigurationError(f"{self.name} has its weights in its folder: leave the file {weights} out.")
        classifier = load_classifier(self.variant, "cpu")
        layers: list[torch.nn.Module] = []
        hooks = [
            layer.register_forward_hook(lambda module, *_: layers.append(module))
            for layer in classifier.network.modules()
            if isinstance(layer, torch.nn.Linear) and layer.out_features == len(classifier.classes)
        ]
        with torch.no_grad():
            classifier(torch.zeros(1, 3, classifier.size, classifier.size))
        for hook in hooks:
            hook.remove()
        if not layers:
            raise ModelError(
                f"The classifier {self.variant} ends in no linear layer, so there is no vector before it. Train one "
                "with another --network, such as small."
            )
        self._seen: list[torch.Tensor] = []
        layers[-1].register_forward_pre_hook(lambda _, inputs: self._seen.append(inputs[0]))
        return classifier

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        self._seen.clear()
        self.network(images.float() / 127.5 - 1.0)
        return self._seen.pop()
