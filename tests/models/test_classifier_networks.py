"""Networks of classifiers: our own, and those of other libraries by name."""

from __future__ import annotations

import sys

import pytest
import torch

from latentdrift.errors import ConfigurationError, ModelError, UnknownNameError
from latentdrift.models.classifier import build_network, classifier_network


def test_the_small_network_is_small() -> None:
    network = build_network("small", 3)
    assert 3e5 < sum(weight.numel() for weight in network.parameters()) < 1e6
    assert build_network("small", 2, channels=3, size=96)(torch.zeros(2, 3, 96, 96)).shape == (2, 2)


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("timm:resnet10t", 1),
        ("timm:mobilenetv3_small_050", 3),
        ("torchvision:resnet18", 1),
        ("torchvision:squeezenet1_1", 3),
        ("torchxrayvision:densenet121", 1),
        ("torchxrayvision:resnet50", 3),
        ("monai:DenseNet121", 1),
        ("monai:resnet18", 3),
        ("monai:SEResNet50", 1),
        ("monai:efficientnet-b0", 1),
    ],
)
def test_networks_of_other_libraries(name: str, channels: int) -> None:
    family = name.partition(":")[0]
    pytest.importorskip(family)
    torch.manual_seed(0)
    network = build_network(name, 3, channels=channels, size=32)
    images = torch.rand(2, channels, 32, 32).mul(2).sub(1).requires_grad_()
    found = network(images)
    assert found.shape == (2, 3)
    found.sum().backward()
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("smal", UnknownNameError, "Did you mean 'small'"),
        ("small:x", ConfigurationError, "write small"),
        ("timm", ConfigurationError, "such as timm:resnet18"),
        ("timm:resnet_18", UnknownNameError, "resnet18"),
        ("torchvision:resnet19", UnknownNameError, "resnet18"),
        ("timm:deit_tiny_patch16_224", ConfigurationError, "--size 224"),
    ],
)
def test_networks_that_cannot_be(name: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        build_network(name, 2, size=64)


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("DenseNet_121", UnknownNameError, "Did you mean 'DenseNet121'"),
        ("UNet", ConfigurationError, "dimensions, channels and classes alone"),
        ("UNETR", ConfigurationError, "dimensions, channels and classes alone"),
        ("SegResNet", ConfigurationError, "it is no classifier"),
    ],
)
def test_networks_of_monai_that_are_none_for_classes(name: str, error: type[Exception], says: str) -> None:
    pytest.importorskip("monai")
    with pytest.raises(error, match=says):
        build_network(f"monai:{name}", 2, size=32)


def test_a_missing_package_names_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"small", "timm", "torchvision", "monai", "torchxrayvision"} <= set(classifier_network.names())
    monkeypatch.setitem(sys.modules, "monai", None)
    monkeypatch.setitem(sys.modules, "monai.networks.nets", None)
    with pytest.raises(ModelError, match="pip install monai"):
        build_network("monai:DenseNet121", 2)


def test_published_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    import timm

    def offline(name: str, **settings: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(ModelError, match="no route to host.*leave --pretrained out"):
        build_network("timm:resnet18", 2, pretrained=True)
    with pytest.raises(ConfigurationError, match="no published weights"):
        build_network("small", 2, pretrained=True)


def test_published_weights_are_kept_but_for_the_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    published = models.resnet18(weights=None).state_dict()
    monkeypatch.setattr(models.ResNet18_Weights.DEFAULT.__class__, "get_state_dict", lambda self, **_: published)
    network = build_network("torchvision:resnet18", 2, size=64, pretrained=True)
    own = network.network.state_dict()  # type: ignore[union-attr,operator]
    assert torch.equal(own["layer1.0.conv1.weight"], published["layer1.0.conv1.weight"])
    assert own["fc.weight"].shape == (2, 512)
