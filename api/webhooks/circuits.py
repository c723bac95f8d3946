"""Circuit breaking: a receiver that does not answer is given a rest, so that others do not wait behind it."""

from collections import OrderedDict
from dataclasses import dataclass
from urllib.parse import urlsplit

FAILURES = 5
"""In a row, after which a receiver is given a rest."""
REST_S, LONGEST_REST_S = 30.0, 900.0
"""The first rest, and the longest: each failure after it doubles it."""
REMEMBERED = 10_000

Destination = tuple[str, str]


def destination_of(tenant: str, url: str) -> Destination:
    """A tenant's receivers at one host are one: what one tenant's do is nothing to another's."""
    return tenant, urlsplit(url).netloc.lower()


@dataclass
class _State:
    under_way: int = 0
    failures: int = 0
    until: float = 0.0


class Circuits:
    """What is known of destinations. Times are seconds of any clock that does not go back."""

    def __init__(self) -> None:
        self._states: OrderedDict[Destination, _State] = OrderedDict()

    def rest_s(self, destination: Destination, now: float) -> float:
        """For how long it is not to be called; 0: it may be.

        After a rest one call tries whether it answers again.
        """
        state = self._states.get(destination)
        if state is None or state.failures < FAILURES:
            return 0.0
        if state.under_way:
            return REST_S
        return max(0.0, state.until - now)

    def begin(self, destination: Destination) -> None:
        """It is being called."""
        self._states.setdefault(destination, _State()).under_way += 1
        self._states.move_to_end(destination)
        if len(self._states) > REMEMBERED:
            self._states.popitem(last=False)

    def end(self, destination: Destination, *, answered: bool, now: float) -> None:
        """A call is over."""
        state = self._states.get(destination)
        if state is None:
            return
        state.under_way -= 1
        state.failures = 0 if answered else state.failures + 1
        if state.failures >= FAILURES:
            rest_s: float = REST_S * 2 ** min(state.failures - FAILURES, 10)
            state.until = now + min(rest_s, LONGEST_REST_S)
        elif not state.failures and not state.under_way:
            del self._states[destination]
