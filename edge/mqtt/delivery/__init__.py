"""Loses nothing: outbox, courier, receipts, and what arrives."""
