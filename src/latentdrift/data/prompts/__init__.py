"""Wordings of captions and editing instructions: named sets, template files, words for classes, ages and sexes."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentdrift.data.prompts.files import TemplateFile as TemplateFile
    from latentdrift.data.prompts.files import read_template_file as read_template_file
    from latentdrift.data.prompts.instructions import instruction as instruction
    from latentdrift.data.prompts.sets import PROMPT_SETS as PROMPT_SETS
    from latentdrift.data.prompts.sets import as_template as as_template
    from latentdrift.data.prompts.sets import prompt_set as prompt_set

_HOME = {
    "PROMPT_SETS": "sets",
    "TemplateFile": "files",
    "as_template": "sets",
    "instruction": "instructions",
    "prompt_set": "sets",
    "read_template_file": "files",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
