"""EfficientNet-Lite0 that begins with ImageNet's weights: 3.4 million parameters, offline, better than from nothing.

On a few hundred images of a few dozen subjects a network that has to learn edges first learns the subjects by heart.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from latentdrift.errors import ConfigurationError
from latentdrift.models.classifier.network import Adapted, NetworkRequest, classifier_network
from latentdrift.models.efficientnet_lite0 import MEAN, STD, load_efficientnet_lite0

DROPOUT = 0.3


@classifier_network("efficientnet-lite0")
def efficientnet_lite0(request: NetworkRequest) -> nn.Module:
    """Return the network with a new last layer; gray images are shown to all three channels.

    Raises:
        ConfigurationError: a variant, of which there are none.
        ModelError: the weights are not installed.
    """
    if request.variant:
        raise ConfigurationError(f"Write efficientnet-lite0, not efficientnet-lite0:{request.variant}.")
    network: Any = load_efficientnet_lite0()
    network.classifier = nn.Sequential(nn.Dropout(DROPOUT), nn.Linear(network.num_features, request.classes))
    return Adapted(network, (MEAN,), (STD,), channels=3)
