"""The other side of the wire: who signs and publishes for many doors."""
