from __future__ import annotations

from typing import Any

import pytest

from latentdrift.errors import ConfigurationError, UnknownNameError
from latentdrift.finetune import TrainingConfig
from latentdrift.finetune.memory import is_out_of_memory, out_of_memory_hint


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"steps": 0}, "steps is 0; it must be at least 1"),
        ({"batch_size": -1}, "batch_size is -1"),
        ({"warmup_steps": -1}, "warmup_steps is -1; it must be 0 or more"),
        ({"ema_decay": 1.0}, "ema_decay is 1.0; it must be at least 0 and below 1"),
        ({"drop_captions": float("nan")}, "drop_captions is nan"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"max_grad_norm": 0.0}, "max_grad_norm is 0.0"),
        ({"weight_decay": -1.0}, "weight_decay is -1.0"),
        ({"drift_learning_rate": 0.0}, "drift_learning_rate is 0.0; it must be above 0"),
        ({"augment": -1}, "augment is -1; it must be 0 or more"),
        ({"balance_strength": 1.5}, "balance_strength is 1.5; it must be from 0 to 1"),
    ],
)
def test_settings_that_cannot_be(setting: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        TrainingConfig(**setting)


@pytest.mark.parametrize(
    "setting", [{"lr_schedule": "cosin"}, {"mixed_precision": "fp8"}, {"optimizer": "adamw8"}, {"save": "adaptor"}]
)
def test_names_that_do_not_exist(setting: dict[str, Any]) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean"):
        TrainingConfig(**setting)


def test_what_belongs_to_the_method_may_be_left_open() -> None:
    config = TrainingConfig()
    assert config.learning_rate is None
    assert config.drop_captions is None
    assert TrainingConfig(learning_rate=1e-5, drop_captions=0.0).drop_captions == 0.0


def test_the_hint_names_what_needs_less() -> None:
    hint = out_of_memory_hint(TrainingConfig(batch_size=16, gradient_accumulation=2))
    assert "--batch-size 4 --gradient-accumulation 8 for the same result" in hint
    assert "--gradient-checkpointing" in hint
    spare = TrainingConfig(batch_size=1, gradient_checkpointing=True, mixed_precision="bf16", optimizer="adafactor")
    assert "smaller base model" in out_of_memory_hint(spare)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (RuntimeError("CUDA out of memory. Tried to allocate"), True),
        (MemoryError(), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_counts_as_out_of_memory(error: BaseException, expected: bool) -> None:
    assert is_out_of_memory(error) is expected
