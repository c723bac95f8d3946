"""Decoding pictures in child processes that may not take much.

Decoders are C code that strangers feed: here belong the child that runs them within limits (memory, processor time, no file, no
socket), and the pool through which a worker asks it. A decoder that crashes, hangs or balloons costs one generation, and its
memory goes back to the system with its process. Nothing here imports pydantic or torch: a child starts in a tenth of a second.
"""
