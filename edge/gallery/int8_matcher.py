"""Find the two best subjects in int8, then compare exactly: for galleries of some thousand rows to a million.

The answer is that of float32, always: int8 only rules out rows that cannot be among the two best, by a bound
on its own error. The int8 rows take a quarter of the memory, and successive galleries share it. The only file
that knows simsimd.
"""

import math
from dataclasses import dataclass

import numpy as np
import simsimd
from numpy.typing import NDArray

from edge.core.errors import GalleryError
from edge.core.types import FloatArray
from edge.gallery.gallery import NORM_TOLERANCE, Gallery
from edge.gallery.search import FAR, LocalMatcher, Mask, exact, rule_out

CODES = 127
"""Codes lie in -127..127: symmetric, so that a scale is all that it takes to read them."""

SPARE = 1 / 8
"""Room for more rows, as a share of those there are. A row that finds none copies all: 1/8 of a copy each."""

SPARE_ROWS = 128
"""Room for more rows in the smallest gallery."""

GAPS = 1 / 64
"""Rows that may be left out before the others are moved together, as a share of all.

Every one of them is still read by a search, and every copy moves 64 rows for one that is left out.
"""

CHUNK = 16_384
"""Rows that are quantized at once: their temporary arrays stay in the processor's cache."""

ROUNDING = 1e-5
"""What float32 adds to the error of int8, generously: products are sums of at most 4096 rounded terms."""

GATHER = 1 / 32
"""Scopes below this share of the rows are gathered and searched alone.

Measured at 1M x 128: .01 of the subjects take .18 of the time of all, half of them 1.1.
"""


@dataclass(slots=True, eq=False)
class _Memory:
    """Arrays with room to grow. Rows below `used` never change; only the rows beyond are written."""

    codes: NDArray[np.int8]
    scales: FloatArray
    used: int


@dataclass(frozen=True, slots=True, eq=False)
class Int8Rows:
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
    def of(cls, matrix: FloatArray) -> "Int8Rows":
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

    def appended(self, matrix: FloatArray) -> "Int8Rows":
        """Return these rows and float32 (n, D) behind them.

        Raises:
            GalleryError: A row is not finite or not of unit norm.
        """
        if not len(matrix):
            return self
        memory, end, error = self.memory, self.count + len(matrix), self.error
        if memory.used != self.count or end > len(memory.codes):
            memory = self._moved(end, np.arange(self.count))
        for start in range(0, len(matrix), CHUNK):
            piece = matrix[start : start + CHUNK]
            at = slice(self.count + start, self.count + start + len(piece))
            memory.codes[at], memory.scales[at], worst = quantize(piece)
            error = max(error, worst)
        memory.used = end
        return Int8Rows(memory, end, self.gaps, error)

    def without(self, rows: NDArray[np.intp]) -> "Int8Rows":
        """Return these rows but for the ones with these numbers, which rise."""
        more = self.positions(rows)
        gaps = np.insert(self.gaps, self.gaps.searchsorted(more), more)
        if len(gaps) <= GAPS * self.count:
            return Int8Rows(self.memory, self.count, gaps, self.error)
        kept = np.delete(np.arange(self.count), gaps)
        return Int8Rows(self._moved(len(kept), kept), len(kept), gaps[:0], self.error)

    def _moved(self, rows: int, kept: NDArray[np.intp]) -> _Memory:
        """Return a copy of the rows at these positions, with room for `rows` and some more."""
        memory = _room(rows, self.codes.shape[1])
        memory.used = len(kept)
        np.take(self.codes, kept, axis=0, out=memory.codes[: len(kept)], mode="clip")
        np.take(self.scales, kept, out=memory.scales[: len(kept)], mode="clip")
        return memory


class QuantizedMatcher(LocalMatcher):
    """Reads one byte per value; one thread.

    `rows` are those of the gallery, in its order; None: they are quantized. The gallery's matrix may be a
    memory map: a search reads some ten rows of it.
    """

    def __init__(self, gallery: Gallery, rows: Int8Rows | None = None) -> None:
        super().__init__(gallery)
        self.rows = Int8Rows.of(gallery.matrix) if rows is None else rows
        self._counts = np.asarray(gallery.counts, np.intp)

    def _scores(self, embedding: FloatArray, allowed: Mask | None) -> tuple[NDArray[np.intp], FloatArray]:
        embedding = embedding.astype(np.float32, copy=False)
        rows = self._nearest(embedding, allowed)
        scores = exact(self.gallery.matrix[rows], embedding)
        if self._one_row_each:
            return rows, scores
        subjects, first = np.unique(self._owners(rows), return_index=True)
        return subjects, np.maximum.reduceat(scores, first)

    def updated(self, gallery: Gallery) -> "QuantizedMatcher":
        """Return a matcher of another version of the gallery; it shares the rows that both have.

        A subject keeps its rows while it stays behind the same others; one enrolled again is a new one.
        """
        kept = _kept(self.gallery, gallery).repeat(self._counts)
        old = np.flatnonzero(kept)
        if gallery.dim != self.gallery.dim or not _equal(self.gallery.matrix, old, gallery.matrix):
            return QuantizedMatcher(gallery)
        rows = self.rows.without(np.flatnonzero(~kept)).appended(gallery.matrix[len(old) :])
        return QuantizedMatcher(gallery, rows)

    def _nearest(self, embedding: FloatArray, allowed: Mask | None) -> NDArray[np.intp]:
        """Return the rows, rising, among which the exact best rows of the two best subjects are.

        The best row of another subject than the first one's has the approximate score s, so two subjects have
        exact scores of at least s - e, where e bounds the error; a row whose approximate score is below
        s - 2e is behind both.
        """
        codes, scale, probe_error = quantize_one(embedding)
        scores, gathered = self._scan(codes, allowed)
        error = self.rows.error * (1 + NORM_TOLERANCE) + probe_error * (1 + NORM_TOLERANCE + self.rows.error)
        slack = 2 * (error + ROUNDING) / scale
        own = self._places_of_owner(int(scores.argmax()), gathered)
        kept = scores[own]
        scores[own] = -FAR
        second = scores.max()
        scores[own] = kept
        if second == -FAR:  # one subject is all there is in scope
            return self._numbers(own, gathered)
        return self._numbers(np.flatnonzero(scores >= second - slack), gathered)

    def _scan(
        self, codes: NDArray[np.int8], allowed: Mask | None
    ) -> tuple[FloatArray, NDArray[np.intp] | None]:
        """Return approximate scores in steps of the probe's scale, and the rows gathered for it.

        Without gathered rows a score's place is the row's in `Int8Rows.codes`.
        """
        if allowed is None:
            scores = _products(codes, self.rows.codes, self.rows.scales)
            scores[self.rows.gaps] = -FAR
            return scores, None
        mask = allowed if self._one_row_each else allowed.repeat(self._counts)
        if np.count_nonzero(mask) < GATHER * len(mask):
            rows = np.flatnonzero(mask)
            at = self.rows.positions(rows)
            return _products(codes, self.rows.codes[at], self.rows.scales[at]), rows
        scores = _products(codes, self.rows.codes, self.rows.scales)
        rule_out(scores, np.insert(~mask, self.rows.gaps_before(), True) if len(self.rows.gaps) else ~mask)
        return scores, None

    def _numbers(self, places: NDArray[np.intp], gathered: NDArray[np.intp] | None) -> NDArray[np.intp]:
        """Return the numbers of the rows at these places of a scan; `gathered` as from `_scan`."""
        return self.rows.numbers(places) if gathered is None else gathered[places]

    def _places_of_owner(self, place: int, gathered: NDArray[np.intp] | None) -> NDArray[np.intp]:
        """Return where in a scan all rows of the subject are that has a row at this place."""
        [subject] = self._owners(self._numbers(np.array([place]), gathered))
        rows = self._starts[subject] + np.arange(self._counts[subject])
        return self.rows.positions(rows) if gathered is None else gathered.searchsorted(rows)

    def _owners(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the positions of the subjects to which rows belong."""
        return self._starts.searchsorted(rows, side="right") - 1


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
    """Do `quantize` for a probe, float32 (D,) of unit norm, in half of the time."""
    scale = float(np.abs(row).max()) / CODES
    steps = row / np.float32(scale)
    codes = np.rint(steps)
    steps -= codes
    return codes.astype(np.int8), scale, math.sqrt(float(steps @ steps)) * scale


def check_kernel() -> None:
    """Do a product that is known.

    Raises:
        ValueError: Its result is wrong.
        Exception: Whatever simsimd raises where it does not run.
    """
    codes = np.arange(-64, 64, dtype=np.int8)
    found = _products(codes, np.stack([codes, codes[::-1]]), np.array([1, 2], np.float32))
    right = [
        np.dot(codes.astype(int), row.astype(int)) * scale for row, scale in ((codes, 1), (codes[::-1], 2))
    ]
    if found.tolist() != right:
        raise ValueError(f"a product is {found.tolist()} instead of {right}")


def _room(rows: int, dim: int) -> _Memory:
    capacity = rows + max(int(rows * SPARE), SPARE_ROWS)
    return _Memory(np.empty((capacity, dim), np.int8), np.empty(capacity, np.float32), 0)


def _products(probe: NDArray[np.int8], codes: NDArray[np.int8], scales: FloatArray) -> FloatArray:
    """Return the products of a probe's codes (D,) with rows (n, D), each times the row's scale (n,)."""
    # Without `out`: given one, simsimd 6.5.16 returns None without owning it, and CPython 3.11 dies of that
    # after some thousand probes. NumKong, its successor, does not, but takes up to 2.1 times as long (cdist).
    scores: FloatArray = np.asarray(simsimd.cdist(probe[None], codes, metric="dot", out_dtype="float32"))[0]
    scores *= scales
    return scores


def _kept(old: Gallery, new: Gallery) -> NDArray[np.bool_]:
    """Return which of the old subjects, bool (size,), are the first ones of the new gallery, in its order."""
    kept = np.zeros(old.size, bool)
    number = 0
    for index, (subject, count) in enumerate(zip(old.subjects, old.counts, strict=True)):
        if number == new.size:
            break
        if subject.subject_id == new.subjects[number].subject_id and count == new.counts[number]:
            kept[index] = True
            number += 1
    return kept


def _equal(old: FloatArray, rows: NDArray[np.intp], new: FloatArray) -> bool:
    """Return whether these rows of the old matrix are the first rows of the new one."""
    return all(
        np.array_equal(old[rows[start : start + CHUNK]], new[start : start + CHUNK][: len(rows) - start])
        for start in range(0, len(rows), CHUNK)
    )
