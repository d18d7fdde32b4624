"""What every matcher does alike: refuse a foreign probe, know its scope, name the two best subjects.

Searches nothing (`matcher`, `int8_matcher`) and decides nothing (`decision`).
"""

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from edge.core.errors import GalleryError, ModelMismatchError
from edge.core.types import FloatArray, Match, Probe, ScoredSubject
from edge.gallery.gallery import NORM_TOLERANCE, Gallery

Mask = NDArray[np.bool_]
"""Which subjects may be found, bool (size,) in the order of `Gallery.subjects`."""


FAR = np.float32(1e30)
"""What is taken off the score of a row out of scope; below every score, and finite: 0 x FAR is 0.

Measured at 1M rows: .4 ms; assigning to a mask takes 4 ms.
"""


class Matcher(Protocol):
    """The two subjects of a gallery that are closest to a probe. Nothing is kept between probes."""

    @property
    def gallery(self) -> Gallery:
        """The gallery that is searched."""

    def match(self, probe: Probe, allowed: Mask | None = None) -> Match:
        """Return the two subjects with the best scores; a subject scores what its best template does.

        `allowed` says which subjects are in scope, None: all. The others are not found, and count neither
        in `gallery_size` nor in `comparisons`, which the threshold follows. A probe that is not finite and
        of unit norm is like nobody: its scores are NaN, which no threshold accepts. Of equal scores the
        subject that was enrolled first wins.

        Raises:
            ModelMismatchError: The probe comes from another embedder than the gallery.
            GalleryError: `allowed` has another length than the gallery.
        """


class Scope:
    """Which subjects of a gallery a search is about, and what it is worth."""

    def __init__(self, gallery: Gallery) -> None:
        self._each = gallery.comparisons
        self._all = (gallery.size, float(self._each.sum()))
        self._plain = bool((self._each == 1).all())

    def measure(self, allowed: Mask | None) -> tuple[int, float]:
        """Return the number of subjects in scope and their comparisons (`Match.comparisons`).

        Raises:
            GalleryError: `allowed` is not one bool per subject.
        """
        if allowed is None:
            return self._all
        if allowed.shape != self._each.shape or allowed.dtype != np.bool_:
            raise GalleryError(
                f"a scope of {allowed.dtype} {allowed.shape} does not fit {self._all[0]} subjects; it needs "
                "one bool per subject, made for this version of the gallery"
            )
        size = int(np.count_nonzero(allowed))
        return size, float(size) if self._plain else float(self._each @ allowed)


class LocalMatcher(ABC):
    """What is the same in every `Matcher` that has the gallery in memory; threads may share it."""

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._scope = Scope(gallery)
        self._starts = gallery.starts
        self._one_row_each = len(gallery.matrix) == gallery.size

    def match(self, probe: Probe, allowed: Mask | None = None) -> Match:
        """See `Matcher.match`."""
        usable = check_probe(probe, self.gallery)
        size, comparisons = self._scope.measure(allowed)
        if size == 0:
            return Match(None, None, 0, 0)
        if usable:
            subjects, scores = self._scores(probe.embedding, allowed)
        else:  # like nobody: the first two subjects, scored NaN
            subjects = np.arange(min(size, 2)) if allowed is None else np.flatnonzero(allowed)[:2]
            scores = np.full(len(subjects), np.nan, np.float32)
        found: list[ScoredSubject] = []
        for _ in range(min(size, 2)):
            best = int(scores.argmax())
            subject = self.gallery.subjects[int(subjects[best])]
            # Rounding may leave [-1, 1]; in this order of arguments a NaN stays one.
            found.append(ScoredSubject(subject, min(max(float(scores[best]), -1.0), 1.0)))
            scores[best] = -np.inf
        best_one, second = (*found, None, None)[:2]
        return Match(best_one, second, size, comparisons)

    @abstractmethod
    def _scores(self, embedding: FloatArray, allowed: Mask | None) -> tuple[NDArray[np.intp], FloatArray]:
        """Return subjects, as positions in the gallery, rising and unique, and their scores, float32.

        The two best that are in scope are among them. The scores may be changed.
        """


def exact(rows: FloatArray, embedding: FloatArray) -> FloatArray:
    """Return the cosines of unit rows (n, D) with a unit embedding (D,), float32 (n,).

    One thread, and equal rows have equal scores wherever they stand. BLAS's matrix-vector product, which has
    neither, takes a third to a half of the time, but waits for its second thread: measured 8 ms instead of
    .07 at 10,000 x 128 while another process held that core.
    """
    scores: FloatArray = np.vecdot(rows, embedding.astype(np.float32, copy=False))
    return scores


def check_probe(probe: Probe, gallery: Gallery) -> bool:
    """Return whether the probe can be like anybody: finite and of unit norm.

    Raises:
        ModelMismatchError: It comes from another embedder than the gallery.
    """
    shape = (gallery.dim or len(probe.embedding),)  # a gallery that never had a row takes any length
    if probe.model_id != gallery.model_id or probe.embedding.shape != shape:
        raise ModelMismatchError(
            f"a probe of {probe.model_id!r}, shape {probe.embedding.shape}, cannot be compared with a "
            f"gallery of {gallery.model_id!r}, dimension {gallery.dim}; enrol the subjects again"
        )
    with np.errstate(over="ignore", invalid="ignore"):
        squared_norm = float(probe.embedding @ probe.embedding)
    # |norm^2 - 1| <= 2t where |norm - 1| <= t, but for t^2; NaN is not close to anything.
    return abs(squared_norm - 1) <= 2 * NORM_TOLERANCE


def rule_out(scores: FloatArray, denied: Mask) -> None:
    """Put the scores of what is denied, bool of the same length, below all others."""
    scores -= np.multiply(denied, FAR, dtype=np.float32)
