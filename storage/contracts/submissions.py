"""A submission: one request as this service understands it, whichever wire API it came through.

A dialect makes it from its fields, the API accepts it whole or not at all, the ledger keeps it as one opaque text, and every
generation gives it back. Nothing of a request is kept anywhere else.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import quote

from pydantic import Field, JsonValue

from storage.contracts import edits, errors, results
from storage.contracts.values import Frozen

HIGH_PRIORITY, PRIORITY, LOW_PRIORITY = 3, 5, 9
"""Of a tenant's own generations those are served first that have waited longest, with ten minutes added for each step of these:
what is low waits its turn and no longer."""

PRIORITIES: Mapping[str, int] = {"high": HIGH_PRIORITY, "normal": PRIORITY, "low": LOW_PRIORITY}
"""By the names that the native API and keys have for them."""

MAX_GENERATIONS = 10
"""Of one submission; dialects may allow fewer."""

MAX_BYTES = 256 * 1024
"""Of a submission as the ledger keeps it. A prompt has 32,000 characters at the most, of up to four bytes."""

MAX_ECHO_BYTES = 32 * 1024
"""Of what is shown again of a request."""

MAX_IDEMPOTENCY_KEY = 255

Moment = Literal["start", "completed"]


class Webhook(Frozen):
    """`url` is called at these `moments` in the words of a `dialect`, signed with the caller's `secret` if there is any.

    `base` is how the caller reached this service, for URLs in what is sent; `note` is the dialect's own.
    """

    url: str
    dialect: str
    moments: tuple[Moment, ...] = ("completed",)
    base: str = ""
    secret: str | None = None
    note: str = ""


class Pins(Frozen):
    """Where an edit may run: GPU types in order, a region, the most it may cost in USD. Nothing means anywhere."""

    gpu_types: tuple[str, ...] = ()
    region: str | None = None
    max_cost_usd: float | None = None

    def __bool__(self) -> bool:
        return bool(self.gpu_types or self.region or self.max_cost_usd is not None)


class Refusal(Frozen):
    """Why generations are recorded as failed at once, for callers that learn of bad parameters late."""

    code: str
    message: str


MAX_IGNORED = 32
"""Names of fields without effect that are told."""

NOT_RECORDED = {"idempotency_key", "refused", "kept_s", "group", "batch", "ignored"}
"""Fields of a submission that have places of their own in the ledger."""


class Submission(Frozen):
    """One request: an edit, with its pictures, and the terms it is to be made on.

    `seed` None means random; each of `count` generations after the first adds one. `queue_ttl_s` and `execution_limit_s`
    None mean the operator's limits, which are also the most. `deadline_s` seconds after acceptance it is over, whatever it does
    then. `kept_s` seconds after its end everything about it is erased; None means what the ledger keeps by itself. `group` names
    what belongs together; `batch` is the one that it is a line of. `inline`: the caller wants the picture in the answer instead
    of a URL. `echo` is what is shown again of the request, for display alone. `refused` asks for generations that are recorded
    as failed. `ignored` names fields of the request that change nothing.
    """

    edit: edits.Edit
    seed: Annotated[int | None, Field(ge=0, le=edits.MAX_SEED)] = None
    count: Annotated[int, Field(ge=1, le=MAX_GENERATIONS)] = 1
    queue_ttl_s: Annotated[float | None, Field(gt=0)] = None
    execution_limit_s: Annotated[float | None, Field(gt=0)] = None
    deadline_s: Annotated[float | None, Field(gt=0)] = None
    group: str | None = None
    batch: str | None = None
    kept_s: Annotated[float | None, Field(gt=0, le=results.RESULT_LIFETIME.total_seconds())] = None
    priority: int = PRIORITY
    pins: Pins = Pins()
    webhook: Webhook | None = None
    namespace: str | None = None
    inline: bool = False
    idempotency_key: str | None = None
    refused: Refusal | None = None
    ignored: tuple[str, ...] = ()
    echo: dict[str, JsonValue] = Field(default_factory=dict)

    @property
    def record_version(self) -> int:
        """The version of its records: what a worker must be able to heed."""
        if self.edit.mask is not None and len(self.edit.references) > 1:
            return edits.RECORD_VERSION
        return edits.PLAIN_VERSION if self.kept_s is None else edits.ERASED_EARLY_VERSION

    def recorded(self) -> str:
        """What the ledger keeps as one text; the rest has fields of its own.

        Raises `errors.PayloadTooLargeError` when that is more than `MAX_BYTES`.
        """
        text = self.model_dump_json(exclude_defaults=True, exclude=NOT_RECORDED)
        if len(text.encode()) > MAX_BYTES:
            raise errors.PayloadTooLargeError(f"A request may have at most {MAX_BYTES // 1024} KiB beside its pictures")
        return text

    @classmethod
    def from_record(cls, record: Mapping[str, str]) -> "Submission":
        """Read a ledger's record; what a newer release wrote is read as far as this one knows it."""
        if "submission" in record:
            return cls.model_validate_json(record["submission"], extra="ignore")
        # Records of versions 1 and 2 kept three of its parts apart.
        edit = edits.Edit.model_validate_json(record["edit"], extra="ignore")
        webhook = record.get("callback")
        return cls(
            edit=edit,
            seed=edit.seed,
            webhook=Webhook.model_validate_json(webhook, extra="ignore") if webhook else None,
            echo=json.loads(record["submitted"]),
        )

    def fingerprint(self) -> str:
        """A digest of everything that was asked for, of pictures by their bytes; the same for the same request sent again.

        Not of how the caller reached this service, nor of the signatures that are made anew for each request.
        """

        def without_bytes(picture: edits.Picture) -> edits.Picture:
            if isinstance(picture, edits.SentPicture):
                return edits.StoredPicture(key=f"sha256:{hashlib.sha256(picture.data).hexdigest()}")
            return picture

        plain = self.model_copy(update={"edit": self.edit.with_pictures(without_bytes)})
        value: dict[str, Any] = plain.model_dump(
            mode="json", exclude_defaults=True, exclude={"idempotency_key", "ignored"}
        )
        value.get("webhook", {}).pop("base", None)
        for name in edits.Delivery.SIGNED:
            value["edit"].get("deliver", {}).pop(name, None)
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def told_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of fields as they may stand in a header and a record: escaped, and not too many."""
    return tuple(quote(name[:64], safe="[]")[:192] for name in dict.fromkeys(names))[:MAX_IGNORED]


def recorded_edit(text: str) -> edits.Edit:
    """The edit of what a record keeps, for workers: strictly, since to leave out a field would make another picture.

    Raises `ValueError` when this version cannot read it.
    """
    # Records of versions 1 and 2 kept the edit alone.
    plain = json.loads(text)
    if isinstance(plain, dict) and "edit" in plain:
        return Submission.model_validate(plain).edit
    return edits.Edit.model_validate(plain)


def bounded(echo: Mapping[str, Any]) -> dict[str, Any]:
    """What may be shown again of a request: the largest values are left out until the rest is within `MAX_ECHO_BYTES`."""
    kept = {name: value for name, value in echo.items() if value is not None}
    sizes = {name: len(json.dumps({name: value}).encode()) for name, value in kept.items()}
    total = sum(sizes.values())
    for name in sorted(sizes, key=sizes.__getitem__, reverse=True):
        if total <= MAX_ECHO_BYTES:
            break
        total -= sizes[name]
        del kept[name]
    return kept
