"""A secret rotation of the embedding space: what leaves a site can be compared there and nowhere else.

Angles stay as they are, so that a search finds the same subjects with the same scores; the templates of two
sites, or of one site after its secret was renewed, have nothing to do with each other. It hides templates
from whoever reads a database, not from whoever also has many faces of known people in it: as many pairs of a
template and its rotation as there are dimensions give the rotation away. On a device's own disk templates are
encrypted (`vault`).
"""

import hashlib

import numpy as np

from edge.core.types import FloatArray


class Rotation:
    """The rotation of float32 (n, `dim`) that belongs to a `secret`; the same on every machine."""

    def __init__(self, secret: bytes, dim: int) -> None:
        stream = hashlib.shake_256(b"edge rotation" + secret).digest(dim * dim * 8)
        words = np.frombuffer(stream, "<u4").astype(np.float64).reshape(2, dim, dim)
        radius = np.sqrt(-2 * np.log((words[0] + 1) / 2**32))
        # Box-Muller: independent normal numbers, so that Q is uniform among the rotations and reflections.
        # Source: G. W. Stewart, The efficient generation of random orthogonal matrices, 1980.
        q, r = np.linalg.qr(radius * np.cos(2 * np.pi * words[1] / 2**32))
        self._matrix: FloatArray = (q * np.sign(np.diag(r))).astype(np.float32)

    def apply(self, rows: FloatArray) -> FloatArray:
        """Return float32 (n, dim) or (dim,) rotated, of unit norm where it was before."""
        turned: FloatArray = rows @ self._matrix
        return turned
