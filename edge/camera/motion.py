"""Say whether a frame differs from the one last looked at, and where. Cheap, and blind to what moves."""

import math

import cv2
import numpy as np

from edge.core.types import FloatArray, Frame, Image

REDUCTION, LARGE_REDUCTION, LARGE_WIDTH_PX = 4, 8, 2000
"""Divisor of the compared frame's sides, and that of frames wider than LARGE_WIDTH_PX. Nearest-neighbour:
averaging 1080p costs more than detection."""

NOISE = 18
"""Grey levels by which a pixel may differ through sensor noise and compression alone."""

MOVED_SHARE = 0.002
"""Share of changed pixels that is motion: a face of 40 px in a frame of 640x480 covers .005."""

CELL_PX = 64
"""Side of the cells that motion is told by, in pixels of the frame."""

MOVED_CELL_SHARE = 0.06
"""Share of a cell's pixels that is motion there, however still the rest of the frame: a face of 24 px that
walks by changes the edges of its cell. Noise of 4 grey levels changes .002 of them."""

LEAST_PIXELS = 4
"""Changed pixels of the reduced frame below which no cell can have moved."""

REFRESH_S = 1.0
"""Without motion a frame passes this often, so that somebody who stands still is still seen."""


class MotionGate:
    """Remembers the last frame that passed. One per camera."""

    def __init__(self) -> None:
        self._reference: Image | None = None
        self._passed_s = -np.inf
        self.changed: FloatArray | None = None
        """Of the last frame that passed: the share of changed pixels in each cell, (rows, columns) in [0, 1].
        None where nothing moved."""

    def passes(self, frame: Frame) -> bool:
        """Return whether a frame deserves detection: something moved, or it is time to look again."""
        small = _reduce(frame.image)
        reference = self._reference
        moved = not 0 <= frame.monotonic_s - self._passed_s < REFRESH_S
        cells = None
        if reference is None or reference.shape != small.shape:
            moved = True
        else:
            mask = np.asarray(cv2.absdiff(reference, small) > NOISE, np.uint8)
            count = cv2.countNonZero(mask)
            moved |= count >= MOVED_SHARE * mask.size
            if count >= LEAST_PIXELS:
                cells = _by_cell(mask, frame.image.shape)
                moved |= bool(cells.max() >= MOVED_CELL_SHARE)
        if moved:
            self._reference, self._passed_s, self.changed = small, frame.monotonic_s, cells
        return moved


def _reduce(image: Image) -> Image:
    height, width = image.shape[:2]
    divisor = REDUCTION if width <= LARGE_WIDTH_PX else LARGE_REDUCTION
    size = (max(1, width // divisor), max(1, height // divisor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def _by_cell(mask: Image, frame_shape: tuple[int, ...]) -> FloatArray:
    rows, columns = (max(1, math.ceil(side / CELL_PX)) for side in frame_shape[:2])
    return np.asarray(cv2.resize(mask.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA))
