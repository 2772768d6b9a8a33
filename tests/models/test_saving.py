from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from latentdrift.drift import LatentDrift, load_drift
from latentdrift.errors import ModelError
from latentdrift.models import load_pipeline, pipeline_fingerprint, save_pipeline


@pytest.fixture
def pipeline(toy_model: Path) -> Any:
    return load_pipeline(toy_model)


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_saving_replaces_the_old_folder(pipeline: Any, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_pipeline(LatentDrift(0.1).attach(pipeline), folder)
    (folder / "leftover").touch()
    save_pipeline(LatentDrift(0.2).attach(pipeline), folder)
    assert load_drift(folder) == LatentDrift(0.2)
    assert not (folder / "leftover").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_weights_are_as_readable_as_the_rest(pipeline: Any, tmp_path: Path) -> None:
    folder = save_pipeline(pipeline, tmp_path / "model")
    modes = {path.stat().st_mode for path in folder.rglob("*") if path.is_file()}
    assert len(modes) == 1


def test_without_the_base_the_scheduler_is_saved_but_not_the_drift_in_it(pipeline: Any, tmp_path: Path) -> None:
    folder = save_pipeline(LatentDrift(0.1).attach(pipeline), tmp_path / "model", whole=False)
    assert tree(folder).keys() == {"latent_drift.json", "scheduler/scheduler_config.json"}
    assert b"drift" not in tree(folder)["scheduler/scheduler_config.json"]


@pytest.mark.parametrize("existing", [True, False])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RuntimeError("SafetensorError: I/O error")])
def test_a_full_disk_leaves_the_old_folder(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, existing: bool
) -> None:
    folder = tmp_path / "model"
    if existing:
        save_pipeline(pipeline, folder)
    before = tree(tmp_path)

    def fill(self: Any, place: Path, *args: Any, **kwargs: Any) -> None:
        (Path(place) / "half").write_bytes(b"half")
        raise error

    monkeypatch.setattr(type(pipeline.unet), "save_pretrained", fill)
    with pytest.raises(ModelError, match=r"model cannot be written: .*Free space or choose another place"):
        save_pipeline(pipeline, folder)
    assert tree(tmp_path) == before


def test_an_interruption_leaves_the_old_folder(pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_pipeline(pipeline, tmp_path / "model")
    before = tree(tmp_path)

    def interrupt(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(pipeline.unet), "save_pretrained", interrupt)
    with pytest.raises(KeyboardInterrupt):
        save_pipeline(pipeline, folder)
    assert tree(tmp_path) == before


def test_the_old_folder_comes_back_if_the_new_cannot_take_its_place(
    pipeline: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_pipeline(pipeline, tmp_path / "model")
    before, rename = tree(tmp_path), Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self.name.endswith(".partial") and Path(target) == folder:
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(ModelError, match="Permission denied"):
        save_pipeline(pipeline, folder)
    assert tree(tmp_path) == before


def test_the_fingerprint_is_that_of_the_weights() -> None:
    module = torch.nn.Linear(3, 2)
    first = pipeline_fingerprint(module)
    assert first == pipeline_fingerprint(module)
    assert len(first) == 16
    with torch.no_grad():
        module.weight[1, 2] += 1e-6
    assert pipeline_fingerprint(module) != first
