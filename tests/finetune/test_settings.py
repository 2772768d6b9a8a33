"""What holds for every fine-tuning method's settings, also for those of packages outside."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from latentdrift.cli.finetune import FinetuneOptions
from latentdrift.data import Cohort, Record
from latentdrift.errors import ConfigurationError, DataError, UnknownNameError
from latentdrift.finetune import FinetuneMethod, TrainingConfig, finetune_method
from latentdrift.finetune.methods.instruct_pix2pix import InstructPix2Pix, InstructPix2PixConfig

METHODS = finetune_method.names()
LIMITLESS = (float("nan"), float("inf"), -1.0)
BAD: dict[str, list[tuple[dict[str, Any], str]]] = {
    "basic": [({"snr_gamma": value}, "snr_gamma is") for value in LIMITLESS],
    "textual_inversion": [
        ({"vectors": 0}, "vectors is 0; a concept has at least 1"),
        ({"placeholder": "<concept>"}, "placeholder is '<concept>'; it needs {value}"),
        ({"placeholder": "<my {value}>"}, "and no spaces"),
    ],
    "dreambooth": [
        *(({"prior_weight": value}, "prior_weight is") for value in LIMITLESS),
        ({"prior_images": 0}, "prior_images is 0; generate at least 1, or give --prior-weight 0"),
        ({"snr_gamma": -5.0}, "snr_gamma is -5.0"),
    ],
    "custom_diffusion": [
        ({"prior_weight": -0.5}, "prior_weight is -0.5"),
        ({"prior_images": -1}, "prior_images is -1"),
        ({"vectors": -2}, "vectors is -2"),
        ({"placeholder": "{name}"}, "placeholder is"),
    ],
    "lora": [
        ({"rank": 0}, "rank is 0; low-rank matrices have at least rank 1"),
        *(({"alpha": value}, "alpha is") for value in LIMITLESS),
        *(({"dropout": value}, "dropout is") for value in (*LIMITLESS, 1.0)),
        ({"targets": ()}, "targets is empty"),
        ({"snr_gamma": float("nan")}, "snr_gamma is nan"),
    ],
    "instruct_pix2pix": [({"snr_gamma": value}, "snr_gamma is") for value in LIMITLESS],
}
"""By method, settings that cannot be, and what is said of them."""


def field_texts(settings: type[Any]) -> dict[str, str]:
    """Return the sentence under each field of a dataclass, which is its flag's help."""
    found: dict[str, str] = {}
    for part in reversed(settings.__mro__):
        if not dataclasses.is_dataclass(part):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(part))).body[0]
        assert isinstance(body, ast.ClassDef)
        for line, after in zip(body.body, body.body[1:], strict=False):
            if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name) and isinstance(after, ast.Expr):
                found[line.target.id] = ast.literal_eval(after.value)
    return found


def test_the_methods_that_the_package_brings() -> None:
    assert set(BAD) <= set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_has_help_and_a_default(name: str) -> None:
    method = finetune_method.get(name)
    settings = method.config_class
    assert (method.__doc__ or "").strip()
    assert (settings.__doc__ or "").startswith("Settings")
    texts = field_texts(settings)
    for field in dataclasses.fields(settings):
        assert len(texts.get(field.name, "").split()) >= 3, f"{name}: {field.name} has no sentence of help"
        assert texts[field.name].rstrip().endswith("."), f"{name}: {field.name}"
    assert method(settings()).config == settings()
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(settings(), (dataclasses.fields(settings) or dataclasses.fields(TrainingConfig))[0].name, None)


@pytest.mark.parametrize("name", METHODS)
def test_every_setting_is_a_flag_of_its_own_and_fits_into_the_record(name: str) -> None:
    settings = finetune_method.get(name).config_class
    own = {field.name for field in dataclasses.fields(settings)}
    shared = {field.name for kind in (TrainingConfig, FinetuneOptions) for field in dataclasses.fields(kind)}
    assert not own & shared
    kept = dataclasses.asdict(settings())
    # Tuples come back as lists; nothing else changes.
    assert json.loads(json.dumps(kept)) == {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}


@pytest.mark.parametrize(("name", "setting", "says"), [(name, *case) for name, cases in BAD.items() for case in cases])
def test_settings_that_cannot_be(name: str, setting: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        finetune_method.get(name).config_class(**setting)


@pytest.mark.parametrize("name", METHODS)
def test_an_adapter_is_saved_only_where_there_is_one(name: str) -> None:
    method_class = finetune_method.get(name)
    method, wish = method_class(method_class.config_class()), TrainingConfig(save="adapter")
    if method.has_adapter:
        assert method.settle(wish).save == "adapter"
        assert method_class.write_adapter is not FinetuneMethod.write_adapter
    else:
        with pytest.raises(ConfigurationError, match="--save adapter is for methods.*Use --save pipeline"):
            method.settle(wish)
        assert method.settle(TrainingConfig()).save == "pipeline"


@pytest.mark.parametrize("name", METHODS)
def test_the_user_s_values_come_before_the_method_s(name: str) -> None:
    method_class = finetune_method.get(name)
    method = method_class(method_class.config_class())
    settled = method.settle(TrainingConfig())
    assert settled.learning_rate == method.learning_rate > 0
    assert settled.drop_captions == method.drop_captions
    assert method.settle(settled) == settled
    given = TrainingConfig(learning_rate=3e-6, drop_captions=0.0)
    assert method.settle(given) == given


def test_three_ways_of_dropping_must_leave_something() -> None:
    method = InstructPix2Pix(InstructPix2PixConfig())
    assert method.settle(TrainingConfig(drop_captions=1 / 3)).drop_captions == 1 / 3
    with pytest.raises(ConfigurationError, match=r"drop_captions is 0.4; .* at most a third"):
        method.settle(TrainingConfig(drop_captions=0.4))


@pytest.mark.parametrize(
    ("setting", "error", "says"),
    [
        ({"pairs": "visit"}, UnknownNameError, "Did you mean 'visits'"),
        ({"modality": "xry"}, UnknownNameError, "Did you mean 'xray'"),
        ({"style": "comand"}, UnknownNameError, "Did you mean 'command'"),
        ({"age": "roman"}, ConfigurationError, "roman"),
        ({"min_years": -1.0}, ConfigurationError, r"The years between are -1.0"),
        ({"min_years": 3.0, "max_years": 2.0}, ConfigurationError, r"The years between are 3.0 to 2.0"),
        ({"pairs": "truth"}, DataError, "truth"),
    ],
)
def test_pairs_that_cannot_be(setting: dict[str, Any], error: type[Exception], says: str) -> None:
    visits = [Record(Path(f"{i}.png"), "s", str(i), {"age": 60 + i, "days": 365 * i}) for i in range(3)]
    cohort = Cohort(visits, Path(), "toy")
    assert len(InstructPix2Pix(InstructPix2PixConfig()).find(cohort)) == 3
    with pytest.raises(error, match=says):
        InstructPix2Pix(InstructPix2PixConfig(**setting)).find(cohort)
