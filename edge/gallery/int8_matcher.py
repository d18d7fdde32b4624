"""Find the two best subjects in int8, then compare exactly: for galleries of some thousand rows to a million.

The answer is that of float32, always: int8 only rules out rows that cannot be among the two best, by a bound
on its own error. The only file that knows simsimd.
"""

import numpy as np
import simsimd
from numpy.typing import NDArray

from edge.core.types import FloatArray, Match, Probe
from edge.gallery.gallery import NORM_TOLERANCE, Gallery
from edge.gallery.rows import CHUNK, Rows, quantize_one
from edge.gallery.search import FAR, Mask, Scope, best_two, check_probe, exact, like_nobody, rule_out

ROUNDING = 1e-5
"""What float32 adds to the error of int8, generously: products are sums of at most 4096 rounded terms."""

GATHER = 1 / 32
"""Scopes below this share of the rows are gathered and searched alone.

Measured at 1M x 128: .01 of the subjects take .18 of the time of all, half of them 1.1.
"""


class QuantizedMatcher:
    """A `Matcher` that reads one byte per value; one thread. Nothing is kept between probes.

    `rows` are those of the gallery, in its order; None: they are quantized. The gallery's matrix may be a
    memory map: a search reads some ten rows of it.
    """

    def __init__(self, gallery: Gallery, rows: Rows | None = None) -> None:
        self.gallery = gallery
        self.rows = Rows.of(gallery.matrix) if rows is None else rows
        self._starts = gallery.starts
        self._counts = np.asarray(gallery.counts, np.intp)
        self._scope = Scope(gallery)
        self._one_row_each = len(gallery.matrix) == gallery.size

    def match(self, probe: Probe, allowed: Mask | None = None) -> Match:
        """See `Matcher.match`."""
        usable = check_probe(probe, self.gallery)
        scope = self._scope.measure(allowed)
        if scope[0] == 0:
            return Match(None, None, 0, 0)
        if not usable:
            return like_nobody(self.gallery, allowed, scope)
        embedding = probe.embedding.astype(np.float32, copy=False)
        rows = self._nearest(embedding, allowed)
        scores = exact(self.gallery.matrix[rows], embedding)
        if self._one_row_each:
            return best_two(self.gallery, rows, scores, scope)
        subjects, first = np.unique(self._owners(rows), return_index=True)
        return best_two(self.gallery, subjects, np.maximum.reduceat(scores, first), scope)

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

        The second subject found in int8 has the approximate score s, so two subjects have exact scores of at
        least s - e, where e bounds the error; a row whose approximate score is below s - 2e is behind both.
        """
        codes, scale, probe_error = quantize_one(embedding)
        scores, rows = self._scan(codes, allowed)
        error = self.rows.error * (1 + NORM_TOLERANCE) + probe_error * (1 + NORM_TOLERANCE + self.rows.error)
        slack = 2 * (error + ROUNDING) / scale
        found = [int(scores.argmax())]
        owner = self._owner(found[0], rows)
        while True:
            score, scores[found[-1]] = float(scores[found[-1]]), -FAR
            if self._owner(found[-1], rows) != owner:
                found += np.flatnonzero(scores >= score - slack).tolist()
                break
            best = int(scores.argmax())
            if scores[best] == -FAR:  # one subject is all there is in scope
                break
            found.append(best)
        places = np.array(sorted(found), np.intp)
        return self.rows.numbers(places) if rows is None else rows[places]

    def _scan(
        self, codes: NDArray[np.int8], allowed: Mask | None
    ) -> tuple[FloatArray, NDArray[np.intp] | None]:
        """Return approximate scores in steps of the probe's scale, and the rows gathered for it.

        Without gathered rows a score's place is the row's in `Rows.codes`.
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

    def _owner(self, place: int, rows: NDArray[np.intp] | None) -> int:
        """Return the position of the subject at a place of a scan; `rows` as from `_scan`."""
        places = np.array([place])
        row = self.rows.numbers(places) if rows is None else rows[places]
        return int((row if self._one_row_each else self._owners(row))[0])

    def _owners(self, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the positions of the subjects to which rows belong."""
        return self._starts.searchsorted(rows, side="right") - 1


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
