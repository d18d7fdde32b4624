"""Rows of a gallery as int8: a quarter of the memory, and successive galleries share it.

Only appends and leaves out; what a row belongs to, and the exact answer, are `quantized`'s business.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.core.errors import GalleryError
from edge.core.types import FloatArray
from edge.gallery.gallery import NORM_TOLERANCE

CODES = 127
"""Codes lie in -127..127: symmetric, so that a scale is all that it takes to read them."""

SPARE = 1 / 8
"""Room for more rows, as a share of those there are. A row that finds none copies all: 1/8 of a copy each."""

GAPS = 1 / 64
"""Rows that may be left out before the others are moved together, as a share of all.

Every one of them is still read by a search, and every copy moves 64 rows for one that is left out.
"""

CHUNK = 16_384
"""Rows that are quantized at once: their temporary arrays stay in the processor's cache."""


@dataclass(slots=True, eq=False)
class _Memory:
    """Arrays with room to grow. Rows below `used` never change; only the rows beyond are written."""

    codes: NDArray[np.int8]
    scales: FloatArray
    used: int


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """Unit rows as int8 codes with one scale each; a value: changing it returns another one.

    The values share memory. Appending writes behind the rows of every older value, leaving out writes
    nothing, so that threads may read any of them meanwhile; changes come from one thread at a time.
    `gaps` are the positions that are left out, rising; `error` is the largest L2 distance of a row to what
    its codes say.
    """

    memory: _Memory
    count: int
    gaps: NDArray[np.int32]
    error: float

    @classmethod
    def of(cls, matrix: FloatArray) -> "Rows":
        """Quantize float32 (rows, D), which may be a memory map: it is read in pieces and not kept.

        Raises:
            GalleryError: A row is not finite or not of unit norm.
        """
        return cls(_room(len(matrix), matrix.shape[1]), 0, np.empty(0, np.int32), 0.0).appended(matrix)

    def __len__(self) -> int:
        """The rows that are not left out."""
        return self.count - len(self.gaps)

    @property
    def codes(self) -> NDArray[np.int8]:
        """The codes, int8 (count, D), gaps among them."""
        return self.memory.codes[: self.count]

    @property
    def scales(self) -> FloatArray:
        """What one step of a code is worth, float32 (count,)."""
        return self.memory.scales[: self.count]

    @property
    def nbytes(self) -> int:
        """The bytes that a search reads."""
        return self.codes.nbytes + self.scales.nbytes

    def positions(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return where in `codes` these rows stand; rows are numbered without the gaps."""
        if not len(self.gaps):
            return rows
        return rows + self.gaps_before().searchsorted(rows, side="right")

    def gaps_before(self) -> NDArray[np.intp]:
        """Return before which row each gap stands."""
        return self.gaps - np.arange(len(self.gaps))

    def numbers(self, positions: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the numbers of the rows at these positions, none of which is a gap."""
        return positions - self.gaps.searchsorted(positions) if len(self.gaps) else positions

    def appended(self, matrix: FloatArray) -> "Rows":
        """Return these rows and float32 (n, D) behind them.

        Raises:
            GalleryError: A row is not finite or not of unit norm.
        """
        if not len(matrix):
            return self
        memory, end, error = self.memory, self.count + len(matrix), self.error
        if memory.used != self.count or end > len(memory.codes):
            memory = self._moved(end, np.arange(self.count))
        if len(matrix) == 1:
            codes, scale, worst = quantize_one(matrix[0])
            memory.codes[self.count] = codes
            memory.scales[self.count] = scale
            error = max(error, worst)
        else:
            for start in range(0, len(matrix), CHUNK):
                piece = matrix[start : start + CHUNK]
                at = slice(self.count + start, self.count + start + len(piece))
                memory.codes[at], memory.scales[at], worst = quantize(piece)
                error = max(error, worst)
        memory.used = end
        return Rows(memory, end, self.gaps, error)

    def without(self, rows: NDArray[np.intp]) -> "Rows":
        """Return these rows but for the ones with these numbers, which rise."""
        if len(rows) == 1:
            gaps = self._with_gap(int(rows[0]))
        else:
            gaps = np.union1d(self.gaps, self.positions(rows)).astype(np.int32)
        if len(gaps) <= GAPS * self.count:
            return Rows(self.memory, self.count, gaps, self.error)
        kept = np.delete(np.arange(self.count), gaps)
        return Rows(self._moved(len(kept), kept), len(kept), gaps[:0], self.error)

    def _with_gap(self, row: int) -> NDArray[np.int32]:
        """Do for one row what `positions` does, in the time of a binary search and a copy of the gaps."""
        gaps = self.gaps
        at = bisect_right(range(len(gaps)), row, key=lambda index: int(gaps[index]) - index)
        return np.concatenate((gaps[:at], (row + at,), gaps[at:]), dtype=np.int32)

    def _moved(self, rows: int, kept: NDArray[np.intp]) -> _Memory:
        """Return a copy of the rows at these positions, with room for `rows` and some more."""
        memory = _room(rows, self.codes.shape[1])
        memory.used = len(kept)
        np.take(self.codes, kept, axis=0, out=memory.codes[: len(kept)], mode="clip")
        np.take(self.scales, kept, out=memory.scales[: len(kept)], mode="clip")
        return memory


def quantize(matrix: FloatArray) -> tuple[NDArray[np.int8], FloatArray, float]:
    """Return codes int8 (n, D), scales float32 (n,) and the largest L2 error of a row.

    Raises:
        GalleryError: A row is not finite or not of unit norm.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.einsum("ij,ij->i", matrix, matrix)
        # |norm^2 - 1| <= 2t where |norm - 1| <= t, but for t^2; NaN is not close to anything.
        if not (np.abs(norms - 1) <= 2 * NORM_TOLERANCE).all():
            raise GalleryError("an embedding is not of unit norm; enrol the subject again")
    scales = np.abs(matrix).max(axis=1) / np.float32(CODES)
    steps = matrix / scales[:, None]
    codes = np.rint(steps)
    steps -= codes
    error = float((np.sqrt(np.einsum("ij,ij->i", steps, steps)) * scales).max(initial=0))
    return codes.astype(np.int8), scales, error


def quantize_one(row: FloatArray) -> tuple[NDArray[np.int8], float, float]:
    """Do `quantize` for float32 (D,), a third of the time: a probe, or one more row.

    Raises:
        GalleryError: It is not finite or not of unit norm.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if not abs(float(row @ row) - 1) <= 2 * NORM_TOLERANCE:
            raise GalleryError("an embedding is not of unit norm; enrol the subject again")
    scale = float(np.abs(row).max()) / CODES
    steps = row / np.float32(scale)
    codes = np.rint(steps)
    steps -= codes
    return codes.astype(np.int8), scale, math.sqrt(float(steps @ steps)) * scale


def _room(rows: int, dim: int) -> _Memory:
    capacity = rows + int(rows * SPARE) + CODES
    return _Memory(np.empty((capacity, dim), np.int8), np.empty(capacity, np.float32), 0)
