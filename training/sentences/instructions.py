"""What people type: sentences for an edit, put together from phrasings, a grammar, politeness, strengths and typos.

Of `phrasings.toml` and `grammar.toml`, which are trained on. `unknown` asks for what cannot be done here, or for nothing at all.
"""

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from training.operations import NOTHING, OPERATIONS, OPPOSITES, Edit, Operation, drawn_edit
from training.sentences import asides, slips, wordnet
from training.sentences.chance import drawn
from training.sentences.exclusions import excluding
from training.sentences.indirect import indirect
from training.sentences.short import is_short, paired, short

Generator = np.random.Generator

_FOLDER = Path(__file__).parent
PHRASINGS: dict[str, list[str]] = {
    name: table["trained"] for name, table in tomllib.loads((_FOLDER / "phrasings.toml").read_text()).items()
}
_SHARE_UNKNOWN, _SHARE_PAIRED, _SHARE_INDIRECT, _SHARE_EXCLUDING = 0.16, 0.3, 0.08, 0.12
"""Shares of sentences that ask for what cannot be done, for two operations, in a roundabout way, and say what is not wanted."""
_SHARE_SHORT = 0.5
"""Share of two operations that are asked for in few words."""
_SHARE_REPEATED = 0.15
"""Share of requests that are said in two ways one after the other: what is wrong, and what is wanted."""
_SHARE_WITH_A_REASON = 0.3
"""Share of sentences that say something about the picture or what it is for as well, which changes nothing."""
_SHARE_OF_RARE_THINGS = 0.35
"""Share of these that speak of WordNet's things, not of everyday ones."""
_SHARE_MISTYPED = 0.3
UNKNOWN = "unknown"
"""The table of what cannot be done: nothing is to change."""


@dataclass(frozen=True)
class _Scale:
    """A quality that one operation raises and another lowers: see grammar.toml."""

    up: str | None = None
    down: str | None = None
    nouns: Sequence[str] = ()
    higher: Sequence[str] = ()
    lower: Sequence[str] = ()
    high: Sequence[str] = ()
    low: Sequence[str] = ()


_GRAMMAR = tomllib.loads((_FOLDER / "grammar.toml").read_text())
_SCALES = [_Scale(**table) for table in _GRAMMAR["scales"]]
_VERBS = frozenset(_GRAMMAR["verbs"])
_VERBS_ONLY = tuple(_GRAMMAR["before_verbs_only"])


def listed(name: str) -> Any:
    """A list of grammar.toml."""
    return _GRAMMAR[name]


def _drawn_from(rng: Generator, name: str) -> str:
    """A word of a list in grammar.toml."""
    return drawn(rng, _GRAMMAR[name])


def _scaled(rng: Generator, operation: Operation) -> str | None:
    """A sentence about a quality, or none where the operation has none."""
    fitting = [(scale, operation.name == scale.up) for scale in _SCALES if operation.name in (scale.up, scale.down)]
    if not fitting:
        return None
    scale, up = drawn(rng, fitting)
    comparatives, opposites, wrong = (
        (scale.higher, scale.lower, scale.low) if up else (scale.lower, scale.higher, scale.high)
    )
    forms = ["verb", "noun"]
    forms += ["comparative", "version"] if comparatives else []
    forms += ["less", "too", "too"] if wrong else []
    forms += ["opposite"] if opposites else []
    match drawn(rng, forms):
        case "verb":
            article, of = drawn(rng, ("", "", "the ", "its ")), drawn(rng, ("", "", " of {it}", " in {it}"))
            return f"{_drawn_from(rng, 'raise' if up else 'lower')} {article}{{much_of}}{drawn(rng, scale.nouns)}{of}"
        case "noun":
            article = drawn(rng, ("", "", "the "))
            return f"{article}{drawn(rng, scale.nouns)} {_drawn_from(rng, 'raised' if up else 'lowered')}"
        case "comparative":
            return f"{_drawn_from(rng, 'compared')} {{much}}{drawn(rng, comparatives)}"
        case "version":
            return f"{{much}}{drawn(rng, comparatives)}{_drawn_from(rng, 'endings')}"
        case "less":
            return f"{drawn(rng, ('less', 'not so', 'not as', 'make {it} less'))} {drawn(rng, wrong)}"
        case "opposite":
            return f"not {drawn(rng, opposites)}, the opposite"
        case _:
            return f"{_drawn_from(rng, 'too')} {drawn(rng, wrong)}{_drawn_from(rng, 'repairs')}"


def _plain(rng: Generator, operation: Operation) -> str:
    """One phrasing with everything but its picture filled in."""
    sentence = _scaled(rng, operation) if rng.random() < 0.35 else None
    if sentence is None:
        sentence = drawn(rng, PHRASINGS[operation.phrased_as])
    if operation.colour:
        sentence = sentence.replace("{colour}", _coloured(rng, operation) or "")
    return sentence


def _coloured(rng: Generator, operation: Operation) -> str | None:
    """A name of its colour, where it has one."""
    return drawn(rng, _GRAMMAR["colours"][operation.colour]) if operation.colour else None


def _strengthened(rng: Generator, sentence: str, strength: float) -> str:
    """With a word for the strength, in its place or at the end."""
    if strength == 1:
        return sentence.replace("{much}", "").replace("{much_of}", "")
    word = _drawn_from(rng, "weak" if strength < 1 else "strong")
    if "{much}" in sentence:
        return sentence.replace("{much}", word + " ", 1).replace("{much}", "")
    if "{much_of}" in sentence and strength < 1 and rng.random() < 0.3:
        return sentence.replace("{much_of}", "a bit of ")
    sentence = sentence.replace("{much_of}", "")
    form = rng.integers(4)
    if form == 0 and sentence.split()[0] in _VERBS:
        return f"{word} {sentence}"
    return sentence.rstrip(".!?") + (" " if form < 3 else ", ") + ("just " if strength < 1 and form == 1 else "") + word


def _with_things(rng: Generator, sentence: str) -> str:
    """With everything but its picture filled in, where it speaks of things."""
    a, b = drawn(rng, wordnet.things()), drawn(rng, wordnet.things())
    return sentence.format(a=a, b=b, c=drawn(rng, list(_GRAMMAR["colours"])), it="{it}")


def _with_a_reason(rng: Generator, sentence: str) -> str:
    if rng.random() >= _SHARE_WITH_A_REASON:
        return sentence
    if rng.random() >= _SHARE_OF_RARE_THINGS:
        return asides.with_an_aside(rng, sentence)
    if rng.random() < 0.4:
        return _with_things(rng, _drawn_from(rng, "reasons_before")) + sentence
    return sentence.rstrip(".!?") + _with_things(rng, _drawn_from(rng, "reasons_after"))


def _courteous(rng: Generator, sentence: str) -> str:
    if rng.random() < 0.35:
        before = _drawn_from(rng, "before")
        if sentence.split()[0] in _VERBS or not before.endswith(_VERBS_ONLY):
            sentence = f"{before} {sentence[0].lower() + sentence[1:]}"
            if before.startswith(("can", "could", "would")) and rng.random() < 0.7:
                return sentence.rstrip(".!") + "?"
    if rng.random() < 0.15:
        after = _drawn_from(rng, "after")
        sentence = sentence.rstrip(".!") + ("" if after.startswith(",") else " ") + after
    return sentence


def _spelled(rng: Generator, sentence: str) -> str:
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


def _requested(rng: Generator, operation: Operation, strength: float) -> str:
    """An operation with its strength, sometimes said twice in different words."""
    sentence = _strengthened(rng, _plain(rng, operation), strength if operation.graded else 1.0)
    if rng.random() < _SHARE_REPEATED:
        again = _strengthened(rng, _plain(rng, operation), 1.0)
        sentence = sentence.rstrip(".!?") + _drawn_from(rng, "repeated") + again
    return sentence


def worded(rng: Generator, edit: Edit) -> str:
    """One of the many ways to ask for an edit."""
    if len(edit.operations) == 2 and all(map(is_short, edit.operations)) and rng.random() < _SHARE_SHORT:
        first, second = edit.operations
        return _finished(rng, paired(rng, edit, (_coloured(rng, first), _coloured(rng, second))))
    parts = [_requested(rng, operation, edit.strength) for operation in edit.operations]
    joint = _drawn_from(rng, "joints")
    sentence = joint.join(part.rstrip(".!?") for part in parts) if len(parts) > 1 else parts[0]
    return _finished(rng, sentence)


def _excluding(rng: Generator, edit: Edit) -> str:
    """A request for the edit's one operation that says what is not wanted as well."""
    (asked,) = edit.operations
    request = _requested(rng, asked, edit.strength)
    if edit.strength == 1 and is_short(asked) and rng.random() < 0.4:
        request = drawn(
            rng,
            (
                short(rng, asked, "verb", _coloured(rng, asked)),
                "make {it} " + short(rng, asked, "state", _coloured(rng, asked)),
            ),
        )
    sentence = excluding(
        rng, asked, request, lambda: _operation(rng), lambda other, form: short(rng, other, form, _coloured(rng, other))
    )
    return _finished(rng, sentence)


def _finished(rng: Generator, sentence: str) -> str:
    """As somebody types it, with its reason, its picture and its manners."""
    sentence = _with_a_reason(rng, sentence).replace("{it}", _drawn_from(rng, "subjects"))
    sentence = re.sub(r"\ba (?=orange|azure|emerald|ivory|amber|olive|indigo|ocean|aqua)", "an ", sentence)
    return _spelled(rng, _courteous(rng, sentence))


def unknown(rng: Generator) -> str:
    """A sentence that asks for what cannot be done, or for nothing at all."""
    kind = rng.random()
    if kind < 0.1:
        return _spelled(rng, asides.alone(rng))
    if kind < 0.4:
        sentence = drawn(rng, PHRASINGS[UNKNOWN])
    elif kind < 0.75:
        sentence = _with_things(rng, _drawn_from(rng, "mistakable"))
    else:
        sentence = drawn(rng, wordnet.sentences())
    return _finished(rng, sentence)


_TABLES = tuple(dict.fromkeys(operation.phrased_as for operation in OPERATIONS))
_MORE = {"tint": 2.5, "border": 2.5, "nothing": 1.3, **dict.fromkeys(OPPOSITES, 1.5)}
"""Tables that sentences are drawn from more often: those for several colours, and those that are taken for their opposites."""
_SHARES = np.array([_MORE.get(name, 1.0) for name in _TABLES])
_SHARES /= _SHARES.sum()


def _operation(rng: Generator) -> Operation:
    table = _TABLES[rng.choice(len(_TABLES), p=_SHARES)]
    fitting = [operation for operation in OPERATIONS if operation.phrased_as == table]
    return drawn(rng, fitting)


def instruction(rng: Generator) -> tuple[str, Edit]:
    """A sentence and what it means."""
    if rng.random() < _SHARE_UNKNOWN:
        return unknown(rng), Edit((NOTHING,))
    if rng.random() < _SHARE_INDIRECT:
        sentence, edit = indirect(
            rng,
            lambda: _operation(rng),
            lambda operation: _strengthened(rng, _plain(rng, operation), 1.0),
            lambda operation, form: short(rng, operation, form, _coloured(rng, operation)),
        )
        return _finished(rng, sentence), edit
    if rng.random() < _SHARE_EXCLUDING:
        edit = drawn_edit(rng, _operation(rng), lambda: _operation(rng), share_paired=0.0)
        return _excluding(rng, edit), edit
    edit = drawn_edit(rng, _operation(rng), lambda: _operation(rng), share_paired=_SHARE_PAIRED)
    return worded(rng, edit), edit
