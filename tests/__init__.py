"""Tests by depth: unit (no I/O), stores (real Valkey and S3 server), service (everything running), faults (breaking it).

`service` is the manual: its names say what the service does.
"""
