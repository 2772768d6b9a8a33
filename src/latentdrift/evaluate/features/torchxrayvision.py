"""TorchXRayVision's DenseNet, trained on chest radiographs: Cohen et al. 2022 (arXiv 2111.00595)."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ModelError, UnknownNameError
from latentdrift.evaluate.features.base import FamilyExtractor, extractor_family, fill_layers, offline, read_layers

if TYPE_CHECKING:
    import torch

SIDE = 224
RANGE = 1024.0
"""TorchXRayVision's pixels go from -1024 to 1024."""
PREFIX = "densenet121-"


def _models(name: str) -> Any:
    from latentdrift.models.classifier.network import optional_package

    return optional_package("torchxrayvision.models", name)


@extractor_family("torchxrayvision")
class TorchXRayVision(FamilyExtractor):
    """Pooled features (d = 1024) of DenseNet-121; variants differ in the data sets it was trained on.

    Images are averaged to gray and resized to 224 px. Weights from TorchXRayVision's own cache, where it downloads them
    once unless HF_HUB_OFFLINE is set, or from a file with the network's state_dict.

    Raises:
        UnknownNameError: TorchXRayVision has no such DenseNet.
        ModelError: the package or the weights are not to be had.
    """

    preferred = "densenet121-res224-all"
    example = "densenet121-res224-all"

    @classmethod
    def available(cls) -> bool:
        """Say whether the package and the published weights are on this machine."""
        try:
            models = _models(cls.name)
        except ModelError:
            return False
        return cls.variant in models.model_urls and cls._published(models).is_file()

    @classmethod
    def _published(cls, models: Any) -> Path:
        """Return where TorchXRayVision keeps the weights."""
        return Path(models.utils.get_cache_dir()) / Path(models.model_urls[cls.variant]["weights_url"]).name

    def _load(self, weights: Path | None) -> torch.nn.Module:
        models = _models(self.name)
        known = [name for name in models.model_urls if name.startswith(PREFIX)]
        if self.variant not in known:
            raise UnknownNameError("DenseNet of TorchXRayVision", self.variant, known)
        if weights is not None:
            # Without weights of its own it neither resizes its input nor prints warnings of its range.
            network = models.DenseNet(weights=None)
            layers = {
                key.removeprefix("features."): value
                for key, value in read_layers(weights, self.name).items()
                if key.startswith("features.")
            }
            return fill_layers(network.features, layers, weights, self.name)
        path, url = self._published(models), models.model_urls[self.variant]["weights_url"]
        remedy = f"Fetch {url} on a connected machine and save it as {path}, or use the extractor efficientnet-lite0."
        if offline() and not path.is_file():
            raise ModelError(
                f"The weights of {self.name} are not at hand, and HF_HUB_OFFLINE forbids to fetch. {remedy}"
            )
        try:
            # It reports its download on the standard output, where a result may be wanted.
            with contextlib.redirect_stdout(sys.stderr):
                whole = models.DenseNet(weights=self.variant)
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ModelError(f"The weights of {self.name} cannot be had ({reason}). {remedy}") from error
        features: torch.nn.Module = whole.features
        return features

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        gray = images.float().mean(1, keepdim=True)
        resized = F.interpolate(gray, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        maps = self.network((resized / 255.0 * 2.0 - 1.0) * RANGE)
        # As its own `features2` does, before the last layer.
        return F.relu(maps).mean(dim=(2, 3))
