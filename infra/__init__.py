"""How the service is run: the stack on one machine, containers, charts. Imported by nobody."""
