"""The oracle: load on a whole stack while its processes are killed, frozen and cut off, then a verdict from the outside.

`make soak SECONDS=1200` runs it for long; a short run is part of the tests. `load` asks for edits as clients do, `proxy` and
`injection` break things, `verdict` checks every promise by the public API and by looking into the stores.
"""
