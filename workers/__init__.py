"""The processes behind the queue: GPU workers that edit, and the housekeeping worker that keeps promises.

The only place that knows torch. No web framework belongs here.
"""
