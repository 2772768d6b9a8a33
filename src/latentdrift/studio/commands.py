"""The forms of the pages Train, Search and Evaluate → words of the command line, every path inside the workspace."""

from __future__ import annotations

import math
import re
import shlex

from latentdrift.errors import ConfigurationError
from latentdrift.studio.shelf import NUMBERS
from latentdrift.studio.workspace import Workspace

DRIFTS = ("auto", "none", "auto-map", "auto-vector", "auto-scalar", "learned", "offset-noise", "zero-terminal-snr")
RULES = ("start", "forward", "paper", "matched")
METHODS = ("brent", "golden", "grid", "optuna")
PARTS = ("test", "validation", "train")

_ATTRIBUTE = re.compile(r"[^\s=-][^\s=]*=[^=]+")


def finetune_words(
    workspace: Workspace,
    *,
    data: str,
    out: str,
    base: str = "tiny",
    method: str = "basic",
    drift: str = "auto",
    rule: str = "start",
    template: str = "",
    balance: str = "",
    steps: float = 500,
    batch_size: float = 16,
    seed: float = 0,
) -> list[str]:
    """Return the words of a `latentdrift finetune`.

    Raises:
        ConfigurationError: a path outside the workspace, or a setting that cannot be.
    """
    from latentdrift.finetune import finetune_method

    finetune_method.get(method)
    if drift not in DRIFTS and not NUMBERS.fullmatch(drift.strip()):
        raise ConfigurationError(f"The drift {drift!r} is not understood: {', '.join(DRIFTS)}, or numbers.")
    if rule not in RULES:
        raise ConfigurationError(f"The rule {rule!r} is none of {', '.join(RULES)}.")
    words = ["finetune", "--data", _inside(workspace, data, "data folder"), "--out", _new(workspace, out)]
    words += ["--base", model_word(workspace, base), "--method", method, f"--drift={drift.strip()}", "--rule", rule]
    if template.strip():
        _check_template(template.strip())
        words.append(f"--template={template.strip()}")
    if balance.strip():
        words.append(f"--balance={balance.strip()}")
    return [*words, *_numbers(steps=steps, batch_size=batch_size), *_numbers(0, seed=seed)]


def search_words(
    workspace: Workspace,
    *,
    model: str,
    images: str,
    out: str,
    source: str = "",
    target: str = "",
    guide: str = "",
    judge: str = "",
    method: str = "brent",
    evaluations: float = 16,
    steps: float = 20,
    limit: float = 0,
) -> list[str]:
    """Return the words of a `latentdrift search` for δ.

    Raises:
        ConfigurationError: as of `finetune_words`.
    """
    if method not in METHODS:
        raise ConfigurationError(f"The method {method!r} is none of {', '.join(METHODS)}.")
    words = ["search", "--model", model_word(workspace, model), "--image", _inside(workspace, images, "image folder")]
    words += ["--out", _new(workspace, out), "--method", method]
    words += [*_attributes("--source", source), *_attributes("--target", target)]
    for flag, name in (("--guide", guide), ("--judge", judge)):
        if name.strip():
            words += [flag, _inside(workspace, name, flag[2:])]
    words += _numbers(steps=steps) + _numbers(evaluations=evaluations)
    return words + (_numbers(limit=limit) if limit else [])


def evaluate_words(
    workspace: Workspace, *, real: str, synthetic: str, out: str, run: str = "", part: str = "test", pairs: bool = False
) -> list[str]:
    """Return the words of a `latentdrift evaluate`.

    Raises:
        ConfigurationError: as of `finetune_words`.
    """
    words = ["evaluate", "--real", _inside(workspace, real, "folder of real images")]
    words += ["--synthetic", _inside(workspace, synthetic, "folder of synthetic images"), "--out", _new(workspace, out)]
    if run.strip():
        if part not in PARTS:
            raise ConfigurationError(f"The part {part!r} is none of {', '.join(PARTS)}.")
        words += ["--run", _inside(workspace, run, "run folder"), "--part", part]
    return [*words, *(["--pairs"] if pairs else [])]


def model_word(workspace: Workspace, name: str) -> str:
    """Return an embedded model's name, or a folder of the workspace."""
    from latentdrift.models import EMBEDDED

    return name if name in EMBEDDED else _inside(workspace, name, "model")


def _inside(workspace: Workspace, name: str, what: str) -> str:
    return f"./{workspace.name_of(workspace.existing(name, what))}"


def _new(workspace: Workspace, name: str) -> str:
    return f"./{workspace.name_of(workspace.new(name))}"


def _attributes(flag: str, text: str) -> list[str]:
    """Return a flag with NAME=VALUE words, nothing where there are none."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise ConfigurationError(f"A quotation mark is missing in {text!r}.") from None
    for word in words:
        if not _ATTRIBUTE.fullmatch(word):
            raise ConfigurationError(
                f"{word!r} is not understood; write NAME=VALUE, such as stage=MildDemented, and values of several "
                "words in quotation marks."
            )
    return [flag, *words] if words else []


def _numbers(least: int = 1, **named: float | str | None) -> list[str]:
    """Return flags with whole numbers; a field that was emptied holds None or no text."""
    words = []
    for name, value in named.items():
        if not isinstance(value, int | float) or not math.isfinite(value) or value != int(value) or value < least:
            told = "empty" if value in (None, "") else value
            raise ConfigurationError(f"{name.replace('_', ' ')} is {told}; give a whole number of {least} or more.")
        words += [f"--{name.replace('_', '-')}", str(int(value))]
    return words


def _check_template(text: str) -> None:
    """Refuse a template that is a file: it could be anybody's."""
    named = "{" in text and not text.lower().endswith((".yaml", ".yml", ".toml", ".txt"))
    if not named and not re.fullmatch(r"[a-z]+(:[a-z]+)?(\+[a-z]+)*", text):
        raise ConfigurationError(
            f'The template {text!r} names no attribute: write one such as "an MRI of a {{stage}} brain", or simple, '
            "diverse or diverse+patient."
        )
