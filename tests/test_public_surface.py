"""`latentdrift.__all__` against reality, and an import that costs nothing."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

import latentdrift

EXPECTED = {
    "Cohort",
    "EvaluationResult",
    "LatentDrift",
    "LatentDriftError",
    "LatentMoments",
    "PromptTemplate",
    "__version__",
    "edit_by_instruction",
    "evaluate_sets",
    "finetune_model",
    "generate_images",
    "invert_images",
    "load_adapter",
    "load_pipeline",
    "make_counterfactuals",
}


def run(code: str) -> str:
    source = str(Path(latentdrift.__file__).parents[1])
    variables = {**os.environ, "PYTHONPATH": source}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_is_what_is_promised() -> None:
    assert set(latentdrift.__all__) == EXPECTED
    assert list(latentdrift.__all__) == sorted(latentdrift.__all__)
    assert set(latentdrift.__all__) == {*latentdrift._HOMES, "__version__"}
    assert set(latentdrift.__all__) <= set(dir(latentdrift))


@pytest.mark.parametrize("name", sorted(EXPECTED - {"__version__"}))
def test_every_name_is_there_and_documented(name: str) -> None:
    value = getattr(latentdrift, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert value.__module__.startswith(f"latentdrift.{latentdrift._HOMES[name]}")
    assert inspect.getdoc(value)
    if inspect.isfunction(value):
        parameters = inspect.signature(value).parameters.values()
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)


@pytest.mark.parametrize("name", sorted(EXPECTED - {"__version__"}))
def test_no_name_hides_a_room(name: str) -> None:
    """A function named as its room would be replaced by the room as soon as that is imported."""
    assert not (Path(latentdrift.__file__).parent / name).exists()
    assert not (Path(latentdrift.__file__).parent / f"{name}.py").exists()


def test_unknown_names_are_no_attributes() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = latentdrift.nothing


@pytest.mark.parametrize("module", ["latentdrift", "latentdrift.cli.__main__"])
def test_import_is_light(module: str) -> None:
    loaded = run(f"import sys, {module}; print(*sorted(m for m in sys.modules if '.' not in m))").split()
    assert not {"torch", "diffusers", "transformers", "matplotlib", "pandas", "gradio", "nilearn"} & set(loaded)


def test_version_is_that_of_the_project() -> None:
    import tomllib

    project = Path(__file__).parents[1] / "pyproject.toml"
    assert latentdrift.__version__ == tomllib.loads(project.read_text())["project"]["version"]


def test_names_resolve_when_they_are_used() -> None:
    assert run("import latentdrift; print(latentdrift.LatentDriftError.__name__)").strip() == "LatentDriftError"
