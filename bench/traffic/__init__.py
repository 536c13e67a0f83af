"""Traffic of every kind for one server, and what must hold of each answer. Needs nothing but the standard library."""
