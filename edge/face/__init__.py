"""Pixels to embedding: models, detector, alignment, quality, liveness."""
