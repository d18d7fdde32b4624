"""Embeddings as text: float32 rows that come back to the bit from JSON, and from a store that rounds."""

import base64

import numpy as np

from edge.core.types import FloatArray
from edge.gallery.gallery import NORM_TOLERANCE


def rows_text(rows: FloatArray) -> str:
    """Return rows (n, D), or one (D,), as base64 of their little-endian float32."""
    return base64.b64encode(np.ascontiguousarray(rows, "<f4").tobytes()).decode()


def rows_of(text: str, dim: int | None = None) -> FloatArray:
    """Return the rows that `rows_text` was given, float32 (n, `dim`); without `dim` the one row, (1, D).

    Raises:
        ValueError: The text holds no rows of this length.
    """
    flat = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float32)
    return flat.reshape((1, -1) if dim is None else (-1, dim))


def are_unit(rows: FloatArray) -> bool:
    """Return whether all rows (n, D) are finite and of unit norm."""
    with np.errstate(over="ignore", invalid="ignore"):
        squared_norms = np.einsum("ij,ij->i", rows, rows)
    return bool((np.abs(squared_norms - 1) <= 2 * NORM_TOLERANCE).all())  # NaN is not close to anything
