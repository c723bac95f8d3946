"""Slips of the fingers: a letter left out, doubled, swapped with the next one, or one of a neighbouring key."""

import numpy as np

from training.sentences.chance import drawn

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_COMMON = {
    *("the", "this", "that", "with", "make", "please", "picture", "photo", "image", "would", "could", "like", "want"),
    *("from", "into", "have", "photograph"),
}
"""Words of which a slip says little: others get more of them."""
_SHARE_TWO, _SHARE_RARE, _SHARE_NEAR = 0.25, 0.7, 0.6
SHORTEST = 4
"""Letters of a word in which one is made."""


def _neighbours() -> dict[str, str]:
    found = {}
    for number, row in enumerate(_ROWS):
        for place, key in enumerate(row):
            near = row[max(0, place - 1) : place] + row[place + 1 : place + 2]
            above = _ROWS[number - 1][place : place + 2] if number else ""
            below = _ROWS[number + 1][max(0, place - 1) : place + 1] if number + 1 < len(_ROWS) else ""
            found[key] = near + above + below
    return found


_NEAR = _neighbours()


def _slipped(rng: np.random.Generator, word: str) -> str:
    at, kind = int(rng.integers(1, len(word) - 1)), rng.random()
    if kind < 0.3:
        return word[:at] + word[at + 1 :]
    if kind < 0.55:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    if kind < 0.75:
        return word[:at] + word[at] + word[at:]
    letters = _NEAR.get(word[at].lower(), "e") if rng.random() < _SHARE_NEAR else "aeiou"
    return word[:at] + drawn(rng, letters) + word[at + 1 :]


def mistyped(rng: np.random.Generator, sentence: str) -> str:
    """A sentence with one or two slips."""
    words = sentence.split(" ")
    for _ in range(2 if rng.random() < _SHARE_TWO else 1):
        places = [place for place, word in enumerate(words) if len(word) >= SHORTEST and word.isalpha()]
        rare = [place for place in places if words[place].lower() not in _COMMON]
        if rare and rng.random() < _SHARE_RARE:
            places = rare
        if places:
            place = drawn(rng, places)
            words[place] = _slipped(rng, words[place])
    return " ".join(words)
