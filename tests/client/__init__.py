"""The Python client and the command line, against a real stack."""
