"""The ledger: every generation's record, and the only code that changes one.

Each transition is one Lua script beside this file, atomic in Redis: state, lease, indexes and event change together or not
at all. `calls` describes how to call each; `execution` runs a call on a synchronous or an asynchronous connection.
"""
