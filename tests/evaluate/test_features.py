"""Extractors: the weights are mapped right, images of any form give the same features, absence is named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from latentdrift.errors import EvaluationError, ModelError, UnknownNameError
from latentdrift.evaluate.features import (
    FeatureExtractor,
    feature_extractor,
    inception,
    load_extractor,
    resolve_extractor,
    to_bytes,
)
from latentdrift.evaluate.features.efficientnet_lite0 import EfficientNetLite0
from latentdrift.evaluate.features.inception import Inception
from latentdrift.models.efficientnet_lite0 import _packaged_weights


@pytest.fixture(scope="module")
def lite() -> FeatureExtractor:
    return load_extractor("efficientnet-lite0")


def photographs(count: int, size: int = 64) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, size, size), generator=draw, dtype=torch.uint8)


@pytest.fixture
def no_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch hub, and a network that must not be asked."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path / "hub" / "checkpoints" / inception.FILE


def test_weights_recognise_a_cat(lite: FeatureExtractor) -> None:
    from skimage.data import chelsea

    picture = torch.from_numpy(chelsea()[:, 75:375]).permute(2, 0, 1)[None]
    with torch.inference_mode():
        probabilities = lite.logits(picture)[0].softmax(0)  # type: ignore[attr-defined]
    # ImageNet's domestic cats are the classes 281 to 285.
    assert float(probabilities[281:286].sum()) > 0.6


def test_weights_land_in_the_layer_of_their_name(lite: FeatureExtractor) -> None:
    """By order is how they are loaded; here the names are translated, which is independent of the order."""
    stored = torch.load(_packaged_weights(), weights_only=True)
    ours = lite.network.state_dict()
    blocks = list(dict.fromkeys(key[: match.end()] for key in ours if (match := re.match(r"blocks\.\d+\.\d+", key))))
    renamed = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    seen = set()
    for key, value in stored.items():
        if inside := re.match(r"_blocks\.(\d+)\.(_\w+)\.(\w+)", key):
            block, layer, kind = blocks[int(inside[1])], inside[2], inside[3]
            first = int(inside[1]) == 0
            layers = (
                {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
                if first
                else {"_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
                      "_project_conv": "conv_pwl", "_bn2": "bn3"}
            )  # fmt: skip
            name = f"{block}.{layers[layer]}.{kind}"
        else:
            layer, kind = key.rsplit(".", 1)
            name = f"{renamed[layer]}.{kind}"
        assert torch.equal(ours[name], value), (key, name)
        seen.add(name)
    assert seen == set(ours)
    assert {m.eps for m in lite.network.modules() if isinstance(m, torch.nn.BatchNorm2d)} == {1e-3}


def test_input_is_scaled_as_it_was_trained(lite: FeatureExtractor) -> None:
    seen = []
    hook = lite.network.conv_stem.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))  # type: ignore
    lite(torch.full((1, 3, 32, 32), 127, dtype=torch.uint8))
    lite(torch.full((1, 3, 32, 32), 255, dtype=torch.uint8))
    hook.remove()
    assert seen[0].shape == (1, 3, 224, 224)
    assert seen[0].abs().max() < 1e-6
    assert torch.allclose(seen[1], torch.ones(()), atol=1e-5)


def test_features_do_not_depend_on_batch_or_form(lite: FeatureExtractor) -> None:
    images = photographs(5)
    done: list[tuple[int, int]] = []
    found = lite(images, batch_size=2, progress=lambda now, total: done.append((now, total)))
    assert found.shape == (5, 1280)
    assert found.dtype == np.float32
    assert done == [(2, 5), (4, 5), (5, 5)]
    assert np.allclose(found, lite(images), atol=1e-4)
    assert np.allclose(found, lite(images.float() / 127.5 - 1), atol=1e-4)
    assert np.allclose(found, lite(images.numpy()), atol=1e-4)
    assert not np.allclose(found[0], found[1], atol=1e-2)


def test_one_channel_is_three_equal_ones(lite: FeatureExtractor) -> None:
    gray = photographs(2)[:, :1]
    assert np.array_equal(lite(gray), lite(gray.repeat(1, 3, 1, 1)))


def test_bytes_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16).repeat(1, 3, 1, 1)
    assert torch.equal(to_bytes(levels.float() / 127.5 - 1), levels)
    assert to_bytes(levels) is not None


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (torch.full((2, 3, 8, 8), float("nan")), "2 image.s. have NaN"),
        (torch.full((2, 3, 8, 8), 255.0), r"lie in \[255, 255\]"),
        (torch.zeros(3, 8, 8), r"shape \(3, 8, 8\)"),
        (torch.zeros(1, 4, 8, 8), r"shape \(1, 4, 8, 8\)"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.int64), "int64"),
    ],
)
def test_bad_images_are_named(images: torch.Tensor, says: str) -> None:
    with pytest.raises(EvaluationError, match=says):
        to_bytes(images)


def test_names() -> None:
    assert {"inception", "efficientnet-lite0"} <= set(feature_extractor.names())
    with pytest.raises(UnknownNameError, match="efficientnet-lite0"):
        load_extractor("efficientnet-lite")


def test_every_extractor_says_what_it_is() -> None:
    for name in feature_extractor.names():
        kind = feature_extractor.get(name)
        assert kind.name == name
        assert kind.dim > 0
        assert isinstance(kind.available(), bool)


def test_default_is_inception_only_where_its_weights_are(no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_extractor() == "efficientnet-lite0"
    no_hub.parent.mkdir(parents=True)
    no_hub.write_bytes(b"half a download")
    assert resolve_extractor() == "efficientnet-lite0"
    monkeypatch.setattr(Inception, "checksum", inception._checksum(no_hub)[:8])
    assert resolve_extractor() == "inception"


def test_missing_inception_names_the_file_and_the_remedy(no_hub: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=re.escape(str(no_hub))) as caught:
        load_extractor("inception")
    assert "HF_HUB_OFFLINE" in str(caught.value)
    assert "efficientnet-lite0" in str(caught.value)
    with pytest.raises(ModelError, match="There is no file"):
        load_extractor("inception", weights=tmp_path / "none.pth")


def test_no_network_is_named_and_leaves_nothing(no_hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE")
    asked = []

    def refuse(url: str, timeout: float) -> None:
        asked.append((url, timeout))
        raise OSError("no route to host")

    monkeypatch.setattr(inception.urllib.request, "urlopen", refuse)
    with pytest.raises(ModelError, match="no route to host"):
        load_extractor("inception")
    assert asked == [(inception.URL, inception.TIMEOUT)]
    assert not any(no_hub.parent.iterdir())


def test_damaged_inception_is_refused(no_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "source.pth"
    source.write_bytes(b"not the weights")
    with pytest.raises(ModelError, match="damaged or another file"):
        load_extractor("inception", weights=source)
    monkeypatch.setattr(inception, "URL", source.as_uri())
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(ModelError, match="arrived damaged"):
        load_extractor("inception")
    assert not any(no_hub.parent.iterdir())


def test_inception_runs_as_torch_fidelity_does(no_hub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With random weights in the file's place, downloaded through a file URL."""
    from torch_fidelity import feature_extractor_inceptionv3 as reference

    torch.manual_seed(0)
    monkeypatch.setattr(reference, "load_state_dict_from_url", lambda *_, **__: None)
    monkeypatch.setattr(reference.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
    network = reference.FeatureExtractorInceptionV3("inception", ["2048"])
    source = tmp_path / "source.pth"
    torch.save(network.state_dict(), source)
    monkeypatch.undo()
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setattr(inception, "URL", source.as_uri())
    monkeypatch.setattr(Inception, "checksum", inception._checksum(source))
    extractor = load_extractor("inception")
    assert no_hub.is_file()
    images = photographs(2, 32)
    found = extractor(images)
    assert found.shape == (2, 2048)
    with torch.inference_mode():
        assert np.allclose(found, network(images)[0].numpy(), atol=1e-5)


def test_lite0_refuses_other_weights(tmp_path: Path) -> None:
    other = tmp_path / "other.pth"
    torch.save({"weight": torch.zeros(2)}, other)
    with pytest.raises(ModelError, match="does not hold the layers"):
        EfficientNetLite0(weights=other)
    other.write_bytes(b"text")
    with pytest.raises(ModelError, match="cannot be read"):
        EfficientNetLite0(weights=other)
