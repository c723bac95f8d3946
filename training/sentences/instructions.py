"""What people type: sentences for an edit, put together from phrasings, a grammar, politeness, strengths and typos.

Of `phrasings.toml` and `grammar.toml`, which are trained on. `unknown` asks for what cannot be done here, or for nothing at all.
"""

import tomllib
from pathlib import Path

import numpy as np

from training.operations import NOTHING, OPERATIONS, OPPOSITES, Edit, Operation, drawn_edit
from training.sentences import asides, wordnet
from training.sentences.chance import drawn
from training.sentences.exclusions import excluding
from training.sentences.finishing import finished, spelled, strengthened, with_things
from training.sentences.grammar import coloured, drawn_from, scaled
from training.sentences.indirect import indirect
from training.sentences.pairs import is_written, written
from training.sentences.short import is_short, paired, short

Generator = np.random.Generator

_FOLDER = Path(__file__).parent
PHRASINGS: dict[str, list[str]] = {
    name: table["trained"] for name, table in tomllib.loads((_FOLDER / "phrasings.toml").read_text()).items()
}
_SHARE_UNKNOWN, _SHARE_PAIRED, _SHARE_INDIRECT, _SHARE_EXCLUDING = 0.16, 0.3, 0.08, 0.12
"""Shares of sentences that ask for what cannot be done, for two operations, in a roundabout way, and say what is not wanted."""
_SHARE_WRITTEN, _SHARE_SHORT = 0.4, 0.5
"""Shares of two operations that are asked for as somebody wrote it, and of the others in few words."""
_SHARE_REPEATED = 0.15
"""Share of requests that are said in two ways one after the other: what is wrong, and what is wanted."""
UNKNOWN = "unknown"
"""The table of what cannot be done: nothing is to change."""


def _plain(rng: Generator, operation: Operation) -> str:
    """One phrasing with everything but its picture filled in."""
    sentence = scaled(rng, operation) if rng.random() < 0.35 else None
    if sentence is None:
        sentence = drawn(rng, PHRASINGS[operation.phrased_as])
    if operation.colour:
        sentence = sentence.replace("{colour}", coloured(rng, operation) or "")
    return sentence


def _requested(rng: Generator, operation: Operation, strength: float) -> str:
    """An operation with its strength, sometimes said twice in different words."""
    sentence = strengthened(rng, _plain(rng, operation), strength if operation.graded else 1.0)
    if rng.random() < _SHARE_REPEATED:
        again = strengthened(rng, _plain(rng, operation), 1.0)
        sentence = sentence.rstrip(".!?") + drawn_from(rng, "repeated") + again
    return sentence


def worded(rng: Generator, edit: Edit) -> str:
    """One of the many ways to ask for an edit."""
    if len(edit.operations) == 2:
        first, second = edit.operations
        colours = (coloured(rng, first), coloured(rng, second))
        if is_written(edit) and rng.random() < _SHARE_WRITTEN:
            return finished(rng, strengthened(rng, written(rng, edit, colours), edit.strength))
        if all(map(is_short, edit.operations)) and rng.random() < _SHARE_SHORT:
            return finished(rng, paired(rng, edit, colours))
    parts = [_requested(rng, operation, edit.strength) for operation in edit.operations]
    joint = drawn_from(rng, "joints")
    sentence = joint.join(part.rstrip(".!?") for part in parts) if len(parts) > 1 else parts[0]
    return finished(rng, sentence)


def _excluding(rng: Generator, edit: Edit) -> str:
    """A request for the edit's one operation that says what is not wanted as well."""
    (asked,) = edit.operations
    request = _requested(rng, asked, edit.strength)
    if edit.strength == 1 and is_short(asked) and rng.random() < 0.4:
        request = drawn(
            rng,
            (
                short(rng, asked, "verb", coloured(rng, asked)),
                "make {it} " + short(rng, asked, "state", coloured(rng, asked)),
            ),
        )
    sentence = excluding(
        rng, asked, request, lambda: _operation(rng), lambda other, form: short(rng, other, form, coloured(rng, other))
    )
    return finished(rng, sentence)


def unknown(rng: Generator) -> str:
    """A sentence that asks for what cannot be done, or for nothing at all."""
    kind = rng.random()
    if kind < 0.1:
        return spelled(rng, asides.alone(rng))
    if kind < 0.4:
        sentence = drawn(rng, PHRASINGS[UNKNOWN])
    elif kind < 0.75:
        sentence = with_things(rng, drawn_from(rng, "mistakable"))
    else:
        sentence = drawn(rng, wordnet.sentences())
    return finished(rng, sentence)


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
            lambda operation: strengthened(rng, _plain(rng, operation), 1.0),
            lambda operation, form: short(rng, operation, form, coloured(rng, operation)),
        )
        return finished(rng, sentence), edit
    if rng.random() < _SHARE_EXCLUDING:
        edit = drawn_edit(rng, _operation(rng), lambda: _operation(rng), share_paired=0.0)
        return _excluding(rng, edit), edit
    edit = drawn_edit(rng, _operation(rng), lambda: _operation(rng), share_paired=_SHARE_PAIRED)
    return worded(rng, edit), edit
