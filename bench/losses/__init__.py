"""How many edits the naive service loses when its processes are killed, as the oracle counts for Darkroom."""
