"""TorchXRayVision's networks for chest radiographs, such as torchxrayvision:densenet121-res224-all."""

from __future__ import annotations

from torch import nn

from latentdrift.errors import UnknownNameError
from latentdrift.models.classifier.network import (
    Adapted,
    NetworkRequest,
    classifier_network,
    copy_matching,
    need_variant,
    no_weights,
    optional_package,
)

NETWORKS = ("densenet121", "resnet50")
PUBLISHED = {"densenet121": "densenet121-res224-all", "resnet50": "resnet50-res512-all"}
"""The weights that a name without training set stands for: those of all its data sets."""

MEAN, STD = (0.5,), (0.5 / 1024,)
"""TorchXRayVision's pixels go from -1024 to 1024."""


@classifier_network("torchxrayvision")
def from_torchxrayvision(request: NetworkRequest) -> nn.Module:
    """Return the network, of one channel.

    Raises:
        UnknownNameError: TorchXRayVision has no such network.
        ModelError: TorchXRayVision or the published weights are not to be had.
    """
    name = need_variant(request, "torchxrayvision", "densenet121")
    models = optional_package("torchxrayvision.models", f"torchxrayvision:{name}")
    known = [found for found in models.model_urls if found.partition("-")[0] in NETWORKS]
    if name not in (*NETWORKS, *known):
        raise UnknownNameError("network of TorchXRayVision", name, [*NETWORKS, *known])
    network: nn.Module
    if name.startswith("densenet121"):
        # Without weights it neither resizes its input nor warns of its range.
        network = models.DenseNet(weights=None, num_classes=request.classes, in_channels=1)
    else:
        from torchvision.models import resnet50

        network = resnet50(weights=None, num_classes=request.classes)
        network.conv1 = nn.Conv2d(1, 64, kernel_size=7, stride=2, padding=3, bias=False)
    if request.pretrained:
        published = PUBLISHED.get(name, name)
        try:
            whole = models.get_model(published)
        except Exception as error:
            raise no_weights(f"torchxrayvision:{published}", error) from error
        copy_matching(network, getattr(whole, "model", whole).state_dict())
    return Adapted(network, MEAN, STD, channels=1)
