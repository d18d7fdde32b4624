"""A configuration push, from its signature to its end."""
