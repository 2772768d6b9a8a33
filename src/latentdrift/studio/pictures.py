"""What the page shows of an edit: arrays for its pictures, and tables that screen readers can read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from latentdrift.studio.edits import Edit
from latentdrift.studio.exports import difference_map, figures_of

LEAST_SIDE, MOST_SIDE = 512, 1024
"""Pixels between which pictures are shown, so that browsers neither blur small ones nor choke on radiographs."""

Pixels = NDArray[np.uint8]


def shown(pixels: NDArray[Any]) -> Pixels:
    """Return an image (H, W) or (H, W, 3), uint8 or floating point in [0, 1], as the page shows it: (H', W', 3)."""
    from PIL import Image

    levels = pixels if pixels.dtype == np.uint8 else np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)
    if levels.ndim == 2:
        levels = np.repeat(levels[..., None], 3, axis=2)
    picture = Image.fromarray(np.ascontiguousarray(levels))
    side = max(picture.size)
    factor = 1.0
    if side < LEAST_SIDE:
        factor = -(-LEAST_SIDE // side)
    elif side > MOST_SIDE:
        factor = MOST_SIDE / side
    if factor != 1:
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        picture = picture.resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture)


def tensor_shown(image: Any, gray: bool = False) -> Pixels:
    """Return a tensor (3, H, W) in [-1, 1] as the page shows it."""
    from latentdrift.data.images import to_array

    return shown(to_array(image, gray=gray))


def before_after(edit: Edit, at_scan: bool) -> tuple[Pixels, Pixels]:
    """Return source and counterfactual, as the model sees them, or at the scan's own resolution where there is one."""
    source, change = edit.view.source, edit.change() if at_scan else None
    if source is not None and change is not None:
        return shown(source.edited(np.zeros_like(change))), shown(source.edited(change))
    return tensor_shown(edit.result.source[0]), tensor_shown(edit.result.image[0])


def map_shown(edit: Edit) -> Pixels:
    """Return the signed map as the page shows it."""
    return shown(difference_map(edit))


def summary(edit: Edit) -> str:
    """Return what came of an edit, as sentences (HTML)."""
    told = figures_of(edit)
    parts = [f"<strong>{escape(edit.label())}</strong>"]
    words = [f"{told['effect_l1']:.2f} levels of 255 changed by the wish"]
    if "round_trip_l1" in told:
        words.append(f"{told['round_trip_l1']:.2f} by the round trip itself")
    parts.append(f"On average {', '.join(words)}. {edit.seconds:.1f} s, {edit.evaluations} steps of the network.")
    parts += [f'<span class="warned">Note: {escape(text)}</span>' for text in edit.warnings]
    return "<br>".join(parts)


def judged_table(judged: Mapping[str, Any] | None) -> str:
    """Return a judge's probabilities before and after as a table (HTML)."""
    if judged is None:
        return '<p class="quiet">No judge is chosen. A classifier of --role judge says what an edit shows.</p>'
    columns = [("before", "source"), ("after", "counterfactual")]
    if "round_trip" in judged:
        columns.insert(1, ("round_trip", "round trip"))
    head = "".join(f'<th scope="col">{name}</th>' for _, name in columns)
    rows = []
    for label in judged["before"]:
        cells = "".join(f"<td>{bar(judged[key][label])}</td>" for key, _ in columns)
        rows.append(f'<tr><th scope="row">{escape(str(label))}</th>{cells}</tr>')
    doubt = f'<p class="warned">{escape(str(judged["doubt"]))}</p>' if judged.get("doubt") else ""
    caption = f"{escape(str(judged['attribute']))}, by the judge {escape(str(judged['judge']))}"
    return (
        f'<table class="facts"><caption>{caption}</caption><thead><tr><th scope="col">class</th>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>{doubt}"
    )


def bar(share: float) -> str:
    """Return a probability as a number with a bar behind it."""
    return f'<span class="bar" style="--part:{100 * share:.1f}%">{share:.0%}</span>'


def pins_table(pins: Sequence[Edit]) -> str:
    """Return pinned edits side by side as a table (HTML)."""
    if not pins:
        return '<p class="quiet">Nothing is pinned yet. Make a counterfactual and press Pin.</p>'
    names = ("#", "shows", "editor", "drift", "δ", "guidance", "strength", "seed", "changed", "judge: before → after")
    rows = []
    for number, edit in enumerate(pins, 1):
        told = edit.settings
        cells = [
            str(number),
            edit.result.target_captions[0],
            told.editor,
            str(edit.drift["used"])[:60],
            f"{told.delta:g}",
            f"{told.guidance:g}",
            f"{told.strength:g}",
            str(told.seed),
            f"{figures_of(edit)['effect_l1']:.2f}",
            judged_words(edit),
        ]
        rows.append("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>")
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    return (
        '<div class="wide"><table class="facts"><caption>Pinned edits; changed: levels of 255 by the wish</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def judged_words(edit: Edit) -> str:
    """Return the wanted class's probability before and after, or a dash where nobody judged."""
    if edit.judged is None:
        return "–"
    wanted = {**edit.wish.source, **edit.wish.target}.get(edit.judged["attribute"])
    label = str(wanted)
    if label not in edit.judged["before"]:
        label = max(edit.judged["after"], key=lambda name: edit.judged["after"][name] if edit.judged else 0.0)
    return f"{label}: {edit.judged['before'][label]:.0%} → {edit.judged['after'][label]:.0%}"
