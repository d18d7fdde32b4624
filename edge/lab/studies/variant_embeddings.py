"""Embed many photos once, each face aligned in two ways and mirrored or not: every processor at work, cached.

Judges nothing. The cache is one of `evaluate.embeddings`: biometric data, mode 0600, in the state directory.
"""

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

import cv2
import numpy as np

from edge.core.download import Progress
from edge.core.errors import MediaError
from edge.core.types import FloatArray, Image
from edge.face.align import align
from edge.lab.photos.embeddings import EmbeddingCache
from edge.lab.photos.photos import centre, each_photo, nearest_face
from edge.recognition.recognizer import Recognizer


class Alignment(StrEnum):
    """How five landmarks become a similarity transform."""

    LEAST_SQUARES = "least squares"
    ROBUST = "robust"


VIEWS = tuple((way, mirrored) for way in Alignment for mirrored in (False, True))
"""What is embedded of each photo: an alignment, and whether the aligned face is mirrored."""

PhotoViews = Mapping[Path, FloatArray | None]
"""The embeddings (len(VIEWS), D) of each photo in the order of `VIEWS`, None where no face was found."""


def views_cache(directory: Path, model_id: str, dim: int) -> EmbeddingCache:
    """Return the cache of a model's views: one record per photo holds all of them."""
    return EmbeddingCache(directory / f"{model_id}.views-{len(VIEWS)}.cache", len(VIEWS) * dim)


def stacked(photos: Sequence[Path], views: PhotoViews) -> FloatArray:
    """Return the views (n, len(VIEWS), D) of those of the photos in which a face was found.

    Raises:
        MediaError: There is none.
    """
    found = [row for path in photos if (row := views[path]) is not None]
    if not found:
        raise MediaError(f"no face found in any of {len(photos)} photos; use photos that show one")
    return np.stack(found)


def robust_align(image: Image, landmarks: FloatArray, template: FloatArray, size: tuple[int, int]) -> Image:
    """Cut a face like `face.align.align`, by the similarity of least median of squares over (5, 2) landmarks.

    It follows the pairs of landmarks that agree best and lets the others lie where they fall. Falls back to
    least squares where the landmarks give no such transform. Source: Rousseeuw, Least Median of Squares
    Regression (1984), as implemented in OpenCV (LMEDS, seeded: the same landmarks give the same transform).
    """
    matrix, _ = cv2.estimateAffinePartial2D(landmarks, template, method=cv2.LMEDS)
    if matrix is None or not np.isfinite(matrix).all():
        return align(image, landmarks, template, size)
    crop = cv2.warpAffine(image, matrix, (size[1], size[0]), flags=cv2.INTER_LINEAR)
    return crop.astype(np.uint8, copy=False)


def embed_views(
    photos: Sequence[Path],
    make_recognizer: Callable[[], Recognizer],
    template: FloatArray,
    cache: EmbeddingCache,
    progress: Progress,
    *,
    workers: int,
) -> dict[Path, FloatArray | None]:
    """Return all views of the face nearest the centre of each photo; `template` (5, 2) is the embedder's.

    No quality gate. Each worker has a recognizer of its own.

    Raises:
        MediaError: A photo cannot be read.
    """

    def work(path: Path, recognizer: Callable[[], Recognizer]) -> FloatArray | None:
        row = cache.get(path, lambda image: _views(image, recognizer(), template))
        return None if row is None else row.reshape(len(VIEWS), -1)

    return each_photo(photos, work, make_recognizer, progress, workers=workers)


def _views(image: Image, recognizer: Recognizer, template: FloatArray) -> FloatArray | None:
    """Return the views of the face nearest the centre, one after the other (len(VIEWS) * D,)."""
    face = nearest_face(recognizer.detect(image), centre(image))
    if face is None:
        return None
    plain = recognizer.embedder.align(image, face.landmarks)
    size = (plain.shape[0], plain.shape[1])
    crops = {
        Alignment.LEAST_SQUARES: plain,
        Alignment.ROBUST: robust_align(image, face.landmarks, template, size),
    }
    rows = [
        recognizer.embedder.embed(np.ascontiguousarray(crops[way][:, ::-1]) if mirrored else crops[way])
        for way, mirrored in VIEWS
    ]
    return np.concatenate(rows)
