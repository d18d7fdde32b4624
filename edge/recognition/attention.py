"""Where in a frame to look for faces that are too far for the reduced frame: where something new moves.

Every cell of the frame in which something moves grows urgent: at once where something is new, within a second
or two where it only goes to and fro (trees, a street behind the door). The most urgent parts are looked at
first, as long as they are worth the price, which rises as the budget is spent. So a camera costs no more than
its budget, whatever moves and whatever the resolution. Sees no pixel.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.camera.motion import CELL_PX, Movement, cells_of
from edge.core.types import Detection, FloatArray
from edge.face.far_search import Region, covers, region_side_px

MOVED_SHARE = 0.03
"""Share of changed pixels from which a cell counts as moving."""

NEW_SHARE = 0.04
"""Share of new pixels from which something new moves in a cell.

Measured on 60 faces of 32 px in the scenes of `edge bench range` at 1920x1080: of what walks in .95 are found
in time; with .06 .88, at as many looks.
"""

NEW_S = 0.2
"""For so long something stays new in a cell."""

AGAIN_S, TURN_S = 0.1, 1.0
"""After how long a cell is urgent again: one in which something new moves, and any that moves."""

OLDEST_S = 5.0
"""Cells not looked at for longer are alike."""

BUDGET, BUDGET_PER_S = 40.0, 12.0
"""Looks, at a region or at one face, that may be taken at once, and how many a second come back."""

MOST_REGIONS = 6
"""Regions looked at in one frame."""

MOST_DOUBTFUL = 3
"""What might be a face on the reduced frame, looked at in one frame."""

DOUBTFUL_S = 0.3
"""What might be a face and is none is not looked at again in its cell for this long."""

HEAD = 1.7
"""Weight of a cell that moves while the one above it does not: a head is at the top of a walking person."""

BODY_WIDTH, BODY_HEIGHT = 2.4, 7.0
"""In sizes of a face that is followed: below it moves the body, which is nothing new."""

BORDER_PX = 32
"""Faces are cut at the edge of a region: cells this close to it do not count as looked at."""

AROUND = np.ones((3, 3), np.uint8)
"""A cell and those that touch it."""

URGENT = 6.0
"""Urgency of what should not have to wait: something new where nobody looked for more than half a second."""

BEHIND_S = 1.0
"""Attention is behind when something urgent has waited for longer than this."""


class Attention:
    """What one camera has seen move, and when it was looked at. Times are monotonic seconds of the frames."""

    def __init__(self) -> None:
        self._age_s = np.zeros((0, 0), np.float32)  # since each cell was looked at, or what moves in it
        self._new_s = np.zeros((0, 0), np.float32)  # for how long each cell stays new
        self._doubted_s = np.zeros((0, 0), np.float32)  # since a doubtful face there was none
        self._urgency = np.zeros((0, 0), np.float32)
        self._something_new = False
        self._shape: tuple[int, ...] = ()
        self._at_s = 0.0
        self._budget = BUDGET
        self._waiting_since_s: float | None = None
        self.behind = False
        """Whether something new has been waiting for a look for more than `BEHIND_S`."""

    def notice(
        self,
        movement: Movement | None,
        known: Sequence[FloatArray],
        frame_shape: tuple[int, ...],
        at_s: float,
    ) -> None:
        """Take what moved in the frame at `at_s`; `known` are the boxes (xyxy) of the faces followed."""
        elapsed_s = min(1.0, max(0.0, at_s - self._at_s))
        self._at_s, self._shape = at_s, frame_shape
        self._budget = min(BUDGET, self._budget + BUDGET_PER_S * elapsed_s)
        if movement is None:
            self._new_s[:], self._urgency[:] = 0, 0
            self._something_new = False
            self._age_s += elapsed_s
            self._doubted_s += elapsed_s
            return
        if self._age_s.shape != movement.changed.shape:
            self._age_s = np.full_like(movement.changed, OLDEST_S)
            self._doubted_s = np.full_like(movement.changed, OLDEST_S)
            self._new_s = np.zeros_like(movement.changed)
        self._doubted_s += elapsed_s
        newly = movement.new >= NEW_SHARE
        for box in known:
            x1, y1, x2, y2 = box.tolist()
            wider = (BODY_WIDTH - 1) / 2 * (x2 - x1)
            newly[cells_of(x1 - wider, y2, x2 + wider, y1 + BODY_HEIGHT * (y2 - y1))] = False
            newly[cells_of(x1, y1, x2, y2)] = False
            self._age_s[cells_of(x1, y1, x2, y2)] = 0
        self._age(newly, elapsed_s)
        self._urgency = self._age_s * (movement.changed >= MOVED_SHARE)
        self._urgency *= 1 / TURN_S
        if self._something_new:
            np.copyto(self._urgency, self._age_s * (1 / AGAIN_S), where=self._new_s > 0)

    def doubtful(self, seen: Sequence[Detection], known: Sequence[FloatArray]) -> list[FloatArray]:
        """Return the boxes of what might be a face on the reduced frame and is worth a look, best first."""
        chosen: list[FloatArray] = []
        for face in seen:
            if len(chosen) == MOST_DOUBTFUL or self._budget < 1:
                break
            x, y = (face.box[:2] + face.box[2:]) / 2
            row, column = int(y) // CELL_PX, int(x) // CELL_PX
            if not (0 <= row < len(self._urgency) and 0 <= column < self._urgency.shape[1]):
                continue
            waits = self._urgency[row, column] > 0 and self._doubted_s[row, column] > DOUBTFUL_S
            if waits and not any(covers(face, box) for box in known):
                self._budget -= 1
                self._doubted_s[row, column] = 0
                chosen.append(face.box)
        return chosen

    def regions(self) -> list[Region]:
        """Return the parts of the frame to search, most urgent first, at most `MOST_REGIONS`."""
        regions: list[Region] = []
        if not self._urgency.size or self._urgency.max() * self._budget < BUDGET:
            self._wait(self._urgency.size > 0 and bool(self._urgency.max() >= URGENT))
            return regions
        side_px = region_side_px(self._shape)
        reach = (side_px - 2 * BORDER_PX) // CELL_PX // 2
        worth = self._urgency.copy()
        worth[1:][self._urgency[:-1] == 0] *= HEAD
        while len(regions) < MOST_REGIONS and self._budget >= 1:
            worth[self._urgency * self._budget < BUDGET] = 0
            if not worth.any():
                break
            self._budget -= 1
            row, column = _densest(worth, 2 * reach + 1)
            around = np.s_[max(0, row - reach) : row + reach + 1, max(0, column - reach) : column + reach + 1]
            for cells in (worth, self._urgency, self._age_s):
                cells[around] = 0
            regions.append(_region(row, column, side_px, self._shape))
        self._wait(bool(self._urgency.max() >= URGENT))
        return regions

    def _age(self, newly: NDArray[np.bool_], elapsed_s: float) -> None:
        """Let time pass. What moves on into a cell was looked at when the cell that it comes from was."""
        arrives = bool(newly.any())
        if arrives:
            before = self._new_s > 0
            came_s = np.where(before, self._age_s, np.float32(OLDEST_S))
            came_s = cv2.erode(came_s, AROUND)
            np.copyto(self._age_s, came_s, where=newly & ~before)
        self._age_s += elapsed_s
        np.minimum(self._age_s, OLDEST_S, out=self._age_s)
        if self._something_new:
            self._new_s -= elapsed_s
        if arrives:
            self._new_s[newly] = NEW_S
        self._something_new = arrives or (self._something_new and bool((self._new_s > 0).any()))

    def _wait(self, waiting: bool) -> None:
        if not waiting:
            self._waiting_since_s = None
        elif self._waiting_since_s is None:
            self._waiting_since_s = self._at_s
        self.behind = self._waiting_since_s is not None and self._at_s - self._waiting_since_s > BEHIND_S


def _densest(worth: FloatArray, cells: int) -> tuple[int, int]:
    """Return the cell (row, column) in the middle of the `cells` x `cells` that hold most."""
    sums = cv2.boxFilter(worth, -1, (cells, cells), normalize=False, borderType=cv2.BORDER_CONSTANT)
    row, column = divmod(int(sums.argmax()), sums.shape[1])
    return row, column


def _region(row: int, column: int, side_px: int, frame_shape: tuple[int, ...]) -> Region:
    """Return the region around the middle of a cell, moved into the frame."""
    height, width = frame_shape[:2]
    x1 = min(max(0, round((column + 0.5) * CELL_PX - side_px / 2)), max(0, width - side_px))
    y1 = min(max(0, round((row + 0.5) * CELL_PX - side_px / 2)), max(0, height - side_px))
    return x1, y1, min(width, x1 + side_px), min(height, y1 + side_px)
