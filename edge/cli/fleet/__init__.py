"""Commands for many doors."""
