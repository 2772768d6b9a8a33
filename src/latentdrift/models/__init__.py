"""A name or a path → pipeline components, with the drift that was saved with them."""

from latentdrift.models.adapters import AdapterMismatchWarning, base_fingerprint, load_adapter
from latentdrift.models.card import ModelCard, read_model_card, write_model_card
from latentdrift.models.loading import EMBEDDED, check_from_noise, load_pipeline
from latentdrift.models.saving import pipeline_fingerprint, save_pipeline
from latentdrift.models.text import Conditioning, PromptTokens, TextEncoders, encode_prompts, tokenize_prompts

__all__ = [
    "EMBEDDED",
    "AdapterMismatchWarning",
    "Conditioning",
    "ModelCard",
    "PromptTokens",
    "TextEncoders",
    "base_fingerprint",
    "check_from_noise",
    "encode_prompts",
    "load_adapter",
    "load_pipeline",
    "pipeline_fingerprint",
    "read_model_card",
    "save_pipeline",
    "tokenize_prompts",
    "write_model_card",
]
