"""Simulated cohorts as small as the model of these tests."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import pytest

from latentdrift.benchmark import data
from tests.conftest import SIZE


@pytest.fixture(autouse=True, scope="session")
def small_simulations() -> Iterator[None]:
    """Simulate at the toy model's size: rendering brains at 128 pixels takes most of a test's time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "simulate_cohort", functools.partial(data.simulate_cohort, size=SIZE))
        yield
