"""Values, moments, and the forms in which they are kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import latentdrift.drift
from latentdrift.drift import DriftMismatchWarning, LatentDrift, LatentMoments, check_drift, load_drift, save_drift
from latentdrift.errors import DriftError, UnknownNameError

MAP = np.linspace(-1, 1, 4 * 3 * 2).reshape(4, 3, 2)
MOMENTS = LatentMoments((0.1, -0.2, 0.3, 0.0), 12)
DRIFTS = [
    LatentDrift(0.07),
    LatentDrift([0.1, -0.2, 0.3, 0.1], "forward"),
    LatentDrift(MAP, "matched", "drifted"),
    LatentDrift(0.1, "paper", per_step="shared"),
    LatentDrift(MOMENTS),
    LatentDrift(LatentMoments(MAP, 3)),
]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "nan"),
        ([0.1, float("inf")], "inf at 1 of 2"),
        ([], "shape"),
        (np.zeros((2, 2)), r"shape \(2, 2\)"),
        ("high", "not a number"),
        ([[1.0], [1.0, 2.0]], "not a number"),
    ],
)
def test_values_that_cannot_be(value: object, message: str) -> None:
    with pytest.raises(DriftError, match=message):
        LatentDrift(value)  # type: ignore[arg-type]


def test_names_that_cannot_be() -> None:
    with pytest.raises(UnknownNameError, match="'forward'"):
        LatentDrift(0.1, "foward")
    with pytest.raises(UnknownNameError, match="'plain'"):
        LatentDrift(0.1, target="plan")
    with pytest.raises(UnknownNameError, match="'shared'"):
        LatentDrift(0.1, "paper", per_step="share")
    with pytest.raises(DriftError, match="'paper'"):
        LatentDrift(0.1, "start", per_step="shared")


def test_targets_by_default() -> None:
    targets = {rule: LatentDrift(0.1, rule).target for rule in ("start", "forward", "paper", "matched")}
    assert targets == {"start": "drifted", "forward": "drifted", "paper": "plain", "matched": "plain"}


@pytest.mark.parametrize("drift", DRIFTS, ids=str)
def test_a_drift_survives_json_and_the_disk(drift: LatentDrift, tmp_path: Path) -> None:
    assert LatentDrift.from_dict(json.loads(json.dumps(drift.to_dict()))) == drift
    assert save_drift(tmp_path / "model", drift).name == "latent_drift.json"
    assert load_drift(tmp_path / "model") == drift
    assert hash(load_drift(tmp_path / "model")) == hash(drift)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["latent_drift.json"]
    save_drift(tmp_path / "model", None)
    assert load_drift(tmp_path / "model") is None


def test_a_map_keeps_every_bit_and_is_not_the_caller_s_array() -> None:
    array = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("f4")
    drift = LatentDrift(array)
    kept = LatentDrift.from_dict(drift.to_dict()).value
    assert isinstance(kept, torch.Tensor)
    assert np.array_equal(kept.numpy(), array)
    array[:] = 0
    assert not drift.is_zero
    assert LatentDrift(array).is_zero
    assert LatentDrift((0.0, 0.0)).is_zero
    assert not LatentDrift(0.1).is_zero


def test_the_drift_is_found_in_the_scheduler_s_configuration(tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    DRIFTS[1].apply(DDIMScheduler()).save_pretrained(tmp_path / "scheduler")
    assert load_drift(tmp_path) == DRIFTS[1]


def test_damaged_files_are_named(tmp_path: Path) -> None:
    good = LatentDrift(MAP).to_dict()
    short = {**good, "value": {**good["value"], "data": good["value"]["data"][:8]}}
    for text in ("{", "[]", '{"format": 1}', json.dumps({**good, "format": 9}), json.dumps(short)):
        (tmp_path / "latent_drift.json").write_text(text)
        with pytest.raises(DriftError, match="latent_drift.json"):
            load_drift(tmp_path)


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_drift(tmp_path, DRIFTS[0])

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(DriftError, match="No space left"):
        save_drift(tmp_path, DRIFTS[1])
    assert load_drift(tmp_path) == DRIFTS[0]
    assert len(list(tmp_path.iterdir())) == 1


def test_moments_of_latents() -> None:
    latents = torch.randn(6, 4, 3, 2, generator=torch.Generator().manual_seed(0)) + 5
    expected = {"scalar": latents.mean(), "vector": latents.mean((0, 2, 3)), "map": latents.mean(0)}
    for kind, wanted in expected.items():
        for moments in (
            LatentMoments.from_latents(latents, kind),
            LatentMoments.accumulate(iter([latents[:1], latents[1:5], latents[5:]]), kind),
        ):
            assert moments.kind == kind
            assert moments.count == 6
            assert torch.allclose(torch.as_tensor(moments.mean).float(), wanted, atol=1e-6)
        assert LatentDrift.auto(latents, kind).kind == kind
    assert LatentDrift.auto(MOMENTS, rule="forward").value == MOMENTS


def test_moments_that_cannot_be() -> None:
    with pytest.raises(UnknownNameError, match="vector"):
        LatentMoments.from_latents(torch.zeros(1, 4, 2, 2), "vectr")
    with pytest.raises(DriftError, match="no latents"):
        LatentMoments.accumulate([])
    with pytest.raises(DriftError, match="N, C, h, w"):
        LatentMoments.from_latents(torch.zeros(4, 2, 2))
    with pytest.raises(DriftError, match="different shapes"):
        LatentMoments.accumulate([torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2, 3)])
    with pytest.raises(DriftError, match="nan"):
        LatentMoments.from_latents(torch.full((1, 4, 2, 2), float("nan")))
    with pytest.raises(DriftError, match="at least one"):
        LatentMoments(0.1, 0)


@pytest.mark.parametrize(
    ("trained", "used"),
    [
        (None, None),
        (None, LatentDrift(0.07)),
        (None, LatentDrift(0.0, "paper")),
        (LatentDrift(0.0), None),
        (LatentDrift(0.1, "forward"), None),
        (LatentDrift(0.1, "forward"), LatentDrift(0.1, "forward")),
        (LatentDrift(MOMENTS), LatentDrift(MOMENTS)),
    ],
)
def test_drifts_that_fit(trained: LatentDrift | None, used: LatentDrift | None) -> None:
    assert check_drift(trained, used) is None


@pytest.mark.parametrize(
    ("trained", "used", "says"),
    [
        (LatentDrift(0.1), None, "start lies -0.1 from"),
        (LatentDrift(0.1), LatentDrift(0.25), "start lies +0.15 from"),
        (LatentDrift(0.1, "forward"), LatentDrift(0.1), "start lies +0.1 from"),
        (LatentDrift(0.1, "forward", "plain"), None, "no drift"),
        (LatentDrift((0.1, 0.2)), LatentDrift(0.1), "+0, -0.1 from"),
        (LatentDrift(MOMENTS), LatentDrift(0.1), "automatic"),
        (LatentDrift(MOMENTS), None, "automatic"),
        (LatentDrift((0.1, 0.2)), LatentDrift((0.1, 0.2, 0.3)), "do not fit"),
        (None, LatentDrift(0.1, "matched"), "rule 'start'"),
        (None, LatentDrift(0.1, "forward"), "train the model under"),
        (LatentDrift(0.1, "paper"), LatentDrift(0.1, "paper", per_step="shared"), "'shared'"),
    ],
)
def test_drifts_that_do_not_fit(trained: LatentDrift | None, used: LatentDrift | None, says: str) -> None:
    message = check_drift(trained, used)
    assert message is not None
    assert says in message
    assert issubclass(DriftMismatchWarning, UserWarning)


def test_the_public_surface_is_what_all_says() -> None:
    assert sorted(latentdrift.drift._HOME) == sorted(latentdrift.drift.__all__) == sorted(dir(latentdrift.drift))
    for name in latentdrift.drift.__all__:
        assert getattr(latentdrift.drift, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'LatentDrif'"):
        latentdrift.drift.LatentDrif  # noqa: B018


def test_importing_the_package_does_not_import_torch() -> None:
    source = Path(latentdrift.drift.__file__).parents[2]
    code = f"import sys; sys.path.insert(0, {str(source)!r}); import latentdrift.drift; print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert told.stdout.strip() == "False"
