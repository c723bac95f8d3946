"""Diffusion pipelines, one module per model family. What is common to them stands in `base`, which needs no torch."""
