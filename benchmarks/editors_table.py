"""The table of `benchmarks.editors_on_scans` as Markdown, from its JSON.

python -m benchmarks.editors_table docs/results/editors-brain.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

HEADS = (
    "editor",
    "drift",
    "judged as wanted",
    "of the others",
    "changed",
    "SSIM",
    "identity",
    "with its blur",
    "blur alone",
)
"""The first are of sources plus effect (of `instruct_pix2pix`: of what it made); the last two, of images as they come
out and of their reconstructions, are shares judged as wanted, again."""
TRUE_HEADS = ("error to the truth", "doing nothing", "average change")
"""Where the truth is known; mean absolute, in levels of 0 to 255."""


def share(figure: Mapping[str, Any] | None) -> str:
    """Return a share and its interval in percent."""
    if not figure or figure["value"] is None:
        return "-"
    text = f"{100 * figure['value']:.0f}"
    return text if figure["low"] is None else f"{text} ({100 * figure['low']:.0f} to {100 * figure['high']:.0f})"


def number(figure: Mapping[str, Any] | None, digits: int = 1) -> str:
    """Return a mean and its interval."""
    if not figure or figure["value"] is None:
        return "-"
    text = f"{figure['value']:.{digits}f}"
    if figure.get("low") is None:
        return text
    return f"{text} ({figure['low']:.{digits}f} to {figure['high']:.{digits}f})"


def before(rows: Sequence[tuple[Any, Mapping[str, Any]]], judge: str) -> str:
    """Return what the judge says of the sources themselves: the placebo of the composed edits."""
    told = next((row["composed"] for _, row in rows if "composed" in row), {}).get(f"{judge}_placebo_flip_rate")
    return f"{share(told)} % of the sources are judged so already"


def tables(facts: Mapping[str, Any]) -> str:
    """Return one table a direction."""
    name = facts["settings"]["attribute"]
    order = list(facts["editors"])
    cells = sorted(facts["cells"], key=lambda cell: (order.index(cell["editor"]), cell["drift"] != "none"))
    judge = f"judge_{name}"
    directions = list(dict.fromkeys((row["source"], row["target"]) for cell in cells for row in cell["rows"]))
    text = []
    for source, target in directions:
        rows = [
            (cell, row) for cell in cells for row in cell["rows"] if (row["source"], row["target"]) == (source, target)
        ]
        true = any("truth" in row["as_made"] for _, row in rows)
        heads = [*HEADS, *(TRUE_HEADS if true else ())]
        text += [f"**{source} → {target}**, {rows[0][1]['images']} images; {before(rows, judge)}", ""]
        text += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for cell, row in rows:
            made, best = row["as_made"], row.get("composed", row["as_made"])
            found = [
                f"`{cell['editor']}`",
                cell["drift"],
                share(best.get(f"{judge}_validity")),
                share(best.get(f"{judge}_turned")),
                number(best.get("changed_l1")),
                number(best.get("ssim"), 2),
                share(best.get("identity")),
                share(made.get(f"{judge}_validity")),
                share(made.get(f"{judge}_placebo_flip_rate")),
            ]
            if true:
                found += [number(best["truth"][key], 2) for key in ("edited", "nothing", "average")]
            text.append("| " + " | ".join(found) + " |")
        text.append("")
    for role in [key for key in facts if key.startswith(("guide", "judge"))]:
        told = facts[role].get("test", {})
        if told:
            text.append(f"{role}: {json.dumps({key: told[key] for key in ('auc', 'accuracy') if key in told})}")
    return "\n".join(text)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(tables(json.loads(Path(path).read_text())))
