from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from latentdrift.cli.__main__ import main
from latentdrift.cli.options import parse_options, peek_option
from latentdrift.errors import ConfigurationError


@dataclass(frozen=True)
class Inner:
    """Settings within."""

    learning_rate: float = 0.5
    """How fast."""
    balance: str | None = None
    """What is balanced."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """Some options."""

    data: Path
    """A folder."""
    words: tuple[str, ...] = ()
    """Any words."""
    drift: str = "auto"
    """A drift."""
    precision: Literal["no", "bf16"] = "bf16"
    """A format."""
    json: bool = False
    """As JSON."""
    inner: Inner = field(default_factory=Inner)


def parse(*arguments: str) -> Options:
    return parse_options(Options, arguments, "test", "What it does.")


@pytest.fixture
def write(tmp_path: Path):  # type: ignore[no-untyped-def]
    def write(text: str, name: str = "settings.yaml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


YAML = "data: slices\nwords: [a, b]\ndrift: -0.1,0.2\nprecision: no\njson: yes\nlearning-rate: 0.25\nbalance: null\n"
TOML = 'data = "slices"\nwords = ["a", "b"]\ndrift = "-0.1,0.2"\nprecision = "no"\njson = true\nlearning_rate = 0.25\n'


@pytest.mark.parametrize(("text", "name"), [(YAML, "settings.yaml"), (YAML, "settings.yml"), (TOML, "settings.toml")])
def test_a_file_gives_what_flags_give(write, text: str, name: str) -> None:  # type: ignore[no-untyped-def]
    flags = ["--data", "slices", "--words", "a", "b", "--drift=-0.1,0.2", "--precision", "no", "--json"]
    expected = Options(
        data=Path("slices"), words=("a", "b"), drift="-0.1,0.2", precision="no", json=True, inner=Inner(0.25)
    )
    assert parse(*flags, "--learning-rate", "0.25") == expected
    assert parse("--config", write(text, name)) == expected
    assert parse(f"--config={write(text, name)}") == expected


def test_flags_win_over_the_file(write) -> None:  # type: ignore[no-untyped-def]
    found = parse("--words", "c", "--no-json", "--config", write(YAML), "--learning-rate", "1", "--drift", "none")
    assert (found.words, found.json, found.inner.learning_rate, found.drift) == (("c",), False, 1.0, "none")
    assert found.data == Path("slices")
    assert found.precision == "no"


def test_the_file_wins_over_the_defaults(write) -> None:  # type: ignore[no-untyped-def]
    found = parse("--data", "other", "--config", write("words: one\ndrift: 0.07\n"))
    assert (found.words, found.drift, found.inner) == (("one",), "0.07", Inner())


@pytest.mark.parametrize(
    ("text", "name", "says"),
    [
        ("learning_rte: 1\n", "s.yaml", "Did you mean 'learning_rate'"),
        ("learning_rte = 1\n", "s.toml", "Did you mean 'learning_rate'"),
        ("data: [", "s.yaml", "is no YAML"),
        ("data = [", "s.toml", "is no TOML"),
        ("- data\n", "s.yaml", "holds no `name: value` lines"),
        ("", "s.yaml", "holds no `name: value` lines"),
        ("inner:\n  learning_rate: 1\n", "s.yaml", "setting in .* called 'inner'"),
        ("data: {a: 1}\n", "s.yaml", "data in .* is a table"),
    ],
)
def test_files_that_cannot_be(write, text: str, name: str, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigurationError, match=says):
        parse("--config", write(text, name))


def test_a_file_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"none\.yaml cannot be read: No such file"):
        parse("--config", str(tmp_path / "none.yaml"))
    with pytest.raises(ConfigurationError, match="--config needs a value"):
        parse("--config")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--data", "d", "--learning-rte", "1"], "--learning-rate"),
        (["--data", "d", "--learning-rate", "fast"], "--learning-rate"),
        (["--data", "d", "--precision", "fp8"], "bf16"),
        ([], "--data"),
    ],
)
def test_flags_that_cannot_be(arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse(*arguments)
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert says in captured.err + captured.out


def test_a_value_of_the_wrong_kind_in_a_file(write, capsys: pytest.CaptureFixture[str]) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit) as stop:
        parse("--config", write("data: d\nlearning_rate: fast\n"))
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert "--learning-rate" in captured.err + captured.out


def test_a_flag_is_read_before_the_others(write) -> None:  # type: ignore[no-untyped-def]
    file = write("drift: none\n")
    assert peek_option(["--data", "d"], "drift", "auto") == "auto"
    assert peek_option(["--drift", "0.1", "--config", file], "drift", "auto") == "0.1"
    assert peek_option(["--drift=0.1"], "drift", "auto") == "0.1"
    assert peek_option(["--config", file], "drift", "auto") == "none"


def test_help_is_one_paragraph_a_setting() -> None:
    from latentdrift.cli.counterfactual import CounterfactualOptions
    from latentdrift.cli.options import add_help

    add_help(CounterfactualOptions)
    told = {field.name: field.metadata["help"] for field in dataclasses.fields(CounterfactualOptions)}
    assert all(text and "\n" not in text and "  " not in text for text in told.values())
    assert "series. Without --source, the folder of a cohort" in told["image"]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Settings within, of what is drawn."""

    seeds: tuple[int, ...] = (0, 1)
    """Seeds of several trainings."""


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Options with seeds."""

    seed: int = 0
    """A seed."""
    search_seed: int | None = None
    """Another."""
    draws: Draws = field(default_factory=Draws)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--seed", "-1"), "--seed is -1; give a whole number from 0"),
        (("--search-seed=-7",), "--search-seed is -7"),
        (("--seeds", "3", "-2"), "--seeds is -2"),
        (("--seed", str(2**63)), f"--seed is {2**63}"),
    ],
)
def test_seeds_that_no_generator_takes_are_refused(words: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        parse_options(Seeded, words, "test", "What it does.")


def test_other_seeds_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--seed", str(2**63 - 1), "--seeds", "0", "5")
    options = parse_options(Seeded, words, "test", "What it does.")
    assert (options.seed, options.search_seed, options.draws.seeds) == (2**63 - 1, None, (0, 5))
    # From every command alike, before its work.
    assert main(["audit", "leakage", "--data", ".", "--split", "random", "--seed", "-1"]) == 2
    assert main(["reader-study", "analyse", "--study", ".", "--out", "x", "--seed", "-1"]) == 2
    assert main(["reader-study", "build", "--real", ".", "--synthetic", ".", "--out", "x", "--seed", "-1"]) == 2
    assert capsys.readouterr().err.count("--seed is -1") == 3
