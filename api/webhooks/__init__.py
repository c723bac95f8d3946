"""Webhooks: calls those who asked to be told. What is said is the dialect's; when, to whom and how often is here."""
