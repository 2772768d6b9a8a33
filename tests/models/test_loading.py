from __future__ import annotations

import dataclasses
import json
import shutil
import time
import warnings
from pathlib import Path

import pytest
import torch
from diffusers import EulerDiscreteScheduler
from safetensors.torch import save_file

from latentdrift.drift import DriftMismatchWarning, LatentDrift, drift_of, save_drift
from latentdrift.errors import ConfigurationError, DriftError, ModelError
from latentdrift.models import ModelCard, load_pipeline, loading, read_model_card, save_pipeline, write_model_card

CARD = ModelCard(
    base="toy", method="basic", steps=3, size=32, gray=True, template="a slice", attributes={"age": [1, 2]}
)


@pytest.fixture
def copy(toy_model: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(toy_model, tmp_path / "copy"))


@pytest.fixture(scope="module")
def drifted(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The toy saved under a drift, with a card."""
    pipeline = LatentDrift([0.1, -0.2, 0.3, 0.0]).attach(load_pipeline(toy_model))
    return save_pipeline(pipeline, tmp_path_factory.mktemp("drifted") / "model", CARD)


def test_a_folder_is_loaded_ready_to_use(toy_model: Path) -> None:
    pipeline = load_pipeline(toy_model)
    assert type(pipeline).__name__ == "StableDiffusionPipeline"
    assert pipeline.unet.dtype == torch.float32
    assert pipeline.latentdrift_card is None
    assert drift_of(pipeline) is None
    assert load_pipeline(toy_model, dtype=torch.bfloat16).unet.dtype == torch.bfloat16


def test_a_run_folder_stands_for_its_model(drifted: Path) -> None:
    assert load_pipeline(drifted.parent).latentdrift_card == CARD


def test_the_saved_drift_is_applied(drifted: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", DriftMismatchWarning)
        assert drift_of(load_pipeline(drifted)) == LatentDrift([0.1, -0.2, 0.3, 0.0])


def test_another_drift_is_applied_with_a_warning(drifted: Path) -> None:
    with pytest.warns(DriftMismatchWarning, match="is sampled under drift"):
        assert drift_of(load_pipeline(drifted, drift=LatentDrift(0.5))) == LatentDrift(0.5)


def test_no_drift_leaves_no_trace(drifted: Path, tmp_path: Path) -> None:
    with pytest.warns(DriftMismatchWarning):
        pipeline = load_pipeline(drifted, drift=None)
    assert drift_of(pipeline) is None
    # A drift left over in the scheduler's configuration would come back when the model is saved and loaded.
    again = load_pipeline(save_pipeline(pipeline, tmp_path / "again"))
    assert drift_of(again) is None


def test_vanilla_diffusers_loads_what_was_saved(drifted: Path, toy_model: Path) -> None:
    from diffusers import DDIMScheduler, DiffusionPipeline

    theirs, toy = DiffusionPipeline.from_pretrained(drifted), load_pipeline(toy_model)
    assert type(theirs.scheduler) is DDIMScheduler
    weights = toy.unet.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in theirs.unet.state_dict().items())
    made = [
        pipeline("a", num_inference_steps=4, generator=torch.Generator().manual_seed(0), output_type="pt").images
        for pipeline in (theirs, toy, load_pipeline(drifted))
    ]
    assert torch.equal(made[0], made[1])
    assert not torch.allclose(made[0], made[2], atol=1e-3)


def test_a_drift_in_a_hub_models_configuration_is_found(drifted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "model_folder", lambda name: None)
    assert drift_of(load_pipeline(drifted)) == LatentDrift([0.1, -0.2, 0.3, 0.0])
    with pytest.warns(DriftMismatchWarning):
        assert drift_of(load_pipeline(drifted, drift=None)) is None


def test_xl_is_loaded(toy_xl_model: Path) -> None:
    assert type(load_pipeline(toy_xl_model)).__name__ == "StableDiffusionXLPipeline"


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no model: there is no model_index\.json"):
        load_pipeline(tmp_path)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "missing/folder/of/mine", "tinny"])
@pytest.mark.parametrize("offline", [True, False])
def test_a_name_that_is_nothing_fails_soon(name: str, offline: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
    # A proxy that refuses connections: the test asks nobody, whatever network there is.
    for variable in ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    began = time.monotonic()
    with pytest.raises(ModelError, match=r"There is no model .*tiny, tiny-brain.*Check the spelling and the network"):
        load_pipeline(name)
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("text", ["", "{", "[]", '{"no_class": 1}'])
def test_a_damaged_index(copy: Path, text: str) -> None:
    (copy / "model_index.json").write_text(text)
    with pytest.raises(ModelError, match=r"model_index\.json is damaged .*again"):
        load_pipeline(copy)


@pytest.mark.parametrize("name", ["FluxPipeline", "StableDiffusionUpscalePipeline"])
def test_another_architecture(copy: Path, name: str) -> None:
    index = copy / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "_class_name": name}))
    with pytest.raises(ModelError, match=rf"is a {name}; .*StableDiffusionPipeline, StableDiffusionXLPipeline, "):
        load_pipeline(copy)


@pytest.mark.parametrize("cut", [0, 100, 20_000])
def test_weights_that_were_cut_short(copy: Path, cut: int) -> None:
    path = copy / "unet" / "diffusion_pytorch_model.safetensors"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_pipeline(copy)


def test_weights_that_are_missing(copy: Path) -> None:
    shutil.rmtree(copy / "vae")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_pipeline(copy)


def test_embedded_weights_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "WEIGHTS", tmp_path)
    with pytest.raises(ModelError, match="'tiny' did not come with this installation"):
        load_pipeline("tiny")


def test_a_damaged_drift(copy: Path) -> None:
    (copy / "latent_drift.json").write_text("{")
    with pytest.raises(DriftError, match=r"latent_drift\.json"):
        load_pipeline(copy)


@pytest.mark.parametrize("device", ["cuda:7", "gpu"])
def test_a_device_that_is_not_there(toy_model: Path, device: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"The device '{device}' cannot be used here.*Give cpu"):
        load_pipeline(toy_model, device=device)


def test_a_word_that_is_no_drift(toy_model: Path) -> None:
    with pytest.raises(ConfigurationError, match="'none'; give 'saved', None or a LatentDrift"):
        load_pipeline(toy_model, drift="none")


def test_loading_says_nothing(toy_model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_pipeline(toy_model)
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_a_card_is_read_as_it_was_written(tmp_path: Path) -> None:
    assert read_model_card(tmp_path) is None
    write_model_card(tmp_path, CARD)
    assert read_model_card(tmp_path) == CARD
    assert [path.name for path in tmp_path.iterdir()] == ["latentdrift.json"]


@pytest.mark.parametrize("text", ["{", "[]", '{"base": "toy"}', '{"colour": 1}'])
def test_a_damaged_card(tmp_path: Path, text: str) -> None:
    (tmp_path / "latentdrift.json").write_text(text)
    with pytest.raises(ModelError, match=r"latentdrift\.json is damaged"):
        read_model_card(tmp_path)


@pytest.fixture
def adapter(toy_model: Path, tmp_path: Path) -> Path:
    """A run folder whose model was saved as an adapter: tokens, the drift and a card, without the base."""
    model = tmp_path / "run" / "model"
    model.mkdir(parents=True)
    save_file(
        {"<a>": torch.randn(2, 16, generator=torch.Generator().manual_seed(0))}, model / "learned_embeds.safetensors"
    )
    save_drift(model, LatentDrift([0.1, -0.2, 0.3, 0.0]))
    write_model_card(model, dataclasses.replace(CARD, base=str(toy_model)))
    return model


def rebase(model: Path, base: str | Path) -> None:
    write_model_card(model, dataclasses.replace(CARD, base=str(base)))


@pytest.mark.parametrize("inside", [True, False])
def test_an_adapter_is_loaded_with_its_base_card_and_drift(adapter: Path, toy_model: Path, inside: bool) -> None:
    pipeline = load_pipeline(adapter if inside else adapter.parent)
    assert pipeline.latentdrift_card == dataclasses.replace(CARD, base=str(toy_model))
    assert drift_of(pipeline) == LatentDrift([0.1, -0.2, 0.3, 0.0])
    ids = pipeline.tokenizer.convert_tokens_to_ids(["<a>", "<a>_1"])
    weight = pipeline.text_encoder.get_input_embeddings().weight
    assert torch.equal(weight[ids], torch.randn(2, 16, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(weight[: ids[0]], load_pipeline(toy_model).text_encoder.get_input_embeddings().weight)
    half = load_pipeline(adapter, dtype=torch.bfloat16)
    assert half.text_encoder.dtype == half.unet.dtype == torch.bfloat16


def test_an_adapters_drift_can_be_replaced(adapter: Path) -> None:
    with pytest.warns(DriftMismatchWarning, match="is sampled under"):
        assert drift_of(load_pipeline(adapter, drift=None)) is None
    with pytest.warns(DriftMismatchWarning, match="is sampled under drift"):
        assert drift_of(load_pipeline(adapter, drift=LatentDrift(0.5))) == LatentDrift(0.5)


def test_the_drift_of_an_adapters_base_is_left_out(adapter: Path, drifted: Path) -> None:
    rebase(adapter, drifted)
    (adapter / "latent_drift.json").unlink()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drift_of(load_pipeline(adapter)) is None


def test_an_adapters_own_scheduler_is_put_on_the_base(adapter: Path) -> None:
    assert type(load_pipeline(adapter).scheduler).__name__ == "DDIMScheduler"
    EulerDiscreteScheduler(prediction_type="v_prediction").save_pretrained(adapter / "scheduler")
    pipeline = load_pipeline(adapter)
    assert isinstance(pipeline.scheduler, EulerDiscreteScheduler)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert drift_of(pipeline) == LatentDrift([0.1, -0.2, 0.3, 0.0])


@pytest.mark.parametrize("text", ["{", "[]", '{"_class_name": "UNet2DModel"}', '{"_class_name": "NoScheduler"}'])
def test_an_adapters_scheduler_that_is_damaged(adapter: Path, text: str) -> None:
    (adapter / "scheduler").mkdir()
    (adapter / "scheduler" / "scheduler_config.json").write_text(text)
    with pytest.raises(ModelError, match=r"scheduler_config\.json is damaged .*Save the adapter again"):
        load_pipeline(adapter)


def test_an_adapter_on_an_adapter(adapter: Path, tmp_path: Path) -> None:
    above = tmp_path / "above"
    above.mkdir()
    save_file({"<b>": torch.ones(1, 16)}, above / "learned_embeds.safetensors")
    rebase(above, adapter.parent)
    pipeline = load_pipeline(above)
    assert {"<a>", "<b>"} <= pipeline.tokenizer.get_vocab().keys()
    assert pipeline.latentdrift_card.base == str(adapter.parent)
    assert drift_of(pipeline) is None


def test_an_adapter_whose_base_is_gone(adapter: Path, tmp_path: Path) -> None:
    rebase(adapter, "moved/somewhere")
    with pytest.raises(
        ModelError, match=r"model is an adapter, and its base cannot be loaded\. There is no model"
    ) as no:
        load_pipeline(adapter)
    assert "'moved/somewhere'" in str(no.value)
    assert "correct 'base' in" in str(no.value)
    rebase(adapter, tmp_path)
    with pytest.raises(ModelError, match=r"its base cannot be loaded\. .* holds no model"):
        load_pipeline(adapter)


def test_an_adapter_that_is_its_own_base(adapter: Path) -> None:
    for base in (adapter, adapter.parent):
        rebase(adapter, base)
        with pytest.raises(ModelError, match="names the adapter itself as its base"):
            load_pipeline(adapter)


def test_an_adapter_that_does_not_fit_its_base(adapter: Path) -> None:
    rebase(adapter, "tiny")
    with pytest.raises(ModelError, match=r"'<a>' as \(2, 16\).*wide"):
        load_pipeline(adapter)


def test_an_adapter_without_a_card(adapter: Path) -> None:
    (adapter / "latentdrift.json").unlink()
    with pytest.raises(ModelError, match=r"holds an adapter alone.*Load its base and put it on with .*load_adapter"):
        load_pipeline(adapter)


def test_a_whole_model_with_an_adapters_files_is_loaded_as_it_is(adapter: Path, copy: Path) -> None:
    """A run leaves both; the pipeline has them merged in."""
    shutil.copy(adapter / "learned_embeds.safetensors", copy)
    assert "<a>" not in load_pipeline(copy).tokenizer.get_vocab()
