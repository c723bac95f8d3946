"""Each wire API by its own official client, with only address and key changed, against the running service."""
