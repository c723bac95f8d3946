"""Copies of the photographs and of WordNet, for a machine that has neither these packages nor a network."""

import gzip

from training import pictures
from training.sentences import wordnet


def carry() -> None:
    """Write them to `pictures.CARRIED`: about 12 MB."""
    pictures.CARRIED.mkdir(parents=True, exist_ok=True)
    for photograph in (*pictures.TRAINING, *pictures.HELD_OUT):
        pictures.opened(photograph).save(photograph.copy, quality=92)
    for part in wordnet.PARTS:
        text = "\n".join(wordnet.lines(part))
        wordnet.copy(part).write_bytes(gzip.compress(text.encode("latin-1")))
