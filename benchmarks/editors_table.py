"""The table of `benchmarks.editors_on_scans` as Markdown, from its JSON.

python -m benchmarks.editors_table docs/results/editors-brain.json
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HEADS = ("editor", "drift", "judged as wanted", "of those turned", "placebo", "changed", "SSIM", "identity", "seconds")


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
        true = any("truth" in row for _, row in rows)
        heads = [*HEADS, *(("error to the truth", "less than doing nothing by") if true else ())]
        text += [f"**{source} → {target}**, {rows[0][1]['images']} images", ""]
        text += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
        for cell, row in rows:
            found = [
                f"`{cell['editor']}`",
                cell["drift"],
                share(row.get(f"{judge}_validity")),
                share(row.get(f"{judge}_turned")),
                share(row.get(f"{judge}_placebo_flip_rate")),
                number(row.get("changed_l1")),
                number(row.get("ssim"), 2),
                share(row.get("identity")),
                f"{row['seconds_an_image']:.1f}",
            ]
            if true:
                truth = row["truth_of_composed"]
                low, high = truth["against_nothing"][1]
                found += [
                    f"{truth['edited'][0]:.2f} ({truth['edited'][1][0]:.2f} to {truth['edited'][1][1]:.2f})",
                    f"{-truth['against_nothing'][0]:.2f} ({-high:.2f} to {-low:.2f})",
                ]
            text.append("| " + " | ".join(found) + " |")
        text.append("")
    for role in ("guide", "judge"):
        told = facts.get(role, {}).get("test", {})
        if told:
            text.append(f"{role}: {json.dumps({key: told[key] for key in ('auc', 'accuracy') if key in told})}")
    return "\n".join(text)


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(tables(json.loads(Path(path).read_text())))
