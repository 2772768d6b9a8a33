"""Any classification network of MONAI that needs no further settings, such as monai:DenseNet121 or monai:resnet18."""

from __future__ import annotations

from itertools import product
from typing import Any

from torch import nn

from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.models.classifier.network import (
    Adapted,
    NetworkRequest,
    classifier_network,
    need_variant,
    no_weights,
    optional_package,
)

INPUTS = ("in_channels", "n_input_channels")
OUTPUTS = ("num_classes", "out_channels")
"""What MONAI's networks call the numbers of channels and of classes."""


@classifier_network("monai")
def from_monai(request: NetworkRequest) -> nn.Module:
    """Return the network in two dimensions; efficientnet-b0 to -b8 are known by these names.

    Raises:
        UnknownNameError: MONAI has no such network.
        ConfigurationError: it cannot be made from the numbers of dimensions, channels and classes alone.
        ModelError: MONAI or the published weights are not to be had.
    """
    name = need_variant(request, "monai", "DenseNet121")
    nets = optional_package("monai.networks.nets", f"monai:{name}")
    first: tuple[str, ...] = ()
    if name.startswith("efficientnet-"):
        make, first = nets.EfficientNetBN, (name,)
    elif callable(getattr(nets, name, None)):
        make = getattr(nets, name)
    else:
        known = [found for found in dir(nets) if callable(getattr(nets, found)) and not found.startswith("_")]
        raise UnknownNameError("network of MONAI", name, known)
    # The published weights are of three channels.
    channels = 3 if request.pretrained else request.channels
    refused: Exception | None = None
    for inside, outside in product(INPUTS, OUTPUTS):
        settings: dict[str, Any] = {"spatial_dims": 2, inside: channels, outside: request.classes}
        # An efficientnet would download published weights unless told not to.
        if request.pretrained or first:
            settings["pretrained"] = request.pretrained
        try:
            return Adapted(make(*first, **settings), channels=channels)
        except TypeError as error:  # it calls them otherwise
            refused = refused or error
        except Exception as error:
            if request.pretrained:
                raise no_weights(f"monai:{name}", error) from error
            refused = error
    raise ConfigurationError(
        f"MONAI's {name} cannot be made from its numbers of dimensions, channels and classes alone ({refused}). Choose "
        "another, such as monai:DenseNet121, monai:resnet18, monai:SEResNet50 or monai:efficientnet-b0."
    ) from refused
