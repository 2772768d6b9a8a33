"""One registry for every plug-in point: fine-tuning methods, editors, data sources, metrics, feature extractors.

A plug-in is one file in the plug-in point's folder, under its decorator. Packages outside register by an entry point
in the group `latentdrift.<kind>`, whose object is imported when a name is first looked up.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from latentdrift.errors import UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names to plug-ins of one kind.

    Args:
        kind: what a plug-in is called in messages ("method", "editor").
        package: dotted name of the package whose modules are imported to discover plug-ins.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind, self.package = kind, package
        self._items: dict[str, T] = {}
        self._discovered = False

    def __call__(self, name: str) -> Callable[[T], T]:
        """Return a decorator that registers under `name`; a name taken by another object is an error."""

        def register(item: T) -> T:
            taken = self._items.get(name)
            if taken is not None and getattr(taken, "__qualname__", taken) != getattr(item, "__qualname__", item):
                raise ValueError(f"The {self.kind} {name!r} is registered already, by {taken!r}.")
            self._items[name] = item
            return item

        return register

    def get(self, name: str) -> T:
        """Return the plug-in called `name`.

        Raises:
            UnknownNameError: nobody registered that name; the message has close matches.
        """
        self._discover()
        if name not in self._items:
            raise UnknownNameError(self.kind, name, self._items)
        return self._items[name]

    def names(self) -> list[str]:
        """Return all names, sorted."""
        self._discover()
        return sorted(self._items)

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self.package)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{self.package}.{module.name}")
        for point in entry_points(group=f"latentdrift.{self.kind}"):
            point.load()
