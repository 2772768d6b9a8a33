"""Any classification network of torchvision, such as torchvision:resnet18 or torchvision:densenet121."""

from __future__ import annotations

from typing import Any

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

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet, as the published weights expect."""

WITH_AUXILIARY = ("googlenet", "inception_v3")
"""Networks that would give further logits in training, and that are slow to draw their own initial weights."""


@classifier_network("torchvision")
def from_torchvision(request: NetworkRequest) -> nn.Module:
    """Return the network; gray images are repeated to three channels.

    Raises:
        UnknownNameError: torchvision has no such network.
        ModelError: torchvision or the published weights are not to be had.
    """
    name = need_variant(request, "torchvision", "resnet18")
    models = optional_package("torchvision.models", f"torchvision:{name}")
    known = models.list_models(module=models)
    if name not in known:
        raise UnknownNameError("network of torchvision", name, known)
    extra: dict[str, Any] = {"aux_logits": False, "init_weights": False} if name in WITH_AUXILIARY else {}
    network = models.get_model(name, weights=None, num_classes=request.classes, **extra)
    if request.pretrained:
        try:
            copy_matching(network, models.get_model_weights(name).DEFAULT.get_state_dict(progress=False))
        except Exception as error:
            raise no_weights(f"torchvision:{name}", error) from error
    return Adapted(network, MEAN, STD, channels=3)
