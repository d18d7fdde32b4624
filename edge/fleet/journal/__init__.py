"""Keeps the decisions of many doors, exactly once."""
