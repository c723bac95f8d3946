"""A request as somebody types it: with its strength, its reason, its picture, its manners and its slips."""

import re

import numpy as np

from training.sentences import asides, slips, wordnet
from training.sentences.chance import drawn
from training.sentences.grammar import VERBS, drawn_from, listed

Generator = np.random.Generator

_SHARE_WITH_A_REASON = 0.3
"""Share of sentences that say something about the picture or what it is for as well, which changes nothing."""
_SHARE_OF_RARE_THINGS = 0.35
"""Share of these that speak of WordNet's things, not of everyday ones."""
_SHARE_MISTYPED = 0.3


def strengthened(rng: Generator, sentence: str, strength: float) -> str:
    """With a word for the strength, in its place or at the end."""
    if strength == 1:
        return sentence.replace("{much}", "").replace("{much_of}", "")
    word = drawn_from(rng, "weak" if strength < 1 else "strong")
    if "{much}" in sentence:
        return sentence.replace("{much}", word + " ", 1).replace("{much}", "")
    if "{much_of}" in sentence and strength < 1 and rng.random() < 0.3:
        return sentence.replace("{much_of}", "a bit of ")
    sentence = sentence.replace("{much_of}", "")
    form = rng.integers(4)
    if form == 0 and sentence.split()[0] in VERBS:
        return f"{word} {sentence}"
    return sentence.rstrip(".!?") + (" " if form < 3 else ", ") + ("just " if strength < 1 and form == 1 else "") + word


def with_things(rng: Generator, sentence: str) -> str:
    """With everything but its picture filled in, where it speaks of things."""
    a, b = drawn(rng, wordnet.things()), drawn(rng, wordnet.things())
    return sentence.format(a=a, b=b, c=drawn(rng, list(listed("colours"))), it="{it}")


def _with_a_reason(rng: Generator, sentence: str) -> str:
    if rng.random() >= _SHARE_WITH_A_REASON:
        return sentence
    if rng.random() >= _SHARE_OF_RARE_THINGS:
        return asides.with_an_aside(rng, sentence)
    if rng.random() < 0.4:
        return with_things(rng, drawn_from(rng, "reasons_before")) + sentence
    return sentence.rstrip(".!?") + with_things(rng, drawn_from(rng, "reasons_after"))


def _courteous(rng: Generator, sentence: str) -> str:
    if rng.random() < 0.35:
        before = drawn_from(rng, "before")
        if sentence.split()[0] in VERBS or not before.endswith(tuple(listed("before_verbs_only"))):
            sentence = f"{before} {sentence[0].lower() + sentence[1:]}"
            if before.startswith(("can", "could", "would")) and rng.random() < 0.7:
                return sentence.rstrip(".!") + "?"
    if rng.random() < 0.15:
        after = drawn_from(rng, "after")
        sentence = sentence.rstrip(".!") + ("" if after.startswith(",") else " ") + after
    return sentence


def spelled(rng: Generator, sentence: str) -> str:
    """With the differences between people who type."""
    if rng.random() < 0.4:
        for british, american in (("colour", "color"), ("grey", "gray"), ("ise ", "ize "), ("centre", "center")):
            sentence = sentence.replace(british, american)
    if rng.random() < _SHARE_MISTYPED:
        sentence = slips.mistyped(rng, sentence)
    form = rng.random()
    if form < 0.45:
        sentence = sentence[0].upper() + sentence[1:]
    elif form < 0.5:
        sentence = sentence.upper()
    elif form < 0.75:
        sentence = sentence.lower()
    if sentence[-1].isalnum() and rng.random() < 0.35:
        sentence += "." if rng.random() < 0.75 else "!"
    return sentence


def finished(rng: Generator, sentence: str) -> str:
    """As somebody types it, with its reason, its picture and its manners."""
    sentence = _with_a_reason(rng, sentence).replace("{it}", drawn_from(rng, "subjects"))
    sentence = re.sub(r"\ba (?=orange|azure|emerald|ivory|amber|olive|indigo|ocean|aqua)", "an ", sentence)
    return spelled(rng, _courteous(rng, sentence))
