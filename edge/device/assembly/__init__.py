"""Builds the parts of a door from its settings."""
