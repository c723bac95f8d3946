"""Somebody's wire API each: a router and two translations, request to edit and generation to answer. No logic of its own."""
