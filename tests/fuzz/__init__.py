"""Requests made up from the OpenAPI document (schemathesis), with the keys of two tenants."""
