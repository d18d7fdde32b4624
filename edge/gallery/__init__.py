"""Embedding to name: who is enrolled, the search, the decision."""
