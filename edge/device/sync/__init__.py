"""Brings the galleries and models that the fleet publishes, signed, to this door."""
