"""Compare a probe with every template of a gallery: exact, float32; and the choice among the matchers.

Without the int8 kernel, a wheel that not every platform has, float32 serves galleries of every size: the same
answers, 2.4 to 2.9 times slower where int8 would be used.
"""

import logging
from functools import cache

import numpy as np

from edge.core.types import FloatArray, Match, Probe
from edge.gallery.gallery import Gallery
from edge.gallery.search import Mask, Matcher, Scope, best_two, check_probe, exact, like_nobody, rule_out

log = logging.getLogger(__name__)

DENSE_VALUES = 1 << 20
"""Up to so many values (8,192 x 128) float32 is as fast as int8, and needs neither building nor more memory.

Measured, dense / int8: .46 at 1,000 x 128, 1.05 at 8,000, 2.4 at 100,000, 2.9 at 10,000 x 512.
"""


def make_matcher(gallery: Gallery, previous: Matcher | None = None) -> Matcher:
    """Return the matcher that suits a gallery's size.

    `previous` searched an older version of it: what is still right of its int8 rows is taken over.
    """
    if gallery.matrix.size <= DENSE_VALUES or int8_problem() is not None:
        return DenseMatcher(gallery)
    from edge.gallery.int8_matcher import QuantizedMatcher  # a small gallery needs no simsimd

    if isinstance(previous, QuantizedMatcher):
        return previous.updated(gallery)
    return QuantizedMatcher(gallery)


@cache
def int8_problem() -> str | None:
    """Return why large galleries cannot be searched in int8 here, None if they can; logged once."""
    try:
        from edge.gallery.int8_matcher import check_kernel

        check_kernel()
    except Exception as error:  # whatever a foreign binary does when it is loaded or called
        problem = f"{type(error).__name__}: {error}"
        log.warning("simsimd is of no use, float32 is searched: exact as well, but slower (%s)", problem)
        return problem
    return None


class DenseMatcher:
    """A `Matcher` that compares every row in float32 and takes the best one of each subject.

    Nothing is kept between probes, so that threads may share it.
    """

    def __init__(self, gallery: Gallery) -> None:
        self.gallery = gallery
        self._starts = gallery.starts
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
        scores = self._scores(probe.embedding)
        if allowed is not None:
            rule_out(scores, ~allowed)
        return best_two(self.gallery, None, scores, scope)

    def _scores(self, embedding: FloatArray) -> FloatArray:
        """Return the score of each subject, float32 (size,)."""
        scores = exact(self.gallery.matrix, embedding)
        return scores if self._one_row_each else np.maximum.reduceat(scores, self._starts)
