"""Say whether a frame differs from the one last looked at, and where. Cheap, and blind to what moves."""

import math
from dataclasses import dataclass

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

TOUCHED_SHARE = 0.01
"""Share of a cell's pixels from which something may have changed there."""

MOVED_CELL_SHARE = 0.06
"""Share of a cell's pixels that is motion there, however still the rest of the frame: a face of 24 px that
walks by changes the edges of its cell. Noise of 4 grey levels changes .002 of them."""

LEAST_PIXELS = 4
"""Changed pixels of the reduced frame below which no cell can have moved."""

REFRESH_S = 1.0
"""Without motion a frame passes this often, so that somebody who stands still is still seen."""


FADE_S = 0.2
"""A pixel's brightest and darkest grey level of late come closer to each other by one level this often."""


@dataclass(frozen=True, slots=True, eq=False)
class Movement:
    """What moved in a frame, told by cells (rows, columns): shares of their pixels, in [0, 1].

    `changed` are those that differ from the frame before, `new` those brighter or darker than they have been
    of late: what goes to and fro, like a branch or the cars of a street, changes without being new.
    """

    changed: FloatArray
    new: FloatArray

    def touches(self, box: FloatArray) -> bool:
        """Return whether anything may have changed in the cells of a box (xyxy)."""
        x1, y1, x2, y2 = box.tolist()
        return bool((self.changed[cells_of(x1, y1, x2, y2)] >= TOUCHED_SHARE).any())


class MotionGate:
    """Remembers the last frame that passed, and how bright each pixel has been of late. One per camera."""

    def __init__(self) -> None:
        self._reference: Image | None = None
        self._brightest = self._darkest = np.empty((0, 0), np.uint8)
        self._faded_s = -np.inf
        self._passed_s = -np.inf
        self.movement: Movement | None = None
        """Of the last frame that passed; None where nothing moved."""

    def passes(self, frame: Frame) -> bool:
        """Return whether a frame deserves detection: something moved, or it is time to look again."""
        small = reduced(frame.image)
        reference = self._reference
        moved = not 0 <= frame.monotonic_s - self._passed_s < REFRESH_S
        movement = None
        if reference is None or reference.shape != small.shape:
            moved = True
            self._brightest = self._darkest = small
        else:
            mask = np.asarray(cv2.absdiff(reference, small) > NOISE, np.uint8)
            count = cv2.countNonZero(mask)
            moved |= count >= MOVED_SHARE * mask.size
            if count >= LEAST_PIXELS:
                changed = _by_cell(mask, frame.image.shape)
                moved |= bool(changed.max() >= MOVED_CELL_SHARE)
                if moved:
                    movement = Movement(changed, self._new(small, frame))
        if moved:
            self._reference, self._passed_s, self.movement = small, frame.monotonic_s, movement
        return moved

    def _new(self, small: Image, frame: Frame) -> FloatArray:
        """Return the share of each cell's pixels that are brighter or darker than of late, and learn them."""
        beyond = cv2.max(cv2.subtract(small, self._brightest), cv2.subtract(self._darkest, small))
        if not 0 <= frame.monotonic_s - self._faded_s < FADE_S:
            self._faded_s = frame.monotonic_s
            self._brightest = self._brightest - (self._brightest > 0)
            self._darkest = self._darkest + (self._darkest < 255)
        self._brightest = np.asarray(cv2.max(self._brightest, small), np.uint8)
        self._darkest = np.asarray(cv2.min(self._darkest, small), np.uint8)
        return _by_cell(np.asarray(cv2.threshold(beyond, NOISE, 1, cv2.THRESH_BINARY)[1]), frame.image.shape)


def cells_of(x1: float, y1: float, x2: float, y2: float) -> tuple[slice, slice]:
    """Return the rows and columns of the cells that a box in pixels of the frame touches."""
    left, top = max(0, math.floor(x1 / CELL_PX)), max(0, math.floor(y1 / CELL_PX))
    right, bottom = max(0, math.floor(x2 / CELL_PX)), max(0, math.floor(y2 / CELL_PX))
    return slice(top, bottom + 1), slice(left, right + 1)


def _divisor(width_px: int) -> int:
    return REDUCTION if width_px <= LARGE_WIDTH_PX else LARGE_REDUCTION


def reduced(image: Image) -> Image:
    """Return the grey picture that is compared: each fourth pixel of a frame (BGR), or eighth."""
    height, width = image.shape[:2]
    divisor = _divisor(width)
    size = (max(1, width // divisor), max(1, height // divisor))
    small = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_BGR2GRAY), np.uint8)


def _by_cell(mask: Image, frame_shape: tuple[int, ...]) -> FloatArray:
    """Return the share of ones in each cell. Whole cells: OpenCV averages other sizes ten times as slowly."""
    rows, columns = (max(1, math.ceil(side / CELL_PX)) for side in frame_shape[:2])
    side = CELL_PX // _divisor(frame_shape[1])
    below, beside = rows * side - mask.shape[0], columns * side - mask.shape[1]
    whole = cv2.copyMakeBorder(mask * np.uint8(255), 0, below, 0, beside, cv2.BORDER_REPLICATE)
    shares = cv2.resize(whole, (columns, rows), interpolation=cv2.INTER_AREA)
    return np.asarray(shares, np.float32) / np.float32(255)
