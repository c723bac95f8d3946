"""What every route has in common: who is calling, bodies and the pictures in them, errors as statuses, event streams, downloads.

Nothing here belongs to one dialect, and nothing decides what is done.
"""
