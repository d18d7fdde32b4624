"""Looks a door over for whoever installs or mends it: what is right, what is not, and what to do about it."""
