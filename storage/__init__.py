"""What the service remembers, and the words for it.

Here belong the stores (ledger, event log, object store, queues), the names of their keys, and the contracts both the API
and the workers agree on. Neither of those two is imported here, and nothing here knows HTTP routes or torch.
"""
