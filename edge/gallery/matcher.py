"""Compare a probe with every template of a gallery: exact, float32; and the choice among the matchers.

Without the int8 kernel, a wheel that not every platform has, float32 serves galleries of every size: the same
answers, 2.4 to 2.9 times slower where int8 would be used.
"""

import logging
from functools import cache

import numpy as np
from numpy.typing import NDArray

from edge.core.types import FloatArray
from edge.gallery.gallery import Gallery
from edge.gallery.search import LocalMatcher, Mask, Matcher, exact, rule_out

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


class DenseMatcher(LocalMatcher):
    """Compares every row in float32 and takes the best one of each subject."""

    def __init__(self, gallery: Gallery) -> None:
        super().__init__(gallery)
        self._everybody = np.arange(gallery.size)

    def _scores(self, embedding: FloatArray, allowed: Mask | None) -> tuple[NDArray[np.intp], FloatArray]:
        scores = exact(self.gallery.matrix, embedding)
        if not self._one_row_each:
            scores = np.maximum.reduceat(scores, self._starts)
        if allowed is not None:
            rule_out(scores, ~allowed)
        return self._everybody, scores
