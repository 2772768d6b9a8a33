"""Files of any source, as a `Cohort` of `Record`s; from there to prompts, splits and tensors."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from latentdrift.data.captions import PromptTemplate as PromptTemplate
    from latentdrift.data.captions import check_caption_length as check_caption_length
    from latentdrift.data.captions import default_template as default_template
    from latentdrift.data.cohort import Cohort as Cohort
    from latentdrift.data.edits import EditPair as EditPair
    from latentdrift.data.edits import edit_pairs as edit_pairs
    from latentdrift.data.images import to_array as to_array
    from latentdrift.data.images import write_png as write_png
    from latentdrift.data.leakage import find_leakage as find_leakage
    from latentdrift.data.pairs import Pair as Pair
    from latentdrift.data.pairs import longitudinal_pairs as longitudinal_pairs
    from latentdrift.data.prompts import as_template as as_template
    from latentdrift.data.prompts import instruction as instruction
    from latentdrift.data.prompts import prompt_set as prompt_set
    from latentdrift.data.records import Record as Record
    from latentdrift.data.splits import Split as Split
    from latentdrift.data.transform import ImageTransform as ImageTransform

_HOME = {
    "Cohort": "cohort",
    "EditPair": "edits",
    "ImageTransform": "transform",
    "Pair": "pairs",
    "PromptTemplate": "captions",
    "as_template": "prompts",
    "Record": "records",
    "Split": "splits",
    "check_caption_length": "captions",
    "default_template": "captions",
    "edit_pairs": "edits",
    "find_leakage": "leakage",
    "instruction": "prompts",
    "longitudinal_pairs": "pairs",
    "prompt_set": "prompts",
    "to_array": "images",
    "write_png": "images",
}

__all__ = sorted(_HOME)


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
