"""Families of extractors: the libraries' own features, from files with random weights; what is missing is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from latentdrift.errors import ConfigurationError, ModelError, UnknownNameError
from latentdrift.evaluate import features as extractors
from latentdrift.evaluate.features import (
    extractor_class,
    extractor_family,
    extractor_names,
    feature_extractor,
    load_extractor,
    resolve_extractor,
)

TINY = "test_resnet"
"""Of timm, made for tests: 160 pixels."""


def images(size: int, count: int = 2) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8)


def randomised(network: torch.nn.Module) -> torch.nn.Module:
    """Return the network with batch statistics that are not 0 and 1, so that a layer out of place shows."""
    draw = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.rand(module.num_features, generator=draw) * 0.2
            module.running_var = torch.rand(module.num_features, generator=draw) + 0.5
    return network.eval()


@pytest.fixture(scope="module")
def timm_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, torch.nn.Module]:
    import timm

    torch.manual_seed(0)
    network = randomised(timm.create_model(TINY, num_classes=10))
    path = tmp_path_factory.mktemp("timm") / "network.pth"
    torch.save({"state_dict": {f"module.{key}": value for key, value in network.state_dict().items()}}, path)
    return path, network


def test_names() -> None:
    assert {"timm", "torchxrayvision", "radimagenet", "judge"} <= set(extractor_family.names())
    assert not set(extractor_family.names()) & set(feature_extractor.names())
    assert {"inception", "efficientnet-lite0", "timm:resnet18", "judge:FOLDER"} <= set(extractor_names())
    assert resolve_extractor("timm:resnet18") == "timm:resnet18"
    assert resolve_extractor("torchxrayvision") == "torchxrayvision:densenet121-res224-all"
    assert resolve_extractor("radimagenet") == "radimagenet:resnet50"
    assert resolve_extractor("judge:runs/a:b") == "judge:runs/a:b"
    assert extractor_class("efficientnet-lite0") is feature_extractor.get("efficientnet-lite0")
    # A variant's class is its own; the family's stays as it is.
    assert extractor_class("radimagenet:densenet121").name != extractor_class("radimagenet").name
    assert extractor_family.get("radimagenet").variant == ""


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("tim:resnet18", UnknownNameError, "Did you mean 'timm:resnet18'"),
        ("nothing at all", UnknownNameError, "Known: .*timm:resnet18"),
        ("timm", ConfigurationError, "such as timm:resnet18"),
        ("timm:resnet_18", UnknownNameError, "'resnet18"),
        ("judge:", ConfigurationError, "such as judge:FOLDER"),
        ("radimagenet:resnet18", UnknownNameError, "resnet50"),
        ("radimagenet", ModelError, "RadImageNet_pytorch/ResNet50.pt"),
        ("judge:no-such-folder", ModelError, "no-such-folder holds no classifier"),
    ],
)
def test_what_is_not_there_is_named(name: str, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        load_extractor(name)


def test_timm_gives_the_vector_before_the_last_layer(timm_file: tuple[Path, torch.nn.Module]) -> None:
    path, network = timm_file
    extractor = load_extractor(f"timm:{TINY}", weights=path)
    pixels = images(160)
    mean, std = (torch.tensor(network.default_cfg[key])[None, :, None, None] for key in ("mean", "std"))
    with torch.inference_mode():
        wanted = (pixels / 255 - mean) / std
        expected = network.forward_head(network.forward_features(wanted), pre_logits=True)
    found = extractor(pixels)
    assert found.shape == (2, extractor.dim)
    assert found.dtype == np.float32
    assert np.allclose(found, expected.numpy(), rtol=1e-5, atol=1e-6)
    assert np.abs(found[0] - found[1]).max() > 1e-3
    assert extractor.name == f"timm:{TINY}"
    small = F.interpolate(pixels.float(), size=80, mode="area").byte()
    assert extractor(small).shape == found.shape


def test_timm_reads_safetensors(timm_file: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path, network = timm_file
    other = tmp_path / "network.safetensors"
    save_file(network.state_dict(), other)
    pair = [load_extractor(f"timm:{TINY}", weights=file)(images(160)) for file in (path, other)]
    assert np.array_equal(*pair)


def test_published_weights_that_cannot_be_had(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import timm

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert not extractor_class("timm:resnet18").available()
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids"):
        load_extractor("timm:resnet18")
    monkeypatch.delenv("HF_HUB_OFFLINE")

    def refuse(*_: object, **settings: object) -> None:
        assert settings["pretrained"]
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", refuse)
    with pytest.raises(ModelError, match="no route to host"):
        load_extractor("timm:resnet18")
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_, **__: "file")
    assert extractor_class("timm:resnet18").available()


def test_other_weights_are_refused(timm_file: tuple[Path, torch.nn.Module], tmp_path: Path) -> None:
    path, network = timm_file
    with pytest.raises(ModelError, match="does not hold the layers of timm:resnet10t"):
        load_extractor("timm:resnet10t", weights=path)
    with pytest.raises(ModelError, match="There is no file"):
        load_extractor(f"timm:{TINY}", weights=tmp_path / "none.pth")
    pickled = tmp_path / "network.pth"
    torch.save(network, pickled)
    with pytest.raises(ModelError, match="whole pickled networks are not opened"):
        load_extractor(f"timm:{TINY}", weights=pickled)
    torch.save([1, 2], pickled)
    with pytest.raises(ModelError, match="no weights by layer"):
        load_extractor(f"timm:{TINY}", weights=pickled)


def test_torchxrayvision_gives_its_own_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    models = pytest.importorskip("torchxrayvision.models")
    torch.manual_seed(0)
    network = randomised(models.DenseNet(weights=None))
    path = tmp_path / "network.pth"
    torch.save(network.state_dict(), path)
    extractor = load_extractor("torchxrayvision", weights=path)
    pixels = images(224)[:, :1]
    with torch.inference_mode():
        expected = network.features2(pixels / 255 * 2048 - 1024)
    assert extractor.dim == 1024
    assert np.allclose(extractor(pixels), expected.numpy(), rtol=1e-4, atol=1e-5)
    monkeypatch.setattr(models.utils, "get_cache_dir", lambda: f"{tmp_path}/")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ModelError, match=re.escape(str(tmp_path))):
        load_extractor("torchxrayvision")
    with pytest.raises(UnknownNameError, match="densenet121-res224-nih"):
        load_extractor("torchxrayvision:densenet121-res224-nhi")
    # As the library keeps them: whole networks, which it opens itself.
    kind = extractor_class("torchxrayvision")
    assert not kind.available()
    torch.save(network, tmp_path / Path(models.model_urls[kind.variant]["weights_url"]).name)  # type: ignore[attr-defined]
    assert kind.available()
    assert np.allclose(load_extractor("torchxrayvision")(pixels), expected.numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("variant", "dim"), [("resnet50", 2048), ("densenet121", 1024)])
def test_radimagenet_reads_the_authors_numbered_layers(variant: str, dim: int, tmp_path: Path) -> None:
    import torchvision

    torch.manual_seed(0)
    network = randomised(getattr(torchvision.models, variant)(weights=None))
    # The authors' files: everything but the last layer, in a Sequential under the name "backbone".
    published = torch.nn.Module()
    published.backbone = torch.nn.Sequential(*list(network.children())[:-1])
    path = tmp_path / "network.pt"
    torch.save(published.state_dict(), path)
    assert any(key.startswith("backbone.0.") for key in published.state_dict())
    extractor = load_extractor(f"radimagenet:{variant}", weights=path)
    pixels = images(224)
    last = network.fc if variant == "resnet50" else network.classifier
    seen = []
    last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        network((pixels - 127.5) * 2 / 255)
    assert extractor.dim == dim
    assert np.allclose(extractor(pixels), seen[0].numpy(), rtol=1e-4, atol=1e-5)
    if variant == "densenet121":
        torch.save(network.state_dict(), path)
        assert np.allclose(load_extractor(f"radimagenet:{variant}", weights=path)(pixels), seen[0].numpy(), atol=1e-4)


def saved_judge(folder: Path, network: str, size: int = 32) -> torch.nn.Module:
    from latentdrift.models.classifier import Classifier, ClassScheme, build_network, save_classifier

    torch.manual_seed(0)
    inner = build_network(network, 3, channels=1, size=size)
    judge = Classifier(
        inner, ClassScheme("stage", ("A", "B", "C")), role="judge", size=size, gray=True, temperature=2.0
    )
    save_classifier(judge, folder, {"network": network})
    return judge


@pytest.mark.parametrize("network", ["small", "timm:resnet10t"])
def test_a_judge_gives_what_its_last_layer_sees(network: str, tmp_path: Path) -> None:
    judge = saved_judge(tmp_path / "judge", network)
    name = f"judge:{tmp_path / 'judge'}"
    extractor = load_extractor(name)
    pixels = images(48, 5)
    found = extractor(pixels, batch_size=2)
    assert found.shape == (5, extractor.dim)
    assert np.allclose(found, extractor(pixels), atol=1e-5)
    last = [layer for layer in judge.modules() if isinstance(layer, torch.nn.Linear)][-1]
    with torch.inference_mode():
        logits = judge(pixels / 127.5 - 1)
        assert torch.allclose(last(torch.from_numpy(found)) / 2.0, logits, atol=1e-5)
    assert extractor.name == name
    assert extractor_class(name).available()
    with pytest.raises(ConfigurationError, match="in its folder"):
        load_extractor(name, weights=tmp_path / "weights.pth")


def test_a_judge_without_a_linear_layer_is_refused(tmp_path: Path) -> None:
    saved_judge(tmp_path / "judge", "torchvision:squeezenet1_1", 64)
    with pytest.raises(ModelError, match="ends in no linear layer"):
        load_extractor(f"judge:{tmp_path / 'judge'}")


def test_a_network_of_maps_is_refused(timm_file: tuple[Path, torch.nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    kind = extractor_class(f"timm:{TINY}")
    monkeypatch.setattr(kind, "_features", lambda self, batch: batch.float())
    with pytest.raises(ModelError, match=r"gives \(3, 64, 64\) an image, no vector"):
        kind(weights=timm_file[0])


def test_families_evaluate_sets(tmp_path: Path) -> None:
    from latentdrift.evaluate import evaluate_sets

    saved_judge(tmp_path / "judge", "small")
    result = evaluate_sets(images(32, 8), images(32, 8).flip(3), f"judge:{tmp_path / 'judge'}", resamples=10)
    assert result.extractor == f"judge:{tmp_path / 'judge'}"
    assert result.feature_dim == 192
    assert np.isfinite(result.fid)
    assert extractors.resolve_extractor("default") in ("inception", "efficientnet-lite0")
