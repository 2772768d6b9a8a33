from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from latentdrift.drift import LatentDrift
from latentdrift.errors import ConfigurationError, OutOfMemoryError, TrainingError
from latentdrift.finetune.methods.basic import Basic, BasicConfig
from tests.finetune.conftest import same, weights

Train = Callable[..., Path]


class Stop(Exception):
    """What a test stops a training with."""


def losses(run: Path) -> list[float]:
    return [float(line.split(",")[1]) for line in (run / "losses.csv").read_text().splitlines()[1:]]


def stop_at(step: int) -> Callable[[str, int, int], None]:
    def stage(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done == step:
            raise Stop

    return stage


def test_the_loss_falls_and_only_the_unet_moves(train: Train, toy_model: Path) -> None:
    run = train(steps=60, batch_size=8, drop_captions=0.0)
    found = losses(run)
    assert len(found) == 60
    assert np.mean(found[-10:]) < 0.9 * np.mean(found[:5])
    before, after = weights(toy_model), weights(run / "model")
    assert all(not torch.equal(before[name], after[name]) for name in before)
    for part in ("vae", "text_encoder"):
        assert same(weights(toy_model, part), weights(run / "model", part))


@pytest.mark.slow  # test_what_moves.py has every method, by step
def test_a_drift_of_zero_changes_nothing(train: Train) -> None:
    plain = weights(train("plain") / "model")
    for rule in ("start", "forward"):
        assert same(plain, weights(train(rule, drift=LatentDrift(0.0, rule=rule)) / "model"))
    assert not same(plain, weights(train("drifted", drift=LatentDrift(0.2, rule="forward")) / "model"))
    # A start drift acts in sampling only.
    assert same(plain, weights(train("start-only", drift=LatentDrift(0.2)) / "model"))


def test_the_seed_decides(train: Train) -> None:
    first, again, other = (weights(train(name, seed=s) / "model") for name, s in (("a", 1), ("b", 1), ("c", 2)))
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("stopped", [pytest.param(1, marks=pytest.mark.slow), 4, 7])
def test_a_resumed_run_ends_as_if_it_had_not_been_stopped(train: Train, stopped: int) -> None:
    settings = {"steps": 8, "checkpoint_every": 3, "ema_decay": 0.9, "validate_every": 2, "gradient_accumulation": 2}
    whole = train("whole", **settings)
    with pytest.raises(Stop):
        train("stopped", stage=stop_at(stopped), **settings)
    kept = [path.name for path in (whole.parent / "stopped").glob("checkpoints/*")]
    assert kept == ([f"step-{stopped // 3 * 3:07d}.pt"] if stopped >= 3 else [])
    began: list[int] = []

    def stage(what: str, done: int, total: int) -> None:
        if what.startswith("training"):
            began.append(done)

    resumed = train("stopped", stage=stage, **settings)
    assert began[0] == stopped // 3 * 3 + 1
    assert same(weights(whole / "model"), weights(resumed / "model"))
    assert (whole / "losses.csv").read_text() == (resumed / "losses.csv").read_text()
    assert not (resumed / "checkpoints").exists()


def test_no_step_is_lost_when_the_model_cannot_be_saved(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    from diffusers import UNet2DConditionModel

    from latentdrift.errors import ModelError

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(UNet2DConditionModel, "save_pretrained", full)
    with pytest.raises(ModelError, match="No space left"):
        train()
    monkeypatch.undo()
    monkeypatch.setattr(Basic, "loss", full)  # no step is made again
    assert (train() / "model" / "model_index.json").exists()


def test_accumulated_batches_are_one_large_batch(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same 8 samples, noises and timesteps, at once or in 4 parts."""
    from latentdrift.finetune.sets import TrainingSet

    make, pieces = TrainingSet.batch, {}

    def fixed(self: TrainingSet, indices: torch.Tensor, *args: Any) -> Any:
        place = pieces["next"]
        pieces["next"] = (place + len(indices)) % 8
        parts = [make(self, torch.tensor([i]), torch.Generator().manual_seed(i), *args[1:]) for i in range(8)]
        part = parts[place : place + len(indices)]
        return type(part[0])(
            torch.cat([p.latents for p in part]),
            type(part[0].conditioning).stack([p.conditioning for p in part]),
            torch.cat([p.noise for p in part]),
            torch.cat([p.timesteps for p in part]),
        )

    monkeypatch.setattr(TrainingSet, "batch", fixed)
    found = []
    for name, size in (("large", 8), ("parts", 2)):
        pieces["next"] = 0
        settings = {"batch_size": size, "gradient_accumulation": 8 // size, "validation_images": 0}
        found.append(train(name, steps=3, drop_captions=0.0, **settings))
    assert losses(found[0]) == pytest.approx(losses(found[1]), rel=1e-4)
    large, parts = (weights(run / "model") for run in found)
    moved = max((large[name] - parts[name]).abs().max().item() for name in large)
    assert moved < 1e-4  # of 2e-3, what one step of Adam moves


def test_the_average_is_saved(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """EMA weights by their definition, from the weights after every step."""
    from latentdrift.finetune.trainer import Trainer

    step, seen = Trainer.one_step, []

    def watched(self: Trainer) -> float:
        loss = step(self)
        seen.append({name: value.detach().clone() for name, value in self.weights.items()})
        return loss

    monkeypatch.setattr(Trainer, "one_step", watched)
    run = train(steps=5, ema_decay=0.3, validate_every=1, sample_every=2)
    last = weights(train("last", steps=5, ema_decay=0.0) / "model")
    saved, name = weights(run / "model"), "conv_in.weight"
    after = [state[f"unet.{name}"] for state in seen[:5]]
    assert torch.equal(last[name], after[4])  # looking on did not disturb the training
    average = None
    for number, value in enumerate(after):
        decay = 0.0 if number == 0 else min(0.3, (1 + number) / (10 + number))
        average = value if average is None else decay * average + (1 - decay) * value
    assert average is not None
    assert torch.allclose(saved[name], average, atol=1e-6)
    assert not torch.equal(saved[name], last[name])


def test_out_of_memory_is_explained(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhaust(*args: Any) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr(Basic, "loss", exhaust)
    with pytest.raises(OutOfMemoryError, match=r"--batch-size 1 --gradient-accumulation 4 for the same result"):
        train()
    monkeypatch.undo()
    # With what the message says, the same folder will do: nothing was in it yet.
    assert (train(batch_size=1, gradient_accumulation=4) / "model").exists()


def test_another_error_stays_what_it_is(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*args: Any) -> None:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Basic, "loss", wrong)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        train()


def test_a_full_disk_keeps_the_former_checkpoint(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"steps": 6, "checkpoint_every": 2}
    whole = train("whole", **settings)
    save = torch.save

    def fill(state: dict[str, Any], path: Path) -> None:
        if state["step"] == 4:
            Path(path).write_bytes(b"half")
            raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")
        save(state, path)

    monkeypatch.setattr(torch, "save", fill)
    with pytest.raises(TrainingError, match=r"checkpoint of step 4 cannot be written .*one before is kept"):
        train("full", **settings)
    assert [path.name for path in (tmp_path / "full" / "checkpoints").iterdir()] == ["step-0000002.pt"]
    monkeypatch.undo()
    assert same(weights(whole / "model"), weights(train("full", **settings) / "model"))


def test_a_damaged_checkpoint_is_named(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(steps=4, checkpoint_every=2, stage=stop_at(3))
    (tmp_path / "run" / "checkpoints" / "step-0000002.pt").write_bytes(b"damaged")
    with pytest.raises(TrainingError, match=r"step-0000002\.pt cannot be read .*Delete it to start anew"):
        train(steps=4, checkpoint_every=2)


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_that_is_not_finite_stops_before_it_does_harm(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    loss, calls = Basic.loss, []

    def diverge(self: Basic, module: torch.nn.Module, *args: Any) -> torch.Tensor:
        calls.append(1)
        value = loss(self, module, *args)
        if len(calls) < 4:
            return value
        weight = next(module.parameters())
        # The square root of zero is finite, its gradient is not.
        return value * float("nan") if what == "loss" else value + (weight - weight.detach()).abs().sum().sqrt()

    monkeypatch.setattr(Basic, "loss", diverge)
    with pytest.raises(TrainingError, match=rf"The {what}.* is (nan|inf) at step 4. Lower --learning-rate"):
        train(steps=6, checkpoint_every=3)
    state = torch.load(tmp_path / "run" / "checkpoints" / "step-0000003.pt", weights_only=True)
    assert all(torch.isfinite(value).all() for value in state["weights"].values())


def test_another_precision_in_the_same_process(train: Train) -> None:
    """accelerate keeps one state a process, and refuses another precision."""
    plain = losses(train("plain"))
    half = losses(train("half", mixed_precision="bf16"))
    assert half == pytest.approx(plain, rel=0.05)
    assert half != plain
    saved = weights(train("half", mixed_precision="bf16") / "model")
    assert all(value.dtype == torch.float32 for value in saved.values())


def test_a_precision_the_device_has_not(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**settings: Any) -> None:
        raise ValueError("fp16 mixed precision requires a GPU (not 'cpu').")

    monkeypatch.setattr("latentdrift.finetune.precision.Accelerator", refuse)
    with pytest.raises(ConfigurationError, match="--mixed-precision fp16 cannot be used on cpu"):
        train(mixed_precision="fp16")


def test_recomputed_activations_give_the_same(train: Train) -> None:
    plain, less = losses(train("plain")), losses(train("less", gradient_checkpointing=True))
    assert less == pytest.approx(plain, rel=1e-5)


def test_min_snr_is_a_setting_of_the_method(train: Train) -> None:
    assert losses(train("plain")) != losses(train("weighted", method_config=BasicConfig(snr_gamma=5.0)))


def test_the_seed_decides_what_a_new_adapter_begins_with_and_drops(train: Train) -> None:
    """LoRA's matrices and its dropout draw from PyTorch's own generator, which the run must not leave to chance."""
    from latentdrift.finetune.methods.lora import LoRAConfig

    settings = {"method": "lora", "method_config": LoRAConfig(dropout=0.5), "validate_every": 2}
    found = []
    for name, noise in (("a", 1), ("b", 2)):
        torch.manual_seed(noise)
        found.append(train(name, seed=3, **settings))
    assert same(*(weights(run / "model") for run in found))
    assert (found[0] / "losses.csv").read_text() == (found[1] / "losses.csv").read_text()


def test_a_run_with_dropout_is_resumed_as_if_it_had_not_been_stopped(train: Train) -> None:
    from latentdrift.finetune.methods.lora import LoRAConfig

    settings = {"method": "lora", "method_config": LoRAConfig(dropout=0.5), "steps": 6, "checkpoint_every": 2}
    whole = train("whole", **settings)
    with pytest.raises(Stop):
        train("stopped", stage=stop_at(3), **settings)
    assert same(weights(whole / "model"), weights(train("stopped", **settings) / "model"))


def test_validation_drops_nothing(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same averaged weights give the same validation loss, with dropout or without."""
    from latentdrift.finetune.methods.lora import LoRAConfig
    from latentdrift.finetune.trainer import Trainer

    look, found = Trainer.validation_loss, []
    monkeypatch.setattr(Trainer, "validation_loss", lambda self: found.extend([look(self), look(self)]) or found[-1])
    train(method="lora", method_config=LoRAConfig(dropout=0.5), learning_rate=1e-2, drop_captions=0.0)
    assert found[0] == found[1]


def test_the_trainer_takes_the_method_s_own_values_where_none_are_given(train: Train) -> None:
    import json

    for given, rate, drop in (({}, 2e-4, 0.1), ({"learning_rate": 1e-3, "drop_captions": 0.0}, 1e-3, 0.0)):
        run = train(f"run-{rate}", steps=1, **{"learning_rate": None, "drop_captions": None, **given})
        kept = json.loads((run / "run.json").read_text())["training"]
        assert (kept["learning_rate"], kept["drop_captions"]) == (rate, drop)


def test_a_checkpoint_holds_the_trained_weights_by_name_and_the_drift(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(drift="learned", checkpoint_every=2, stage=stop_at(3))
    state = torch.load(tmp_path / "run" / "checkpoints" / "step-0000002.pt", weights_only=True)
    assert {"unet.conv_in.weight", "unet.conv_out.bias"} <= state["weights"].keys()
    assert all(name.startswith("unet.") for name in state["weights"])
    (drift,) = state["drift"].values()
    assert drift.shape == (4,)
    assert state["drifts"][-1] == pytest.approx(drift.tolist())
    with pytest.raises(Stop):
        train("lora", method="lora", checkpoint_every=2, stage=stop_at(3))
    state = torch.load(tmp_path / "lora" / "checkpoints" / "step-0000002.pt", weights_only=True)
    # A checkpoint of an adapter is as small as the adapter.
    assert all(".lora_" in name for name in state["weights"])
    assert state["drift"] is None
