"""What a GPU makes of our plans: full-size models with random weights through the worker's own code, beside plain diffusers.

No weights are needed: timing and memory do not depend on their values. `python -m bench.gpu` takes under eight minutes
on an H100 or H200, the most telling first; `--shrunk` runs the same code with models of two layers on a CPU.
"""
