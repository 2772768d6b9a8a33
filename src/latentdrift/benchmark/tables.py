"""A benchmark's table as Markdown, LaTeX and CSV, the paper's figures beside ours."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from latentdrift.benchmark.data import BenchmarkData
from latentdrift.benchmark.plan import Benchmark, Column, Row
from latentdrift.benchmark.summary import Mean, RowSummary

NOTHING = "–"
ON_OTHER_FEATURES = {"FID": "Fréchet distance", "KID × 1000": "kernel distance × 1000"}


def shown_columns(plan: Benchmark, rows: Sequence[RowSummary]) -> list[Column]:
    """Return the columns that any row has a figure for."""
    return [column for column in plan.columns if any(column.figure in row.figures for row in rows)]


def entry(mean: Mean | None, column: Column, dash: str = " to ") -> str:
    """Return a figure with its interval, as "49.7 (45.1 to 54.0)"."""
    if mean is None:
        return NOTHING
    text = f"{mean.value * column.scale:.{column.digits}f}"
    if mean.low is None or mean.high is None:
        return text
    ends = dash.join(f"{end * column.scale:.{column.digits}f}" for end in (mean.low, mean.high))
    return f"{text} ({ends})"


def difference_entry(row: RowSummary, column: Column) -> str:
    """Return a figure minus the control's, one a seed, as "-4.1, -3.2"; the same seeds start from the same noise."""
    found = row.differences.get(column.figure)
    if found is None:
        return NOTHING
    return ", ".join(f"{value * column.scale:+.{column.digits}f}" for value in found.by_seed)


def published_entry(published: Sequence[tuple[Row, dict[str, float]]], row: Row, column: Column) -> str:
    """Return the paper's figure."""
    for known, figures in published:
        if known == row and column.name in figures:
            return f"{figures[column.name]:.{column.digits}f}"
    return NOTHING


def heading(column: Column, extractor: str) -> str:
    """Return what a column is called; the published names are those of Inception's features alone."""
    return column.name if extractor == "inception" else ON_OTHER_FEATURES.get(column.name, column.name)


def table_rows(
    plan: Benchmark, data: BenchmarkData, rows: Sequence[RowSummary], extractor: str
) -> list[dict[str, str]]:
    """Return the table as text: what a row is called, figures, differences to the control, and the paper's."""
    columns, published = shown_columns(plan, rows), plan.published(data)
    heads = list(dict.fromkeys(head for row in rows for head in row.row))
    compared = [c for c in columns if c.better and any(c.figure in row.differences for row in rows)]
    told = [c for c in columns if any(published_entry(published, row.row, c) != NOTHING for row in rows)]
    found = []
    for row in rows:
        line = {head: row.row.get(head, "") for head in heads}
        for column in columns:
            line[named(column, extractor)] = entry(row.figures.get(column.figure), column)
        for column in compared[:2]:
            line[f"{heading(column, extractor)}, minus control"] = difference_entry(row, column)
        line |= {f"{column.name}, paper": published_entry(published, row.row, column) for column in told}
        found.append(line)
    return found


def named(column: Column, extractor: str) -> str:
    """Return a heading that says which way is better."""
    return heading(column, extractor) + {"lower": " ↓", "higher": " ↑", None: ""}[column.better]


def markdown(plan: Benchmark, data: BenchmarkData, rows: Sequence[RowSummary], extractor: str) -> str:
    """Return the table as Markdown."""
    lines = table_rows(plan, data, rows, extractor)
    if not lines:
        return "No cell has been measured yet.\n"
    heads = list(lines[0])
    text = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    text += ["| " + " | ".join(cell.replace("|", "\\|") for cell in line.values()) + " |" for line in lines]
    return "\n".join(text) + "\n"


def latex(plan: Benchmark, data: BenchmarkData, rows: Sequence[RowSummary], extractor: str) -> str:
    """Return the table as LaTeX, for the package booktabs."""
    lines = table_rows(plan, data, rows, extractor)
    if not lines:
        return "% No cell has been measured yet.\n"
    heads = list(lines[0])
    text = [
        "% needs \\usepackage{booktabs}",
        f"\\begin{{tabular}}{{{'l' * len(heads)}}}",
        "\\toprule",
        " & ".join(escaped(head) for head in heads) + r" \\",
        "\\midrule",
        *(" & ".join(escaped(cell) for cell in line.values()) + r" \\" for line in lines),
        "\\bottomrule",
        "\\end{tabular}",
    ]
    return "\n".join(text) + "\n"


LATEX = {
    "\\": r"\textbackslash{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "δ": r"$\delta$",
    "→": r"$\rightarrow$",
    "↓": r"$\downarrow$",
    "↑": r"$\uparrow$",
    "×": r"$\times$",
    "–": "--",
    "²": r"\textsuperscript{2}",
}


def escaped(text: str) -> str:
    """Return text as LaTeX shows it."""
    return "".join(LATEX.get(sign, sign) for sign in text)


def csv_text(rows: Sequence[RowSummary]) -> str:
    """Return one line a row and figure, unrounded."""
    heads = list(dict.fromkeys(head for row in rows for head in row.row))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*heads, "seeds", "figure", "value", "low", "high", "minus_control", "by_seed"])
    for row in rows:
        for name, mean in row.figures.items():
            difference = row.differences.get(name)
            values: list[Any] = [mean.value, mean.low, mean.high, difference.value if difference else None]
            seeds = " ".join(map(str, row.seeds))
            writer.writerow(
                [*(row.row.get(head, "") for head in heads), seeds, name]
                + ["" if value is None else repr(float(value)) for value in values]
                + [" ".join(repr(float(value)) for value in mean.by_seed)]
            )
    return file.getvalue()
