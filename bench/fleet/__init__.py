"""How well work is given out: over GPU types of different speed, over models that take turns, over tenants, over a long queue."""
