"""A gallery recognises its own templates before it may serve. Knows no embedder and no camera."""

import numpy as np

from edge.core.errors import GalleryError
from edge.core.types import Probe
from edge.gallery.gallery import Gallery
from edge.gallery.matcher import make_matcher

PROBES = 16
MIN_SCORE = 0.999
"""A unit row compared with itself; the int8 search ranks again in float32 and loses nothing."""


def self_test(gallery: Gallery) -> None:
    """Look up some of the gallery's own rows, spread over all of it.

    Raises:
        GalleryError: One is not found.
    """
    if not gallery.size:
        return
    matcher = make_matcher(gallery)
    rows = len(gallery.matrix)
    for row in np.unique(np.linspace(0, rows - 1, min(PROBES, rows)).astype(int)):
        probe = Probe(gallery.matrix[row], gallery.model_id, gallery.provenance[row].quality)
        best = matcher.match(probe).best
        if best is None or not best.score >= MIN_SCORE:
            raise GalleryError(
                f"gallery self-test: row {row} of {rows} does not find itself; publish it again"
            )
