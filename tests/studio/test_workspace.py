"""Nothing outside the workspace is named, whatever a field says; what is inside is found."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from latentdrift.errors import ConfigurationError
from latentdrift.studio import commands
from latentdrift.studio.page_ladder import told_of
from latentdrift.studio.run_list import list_runs, page_frame, runs_table
from latentdrift.studio.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    root = tmp_path / "work"
    (root / "runs" / "mine" / "model").mkdir(parents=True)
    (root / "runs" / "mine" / "run.json").write_text('{"drift": "0.07", "drift_used": null}')
    (root / "runs" / "mine" / "model" / "model_index.json").write_text("{}")
    (root / "data").mkdir()
    (root / "data" / "metadata.csv").write_text("file_name\n")
    (root / "judge").mkdir()
    (root / "judge" / "classifier.json").write_text("{}")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "model_index.json").write_text("{}")
    (root / "link").symlink_to(tmp_path / "secret")
    return Workspace.of(root)


def test_what_is_inside_is_found(workspace: Workspace) -> None:
    assert workspace.models() == ["runs/mine"]
    assert workspace.cohorts() == ["data"]
    assert workspace.classifiers() == ["judge"]
    assert workspace.existing("runs/../data") == workspace.root / "data"


@pytest.mark.parametrize(
    "name", ["..", "../secret", "runs/../../secret", "link", "link/model_index.json", "~/x/../../.."]
)
def test_paths_outside_are_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(ConfigurationError, match=r"outside|does not exist"):
        workspace.existing(name)


def test_absolute_paths_outside_are_refused(workspace: Workspace, tmp_path: Path) -> None:
    for path in (tmp_path / "secret", Path("/etc/passwd"), Path("/")):
        with pytest.raises(ConfigurationError, match="outside"):
            workspace.inside(str(path))


@pytest.mark.parametrize("name", ["", " ", "a\0b"])
def test_empty_names_are_refused(workspace: Workspace, name: str) -> None:
    with pytest.raises(ConfigurationError, match="empty"):
        workspace.inside(name)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000 + "b", "circle", "\ud800"])
def test_names_that_are_no_paths_are_refused(workspace: Workspace, name: str) -> None:
    (workspace.root / "circle").symlink_to(workspace.root / "circle")
    with pytest.raises(ConfigurationError, match=r"cannot be a path|does not exist") as caught:
        workspace.existing(name, "model")
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("name", [".", "-rf", "runs/--out", ".hidden/x", "../new"])
def test_outputs_have_plain_names_inside(workspace: Workspace, name: str) -> None:
    with pytest.raises(ConfigurationError):
        workspace.new(name)
    assert workspace.new("runs/new") == workspace.root / "runs" / "new"


def test_a_workspace_is_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is no folder"):
        Workspace.of(tmp_path / "nowhere")


def test_forms_become_words_of_the_command_line(workspace: Workspace) -> None:
    words = commands.finetune_words(
        workspace, data="data", out="runs/new", template="an MRI of a {stage} brain", drift="0.07", steps=20
    )
    assert words[:5] == ["finetune", "--data", "./data", "--out", "./runs/new"]
    assert "--drift=0.07" in words
    assert "--template=an MRI of a {stage} brain" in words
    assert words[words.index("--steps") + 1] == "20"
    words = commands.search_words(
        workspace, model="tiny-brain", images="data", out="s", target="stage=A age=70", judge="judge"
    )
    assert words[words.index("--target") + 1 : words.index("--target") + 3] == ["stage=A", "age=70"]
    assert words[words.index("--judge") + 1] == "./judge"
    words = commands.search_words(workspace, model="tiny", images="data", out="s", target='findings="No Finding" age=7')
    assert words[words.index("--target") + 1 : words.index("--target") + 3] == ["findings=No Finding", "age=7"]
    words = commands.evaluate_words(workspace, real="data", synthetic="data", out="e", run="runs/mine", pairs=True)
    assert words[-1] == "--pairs"


def test_words_are_taken_by_the_command_line_itself(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flags are those that the commands have: parsed, not run."""
    from latentdrift.cli.evaluate import EvaluateOptions
    from latentdrift.cli.options import parse_options
    from latentdrift.cli.search import SearchOptions

    search = commands.search_words(workspace, model="tiny-brain", images="data", out="s", target="stage=A", steps=5)
    found = parse_options(SearchOptions, search[1:], "search", "")
    assert (found.steps, found.target, found.out) == (5, ("stage=A",), Path("s"))
    evaluate = commands.evaluate_words(workspace, real="data", synthetic="data", out="e", run="runs/mine")
    assert parse_options(EvaluateOptions, evaluate[1:], "evaluate", "").part == "test"


@pytest.mark.parametrize(
    "wrong",
    [
        {"data": "../secret"},
        {"data": "link"},
        {"out": "../out"},
        {"base": "/etc"},
        {"drift": "../secret"},
        {"drift": "0.1 --out x"},
        {"template": "../secret.yaml"},
        {"template": "x/{a}.yaml"},
        {"method": "nothing"},
        {"rule": "--out"},
        {"steps": 0},
        {"steps": 1.5},
        {"steps": ""},
        {"steps": None},
        {"batch_size": float("nan")},
        {"batch_size": float("inf")},
        {"seed": ""},
        {"seed": -1},
    ],
)
def test_forms_that_reach_outside_or_cannot_be_are_refused(workspace: Workspace, wrong: dict[str, object]) -> None:
    given: dict[str, object] = {"data": "data", "out": "runs/new", **wrong}
    with pytest.raises(ConfigurationError):
        commands.finetune_words(workspace, **given)  # type: ignore[arg-type]


def test_attributes_are_no_flags(workspace: Workspace) -> None:
    with pytest.raises(ConfigurationError, match="NAME=VALUE"):
        commands.search_words(workspace, model="tiny-brain", images="data", out="s", target="--out=/etc")


def test_runs_are_listed_with_kind_drift_and_status(workspace: Workspace) -> None:
    (workspace.root / "edits").mkdir()
    (workspace.root / "edits" / "result.json").write_text('{"drift": {"wish": "saved", "used": "0.1 (start)"}}')
    (workspace.root / "edits" / "page.html").write_text('<p>"hello"</p><script>alert(1)</script>')
    runs = {run.name: run for run in list_runs(workspace)}
    assert runs["runs/mine"].kind == "finetune"
    assert runs["runs/mine"].drift == "0.07"
    assert runs["runs/mine"].status == "finished"
    assert runs["edits"].drift == "0.1 (start)"
    assert ["judge", "classifier", "–", "finished"] in runs_table(list(runs.values()))
    frame = page_frame(runs["edits"])
    assert "sandbox" in frame
    assert "<script>" not in frame
    assert "no page" in page_frame(runs["judge"])


def test_links_out_of_the_workspace_are_no_part_of_a_run(workspace: Workspace, tmp_path: Path) -> None:
    """Whoever may write into a run could have the studio read any file of its owner's."""
    secret, run = tmp_path / "secret", workspace.root / "runs" / "mine"
    for name in ("page.html", "secret.png"):
        (secret / name).write_text("secret")
    (secret / "latent_drift.json").write_text("secret")  # would be told as damaged
    (secret / "result.json").write_text('{"drift": "secret"}')
    (run / "page.html").symlink_to(secret / "page.html")
    (run / "secret.png").symlink_to(secret / "secret.png")
    (run / "samples").symlink_to(secret)
    (run / "circle.png").symlink_to(run / "circle.png")
    (run / "own.png").touch()
    (run / "linked.png").symlink_to(run / "own.png")
    (workspace.root / "edits").mkdir()
    (workspace.root / "edits" / "result.json").symlink_to(secret / "result.json")
    runs = {one.name: one for one in list_runs(workspace)}
    assert "edits" not in runs
    assert "no page" in page_frame(runs["runs/mine"])
    assert [path.name for path in runs["runs/mine"].pictures()] == ["linked.png", "own.png"]
    shutil.rmtree(run / "model")
    (run / "model").symlink_to(secret)
    (run / "run.json").write_text("{}")
    assert {one.name: one for one in list_runs(workspace)}["runs/mine"].drift == "none"


def test_names_are_text_in_pages(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workspace.root / "<img src=x onerror=alert(1)>"
    folder.mkdir()
    (folder / "result.json").write_text("{}")
    (folder / "page.html").write_text("hello")
    monkeypatch.setattr("latentdrift.studio.run_list.LARGEST", 1)
    (run,) = [one for one in list_runs(workspace) if "img" in one.name]
    said = page_frame(run)
    assert "too large" in said
    assert "<img" not in said
    assert "<img" not in told_of(3, run.name)
