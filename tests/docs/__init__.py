"""The documentation: what it tells to run, runs."""
