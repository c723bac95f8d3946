"""How fast an API key may submit, and send pictures."""

from storage.contracts import access, edits, submissions
from storage.ledger import access as ledger_access
from storage.ledger import call


class Pacing:
    """Counts what keys send against their rates."""

    def __init__(self, ledger: call.AsyncLedger) -> None:
        self._ledger = ledger

    async def submission(self, submission: submissions.Submission, caller: access.Caller) -> access.Pace | None:
        """Count a submission and the pictures it brings; how its key then stands against its rate, if it has one.

        Raises `errors.TooManyRequestsError` and `errors.PayloadTooLargeError`.
        """
        pace = None
        if caller.key_id is not None and caller.rights.per_minute is not None:
            pace = await self._ledger.run(ledger_access.pace(caller.key_id, caller.rights.per_minute))
        await self.bytes(caller, sent_bytes(submission))
        return pace

    async def bytes(self, caller: access.Caller, sent: int) -> None:
        """Count pictures that a key sends. Raises as `submission`."""
        if caller.key_id is not None and caller.rights.mb_per_minute is not None and sent:
            await self.key_bytes(caller.key_id, caller.rights.mb_per_minute, sent)

    async def key_bytes(self, key_id: str, mb_per_minute: int, sent: int) -> None:
        """The same, of a key that is known by its id."""
        await self._ledger.run(ledger_access.pace_bytes(key_id, mb_per_minute, sent))


def sent_bytes(submission: submissions.Submission) -> int:
    """Bytes of the pictures that came with a submission."""
    return sum(len(one.data) for one in submission.edit.pictures if isinstance(one, edits.SentPicture))
