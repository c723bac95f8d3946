"""Webhooks: when, to whom and how often. What is said is the dialect's."""
