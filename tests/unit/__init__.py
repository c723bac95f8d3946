"""No process, no socket."""
