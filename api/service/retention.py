"""How long generations are kept: by the request, its key and its tenant, the shortest of them."""

from collections.abc import Mapping

from storage.contracts import access, results, submissions

DAY_S = 86_400


class Retention:
    """Days by tenant after which everything about their generations is erased; others keep what the ledger keeps by itself."""

    def __init__(self, days: Mapping[str, float]) -> None:
        self._days = days

    def applied(self, submission: submissions.Submission, caller: access.Caller) -> submissions.Submission:
        """The submission with the time that holds for it."""
        days = [self._days.get(caller.tenant), caller.rights.retention_days]
        seconds = [one * DAY_S for one in days if one is not None]
        if submission.kept_s is not None:
            seconds.append(submission.kept_s)
        if caller.rights.no_store:
            seconds.append(results.NO_STORE_S)
        return submission.model_copy(update={"kept_s": min(seconds)}) if seconds else submission
