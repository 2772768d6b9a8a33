"""The notebooks of the documentation run, from top to bottom, and draw what they show.

In `make test` with fewer steps and people, in `make docs-test` as they are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).parents[1] / "docs" / "notebooks").glob("*.ipynb"))
MOST_BYTES = 400_000
SMALLER = {
    "steps=12": "steps=2",
    "subjects=12": "subjects=6",
    "set_timesteps(12)": "set_timesteps(2)",
    "* 8, list(range(8))": "* 4, list(range(4))",
    "(-0.1, -0.05, 0.05, 0.1)": "(-0.1, 0.1)",
}


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A kernel for all notebooks, which import the libraries once."""
    from jupyter_client.manager import KernelManager

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("TMPDIR", str(tmp_path_factory.mktemp("notebooks")))
        manager = KernelManager()
        manager.start_kernel()
        yield manager
        manager.shutdown_kernel(now=True)


def run(path: Path, folder: Path, changes: Mapping[str, str], kernel: Any) -> Any:
    """Return the notebook as it is after all its cells were run in a folder, with parts of them changed."""
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        for before, after in changes.items():
            cell.source = cell.source.replace(before, after)
    # No name is left of the notebook before.
    start = nbformat.v4.new_code_cell(f"%reset -f\n%cd -q {folder}")
    notebook.cells.insert(0, start)
    NotebookClient(notebook, km=kernel, timeout=900).execute()
    assert notebook.cells.pop(0) is start
    return notebook


@pytest.mark.parametrize("changes", [SMALLER, pytest.param({}, marks=pytest.mark.slow)], ids=["small", "whole"])
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path: Path, changes: Mapping[str, str], tmp_path: Path, kernel: Any) -> None:
    notebook = run(path, tmp_path, changes, kernel)
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")


def test_there_are_notebooks_and_they_are_small() -> None:
    assert len(NOTEBOOKS) >= 3
    for path in NOTEBOOKS:
        assert path.stat().st_size < MOST_BYTES, path.name
        text = path.read_text(encoding="utf-8")
        assert os.environ.get("HOME", "/nowhere") + "/" not in text
        assert '"stderr"' not in text, path.name  # warnings name the folders of whoever ran it
