"""Lists of a tenant's generations, archived or not."""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.contracts import generations, submissions
from storage.ledger.call import Call, table_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Page:
    """Some of a tenant's generations, newest first; `continue_below` asks for the next page, None is the end.

    Of one that is archived only the id is here; whether it is what was asked for is seen when it is read.
    """

    entries: tuple[generations.Generation | str, ...]
    continue_below: str | None

    @property
    def generations(self) -> tuple[generations.Generation, ...]:
        """Those that are not archived."""
        return tuple(one for one in self.entries if not isinstance(one, str))


def list_(
    tenant: str, *, matching: Mapping[str, str], below: str | None, limit: int, active_only: bool, words: str = ""
) -> Call[Page]:
    """A tenant's generations whose record fields (`status`, `model`, `namespace`, `group`) equal those in `matching`.

    With `words`, those alone whose prompts have them; letters of ASCII are compared without case.
    """

    def decode(reply: list[Any]) -> Page:
        return Page(entries=tuple(_readable(reply[1:])), continue_below=reply[0] or None)

    index = "active" if active_only else "history"
    pairs = (part for pair in matching.items() for part in pair)
    return Call(
        script="list", arguments=(tenant, index, below or "+inf", limit, _lowered(words), *pairs), decode=decode
    )


def _lowered(words: str) -> str:
    """Letters of ASCII in lower case, as Lua has them."""
    return words.encode().lower().decode()


def matches(record: Mapping[str, str], *, matching: Mapping[str, str], words: str = "") -> bool:
    """Whether an archived record is one of those that `list_` is asked for."""
    if any(record.get(name) != value for name, value in matching.items()):
        return False
    return not words or _lowered(words) in _lowered(submissions.Submission.from_record(record).edit.prompt)


def _readable(records: Iterable[Sequence[str]]) -> Iterator[generations.Generation | str]:
    for record in records:
        if len(record) == 1:
            yield record[0]
            continue
        try:
            yield generations.Generation.from_record(table_of(record), None)
        except (ValueError, KeyError) as exc:
            # One that is damaged, or much newer, hides none of the others.
            log.warning(
                "%s is left out of a list, it cannot be read: %s", table_of(record).get("id"), type(exc).__name__
            )
