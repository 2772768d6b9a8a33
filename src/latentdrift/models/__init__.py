"""A name or a path → pipeline components, with the drift that was saved with them."""

from latentdrift.models.card import ModelCard, read_model_card, write_model_card
from latentdrift.models.loading import EMBEDDED, load_pipeline
from latentdrift.models.saving import pipeline_fingerprint, save_pipeline
from latentdrift.models.text import Conditioning, encode_prompts

__all__ = [
    "EMBEDDED",
    "Conditioning",
    "ModelCard",
    "encode_prompts",
    "load_pipeline",
    "pipeline_fingerprint",
    "read_model_card",
    "save_pipeline",
    "write_model_card",
]
