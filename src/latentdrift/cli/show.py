"""What a command shows while it works, and what it prints at the end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol


class Tell(Protocol):
    """Called with what is being done, how much of it is done, and how much there is."""

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show it."""


@contextmanager
def progress(quiet: bool = False) -> Iterator[Tell]:
    """Yield a function that shows progress with the time left, on standard error; a bar a stage."""
    if quiet:
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bars:
        tasks: dict[str, Any] = {}
        said: dict[str, int] = {}

        def tell(what: str, done: int, total: int) -> None:
            stage = what.split(",")[0]
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total, description=what)
            tenth = 10 * done // max(1, total)
            if not console.is_terminal and tenth > said.get(stage, -1):
                said[stage] = tenth
                console.print(f"{what}: {done} of {total}", highlight=False)

        yield tell


def print_result(facts: Mapping[str, Any], as_json: bool) -> None:
    """Print the facts of a finished command, as JSON or as aligned lines."""
    if as_json:
        json.dump(facts, sys.stdout, indent=2, default=str)
        print()
        return
    facts = {name: value for name, value in facts.items() if not isinstance(value, list | tuple) or value}
    width = max((len(name) for name in facts), default=0)
    for name, value in facts.items():
        if isinstance(value, list | tuple):
            value = ("\n" + " " * (width + 2)).join(str(part) for part in value)
        print(f"{name:<{width}}  {value}")


def counting(tell: Tell, what: str, total: int) -> Callable[[int], None]:
    """Return what adds up the images finished and shows them."""
    done = 0

    def finished(count: int) -> None:
        nonlocal done
        done += count
        tell(what, done, total)

    return finished
