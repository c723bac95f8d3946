"""Somebody's wire API each: fields, a translation to a submission, a translation of what came of it, errors, routes.

A dialect is one module, or a package where it is large, that ends in a `Dialect`; `api.app` lists them. It opens no connection
and waits in no loop. `base` is what they share, `fields` how they declare what is sent.
"""
