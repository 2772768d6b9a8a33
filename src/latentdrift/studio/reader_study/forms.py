"""What browsers send: forms of one's own pages, and the numbers in them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from latentdrift.studio.guard import own_origin

if TYPE_CHECKING:
    from starlette.requests import Request

LARGEST_FORM = 32_768
"""Bytes."""
MOST_FIELDS = 20
MOST_DIGITS = 9
"""Of numbers in forms and addresses; beyond some thousands Python itself refuses, and the database sooner."""


async def read_form(request: Request, public: str | None) -> dict[str, str] | None:
    """Return the fields of a form, or None for one that is too large or was sent from another site's page.

    Args:
        request: with the form.
        public: host name under which a proxy in front is opened.
    """
    origin = request.headers.get("origin")
    if origin not in (None, "null") and not own_origin(origin, request.headers.get("host", ""), public):
        return None
    content = b""
    async for chunk in request.stream():
        content += chunk
        if len(content) > LARGEST_FORM:
            return None
    try:
        fields = parse_qs(content.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=MOST_FIELDS)
    except ValueError:  # more fields
        return None
    return {name: values[-1] for name, values in fields.items()}


def whole_number(text: str) -> int | None:
    """Return a number of few digits, None for anything else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


def seconds_of(told: str, elapsed: float) -> float:
    """Return the time that the page says the image was looked at, if it can be; else that since it was shown."""
    try:
        seconds = float(told)
    except ValueError:
        return elapsed
    return seconds if 0 < seconds <= elapsed + 1 else elapsed
