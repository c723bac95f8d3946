"""Measurements, each a command that prints a table of what it saw. Nothing here is imported by the service."""
