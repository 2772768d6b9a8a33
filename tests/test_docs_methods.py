"""The page on methods says what there is."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from latentdrift.finetune import finetune_method
from latentdrift.finetune.concepts import ConceptConfig
from latentdrift.finetune.prior import PriorConfig

PAGE = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", finetune_method.names())
def test_every_method_and_setting_is_on_the_page(name: str) -> None:
    row = next(line for line in PAGE.splitlines() if line.startswith(f"| `{name}` | ") and "`--" in line)
    config = finetune_method.get(name).config_class
    shared = [other for other in (ConceptConfig, PriorConfig) if issubclass(config, other)]
    for field in dataclasses.fields(config):
        flag = "--" + field.name.replace("_", "-")
        assert f"`{flag}`" in row or (len(shared) == 2 and f"`{flag}`" in PAGE), flag
