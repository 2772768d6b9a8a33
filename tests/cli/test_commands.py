from __future__ import annotations

import errno
import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import latentdrift
from latentdrift.cli.__main__ import COMMANDS, main
from latentdrift.finetune import finetune_method

OURS = ["finetune", "generate", "counterfactual", "evaluate", "info"]


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Return the exit status of a command, and what it printed on both streams."""
    status = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Return the message of a command that must end with status 2."""
    status, out, err = run(capsys, *arguments)
    assert status == 2, out + err
    assert "Traceback" not in err
    assert err.startswith(f"latentdrift {arguments[0]}: ")
    return err


def test_help_answers_at_once() -> None:
    variables = {**os.environ, "PYTHONPATH": str(Path(latentdrift.__file__).parents[1])}
    command = [sys.executable, "-m", "latentdrift.cli", "--help"]
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run(command, env=variables, capture_output=True, text=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # The processor's time is the clock's on an idle machine, and tells the same on a busy one.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert all(name in done.stdout for name in COMMANDS)
    assert min(seconds) < 0.3


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_usage_lists_all_commands(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, *arguments)
    assert status == 0
    assert all(name in out and text in out for name, text in COMMANDS.items())


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version") == (0, latentdrift.__version__ + "\n", "")


def test_an_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Did you mean 'finetune' or" in refused(capsys, "fine-tune")


@pytest.mark.parametrize("command", OURS)
def test_help_mentions_every_flag(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from latentdrift.cli.options import leaves

    monkeypatch.setenv("COLUMNS", "200")
    module = importlib.import_module(f"latentdrift.cli.{command}")
    status, out, _ = run(capsys, command, "--help")
    assert status == 0
    options = next(value for name, value in vars(module).items() if name.endswith("Options"))
    names = list(leaves(options)) + (["snr_gamma"] if command == "finetune" else [])
    assert len(names) > 1
    for name in names:
        assert "--" + name.replace("_", "-") in out
    assert "--config FILE" in out
    for sentence in helps(options):
        assert sentence in " ".join(out.replace("│", " ").split())


def helps(options: type[Any]) -> list[str]:
    """The first words of the sentence below each field, as it stands in the source."""
    import ast
    import inspect
    import textwrap

    body = ast.parse(textwrap.dedent(inspect.getsource(options))).body[0].body  # type: ignore[attr-defined]
    fields = [node for node in body if isinstance(node, ast.AnnAssign) and "Config" not in ast.unparse(node.annotation)]
    texts = [ast.literal_eval(node.value) for node in body[1:] if isinstance(node, ast.Expr)]
    assert len(texts) == len(fields)
    return [" ".join(text.split()[:4]) for text in texts]


def test_the_whole_way(toy_model: Path, toy_cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = tmp_path / "settings.yaml"
    settings.write_text(
        f"data: {toy_cohort}\nbase: {toy_model}\ndrift: auto\nsteps: 99\nbatch_size: 8\nsample-steps: 2\n"
        'balance: stage\ntemplate: "a slice, {stage}, age {age}"\n'
    )
    out = tmp_path / "run"
    tune = ["finetune", "--config", settings, "--out", out, "--steps", 3, "--json"]
    status, text, err = run(capsys, *tune)
    assert status == 0, err
    facts = json.loads(text)
    assert facts["model"] == str(out / "model")
    assert "automatic map from 32 latents" in facts["drift"]
    assert json.loads((out / "run.json").read_text())["training"]["steps"] == 3
    assert "training, loss" in err

    images = tmp_path / "images"
    make = ["generate", "--model", out, "--out", images, "--count", 5, "--steps", 3, "--batch-size", 2, "--quiet"]
    status, text, err = run(capsys, *make, "--attributes", "age=71")
    assert (status, err) == (0, "")
    rows = [line.split(",") for line in (images / "metadata.csv").read_text().splitlines()]
    assert rows[0] == ["file_name", "stage", "age", "prompt", "seed"]
    assert [row[1] for row in rows[1:]] == ["MildDemented", "NonDemented"] * 2 + ["MildDemented"]
    assert {row[2] for row in rows[1:]} == {"71"}
    with Image.open(images / "000002.png") as image:
        assert (image.mode, image.size) == ("L", (32, 32))
        assert image.text["SyntheticData"] == "YES"  # type: ignore[attr-defined]
        assert image.text["prompt"] == "a slice, mild demented, age 71"  # type: ignore[attr-defined]
    assert json.loads((images / "generate.json").read_text())["settings"]["steps"] == 3
    again = tmp_path / "again"
    assert run(capsys, *make[:3], "--out", again, "--count", 1, "--seed", 3, "--steps", 3, "--attributes", "age=71",
               "stage=NonDemented")[0] == 0  # fmt: skip
    one, same = (np.asarray(Image.open(folder / "000003.png"), dtype=int) for folder in (images, again))
    assert np.abs(one - same).max() <= 1

    edits = tmp_path / "edits"
    pictures = [toy_cohort / "images" / "s00-0.png", toy_cohort / "images" / "s00-1.png"]
    wish = ["--source", "stage=MildDemented", "age=60", "--target", "stage=NonDemented"]
    edit = ["counterfactual", "--model", out, "--image", *pictures, *wish, "--steps", 4, "--out", edits]
    status, text, err = run(capsys, *edit)
    assert status == 0, err
    assert "dB" in text
    expected = {f"s00-{i}{part}.png" for i in (0, 1) for part in ("", "-source", "-difference")}
    assert {path.name for path in edits.iterdir()} == expected | {
        *("overview.png", "metadata.csv", "result.json", "manifest.json", "page.html"),
    }
    facts = json.loads((edits / "result.json").read_text())
    assert facts["captions"] == {"source": "a slice, mild demented, age 60", "target": "a slice, non demented, age 60"}
    assert [row["source_file"] for row in facts["images"]] == list(map(str, pictures))
    source, original = (np.asarray(Image.open(path)) for path in (edits / "s00-0-source.png", pictures[0]))
    assert np.array_equal(source, original)
    with Image.open(edits / "s00-0-source.png") as image:
        assert "SyntheticData" not in image.text  # type: ignore[attr-defined]

    report = tmp_path / "report.json"
    compare = ["evaluate", "--real", toy_cohort, "--synthetic", images, "--extractor", "efficientnet-lite0"]
    status, text, err = run(capsys, *compare, "--run", out, "--out", report)
    assert status == 0, err
    assert "background, synthetic" in text
    assert json.loads(report.read_text())["n_real"] == 4
    where = ["--where", "stage=MildDemented", "--json"]
    status, text, err = run(capsys, *compare, *where)
    assert json.loads(text)["n_real"] == 10
    assert json.loads(text)["n_synthetic"] == 3

    status, text, _ = run(capsys, "info", "--model", out)
    assert status == 0
    assert "attribute stage    MildDemented, NonDemented" in text
    assert "a slice, {stage}, age {age}" in text
    status, text, _ = run(capsys, "info", "--json")
    assert json.loads(text)["methods"].split(", ") == finetune_method.names()

    # The same command again is no second training, and other settings are refused.
    assert run(capsys, *tune)[0] == 0
    assert "training.steps: 3 there, 4 now" in refused(capsys, *tune, "--steps", 4)


def test_prompts_and_samplers(toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["generate", "--model", toy_model, "--prompt", "a", "b", "--count", 3, "--steps", 2, "--sampler", "euler"]
    status, _, err = run(capsys, *command, "--out", tmp_path / "images")
    assert status == 0, err
    lines = (tmp_path / "images" / "metadata.csv").read_text().splitlines()
    assert lines == ["file_name,prompt,seed", "000000.png,a,0", "000001.png,b,1", "000002.png,a,2"]
    with Image.open(tmp_path / "images" / "000000.png") as image:
        assert image.mode == "RGB"


def test_another_drift_than_the_models_is_told(
    toy_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "--model", toy_run, "--count", 1, "--steps", 2, "--out", tmp_path / "images"]
    status, out, _ = run(capsys, *command, "--drift", "none", "--json")
    assert status == 0
    assert "is sampled under no drift" in json.loads(out)["warnings"][0]
    assert json.loads(run(capsys, *command, "--json")[1])["warnings"] == []
    assert json.loads(run(capsys, *command, "--drift", toy_run, "--json")[1])["warnings"] == []


def test_columns_that_are_not_used_may_lack_values(
    toy_cohort: Path, toy_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = Path(shutil.copytree(toy_cohort, tmp_path / "slices"))
    lines = (folder / "metadata.csv").read_text().splitlines()
    (folder / "metadata.csv").write_text("\n".join([*lines[:-2], *(line[:-2] for line in lines[-2:])]) + "\n")
    quick = ["--base", toy_model, "--drift", "none", "--steps", 1, "--sample-steps", 1, "--batch-size", 8, "--quiet"]
    tune = ["finetune", "--data", folder, *quick]
    message = refused(capsys, *tune, "--out", tmp_path / "all")
    assert "2 missing values" in message
    for number, flags in enumerate(
        (["--template", "a slice, {stage}"], ["--columns", "stage"], ["--missing", "drop"], ["--missing", "keep"])
    ):
        status, _, err = run(capsys, *tune, "--out", tmp_path / str(number), *flags)
        assert status == 0, err
    templates = [json.loads((tmp_path / str(i) / "run.json").read_text())["template"] for i in range(4)]
    assert templates[1] == templates[3] == "a medical image, {stage}"
    assert templates[2] == "a medical image, {stage}, age {age}"
    images = [json.loads((tmp_path / str(i) / "run.json").read_text())["data"]["images"] for i in range(4)]
    assert images == [40, 40, 38, 40]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("finetune --data {none} --out {out}", "is not a folder"),
        ("finetune --data {empty} --out {out}", "holds no image"),
        ("finetune --data {data} --out {out} --method basik", "Did you mean 'basic'"),
        ("finetune --data {data} --out {out} --base {none}/model", "There is no model"),
        ("finetune --data {data} --out {out} --base {empty}", "holds no model"),
        ("finetune --data {data} --out {out} --base {model} --template {{stge}}", "Did you mean 'stage'"),
        ("finetune --data {data} --out {out} --base {model} --columns stge", "Did you mean 'stage'"),
        ("finetune --data {data} --out {out} --base {model} --label stge", "Did you mean 'stage'"),
        ("finetune --data {data} --out {out} --base {model} --balance stge", "Did you mean 'stage'"),
        ("finetune --data {data} --out {out} --base {model} --drift nan", "contains nan"),
        ("finetune --data {data} --out {out} --base {model} --drift 0.1,0.2", "4 were expected"),
        ("finetune --data {data} --out {out} --base {model} --drift much", "Give none, auto"),
        ("finetune --data {data} --out {model}", "is not empty and holds no run"),
        ("finetune --data {data} --out {out} --config {none}.yaml", "cannot be read"),
        ("generate --model {none} --out {out}", "There is no model"),
        ("generate --model {model} --out {out}", "give --prompt"),
        ("generate --model {run} --out {out} --attributes stage=Milddemented", "Did you mean 'MildDemented'"),
        ("generate --model {run} --out {out} --attributes stage", "write NAME=VALUE"),
        ("generate --model {run} --out {out} --attributes stage=MildDemented --prompt a", "not both"),
        ("generate --model {run} --out {out} --sampler eular", "Did you mean 'euler'"),
        ("generate --model {run} --out {out} --drift auto", "estimated from a cohort"),
        ("generate --model {run} --out {out} --drift 0.1,0.2", "4 were expected"),
        ("generate --model {run} --out {out} --count 0", "--count is 0"),
        ("generate --model {run} --out {out} --batch-size 0", "--batch-size is 0"),
        ("generate --model {run} --out {out} --steps 2000", "steps is 2000"),
        ("generate --model {run} --out {out} --device cuda:9", "cannot be used here"),
        ("counterfactual --model {run} --out {out} --image {none} {wish}",
         "does not exist"),
        ("counterfactual --model {run} --out {out} --image {empty} {wish}",
         "no image in"),
        ("counterfactual --model {run} --out {out} --image {bad} {wish}",
         "cannot be read as an image"),
        ("counterfactual --model {run} --out {out} --image {png} --source stge=x --target stage=MildDemented",
         "Did you mean 'stage'"),
        ("counterfactual --model {run} --out {out} --image {png} {wish} "
         "--strength 2", "strength is 2.0"),
        ("counterfactual --model {model} --out {out} --image {png} {wish}",
         "latentdrift finetune"),
        ("evaluate --real {none} --synthetic {data}", "is not a folder"),
        ("evaluate --real {data} --synthetic {data} --extractor incepton", "Did you mean 'inception'"),
        ("evaluate --real {data} --synthetic {data} --run {data}", "no run folder"),
        ("evaluate --real {data} --synthetic {data} --run {run} --part tset", "Did you mean 'test'"),
        ("evaluate --real {data} --synthetic {data} --where stge=MildDemented", "Did you mean 'stage'"),
        ("evaluate --real {data} --synthetic {data} --where stage", "write NAME=VALUE"),
        ("info --model {none}", "There is no model"),
        ("info --model {empty}", "holds no model"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_a_remedy(
    arguments: str,
    says: str,
    toy_model: Path,
    toy_cohort: Path,
    toy_run: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {name: tmp_path / name for name in ("none", "out", "empty", "bad.png")}
    places["empty"].mkdir()
    places["bad.png"].write_bytes(b"no image")
    picture = toy_cohort / "images" / "s01-0.png"
    names: dict[str, object] = {
        "data": toy_cohort,
        "model": toy_model,
        "run": toy_run,
        "png": picture,
        "bad": places["bad.png"],
    }
    names |= {name: places[name] for name in ("none", "out", "empty")}
    names["wish"] = "--source stage=NonDemented --target stage=MildDemented"
    assert says in refused(capsys, *arguments.format(**names).split())
    assert not places["out"].exists() or not any(places["out"].iterdir())


def test_machines_that_run_out(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from latentdrift.cli import info

    def stop(error: BaseException) -> Any:
        def fail(arguments: list[str]) -> int:
            raise error

        return fail

    for error, says in (
        (OSError(errno.ENOSPC, "No space left on device", "runs/x.png"), "runs/x.png cannot be written: No space left"),
        (MemoryError(), "Use a smaller --batch-size"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "Use a smaller --batch-size"),
    ):
        monkeypatch.setattr(info, "main", stop(error))
        assert says in refused(capsys, "info")
    monkeypatch.setattr(info, "main", stop(KeyboardInterrupt()))
    assert run(capsys, "info")[0] == 130
    for mistake in (RuntimeError("an error of ours"), FileNotFoundError(errno.ENOENT, "gone")):
        monkeypatch.setattr(info, "main", stop(mistake))
        with pytest.raises(type(mistake)):
            main(["info"])


def test_a_reader_that_goes_away_is_no_error() -> None:
    variables = {**os.environ, "PYTHONPATH": str(Path(latentdrift.__file__).parents[1])}
    code = (
        "import sys, latentdrift.cli.info as info; from latentdrift.cli.__main__ import main\n"
        "def fill(arguments):\n    while True: print('x' * 1000)\n"
        "info.main = fill\nsys.exit(main(['info']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.wait(timeout=60) == 0
    assert process.stderr.read() == b""
    process.stderr.close()
