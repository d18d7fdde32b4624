"""Compare a probe with every template of a gallery: exact, float32. Decides nothing."""

import numpy as np

from edge.errors import ModelMismatchError
from edge.gallery.gallery import NORM_TOLERANCE, Gallery
from edge.types import Candidate, FloatArray, Match, Probe


class DenseMatcher:
    """The scores of a probe against a gallery of up to some 100,000 rows.

    One matrix-vector product and the best row of each subject; nothing is kept between probes, so that
    threads may share it. Measured: .07 ms at 10,000 x 128.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._starts = gallery.starts
        self._comparisons = float(gallery.comparisons.sum())
        self._one_row_each = len(gallery.matrix) == gallery.size

    def match(self, probe: Probe) -> Match:
        """Return the two subjects with the best scores; a subject scores what its best template does.

        A probe that is not finite and of unit norm is like nobody: its scores are NaN, which no threshold
        accepts. Of equal scores the subject that was enrolled first wins.

        Raises:
            ModelMismatchError: The probe comes from another embedder than the gallery.
        """
        gallery = self.gallery
        shape = (gallery.dim or len(probe.embedding),)  # a gallery that never had a row takes any length
        if probe.model_id != gallery.model_id or probe.embedding.shape != shape:
            raise ModelMismatchError(
                f"a probe of {probe.model_id!r}, shape {probe.embedding.shape}, cannot be compared with a "
                f"gallery of {gallery.model_id!r}, dimension {gallery.dim}; enrol the subjects again"
            )
        if gallery.size == 0:
            return Match(None, None, 0, 0)
        scores = self._scores(probe.embedding)
        best = int(scores.argmax())
        found = self._candidate(scores, best)
        if gallery.size == 1:
            return Match(found, None, 1, self._comparisons)
        scores[best] = -np.inf
        second = self._candidate(scores, int(scores.argmax()))
        return Match(found, second, gallery.size, self._comparisons)

    def _scores(self, embedding: FloatArray) -> FloatArray:
        """Return the score of each subject, float32 (size,)."""
        with np.errstate(over="ignore", invalid="ignore"):
            squared_norm = float(embedding @ embedding)
        # |norm^2 - 1| <= 2t where |norm - 1| <= t, but for t^2; NaN is not close to anything.
        if not abs(squared_norm - 1) <= 2 * NORM_TOLERANCE:
            return np.full(self.gallery.size, np.nan, np.float32)
        scores = self.gallery.matrix @ embedding.astype(np.float32, copy=False)
        return scores if self._one_row_each else np.maximum.reduceat(scores, self._starts)

    def _candidate(self, scores: FloatArray, index: int) -> Candidate:
        score = float(scores[index])
        # Rounding may leave [-1, 1]; in this order of arguments a NaN stays one.
        return Candidate(self.gallery.subjects[index], min(max(score, -1.0), 1.0))
