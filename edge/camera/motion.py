"""Say whether a frame differs from the one last looked at. Cheap, and blind to what moves."""

import cv2
import numpy as np

from edge.core.types import Frame, Image

REDUCTION = 4
"""Divisor of the compared frame's sides. Nearest-neighbour: averaging 1080p costs more than detection."""

NOISE = 18
"""Grey levels by which a pixel may differ through sensor noise and compression alone."""

MOVED_SHARE = 0.002
"""Share of changed pixels that is motion: a face of 40 px in a frame of 640x480 covers .005."""

REFRESH_S = 1.0
"""Without motion a frame passes this often, so that somebody who stands still is still seen."""


class MotionGate:
    """Remembers the last frame that passed. One per camera."""

    def __init__(self) -> None:
        self._reference: Image | None = None
        self._passed_s = -np.inf

    def passes(self, frame: Frame) -> bool:
        """Return whether a frame deserves detection: something moved, or it is time to look again."""
        small = _reduce(frame.image)
        reference = self._reference
        moved = (
            reference is None
            or reference.shape != small.shape
            or not 0 <= frame.monotonic_s - self._passed_s < REFRESH_S
            or _changed(reference, small) >= MOVED_SHARE
        )
        if moved:
            self._reference = small
            self._passed_s = frame.monotonic_s
        return moved


def _reduce(image: Image) -> Image:
    height, width = image.shape[:2]
    size = (max(1, width // REDUCTION), max(1, height // REDUCTION))
    small = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def _changed(before: Image, after: Image) -> float:
    return float(np.count_nonzero(cv2.absdiff(before, after) > NOISE)) / after.size
