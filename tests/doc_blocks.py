"""Reads the blocks of code of README.md and docs/, and makes their commands small."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A block of code: where it is, its language, and its text."""

    page: str
    line: int
    language: str
    text: str

    @property
    def first(self) -> str:
        """The first line: a name that outlives edits above it."""
        return self.text.strip().splitlines()[0].strip()

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def pages() -> list[Path]:
    """Return README.md and all pages of docs/, without results that benchmarks wrote."""
    found = sorted((ROOT / "docs").rglob("*.md"))
    return [ROOT / "README.md", *(page for page in found if page.parent.name != "results")]


def blocks() -> list[Block]:
    """Return all blocks, in order."""
    found = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        name = page.relative_to(ROOT).as_posix()
        for match in FENCE.finditer(text):
            code = dedent(match[3])
            language = match[2] or ("bash" if code.startswith("latentdrift ") else "text")
            found.append(Block(name, text[: match.start()].count("\n") + 1, language, code))
    return found


def commands(block: Block) -> list[list[str]]:
    """Return the commands of a block as words, without comments."""
    lines = block.text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


MODEL = "MODEL"
"""Stands in for the base model: Stable Diffusion's architecture for 32 pixels, with `tiny`'s tokenizer."""

FINETUNE = {
    "--base": MODEL, "--steps": "2", "--batch-size": "4", "--sample-steps": "1", "--warmup-steps": "1",
    "--sample-columns": "1",
}  # fmt: skip
FIGURE = {"--steps": "2", "--count": "2", "--overwrite": None}
BENCHMARK = {
    "--base": MODEL, "--steps": "1", "--samples": "60", "--sampling-steps": "1", "--image-size": "32",
    "--batch-size": "2", "--seeds": "0", "--workers": "1", "--extractor": "efficientnet-lite0", "--subjects": "72",
}  # fmt: skip

SMALLER: Mapping[str, Mapping[str, str | None]] = {
    "finetune": {**FINETUNE, "--validation-images": "4", "--mixed-precision": "no"},
    "generate": {"--count": "60", "--steps": "2"},
    "counterfactual": {"--steps": "2"},
    "search": {"--steps": "2", "--evaluations": "5", "--take": "2", "--samples": "4"},
    "ladder": {"--steps": "2", "--count": "3", "--extractor": "none"},
    "classifier train": {"--size": "32", "--epochs": "1", "--network": "small"},
    "evaluate": {"--figures": "basic"},
    "utility": {"--size": "32", "--epochs": "1", "--validation": "0.3", "--network": "small"},
    "audit privacy": {"--extractor": "none", "--noises": "1", "--most": "4"},
    "simulate": {"--subjects": "96"},
    "prepare": {"--workers": "1"},
    "figure counterfactuals": FIGURE,
    "figure seeds": FIGURE,
    "figure latents": FIGURE,
    "figure methods": {"--steps": "2", "--samples": "2", "--overwrite": None},
    "benchmark table1": {**BENCHMARK, "--methods": "basic", "--utility-epochs": "1",
                         "--utility-network": "small", "--utility-share": "1"},
    "benchmark drift-rules": {**BENCHMARK, "--groups": "start", "--values": "0.1", "--search-samples": "4",
                              "--search-steps": "1", "--search-points": "3"},
    "benchmark aging": {**BENCHMARK, "--ages": "number"},
    "benchmark prompts": {**BENCHMARK, "--sets": "diverse+patient", "--drifts": "none"},
    "benchmark truth": {**BENCHMARK, "--editors": "prompt_swap", "--edit-steps": "1",
                        "--count": "2", "--judge-epochs": "1", "--judge-network": "small"},
}  # fmt: skip
"""Flags that make a command small enough for a test: set anew where the page sets them, added where it does not."""


def smaller(words: Sequence[str]) -> list[str]:
    """Return a `latentdrift` command as the full test runs it; names of models and amounts of work change."""
    made = list(words)
    key = next((name for name in (" ".join(made[1:3]), made[1]) if name in SMALLER), None)
    for flag, value in SMALLER[key].items() if key else ():
        if flag in made:
            start = made.index(flag)
            stop = next((i for i in range(start + 1, len(made)) if made[i].startswith("--")), len(made))
            del made[start:stop]
        made += [flag] if value is None else [flag, value]
    if made[1] == "counterfactual" and {"--take", "--split"} <= set(made):
        made[made.index("--take") + 1] = "1"  # of few held-out people
    return made
