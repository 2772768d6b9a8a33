"""`latentdrift finetune --method M --drift D`, as a user would give it; what cannot be, said clearly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from latentdrift import load_pipeline
from latentdrift.data.simulate import simulate_cohort
from latentdrift.finetune import finetune_method
from tests.cli.test_commands import refused, run

SHORT = ("--steps", 2, "--batch-size", 4, "--sample-steps", 1, "--validate-every", 0, "--quiet")
DRIFTS = ("none", "auto", "learned", "learned-scalar", "0.1", "offset-noise", "zero-terminal-snr")


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve simulated subjects with their true counterfactuals: pairs, too."""
    folder = tmp_path_factory.mktemp("simulated") / "brains"
    simulate_cohort(folder, subjects=12, size=32)
    return folder


@pytest.mark.parametrize(
    "number",
    [pytest.param(number, marks=pytest.mark.slow if number in (3, 4, 5) else ()) for number in range(len(DRIFTS))],
)
def test_methods_and_drifts_by_command(
    number: int, toy_model: Path, simulated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = finetune_method.names()
    name, drift = names[number % len(names)], DRIFTS[number]
    own = ("--prior-images", 2) if name in ("dreambooth", "custom_diffusion") else ()
    arguments = (
        "--data",
        simulated,
        "--out",
        tmp_path / "run",
        "--base",
        toy_model,
        "--method",
        name,
        "--drift",
        drift,
    )
    status, out, err = run(capsys, "finetune", *arguments, "--template", "a {diagnosis} x", *own, *SHORT, "--json")
    assert status == 0, err
    facts = json.loads(out)
    drifted = drift not in ("none", "offset-noise", "zero-terminal-snr")
    assert (facts["drift"] != "none") == drifted
    pipeline = load_pipeline(tmp_path / "run")
    assert pipeline.latentdrift_card.method == name
    prediction = "v_prediction" if drift == "zero-terminal-snr" else "epsilon"
    assert pipeline.scheduler.config.prediction_type == prediction
    if drift.startswith("learned"):
        header, *rows = (tmp_path / "run" / "losses.csv").read_text().splitlines()
        numbers = 1 if drift.endswith("scalar") else 4
        assert header.count("drift_") == numbers
        assert len(rows) == 2


def test_what_cannot_be(toy_model: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def finetune(*more: object) -> str:
        out = tmp_path / f"run-{len(list(tmp_path.iterdir()))}"
        start = ("finetune", "--data", toy_cohort, "--base", toy_model, "--out", out, *SHORT)
        message = refused(capsys, *start, "--template", "a {stage} x", *more)
        assert not (out / "model").exists()
        return message

    # Settings are checked while the command line is read, whose messages come in a frame.
    start = ("finetune", "--data", toy_cohort, "--base", toy_model, "--out", tmp_path / "none")
    status, _, err = run(capsys, *start, "--method", "lora", "--rank", 0)
    assert status == 2
    assert "rank is 0; low-rank matrices have at least rank 1" in " ".join(err.replace("│", " ").split())
    assert "source_file" in finetune("--method", "instruct_pix2pix")
    assert "--save adapter is for methods" in finetune("--save", "adapter")
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "holds no image" in finetune("--method", "dreambooth", "--class-images", empty)
    assert "no layer" in finetune("--method", "lora", "--targets", "to_x").lower()
    assert "snr_gamma" in finetune("--snr-gamma", 5, "--drift", "zero-terminal-snr")
    message = refused(
        capsys, "finetune", "--data", toy_cohort, "--base", "nobody/no-such-model", "--out", tmp_path / "hub", *SHORT
    )
    assert "nobody/no-such-model" in message
    assert "network" in message

    # What a base has learned already cannot be learned again under the same name.
    first = tmp_path / "first"
    tune = ("finetune", "--data", toy_cohort, "--method", "textual_inversion", "--template", "a {stage} x", *SHORT)
    status, _, err = run(capsys, *tune, "--base", toy_model, "--out", first)
    assert status == 0, err
    message = refused(capsys, *tune, "--base", first, "--out", tmp_path / "second")
    assert "'<stage-mild-demented>' already" in message
    assert "--placeholder" in message
    shutil.rmtree(first)
