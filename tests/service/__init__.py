"""The whole service, used as clients use it."""
