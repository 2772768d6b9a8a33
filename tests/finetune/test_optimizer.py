from __future__ import annotations

import io
import sys
from typing import Any

import pytest
import torch

from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.finetune.optimizer import EIGHT_BIT, OPTIMIZERS, make_optimizer
from tests.finetune.conftest import Train, same
from tests.finetune.conftest import weights as saved_weights

SHAPES = ((96, 64), (16, 48, 3, 3), (5000,), (10,))
"""A matrix, a convolution, a long and a short vector: 8-bit state begins at 4096 numbers."""


@pytest.fixture(autouse=True)
def _no_paging_here(recwarn: pytest.WarningsRecorder) -> None:
    """On a processor bitsandbytes warns that nothing is paged."""


def usable(name: str) -> str:
    if name in EIGHT_BIT:
        pytest.importorskip("bitsandbytes")
    return name


@pytest.fixture(params=OPTIMIZERS)
def name(request: pytest.FixtureRequest) -> str:
    return usable(request.param)


def make_weights(seed: int = 0) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def step(optimizer: torch.optim.Optimizer, weights: list[torch.nn.Parameter], number: int) -> None:
    generator = torch.Generator().manual_seed(100 + number)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)
    optimizer.step()
    optimizer.zero_grad()


def rms(tensor: torch.Tensor) -> float:
    return tensor.detach().pow(2).mean().sqrt().item()


def test_adamw_is_that_of_torch() -> None:
    ours, theirs = make_weights(), make_weights()
    made = make_optimizer("adamw", [{"params": ours, "lr": 2e-4}], weight_decay=1e-2)
    reference = torch.optim.AdamW(theirs, lr=2e-4, weight_decay=1e-2, fused=True)
    for number in range(4):
        step(made, ours, number)
        step(reference, theirs, number)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    assert made.state_dict()["param_groups"] == reference.state_dict()["param_groups"]


@pytest.mark.parametrize("shape", [(96, 64), (16, 48, 3, 3), (500,)])
def test_adafactor_is_that_of_the_paper(shape: tuple[int, ...]) -> None:
    """Algorithms 4 and 5 of arXiv 1804.04235 with an external learning rate, written anew here."""
    weight = torch.nn.Parameter(torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    expected = weight.detach().double().clone()
    optimizer = make_optimizer("adafactor", [{"params": [weight], "lr": 1e-3}], weight_decay=0.1)
    rows = columns = whole = torch.zeros((), dtype=torch.float64)
    for t in range(1, 4):
        step(optimizer, [weight], t)
        gradient = torch.randn(shape, generator=torch.Generator().manual_seed(100 + t)).double()
        keep, square = 1 - t**-0.8, gradient**2 + 1e-30
        if len(shape) > 1:
            rows = keep * rows + (1 - keep) * square.mean(-1, keepdim=True)
            columns = keep * columns + (1 - keep) * square.mean(-2, keepdim=True)
            variance = rows * columns / rows.mean(-2, keepdim=True)
        else:
            variance = whole = keep * whole + (1 - keep) * square
        update = gradient / variance.sqrt()
        update /= max(1.0, rms(update))
        expected -= 1e-3 * update + 1e-3 * 0.1 * expected
    assert torch.allclose(weight.detach().double(), expected, atol=1e-6)


@pytest.mark.parametrize("rate", [1e-2, 1e-5])
@pytest.mark.parametrize("size", [0.01, 5.0])
def test_a_learning_rate_means_the_same_in_all(name: str, rate: float, size: float) -> None:
    """The first step is as long as the learning rate, whatever the size of the weights."""
    weights = [torch.nn.Parameter(size * weight.detach()) for weight in make_weights()]
    before = [weight.detach().clone() for weight in weights]
    step(make_optimizer(name, [{"params": weights, "lr": rate}], weight_decay=0.0), weights, 0)
    for weight, former in zip(weights, before, strict=True):
        assert rms(weight - former) == pytest.approx(rate, rel=0.05)


def test_the_schedule_counts(name: str) -> None:
    weights = make_weights()
    optimizer = make_optimizer(name, [{"params": weights, "lr": 1e-3}], weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: float(number < 2))
    for number in range(2):
        step(optimizer, weights, number)
        schedule.step()
    before = [weight.detach().clone() for weight in weights]
    step(optimizer, weights, 2)
    assert all(torch.equal(weight, former) for weight, former in zip(weights, before, strict=True))


def test_groups_have_their_own_rates_and_decays(name: str) -> None:
    """Without a gradient nothing but the decay moves a weight: by its own rate times its own decay."""
    weights = make_weights()
    before = [weight.detach().clone() for weight in weights]
    groups: list[dict[str, Any]] = [
        {"params": weights[:1], "lr": 1e-2},
        {"params": weights[1:2], "lr": 1e-1},
        {"params": weights[2:], "lr": 1e-2, "weight_decay": 0.0},
    ]
    optimizer = make_optimizer(name, groups, weight_decay=0.5)
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    for weight, former, factor in zip(weights, before, (0.995, 0.95, 1.0, 1.0), strict=True):
        assert torch.allclose(weight, factor * former, rtol=1e-6)
    assert [sorted(group) for group in groups] == [["lr", "params"]] * 2 + [["lr", "params", "weight_decay"]]


def test_the_state_survives_a_file(name: str) -> None:
    """Six steps, and three steps, a file, and three more, end bit for bit alike; also with groups and a schedule."""

    def build() -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        weights = make_weights()
        groups = [{"params": weights[:2], "lr": 1e-2}, {"params": weights[2:], "lr": 3e-3, "weight_decay": 0.0}]
        optimizer = make_optimizer(name, groups, weight_decay=1e-2)
        return weights, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda number: 1 / (1 + number))

    whole, optimizer, schedule = build()
    for number in range(6):
        if number == 3:
            file = io.BytesIO()
            kept = [weight.detach().clone() for weight in whole]
            torch.save({"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}, file)
            file.seek(0)
        step(optimizer, whole, number)
        schedule.step()
    resumed, optimizer, schedule = build()
    state = torch.load(file, weights_only=True)
    for weight, value in zip(resumed, kept, strict=True):
        weight.data.copy_(value)
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    for number in range(3, 6):
        step(optimizer, resumed, number)
        schedule.step()
    assert all(torch.equal(a, b) for a, b in zip(whole, resumed, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(whole, kept, strict=True))


@pytest.mark.parametrize(
    ("name", "kept"), [("adafactor", "exp_avg_sq_row"), ("adamw8bit", "__bnb_optimizer_quant_state__")]
)
def test_a_stopped_run_goes_on_with_its_state(name: str, kept: str, train: Train) -> None:
    """Through the trainer, its checkpoint, and accelerate, which wraps the optimizer."""

    class Stop(Exception):
        pass

    def stage(what: str, done: int, total: int) -> None:
        if what.startswith("training") and done == 2:
            raise Stop

    settings = {"optimizer": usable(name), "steps": 3, "checkpoint_every": 1, "validation_images": 0}
    whole = train("whole", **settings)
    with pytest.raises(Stop):
        train("stopped", stage=stage, **settings)
    checkpoint = whole.parent / "stopped" / "checkpoints" / "step-0000002.pt"
    assert any(kept in state for state in torch.load(checkpoint, weights_only=True)["optimizer"]["state"].values())
    resumed = train("stopped", **settings)
    assert same(saved_weights(whole / "model"), saved_weights(resumed / "model"))


@pytest.mark.parametrize(
    ("name", "matrix", "convolution"),
    [
        ("adamw", 8, 8),
        ("adamw8bit", 2 + 8 / 256, 2 + 8 / 256),  # and two scales a block of 256
        ("paged-adamw8bit", 2 + 8 / 256, 2 + 8 / 256),
        ("adafactor", 4 / 320 + 4 / 512, 8 / 3),
    ],
)
def test_the_state_is_as_small_as_said(name: str, matrix: float, convolution: float) -> None:
    """Bytes a weight."""
    weights = [torch.nn.Parameter(torch.randn(320, 512)), torch.nn.Parameter(torch.randn(64, 128, 3, 3))]
    optimizer = make_optimizer(usable(name), [{"params": weights, "lr": 1e-3}], weight_decay=0.0)
    step(optimizer, weights, 0)
    for weight, expected in zip(weights, (matrix, convolution), strict=True):
        # Tables of 256 numbers are one for all tensors.
        held = [value for value in optimizer.state[weight].values() if torch.is_tensor(value) and value.numel() != 256]
        size = sum(value.numel() * value.element_size() for value in held) / weight.numel()
        assert size == pytest.approx(expected, rel=0.01)


def test_missing_bitsandbytes_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    for name in EIGHT_BIT:
        with pytest.raises(ConfigurationError, match="pip install bitsandbytes`, or use --optimizer adafactor"):
            make_optimizer(name, [{"params": make_weights(), "lr": 1e-3}], weight_decay=0.0)


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_bitsandbytes_that_does_not_work_here_is_explained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")

    def fail(*args: Any) -> None:
        raise RuntimeError("Native code method attempted to call: no GPU\nand forty lines more")

    monkeypatch.setattr(getattr(bitsandbytes.optim, EIGHT_BIT[name]), "update_step", fail)
    with pytest.raises(ConfigurationError, match=r"does not work on cpu \(Native code .* no GPU\)\. Run `pip install"):
        make_optimizer(name, [{"params": make_weights(), "lr": 1e-3}], weight_decay=0.0)
    monkeypatch.setattr(getattr(bitsandbytes.optim, EIGHT_BIT[name]), "update_step", lambda *args: None)
    with pytest.raises(ConfigurationError, match="does not move the weights"):
        make_optimizer(name, [{"params": make_weights(), "lr": 1e-3}], weight_decay=0.0)


def test_settings_that_cannot_be() -> None:
    weights = make_weights()
    with pytest.raises(UnknownNameError, match="'adamw8bit'"):
        make_optimizer("adam8bit", [{"params": weights, "lr": 1e-3}], weight_decay=0.0)
    with pytest.raises(ConfigurationError, match="no learning rate"):
        make_optimizer("adamw", [{"params": weights[:1], "lr": 1e-3}, {"params": weights[1:]}], weight_decay=0.0)
