"""Networks trained on RadImageNet's 1.35 million CT, MR and ultrasound images, from their authors' weights file.

Mei et al. 2022 (doi 10.1148/ryai.210315). The weights are given out by the authors, so the file has to be named.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from latentdrift.errors import ModelError, UnknownNameError
from latentdrift.evaluate.features.base import FamilyExtractor, extractor_family, fill_layers, read_layers

if TYPE_CHECKING:
    import torch

SIDE = 224
FILES = {"resnet50": "ResNet50.pt", "densenet121": "DenseNet121.pt"}
"""What the authors call the PyTorch files."""
CHILDREN = {
    "resnet50": {"0": "conv1", "1": "bn1", "4": "layer1", "5": "layer2", "6": "layer3", "7": "layer4"},
    "densenet121": {"0": "features"},
}
"""The authors' files number the parts of torchvision's networks."""


@extractor_family("radimagenet")
class RadImageNet(FamilyExtractor):
    """Pooled features of ResNet-50 (d = 2048) or DenseNet-121 (d = 1024).

    Images are resized to 224 px and scaled to [-1, 1], as in the authors' example. The file is theirs
    (RadImageNet_pytorch/ResNet50.pt), or holds torchvision's names for the layers.

    Raises:
        UnknownNameError: neither of the two networks.
        ModelError: no file was named, or it holds other layers.
    """

    preferred = "resnet50"
    example = "resnet50"

    @classmethod
    def available(cls) -> bool:
        """Say that the weights are nowhere in particular: the file has to be named."""
        return False

    def _load(self, weights: Path | None) -> torch.nn.Module:
        import torch
        import torchvision

        if self.variant not in FILES:
            raise UnknownNameError("network of RadImageNet", self.variant, FILES)
        if weights is None:
            raise ModelError(
                f"{self.name} needs its weights file: fetch RadImageNet_pytorch/{FILES[self.variant]}, which "
                "https://github.com/BMEII-AI/RadImageNet links to, and give its path as the extractor's weights."
            )
        network: Any = getattr(torchvision.models, self.variant)(weights=None)
        setattr(network, "fc" if self.variant == "resnet50" else "classifier", torch.nn.Identity())
        layers = {self._renamed(key): value for key, value in read_layers(weights, self.name).items()}
        return fill_layers(network, layers, weights, self.name)

    def _renamed(self, key: str) -> str:
        number, _, rest = key.removeprefix("backbone.").partition(".")
        return f"{CHILDREN[self.variant].get(number, number)}.{rest}"

    def _features(self, images: torch.Tensor) -> torch.Tensor:
        import torch.nn.functional as F

        resized = F.interpolate(images.float(), size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        found: torch.Tensor = self.network(resized / 127.5 - 1.0)
        return found
