"""Plain values both sides agree on: errors, the catalog, edits, generations, events.

No input or output and no client library belongs here: a contract can be imported, built and compared anywhere.
"""
