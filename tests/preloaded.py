"""What the programs of a stack import, for the process they are forked from; see `tests.forking`."""

# ruff: noqa: F401

from storage import garbage

with garbage.paused():
    import api.app
    import workers.gpu
    import workers.housekeeping
    import workers.pipelines.flux2
    import workers.pipelines.klein
    import workers.pipelines.kontext
    import workers.pipelines.stand_in
    import workers.text_encoder
