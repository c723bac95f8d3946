"""The only speller of Redis keys and their lifetimes, for Python and for the ledger's scripts alike.

Everything lives below one prefix. Keys that have no lifetime (`PERMANENT`) are indexes of unfinished work: they empty
themselves as it finishes. Everything else expires.
"""

from typing import Final

PREFIX: Final = "darkroom:"

GENERATION: Final = PREFIX + "generation:"
"""+ id: hash, the record."""
RING: Final = PREFIX + "ring:"
"""+ queue: list of the tenants with pending work, next to be served first."""
PENDING: Final = PREFIX + "pending:"
"""+ queue:tenant: sorted set of queued ids; score is priority, then order of arrival."""
DEPTHS: Final = PREFIX + "depths"
"""Hash: queue to number of queued generations."""
LEASES: Final = PREFIX + "leases"
"""Sorted set: id of each processing generation to the millisecond its lease runs out."""
DUE: Final = PREFIX + "due"
"""Sorted set: id of each queued generation that rests before its next attempt, to the millisecond it is pending again."""
DEADLINES: Final = PREFIX + "deadlines"
"""Sorted set: id of each queued generation to the millisecond it has waited long enough, and of each that has a deadline."""
PARKED: Final = PREFIX + "parked"
"""Sorted set: id of each generation that lost its workers or used up its attempts, to the millisecond it failed."""
INPUT_USES: Final = PREFIX + "uses:"
"""+ object prefix: how many generations that were not cancelled have their inputs there."""
SEQUENCE: Final = PREFIX + "sequence"
"""Counter: order of arrival."""
SWEPT: Final = PREFIX + "swept"
"""Hash: when the last recovery sweep ran, and until when it grants grace."""
ACTIVE: Final = PREFIX + "active:"
"""+ tenant: sorted set of unfinished ids by order of arrival."""
HISTORY: Final = PREFIX + "history:"
"""+ tenant: sorted set by order of arrival, of all ids whose records are here."""
ARCHIVING: Final = PREFIX + "archiving"
"""Sorted set: id of each finished generation whose record is still here, to the millisecond it was over."""
ARCHIVE: Final = PREFIX + "archive:"
"""+ tenant: sorted set by order of arrival, of each generation whose record lies in the object store: what lists filter by, as
`<id>|<first letter of its status>|<second it goes>|<digests of model, namespace and group>`."""
BYTES: Final = PREFIX + "bytes"
"""Hash: tenant to the bytes of its records that are here, roughly."""
BATCH: Final = PREFIX + "batch:"
"""+ id: hash, a batch: what is being done with it, and how many of its lines came to what."""
BATCHES: Final = PREFIX + "batches:"
"""+ tenant: sorted set, id of each batch to the millisecond it was accepted."""
OPEN_BATCHES: Final = PREFIX + "openbatches:"
"""+ tenant: set, ids of those that are not over, and of some that are since."""
BATCH_LINES: Final = PREFIX + "batchlines:"
"""+ id: set, ids of the generations of a batch's lines that were accepted, until all are: whatever becomes of them meanwhile."""
BATCH_TURNS: Final = PREFIX + "batchturns"
"""Sorted set: id of each batch that is to be worked on, to the millisecond from which somebody may."""
IDEMPOTENCY: Final = PREFIX + "idempotency:"
"""+ tenant:key: what the first request with this key led to."""
LIVE_EVENTS: Final = PREFIX + "events"
"""Stream of all tenants' events, short: API processes follow it."""
EVENTS: Final = PREFIX + "events:"
"""+ tenant: stream of one tenant's events, long: reconnecting readers are replayed from it."""
WEBHOOKS: Final = PREFIX + "webhooks:"
"""+ tenant: sorted set, `<id>/<moment>` of each webhook that is to be called, to the millisecond it is due."""
WEBHOOK_TURNS: Final = PREFIX + "webhookturns"
"""Sorted set: tenant with webhooks, to the millisecond from which it has a turn: a ring, the longest wait first."""
WEBHOOKS_BEFORE: Final = PREFIX + "callbacks"
"""Sorted set: what the release before has instead of these two; it is moved there."""
WEBHOOK_LOG: Final = PREFIX + "webhooklog:"
"""+ tenant: stream of the last calls of its webhooks, and what came of them."""
WEBHOOK_SECRETS: Final = PREFIX + "webhooksecrets"
"""Hash: tenant to which of its webhook secrets hold, as JSON {version, earlier: [[version, until ms]...]}."""
TALLY: Final = PREFIX + "tally:"
"""+ tenant: hash, `<model>:<what>` to how often that happened: succeeded, failed, cancelled, retried."""
CHAINED: Final = PREFIX + "chained"
"""Sorted set: id of each queued generation that may go to other queues than its own, to the millisecond it was looked at."""
TARGETS: Final = PREFIX + "targets"
"""Set: names of targets that have samples."""
SAMPLES: Final = PREFIX + "samples:"
"""+ target: list of the latest samples as JSON, newest first."""
USAGE: Final = PREFIX + "usage:"
"""+ tenant:month: hash, `<model>:<what>` to how much: count, pixels, gpu_ms, cost (in millionths of a dollar); `spent` and
`reserved` of all models."""
WANTED: Final = PREFIX + "wanted"
"""Hash: target of a model that is to be kept loaded, to who loads it and until when, as JSON."""
EXPIRING: Final = PREFIX + "expiring"
"""Sorted set: object prefix to the millisecond it is to be deleted."""
ERASING: Final = PREFIX + "erasing"
"""Sorted set: id of each finished generation that is to be erased early, to the millisecond of that."""
STOPPED: Final = PREFIX + "stopped"
"""Pub/sub channel: ids of generations whose worker should stop."""
ENCODINGS: Final = PREFIX + "encodings:"
"""+ region:model: sorted set, `<id>/<token>` of each claim whose prompts are to be encoded, to the millisecond of that."""
ENCODED: Final = PREFIX + "encoded:"
"""+ id/token: list, one entry: empty once they are stored, or why they cannot be encoded."""
ALIVE: Final = PREFIX + "alive:"
"""+ process name: what a worker says of itself; gone when it stops saying so."""
FLEET: Final = PREFIX + "fleet"
"""Set: names of processes that announced themselves, some of which may be gone."""
API_KEY: Final = PREFIX + "key:"
"""+ id: hash, an API key made at run time: itself as JSON without its secret, `expires_ms`, `used_ms`."""
API_KEYS: Final = PREFIX + "keys"
"""Hash: id of each of them to its tenant."""
API_KEY_PACE: Final = PREFIX + "pace:"
"""+ id, or id:bytes: when its next submission is due, in milliseconds."""
TOKEN: Final = PREFIX + "token:"
"""+ id: hash, a browser token for edits: how many are `left`, and `id:<generation>` for each that came of it."""
AUDIT: Final = PREFIX + "audit"
"""Stream: what was done to API keys, and by whom."""
PAUSED: Final = PREFIX + "paused"
"""Hash: `model:`, `tenant:` or `queue:` and a name, of what an operator paused, to since when in milliseconds."""
BARRIER: Final = PREFIX + "barrier"
"""String: written by a process that waits until replicas have all that was written before."""
BROKER: Final = PREFIX + "broker:"
"""Celery's own keys; + queue name: list of tickets."""

PERMANENT: Final = (
    RING,
    PENDING,
    DEPTHS,
    LEASES,
    DUE,
    DEADLINES,
    SEQUENCE,
    ACTIVE,
    WEBHOOKS,
    WEBHOOK_TURNS,
    WEBHOOKS_BEFORE,
    WEBHOOK_SECRETS,
    CHAINED,
    WANTED,
    EXPIRING,
    ERASING,
    ARCHIVING,
    BYTES,
    BATCH_TURNS,
    API_KEY,
    API_KEYS,
    PAUSED,
    BROKER,
)
"""What may lack a lifetime."""

DAY_S: Final = 24 * 3600

LIFETIMES_S: Final = {
    "waiting": 30 * DAY_S,  # a record not yet terminal
    "record": 8 * DAY_S,  # a terminal one: a day longer than its result
    "events": DAY_S,
    "history": 30 * DAY_S,
    "idempotency": DAY_S,
    "alive": 15,
    "encodings": 3600,
    "encoded": 60,
    "swept": DAY_S,
    "parked": 8 * DAY_S,
    "samples": 90 * DAY_S,
    "usage": 400 * DAY_S,
    "audit": 400 * DAY_S,
}
"""Seconds each kind of key is kept after its last write."""


LOG_LENGTH: Final = 10_000
"""Entries that a log holds at least, once there were as many."""


def prelude() -> str:
    """The same names, lifetimes and length as Lua tables, put before every script of the ledger."""
    names = {
        "generation": GENERATION, "ring": RING, "pending": PENDING, "depths": DEPTHS, "leases": LEASES, "due": DUE,
        "deadlines": DEADLINES, "parked": PARKED, "input_uses": INPUT_USES, "sequence": SEQUENCE, "swept": SWEPT,
        "active": ACTIVE, "history": HISTORY, "archiving": ARCHIVING, "archive": ARCHIVE, "bytes": BYTES, "batch": BATCH,
        "batches": BATCHES, "open_batches": OPEN_BATCHES, "batch_lines": BATCH_LINES, "batch_turns": BATCH_TURNS,
        "idempotency": IDEMPOTENCY, "live_events": LIVE_EVENTS, "events": EVENTS,
        "expiring": EXPIRING, "erasing": ERASING, "webhooks": WEBHOOKS,
        "webhook_turns": WEBHOOK_TURNS, "webhooks_before": WEBHOOKS_BEFORE, "webhook_log": WEBHOOK_LOG,
        "webhook_secrets": WEBHOOK_SECRETS, "tally": TALLY, "fleet": FLEET, "alive": ALIVE, "chained": CHAINED,
        "targets": TARGETS, "samples": SAMPLES, "usage": USAGE, "wanted": WANTED,
        "stopped": STOPPED, "encodings": ENCODINGS, "encoded": ENCODED,
        "api_key": API_KEY, "api_keys": API_KEYS, "api_key_pace": API_KEY_PACE, "audit": AUDIT,
        "token": TOKEN, "paused": PAUSED, "barrier": BARRIER, "broker": BROKER,
    }  # fmt: skip
    key = ", ".join(f"{name} = '{value}'" for name, value in names.items())
    life = ", ".join(f"{name} = {seconds}" for name, seconds in LIFETIMES_S.items())
    return f"local KEY = {{ {key} }}\nlocal LIFE = {{ {life} }}\nlocal LOG_LENGTH = {LOG_LENGTH}\n"
