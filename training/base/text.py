"""The tokenizer and text encoder of `tiny`: CLIP's classes and file formats, a small vocabulary of its own.

The vocabulary is a byte-level BPE, as CLIP's, learned from the photographs' captions and a list of words that prompts
about scans use. The words are in the vocabulary only: the model never sees an image that belongs to them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

WORDS = Path(__file__).with_name("words.txt")
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(captions: Iterable[str], vocabulary: int = 4096) -> CLIPTokenizer:
    """Return a CLIPTokenizer of at most `vocabulary` tokens whose alphabet covers every byte."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = WORDS.read_text().split()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - 258, initial_alphabet=alphabet, end_of_word_suffix="</w>", show_progress=False
    )
    tokenizer.train_from_iterator([*captions, *(word for word in words for _ in range(8))], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    merges = [tuple(merge) if isinstance(merge, list) else tuple(merge.split(" ")) for merge in model["merges"]]
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), START, END]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=77)


def build_text_encoder(tokenizer: CLIPTokenizer, width: int = 128, layers: int = 2) -> CLIPTextModel:
    """Return an untrained text encoder for `tokenizer`."""
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=tokenizer.model_max_length,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        # Tokens that no caption of a photograph uses keep their first value; at CLIP's own 0.02 they would be
        # lost beside the trained ones.
        initializer_factor=2.0,
    )
    return CLIPTextModel(config)
