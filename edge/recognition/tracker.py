"""Follow faces from frame to frame by where they are. Does not look at who they are.

Each track predicts its box with a constant velocity; detections are assigned greedily, closest first.
Two or three faces stand at a door: an optimal assignment would buy nothing over the greedy one.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from edge.core.types import Detection, FloatArray, Track

Box = tuple[float, float, float, float]
"""xyxy in pixels; plain floats, since arrays of four cost more to make than to compute with."""

LOST_S = 0.8
"""A track that was not seen for this long has ended; covers a turned head or a hand before the face."""

MIN_HITS = 2
"""Detections before a track is reported: a false detection rarely lasts two frames."""

REACH = 0.8
"""How far a face may be from its predicted centre, in face sizes, at the frame rate of a door camera."""

SIZE_RATIO = 1.8
"""A face does not change its size by more than this between two sightings."""

SMOOTHING = 0.5
"""Weight of the newest displacement in the velocity: follows a walking person, ignores jitter."""


@dataclass(slots=True)
class _State:
    track_id: int
    detection: Detection | None
    latest: Detection
    box: Box
    started_s: float
    seen_s: float
    hits: int = 1
    velocity: tuple[float, float] = (0.0, 0.0)
    searched: bool = True

    def see(self, detection: Detection, box: Box, at_s: float) -> None:
        elapsed_s = at_s - self.seen_s
        if elapsed_s > 0:
            (x, y), (new_x, new_y) = _centre(self.box), _centre(box)
            step = ((new_x - x) / elapsed_s, (new_y - y) / elapsed_s)
            self.velocity = (
                SMOOTHING * step[0] + (1 - SMOOTHING) * self.velocity[0],
                SMOOTHING * step[1] + (1 - SMOOTHING) * self.velocity[1],
            )
        self.detection, self.latest, self.box, self.seen_s = detection, detection, box, at_s
        self.hits += 1

    def cost(self, box: Box, at_s: float) -> float | None:
        """Return how badly a box fits where the face should be at `at_s`; None: it cannot be this face."""
        size = _size(self.box)
        ratio = _size(box) / size
        if not 1 / SIZE_RATIO <= ratio <= SIZE_RATIO:
            return None
        elapsed_s = at_s - self.seen_s
        (x, y), (new_x, new_y) = _centre(self.box), _centre(box)
        apart = math.hypot(new_x - x - self.velocity[0] * elapsed_s, new_y - y - self.velocity[1] * elapsed_s)
        return None if apart > REACH * size else apart / size + abs(math.log(ratio))

    def at(self, at_s: float) -> Box:
        """Return the box where the face should be at `at_s`."""
        elapsed_s = at_s - self.seen_s
        x, y = self.velocity[0] * elapsed_s, self.velocity[1] * elapsed_s
        return self.box[0] + x, self.box[1] + y, self.box[2] + x, self.box[3] + y

    def snapshot(self, *, ended: bool = False) -> Track:
        box = self.detection.box if self.detection is not None else np.array(self.box, np.float32)
        return Track(
            self.track_id,
            self.detection,
            box,
            self.started_s,
            self.seen_s,
            self.hits,
            ended,
            self.searched,
        )


class Expected(NamedTuple):
    """Where a face that is followed should be by now: its box (4,), xyxy.

    `seen` is the face in the last frame, None where it was not seen there. `seen_s` is when it was seen last,
    and `reported` says whether it has been often enough.
    """

    track_id: int
    box: FloatArray
    seen: Detection | None
    seen_s: float
    reported: bool


class Tracker:
    """Tracks of one camera. Times are monotonic seconds of the frames and never decrease."""

    def __init__(self) -> None:
        self._states: list[_State] = []
        self._next_id = 1
        self._glimpses: list[Track] = []

    def predicted(self, at_s: float) -> list[Expected]:
        """Return where the faces that are followed should be at `at_s`."""
        return [
            Expected(
                state.track_id,
                np.array(state.at(at_s), np.float32),
                state.detection,
                state.seen_s,
                state.hits >= MIN_HITS,
            )
            for state in self._states
        ]

    def update(
        self, detections: Sequence[Detection], at_s: float, unsearched: Collection[int] = ()
    ) -> list[Track]:
        """Assign the detections of the frame at `at_s` and return every reported track.

        A track that has just ended is returned one last time with `ended` set. The faces of the tracks
        `unsearched` were not looked for: that they are not among the detections says nothing.
        """
        if not detections and not self._states:
            self._glimpses = []
            return []
        boxes: list[Box] = [tuple(detection.box.tolist()) for detection in detections]
        costs = [
            (cost, state_index, index)
            for state_index, state in enumerate(self._states)
            for index, box in enumerate(boxes)
            if (cost := state.cost(box, at_s)) is not None
        ]
        taken: set[int] = set()
        for state in self._states:
            state.detection, state.searched = None, state.track_id not in unsearched
        for _, state_index, index in sorted(costs):
            state = self._states[state_index]
            if index not in taken and state.detection is None:
                taken.add(index)
                state.see(detections[index], boxes[index], at_s)
        for index, detection in enumerate(detections):
            if index not in taken:
                self._states.append(_State(self._next_id, detection, detection, boxes[index], at_s, at_s))
                self._next_id += 1
        return self._report(at_s)

    @property
    def unsure(self) -> bool:
        """Whether the next frame has to be searched: a face was seen once, or was not looked for."""
        return any(
            not state.searched or (state.detection is not None and state.hits < MIN_HITS)
            for state in self._states
        )

    @property
    def glimpses(self) -> list[Track]:
        """The faces that the last update gave up before they were reported, as they were seen."""
        return self._glimpses

    def hold(self, at_s: float) -> list[Track]:
        """Say that nothing moved until `at_s`: faces seen last time are still there."""
        for state in self._states:
            if state.detection is not None:
                state.seen_s = at_s
        return self._report(at_s)

    def _report(self, at_s: float) -> list[Track]:
        tracks, kept, glimpses = [], [], []
        for state in self._states:
            ended = at_s - state.seen_s > LOST_S
            if not ended:
                kept.append(state)
            if state.hits >= MIN_HITS:
                tracks.append(state.snapshot(ended=ended))
            elif ended:
                glimpses.append(replace(state.snapshot(ended=True), detection=state.latest))
        self._states, self._glimpses = kept, glimpses
        return tracks


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _size(box: Box) -> float:
    return max(1e-6, math.sqrt(max(0.0, (box[2] - box[0]) * (box[3] - box[1]))))
