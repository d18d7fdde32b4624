"""Say whether a camera's view can be used: it is black, covered, frozen, defocused or moved.

Looks at the reduced grey picture that the motion gate compares, once a second. What is blurred or moved is so
against the camera's own past, which starts anew with the daemon. Not for clips: they jump and repeat.
"""

import logging
from dataclasses import dataclass
from enum import StrEnum

import cv2
import numpy as np

from edge.camera.motion import reduced
from edge.core.types import FloatArray, Image

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""Seconds between two looks; a view that is of no use is looked at with every frame, until it is again."""

HOLD_S = 3.0
"""For how long a fault has to be seen before it is told: half a minute of these would be too late, and one
look is somebody who passes close by."""

FROZEN_S, FROZEN_MOST_S = 4.0, 64.0
"""For how long the same picture has to come. It doubles, up to the second value, for a camera that goes on as
it was: some compress a still scene so that nothing changes between two of their key frames."""

WENT_ON = 12
"""Grey levels by which no pixel may differ where a still scene goes on as it was."""

RELEARN_S = 600.0
"""How long another view has to last before it is the right one."""

BLOCKS = 20
"""Blocks across the picture whose means show structure."""

CELLS = 10
"""Cells across the picture in which sharpness and position are compared with the past."""

LEAST_STRUCTURE, MOST_STRUCTURE, LEVEL_OF_STRUCTURE = 0.5, 1.5, 16.0
"""Below how much structure a view is plain: root mean square of the curvature from block to block, in grey
levels. It is the mean level over 16 within these bounds: what is dark shows little. Scenes of the day have 10
and more, at a 16th of their light 1."""

RELUCTANCE = 2.0
"""So much more structure it takes for a plain view to be one that shows something again."""

NOISE_CURVATURE = 4.0
"""Curvature that noise alone may have, in grey levels: sensors at their highest gain."""

CHANCE = 3.0
"""Standard deviations by which noise alone may seem to have something in common with noise."""

BLACK_LEVEL = 24.0
"""Mean grey level below which a plain view is black, not covered; video black is 16."""

LEARN_LOOKS = 8
"""Looks after which a past is known well enough to compare with."""

YOUNG_LOOKS = 60
"""Looks before which a past that is gone is given up: somebody stood there."""

LEARN_SHARE = 0.005
"""Weight of the newest look in what is remembered of the view: about three minutes, so that nobody who stands
there becomes a part of it."""

LEAST_CELLS = 4
"""Cells with something to compare below which nothing is said about sharpness and position."""

LEAST_ENERGY = 4.0
"""Mean square of the coarse detail in a cell, in grey levels, below which it has nothing to compare."""

STEADY = 0.7
"""Correlation of a cell with its past from which it shows the still background."""

STILL_THERE = 0.1
"""Share of the still background's cells that are seen no more where the camera has moved: all but this. Of a
view that is shifted so many are alike by chance; somebody who stands close leaves the corners."""

STILL_SEEN = 0.3
"""Share of the still background's cells that have to be seen for its sharpness to be judged: a few may be
alike by chance."""

BLURRED = 0.5
"""Where the view is blurred, fine over coarse detail is below this share of what it was, in half of the cells
that show what they did."""

BANDS_PX = (1.0, 2.0, 4.0)
"""Standard deviations of blurs, in pixels of the reduced picture: fine detail is what the first takes away,
coarse detail what lies between the others."""

FLAT_QUANTILE = 0.1
"""Share of the cells that are taken for flat: their fine detail is noise."""


class ViewFault(StrEnum):
    """What is wrong with a view; the first three give no decision."""

    BLACK = "black"
    COVERED = "covered"
    FROZEN = "frozen"
    DEFOCUSED = "defocused"
    MOVED = "moved"


BLIND = frozenset({ViewFault.BLACK, ViewFault.COVERED, ViewFault.FROZEN})


@dataclass(frozen=True, slots=True, eq=False)
class _Detail:
    """One look: its coarse detail, and per cell the energy of this and of finer detail without its noise."""

    band: FloatArray
    coarse: FloatArray
    fine: FloatArray
    noise: float


class _Past:
    """What a view has looked like: its detail, how sharp it is, and which cells are still."""

    def __init__(self, first: _Detail) -> None:
        self._band, self._coarse = first.band, first.coarse
        self._energy, self._fine, self._noise = first.coarse, first.fine, first.noise
        self._steady = np.zeros_like(first.coarse)
        self._looks = 1

    def alike(self, seen: _Detail) -> FloatArray:
        """Return the correlation of each cell with what was there, in [-1, 1]."""
        both = _per_cell(seen.band * self._band)
        return np.asarray(both / np.sqrt(seen.coarse * self._coarse + 1e-6), np.float32)

    def learn(self, seen: _Detail) -> None:
        """Add a look to it."""
        alike = self.alike(seen)
        self._looks += 1
        share = max(LEARN_SHARE, 1 / self._looks)
        self._band = (1 - share) * self._band + share * seen.band
        self._coarse = _per_cell(self._band**2)
        self._energy = (1 - share) * self._energy + share * seen.coarse
        self._fine = (1 - share) * self._fine + share * seen.fine
        self._noise = (1 - share) * self._noise + share * seen.noise
        self._steady = (1 - share) * self._steady + share * alike

    @property
    def young(self) -> bool:
        """Whether it may be of somebody who stood there when it began."""
        return self._looks < YOUNG_LOOKS

    def gone(self, seen: _Detail) -> bool:
        """Return whether the still background is somewhere else, or another one."""
        still = (self._steady >= STEADY) & (self._coarse >= LEAST_ENERGY)
        if self._looks < LEARN_LOOKS or np.count_nonzero(still) < LEAST_CELLS:
            return False
        return float(np.mean(self.alike(seen)[still] >= STEADY)) <= STILL_THERE

    def blurred(self, seen: _Detail) -> bool:
        """Return whether the still background is less sharp than it was."""
        still, sharp = self._steady >= STEADY, self._fine / (self._energy + 1)
        same = still & (self.alike(seen) >= STEADY)
        rich = same & (self._fine >= LEAST_ENERGY + self._noise) & (seen.coarse >= LEAST_ENERGY)
        rich &= sharp * (seen.coarse + 1) >= LEAST_ENERGY + seen.noise
        if self._looks < LEARN_LOOKS or np.count_nonzero(rich) < LEAST_CELLS:
            return False
        if np.count_nonzero(same) < STILL_SEEN * np.count_nonzero(still):
            return False
        return float(np.median(seen.fine[rich] / (seen.coarse[rich] + 1) / sharp[rich])) < BLURRED


class ViewWatch:
    """One camera's view. Called by one thread; `faults` may be read by any."""

    def __init__(self, camera: str) -> None:
        self._camera = camera
        self.faults: tuple[ViewFault, ...] = ()
        """What is wrong now."""
        self._since_s: dict[ViewFault, float] = {}
        self._looked_s = -np.inf
        self._last: Image | None = None
        self._still_s = -np.inf
        self._frozen_after_s = FROZEN_S
        self._past: _Past | None = None
        self._elsewhere: tuple[_Past, float] | None = None

    @property
    def blind(self) -> bool:
        """Whether nothing can be decided by what the camera shows."""
        return not BLIND.isdisjoint(self.faults)

    def look(self, image: Image, at_s: float) -> None:
        """Look at a frame (BGR) of the moment `at_s` (monotonic), if it is time."""
        if 0 <= at_s - self._looked_s < LOOK_S and not self.blind:
            return
        small = reduced(image)
        last, since_s = self._last, at_s - self._looked_s
        self._last, self._looked_s = small, at_s
        if last is not None and last.shape != small.shape:
            self._past = self._elsewhere = last = None
        if last is None or not 0 < since_s <= HOLD_S:  # the camera was away
            self._still_s = at_s
            self._tell(set(), at_s)
            return
        self._tell(self._seen(small, last, at_s), at_s)

    def _seen(self, small: Image, last: Image, at_s: float) -> set[ViewFault]:
        """Return the faults that this look shows."""
        frozen = self._frozen(small, last, at_s)
        if _plain(small, last, RELUCTANCE if self.blind else 1.0):
            return {ViewFault.BLACK if float(small.mean()) < BLACK_LEVEL else ViewFault.COVERED}
        if frozen:
            return {ViewFault.FROZEN}
        return self._against_past(_detail(small), at_s)

    def _frozen(self, small: Image, last: Image, at_s: float) -> bool:
        """Return whether the same picture has been coming for too long."""
        if np.array_equal(small, last):
            return at_s - self._still_s >= self._frozen_after_s
        if ViewFault.FROZEN in self.faults and int(cv2.absdiff(small, last).max()) <= WENT_ON:
            self._frozen_after_s = min(FROZEN_MOST_S, 2 * self._frozen_after_s)
        self._still_s = at_s
        return False

    def _against_past(self, seen: _Detail, at_s: float) -> set[ViewFault]:
        past = self._past
        if past is None:
            self._past = _Past(seen)
            return set()
        if past.blurred(seen):
            return {ViewFault.DEFOCUSED}
        if past.gone(seen):
            if past.young:
                self._past = None
                return set()
            self._settle(seen, at_s)
            return {ViewFault.MOVED} if self._past is past else set()
        self._elsewhere = None
        past.learn(seen)
        return set()

    def _settle(self, seen: _Detail, at_s: float) -> None:
        """Let another view that has lasted be the right one."""
        if self._elsewhere is None or self._elsewhere[0].gone(seen):
            self._elsewhere = (_Past(seen), at_s)
            return
        view, since_s = self._elsewhere
        view.learn(seen)
        if at_s - since_s >= RELEARN_S:
            self._past, self._elsewhere = view, None
            log.info("the camera's new view is the right one from now on", extra={"camera": self._camera})

    def _tell(self, seen: set[ViewFault], at_s: float) -> None:
        """Take over what has been seen for long enough, and say so in the log."""
        self._since_s = {fault: self._since_s.get(fault, at_s) for fault in sorted(seen)}
        faults = tuple(
            fault
            for fault, since_s in self._since_s.items()
            if fault is ViewFault.FROZEN or at_s - since_s >= HOLD_S
        )
        if faults != self.faults:
            told = ", ".join(faults) or "usable again"
            log.warning("the camera's view is %s", told, extra={"camera": self._camera})
        self.faults = faults


def _plain(small: Image, last: Image, factor: float) -> bool:
    """Return whether a picture shows nothing, but noise and a smooth gradient.

    Structure is what two looks have in common beyond chance: noise differs. Where all moves, they have
    nothing in common, and there is more of it than noise can make. `factor` raises the limit.
    """
    now, before = _curvature(small), _curvature(last)
    limit = float(np.clip(small.mean() / LEVEL_OF_STRUCTURE, LEAST_STRUCTURE, MOST_STRUCTURE)) ** 2 * factor
    energy = float(np.mean(now**2))
    chance = CHANCE * (energy * float(np.mean(before**2)) / now.size) ** 0.5
    return float(np.mean(now * before)) < limit + chance and energy < limit + NOISE_CURVATURE**2


def _curvature(small: Image) -> FloatArray:
    """Return the second differences between the means of blocks."""
    height, width = small.shape
    size = (BLOCKS, max(3, BLOCKS * height // width))
    blocks = cv2.resize(small.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.Laplacian(blocks, cv2.CV_32F, borderType=cv2.BORDER_REPLICATE), np.float32)


def _detail(small: Image) -> _Detail:
    picture = small.astype(np.float32)
    little, middle, soft = (cv2.GaussianBlur(picture, (0, 0), sigma) for sigma in BANDS_PX)
    band = np.asarray(middle - soft, np.float32)
    fine = _per_cell(np.asarray((picture - little) ** 2, np.float32))
    noise = float(np.quantile(fine, FLAT_QUANTILE))
    return _Detail(band, _per_cell(band**2), np.maximum(fine - noise, 0), noise)


def _per_cell(picture: FloatArray) -> FloatArray:
    """Return the mean of a picture (H, W) in each cell, as one row."""
    height, width = picture.shape
    size = (CELLS, max(1, CELLS * height // width))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.float32).ravel()
