"""Any network of PyTorch Image Models, such as timm:resnet18 or timm:convnext_atto."""

from __future__ import annotations

from torch import nn

from latentdrift.errors import UnknownNameError
from latentdrift.models.classifier.network import (
    Adapted,
    NetworkRequest,
    classifier_network,
    need_variant,
    no_weights,
    optional_package,
)


@classifier_network("timm")
def from_timm(request: NetworkRequest) -> nn.Module:
    """Return the network; timm itself sums the first layer's weights for gray images.

    Raises:
        UnknownNameError: timm has no such network.
        ModelError: timm or the published weights are not to be had.
    """
    name = need_variant(request, "timm", "resnet18")
    timm = optional_package("timm", f"timm:{name}")
    if not timm.is_model(name):
        raise UnknownNameError("network of timm", name, timm.list_models())
    try:
        network = timm.create_model(
            name, pretrained=request.pretrained, num_classes=request.classes, in_chans=request.channels
        )
    except Exception as error:
        if request.pretrained:
            raise no_weights(f"timm:{name}", error) from error
        raise
    mean, std = network.default_cfg.get("mean", (0.5,)), network.default_cfg.get("std", (0.5,))
    if request.channels == 1:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    return Adapted(network, mean, std)
