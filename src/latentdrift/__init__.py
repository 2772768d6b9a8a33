"""Latent drifting for diffusion models: fine-tune on medical images, make counterfactuals, measure them.

Names are imported when they are first used, so that `import latentdrift` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from latentdrift.counterfactual import make_counterfactuals
    from latentdrift.data import Cohort, PromptTemplate
    from latentdrift.drift import LatentDrift, LatentMoments
    from latentdrift.errors import LatentDriftError
    from latentdrift.evaluate import EvaluationResult, evaluate_sets
    from latentdrift.finetune import finetune_model
    from latentdrift.generate import edit_by_instruction, generate_images, invert_images
    from latentdrift.models import load_adapter, load_pipeline

__version__ = "0.1.0"

__all__ = [
    "Cohort",
    "EvaluationResult",
    "LatentDrift",
    "LatentDriftError",
    "LatentMoments",
    "PromptTemplate",
    "__version__",
    "edit_by_instruction",
    "evaluate_sets",
    "finetune_model",
    "generate_images",
    "invert_images",
    "load_adapter",
    "load_pipeline",
    "make_counterfactuals",
]

_HOMES = {
    "Cohort": "data",
    "EvaluationResult": "evaluate",
    "LatentDrift": "drift",
    "LatentDriftError": "errors",
    "LatentMoments": "drift",
    "PromptTemplate": "data",
    "edit_by_instruction": "generate",
    "evaluate_sets": "evaluate",
    "finetune_model": "finetune",
    "generate_images": "generate",
    "invert_images": "generate",
    "load_adapter": "models",
    "load_pipeline": "models",
    "make_counterfactuals": "counterfactual",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
