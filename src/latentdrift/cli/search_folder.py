"""What `latentdrift search` leaves and prints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from latentdrift.cli.search_problems import CONFIDENCE, paired, targets_of, wanted_classes

if TYPE_CHECKING:
    import torch

    from latentdrift.cli.editing import Classifiers
    from latentdrift.cli.search_problems import Problem
    from latentdrift.cli.selection import Selected
    from latentdrift.counterfactual import SearchResult, Trial
    from latentdrift.counterfactual.rendering import DriftParameter, Keeper, Rendering
    from latentdrift.models import ModelCard

FLAT = 1e-5
"""Range of the objective, as a part of its size, within which the searched number is said to change nothing."""

CHOSEN = "the ones the best was chosen on, so it is flattered"
"""What is to be known of the interval."""

SHOWN = 6
"""Images in best.png."""


def failures(keeper: Keeper) -> list[str]:
    """Return what to say of renderings that overflowed; the first message stands for all."""
    if not keeper.failures:
        return []
    first, message = next(iter(keeper.failures.items()))
    return [f"At {first}: {message}"]


def flat(options: Any, result: SearchResult, parameter: DriftParameter) -> list[str]:
    """Return a warning where the drift changes nothing under this editor and rule."""
    drift = parameter.drift(1.0)
    groups: dict[tuple[tuple[str, float], ...], list[float]] = {}
    for trial in result.trials:
        if trial.valid:
            rest = tuple((name, value) for name, value in trial.parameters.items() if name != parameter.name)
            groups.setdefault(rest, []).append(trial.objective)
    several = [values for values in groups.values() if len(values) > 1]
    if drift is None or not several or any(max(v) - min(v) > FLAT * max(map(abs, v)) for v in several):
        return []
    what = f"the editor {options.editor}" if options.criterion == "edit" else "sampling"
    return [
        f"The objective is the same whatever {parameter.name} is: rule {drift.rule!r} does not act in {what}. Try "
        "--rule paper, or an editor that starts from noise."
    ]


def at_the_end(result: SearchResult, space: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return a warning for each parameter whose best value is the first or the last that was searched."""
    return [
        f"The best {name} is {result.best.parameters[name]:g}, an end of the range searched, {low:g} to {high:g}: "
        "the best of all may lie beyond."
        for name, (low, high) in space.items()
        if result.best.parameters[name] in (low, high) and result.best.parameters[name] != 0  # 0 is no drift
    ]


def judgement(
    classifiers: Classifiers,
    options: Any,
    card: ModelCard,
    selected: Sequence[Selected],
    images: torch.Tensor,
    best: Rendering,
    control: Rendering,
    warnings: list[str],
) -> list[dict[str, Any]]:
    """Return what each judge says of sources, control and best: rate and mean probability of the wanted class."""
    import torch

    from latentdrift.cli.wishes import parse_attributes

    if best.values is None or not classifiers.judges:
        return []
    _, targets = targets_of(options, card, selected)
    wish = parse_attributes(options.target, card, "--target")
    found = []
    for judge in classifiers.judges:
        if not all(judge.attribute in target for target in targets):
            warnings.append(
                f"The judge {judge.path} tells {judge.attribute}, of which nothing is wanted; it was left out."
            )
            continue
        wanted = wanted_classes(judge, targets)
        own = {}
        shown = {"source": images, "no_drift": control.values, "best": best.values}
        row: dict[str, Any] = {"judge": str(judge.path), "attribute": judge.attribute, "n": len(wanted)}
        row["wanted"] = judge.attribute in wish
        for name, batch in shown.items():
            if batch is None:
                continue
            chances = judge.probabilities(batch, batch_size=options.batch_size)
            own[name] = torch.tensor([chances[index, k] for index, k in enumerate(wanted)])
            rate = float((chances.argmax(1) == wanted).mean())
            row[name] = {"rate": rate, "probability": float(own[name].mean())}
        if "no_drift" in own:
            row["probability_difference"] = paired(own["best"] - own["no_drift"], selected)
        found.append(row)
    return found


def write_outcome(
    options: Any,
    record: Mapping[str, Any],
    result: SearchResult,
    problem: Problem,
    parameter: DriftParameter,
    images: torch.Tensor,
    best: Rendering,
    control: Rendering,
    gray: bool,
    marks: Mapping[str, Any],
) -> None:
    """Write curve.csv, the pictures, and search.json last, each whole or not at all; `marks` go into best.png."""
    from latentdrift.cli.folders import write_json, write_table
    from latentdrift.cli.image_notes import as_gray
    from latentdrift.report import image_grid
    from latentdrift.report.searches import search_figure

    rows = [
        {**trial.parameters, **trial.scores, "stage": stage, "seconds": round(trial.seconds, 3)}
        for stage, trials in (("full", result.trials), ("screen", result.screened))
        for trial in trials
    ]
    write_table(options.out / "curve.csv", rows)
    delta = "drift δ, standard deviations of the noise"
    labels = {
        "delta": delta,
        "scale": "multiple of the drift",
        "label": "label loss",
        "similarity": "distance to the source",
        "means": "distance of the means",
        "marginals": "distance of the marginals",
    }
    title = f"{best_words(result)} (rule {record['rule']})"
    search_figure(options.out / "search.png", result, title=title, objective=problem.objective, labels=labels)
    columns = [("source" if options.criterion == "edit" else "existing", images)]
    columns += [(name, one.values) for name, one in (("no drift", control), ("best", best)) if one.values is not None]
    if gray:
        columns = [(name, as_gray(values) if values.ndim == 4 else values) for name, values in columns]
    if all(values.ndim == 4 and values.shape[1] == 3 for _, values in columns):
        grid = [[values[row] for _, values in columns] for row in range(min(SHOWN, *(len(v) for _, v in columns)))]
        image_grid(
            options.out / "best.png",
            grid,
            column_labels=[name for name, _ in columns],
            title=best_words(result),
            synthetic=marks,
        )
    write_json(options.out / "search.json", plain_numbers(record))


def told(options: Any, result: SearchResult, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is printed."""
    cost = record["unet_evaluations"]
    names = ("search.json", "search.png", "best.png")
    judges = {
        f"judge {row['attribute']}" + (f" ({row['judge']})" if alike(record["judges"], row) else ""): [
            f"{name.replace('_', ' ')}: {100 * row[name]['rate']:.0f} % taken for the "
            f"{'wanted class' if row['wanted'] else 'class that should stay'}, its probability "
            f"{100 * row[name]['probability']:.1f} %"
            for name in ("source", "no_drift", "best")
            if name in row
        ]
        for row in record["judges"]
    }
    return {
        "folder": options.out,
        "minimised": record["objective"],
        "best": f"{result.best.described()}: {number(result.best)}",
        "no drift": f"{result.control.described()}: {number(result.control)}",
        "difference": difference_words(record["difference"]),
        **judges,
        "cost": f"{result.evaluations} trials made, {result.recalled} recalled"
        + (f", {result.screenings} screened" if result.screenings else "")
        + f"; {cost['search'] + cost['looking_at_the_best']} U-Net evaluations of an image, "
        f"{cost['spared_inversions']} spared by kept inversions",
        "files": [str(options.out / name) for name in names],
        "warnings": record["warnings"],
    }


def alike(rows: Sequence[Mapping[str, Any]], row: Mapping[str, Any]) -> bool:
    """Tell whether another judge tells the same attribute, so that its name alone is not enough."""
    return sum(one["attribute"] == row["attribute"] for one in rows) > 1


def best_words(result: SearchResult) -> str:
    """Return the best's parameters and objective in words."""
    return f"best {result.best.described()}: {number(result.best)}, no drift {number(result.control)}"


def number(trial: Trial) -> str:
    """Return the objective in words."""
    return f"{trial.objective:.4g}" if trial.valid else "no finite value"


def difference_words(found: Mapping[str, Any] | None) -> str:
    """Return best minus no drift with its interval, and what that means."""
    if not found:
        return "not known: the best or no drift has no finite value"
    if not found["value"] and found["low"] in (None, 0.0) and found["high"] in (None, 0.0):
        return "none: no drift is the best"
    text = f"{found['value']:+.4g} against no drift"
    if found["low"] is None:
        return f"{text}; one image alone has no interval"
    ends = f"{found['low']:+.4g} to {found['high']:+.4g}"
    text += f", {100 * CONFIDENCE:.0f} % interval {ends} ({found['n']} {found['over']}, {CHOSEN})"
    if found["low"] <= 0 <= found["high"]:
        return f"{text}. The interval contains 0: these images do not show that the drift helps"
    return text


def plain_numbers(value: Any) -> Any:
    """Return the record without numbers that JSON does not know."""
    if isinstance(value, Mapping):
        return {name: plain_numbers(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain_numbers(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
