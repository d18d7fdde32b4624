"""Follow faces from frame to frame by where they are. Does not look at who they are.

Each track predicts its box with a constant velocity; detections are assigned greedily, closest first.
Two or three faces stand at a door: an optimal assignment would buy nothing over the greedy one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from edge.types import Detection, FloatArray, Track

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
    box: FloatArray
    velocity: FloatArray
    started_s: float
    seen_s: float
    hits: int

    def predict(self, at_s: float) -> FloatArray:
        shift = self.velocity * (at_s - self.seen_s)
        return self.box + np.concatenate([shift, shift])

    def see(self, detection: Detection, at_s: float) -> None:
        elapsed_s = at_s - self.seen_s
        if elapsed_s > 0:
            velocity = (_centre(detection.box) - _centre(self.box)) / elapsed_s
            self.velocity = SMOOTHING * velocity + (1 - SMOOTHING) * self.velocity
        self.detection, self.box = detection, detection.box
        self.seen_s = at_s
        self.hits += 1

    def snapshot(self, *, ended: bool = False) -> Track:
        return Track(self.track_id, self.detection, self.box, self.started_s, self.seen_s, self.hits, ended)


class Tracker:
    """Tracks of one camera. Times are monotonic seconds of the frames and never decrease."""

    def __init__(self) -> None:
        self._states: list[_State] = []
        self._next_id = 1

    def update(self, detections: Sequence[Detection], at_s: float) -> list[Track]:
        """Assign the detections of the frame at `at_s` and return every reported track.

        A track that has just ended is returned one last time with `ended` set.
        """
        free = list(range(len(detections)))
        assigned: set[int] = set()
        for _, state_index, index in sorted(self._costs(detections, at_s)):
            if index in free and state_index not in assigned:
                free.remove(index)
                assigned.add(state_index)
                self._states[state_index].see(detections[index], at_s)
        for state_index, state in enumerate(self._states):
            if state_index not in assigned:
                state.detection = None
        for index in free:
            detection = detections[index]
            still = np.zeros(2, np.float32)
            self._states.append(_State(self._next_id, detection, detection.box, still, at_s, at_s, hits=1))
            self._next_id += 1
        return self._report(at_s)

    def hold(self, at_s: float) -> list[Track]:
        """Say that nothing moved until `at_s`: faces seen last time are still there."""
        for state in self._states:
            if state.detection is not None:
                state.seen_s = at_s
        return self._report(at_s)

    def _costs(self, detections: Sequence[Detection], at_s: float) -> list[tuple[float, int, int]]:
        costs = []
        for state_index, state in enumerate(self._states):
            predicted = state.predict(at_s)
            size = _size(state.box)
            for index, detection in enumerate(detections):
                ratio = _size(detection.box) / size
                if not 1 / SIZE_RATIO <= ratio <= SIZE_RATIO:
                    continue
                apart = float(np.linalg.norm(_centre(detection.box) - _centre(predicted))) / size
                if apart <= REACH:
                    costs.append((apart + abs(float(np.log(ratio))), state_index, index))
        return costs

    def _report(self, at_s: float) -> list[Track]:
        tracks, kept = [], []
        for state in self._states:
            ended = at_s - state.seen_s > LOST_S
            if not ended:
                kept.append(state)
            if state.hits >= MIN_HITS:
                tracks.append(state.snapshot(ended=ended))
        self._states = kept
        return tracks


def _centre(box: FloatArray) -> FloatArray:
    return (box[:2] + box[2:]) / 2


def _size(box: FloatArray) -> float:
    return max(1e-6, float(np.sqrt((box[2] - box[0]) * (box[3] - box[1]))))
