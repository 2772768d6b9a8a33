"""Cohort + base + method + drift → a run folder that diffusers can load. One file a method, in `methods`."""

from latentdrift.finetune.cache import LatentCache
from latentdrift.finetune.config import TrainingConfig
from latentdrift.finetune.method import FinetuneMethod, finetune_method
from latentdrift.finetune.run import finetune_model

__all__ = ["FinetuneMethod", "LatentCache", "TrainingConfig", "finetune_method", "finetune_model"]
