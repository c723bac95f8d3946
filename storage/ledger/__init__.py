"""The ledger: every generation's record, and the only code that changes one.

Each transition is one Lua script, atomic in Redis: state, lease, indexes and event change together or not at all. The packages
hold scripts beside the calls that run them: `records` (what callers do), `claims` (what workers do), `recovery` (what
housekeeping does), `webhooks`, `expiry`, `presence` and `usage`. `execution` runs a call on a synchronous or an asynchronous
connection.
"""
