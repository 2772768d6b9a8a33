"""A run that is killed at a random moment and started again ends in the weights of one that was left alone."""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import time
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import load_drift
from latentdrift.finetune import finetune_model
from latentdrift.finetune.methods.lora import LoRAConfig
from tests.finetune.short_runs import METHODS, every_weight, run_arguments

STEPS, EVERY = 12, 2
PRELOADED = [
    "latentdrift.finetune.run",
    *(f"latentdrift.finetune.methods.{name}" for name in METHODS),
    "diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion",
    "transformers.models.clip.modeling_clip",
    "torch.utils.tensorboard",
    "peft",
]
"""So that a child is a fork of a process that has all this, and begins at once."""

RUNS: list[tuple[str, dict[str, Any]]] = [
    *((name, {"drift": "auto-vector"}) for name in METHODS),
    # Dropout draws from torch's own generator.
    ("lora", {"method_config": LoRAConfig(rank=4, dropout=0.5, train_text_encoder=True)}),
    ("basic", {"drift": "learned-vector"}),
]
NAMES = [*METHODS, "lora-dropout", "learned-drift"]
CASES = [pytest.param(*run, id=name) for name, run in zip(NAMES, RUNS, strict=True)]


@pytest.fixture(scope="module")
def processes() -> ForkServerContext:
    """Makes children of one thread each, so that sums have the same order in all of them."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "1")
        # The server takes the environment of now along.
        first = context.Process(target=time.sleep, args=(0,))
        first.start()
        first.join()
    assert first.exitcode == 0
    return context


def start(context: ForkServerContext, arguments: dict[str, Any]) -> BaseProcess:
    """Fine-tune in a child."""
    child = context.Process(target=finetune_model, kwargs=arguments, daemon=True)
    child.start()
    return child


def finish(child: BaseProcess) -> None:
    child.join(120)
    assert child.exitcode == 0


def checkpoints(run: Path) -> list[int]:
    """The steps of a run's checkpoints."""
    return [int(path.stem[5:]) for path in run.glob("checkpoints/step-*.pt")]


def kill(child: BaseProcess, run: Path, step: int, pause: float) -> bool:
    """Kill a child `pause` seconds after the checkpoint of `step` has appeared; return False if it was over by then."""
    while max(checkpoints(run), default=0) < step and child.is_alive():
        time.sleep(0.001)
    time.sleep(pause)
    child.kill()
    child.join()
    return child.exitcode == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize(("method", "settings"), CASES)
def test_a_killed_run_ends_as_if_nothing_had_been(
    method: str,
    settings: dict[str, Any],
    processes: ForkServerContext,
    toy_model: Path,
    toy_cohort: Path,
    tmp_path: Path,
) -> None:
    chance = random.Random(f"{method} {settings}")
    common = {"base": toy_model, "steps": STEPS, "checkpoint_every": EVERY, "validation_images": 0, **settings}
    whole = run_arguments(method, toy_cohort, tmp_path / "whole", cache=tmp_path / "cache", **common)
    # With a cache of its own: it may be killed while that is being made.
    killed = run_arguments(method, toy_cohort, tmp_path / "killed", cache=tmp_path / "other", **common)
    alone = start(processes, whole)
    assert kill(start(processes, killed), tmp_path / "killed", 0, chance.uniform(0, 0.15))
    for _ in range(5):
        if kill(start(processes, killed), tmp_path / "killed", chance.choice([2, 4, 6]), chance.uniform(0, 0.03)):
            break
        shutil.rmtree(tmp_path / "killed")  # on a busy machine this process may have been too late
    assert checkpoints(tmp_path / "killed")
    assert not (tmp_path / "killed" / "model").exists()
    finish(start(processes, killed))
    finish(alone)

    one, other = tmp_path / "whole", tmp_path / "killed"
    weights, resumed = every_weight(one / "model"), every_weight(other / "model")
    assert weights.keys() == resumed.keys()
    assert [name for name in weights if not torch.equal(weights[name], resumed[name])] == []
    assert (one / "losses.csv").read_text() == (other / "losses.csv").read_text()
    assert len((one / "losses.csv").read_text().splitlines()) == STEPS + 1
    assert load_drift(one / "model") == load_drift(other / "model")
    if settings.get("drift") == "learned-vector":
        drift = load_drift(one / "model")
        assert drift is not None
        assert all(drift.numbers)
