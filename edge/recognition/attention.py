"""Where in a frame to look for faces that are too far for the reduced frame: where something new moves.

What a camera sees for long (trees, a street behind the door) becomes a habit and is looked at seldom;
what has not moved before is looked at at once. A budget bounds both, whatever the resolution. Sees no pixel.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from edge.camera.motion import CELL_PX
from edge.core.types import FloatArray
from edge.face.far_search import REGION_PX, Region

MOVED_SHARE = 0.03
"""Share of changed pixels from which a cell counts as moving."""

HABIT_S = 1.0
"""Time constant in which motion that goes on becomes a habit."""

NEW = 0.25
"""Newness, in [0, 1], from which a cell is worth the reserve."""

RESERVE, RESERVE_PER_S = 12.0, 3.0
"""Regions that may be searched at once for something new, and how many a second come back."""

TURNS_PER_S = 1.0
"""Regions a second that are searched in turn where motion is a habit."""

MOST_REGIONS = 3
"""Regions searched in one frame."""

AGAIN_S = 0.25
"""A cell searched in vain regains its full weight after this long."""

HEAD = 1.7
"""Weight of a cell that moves while the one above it does not: a head is at the top of a walking person."""

REACH = REGION_PX // CELL_PX // 2
"""How many cells a region reaches to either side of its middle."""

OLDEST_S = 60.0
"""Cells not looked at for longer are alike."""

BEHIND_S = 1.0
"""Attention is behind when something new has waited for longer than this."""


class Attention:
    """What one camera has seen move, and when it was looked at. Times are monotonic seconds of the frames."""

    def __init__(self) -> None:
        self._habit: FloatArray | None = None
        self._looked_s = np.empty(0)
        self._at_s = 0.0
        self._reserve, self._turn = RESERVE, 1.0
        self._waiting_since_s: float | None = None
        self.behind = False
        """Whether something new has been waiting for a look for more than `BEHIND_S`."""

    def regions(
        self,
        changed: FloatArray | None,
        known: Sequence[FloatArray],
        frame_shape: tuple[int, ...],
        at_s: float,
    ) -> list[Region]:
        """Return the parts of the frame at `at_s` to search, most promising first, at most `MOST_REGIONS`.

        `changed` is the share of changed pixels in each cell (rows, columns), None where nothing moved.
        `known` are the boxes (xyxy) of the faces that are followed already.
        """
        elapsed_s = min(1.0, max(0.0, at_s - self._at_s))
        self._at_s = at_s
        self._reserve = min(RESERVE, self._reserve + RESERVE_PER_S * elapsed_s)
        self._turn = min(1.0, self._turn + TURNS_PER_S * elapsed_s)
        if changed is None:
            if self._habit is not None:
                self._habit *= 1 - min(1.0, elapsed_s / HABIT_S)
            self._waits(False, at_s)
            return []
        newness, age_s = self._weigh((changed >= MOVED_SHARE).astype(np.float32), elapsed_s, at_s)
        for box in known:
            x1, y1, x2, y2 = (max(0, int(side) // CELL_PX) for side in box)
            newness[y1 : y2 + 1, x1 : x2 + 1] = 0
            age_s[y1 : y2 + 1, x1 : x2 + 1] = 0
        regions: list[Region] = []
        while len(regions) < MOST_REGIONS:
            if newness.max() >= NEW and self._reserve >= 1:
                self._reserve -= 1
                row, column = _densest(newness)
            elif self._turn >= 1 and age_s.any():
                self._turn -= 1
                row, column = _densest(age_s)
            else:
                break
            around = np.s_[max(0, row - REACH) : row + REACH, max(0, column - REACH) : column + REACH]
            newness[around], age_s[around], self._looked_s[around] = 0, 0, at_s
            regions.append(_region(row, column, frame_shape))
        self._waits(bool(newness.max() >= NEW) and self._reserve < 1, at_s)
        return regions

    def _weigh(self, moving: FloatArray, elapsed_s: float, at_s: float) -> tuple[FloatArray, FloatArray]:
        """Return of each moving cell how new its motion is, and for how long it was not looked at."""
        if self._habit is None or self._habit.shape != moving.shape:
            self._habit = np.zeros_like(moving)
            self._looked_s = np.full(moving.shape, at_s - OLDEST_S, np.float64)
        age_s = np.minimum(OLDEST_S, at_s - self._looked_s)
        above = np.vstack([np.zeros((1, moving.shape[1]), np.float32), moving[:-1]])
        head = 1 + (HEAD - 1) * (1 - above)
        rested = np.minimum(1, age_s / AGAIN_S)
        newness = np.asarray(moving * (1 - self._habit) ** 2 * rested * head, np.float32)
        self._habit += (moving - self._habit) * min(1.0, elapsed_s / HABIT_S)
        return newness, np.asarray(moving * age_s, np.float32)

    def _waits(self, waiting: bool, at_s: float) -> None:
        if not waiting:
            self._waiting_since_s = None
        elif self._waiting_since_s is None:
            self._waiting_since_s = at_s
        self.behind = self._waiting_since_s is not None and at_s - self._waiting_since_s > BEHIND_S


def _densest(weight: FloatArray) -> tuple[int, int]:
    """Return the cell (row, column) around which a region holds most."""
    side = 2 * REACH
    sums = cv2.boxFilter(weight, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return row, column


def _region(row: int, column: int, frame_shape: tuple[int, ...]) -> Region:
    """Return the region around the corner of a cell, moved into the frame."""
    height, width = frame_shape[:2]
    x1 = min(max(0, column * CELL_PX - REGION_PX // 2), max(0, width - REGION_PX))
    y1 = min(max(0, row * CELL_PX - REGION_PX // 2), max(0, height - REGION_PX))
    return x1, y1, min(width, x1 + REGION_PX), min(height, y1 + REGION_PX)
