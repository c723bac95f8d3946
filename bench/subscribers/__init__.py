"""A thousand event streams on one API process: how late events arrive, and what a stream costs."""
