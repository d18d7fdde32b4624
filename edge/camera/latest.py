"""One place per camera for its newest frame: the hand-over from capture to inference.

A live camera replaces a frame that nobody has taken; a replay that must lose nothing waits for its place.
"""

import threading

from edge.core.types import Frame


class LatestFrames:
    """The newest untaken frame of every camera. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._frames: dict[str, Frame] = {}
        self._replaced: dict[str, int] = {}
        self._patient: set[str] = set()
        self._closed = False

    def put(self, frame: Frame, *, wait: bool = False, timeout_s: float | None = None) -> bool:
        """Offer a frame; one of the same camera that is still untaken is replaced and counted.

        With `wait` it is waited for instead, at most `timeout_s`. After `close` frames are dropped.

        Returns:
            False if the place was still taken after `timeout_s`: the frame was not handed over.
        """
        with self._changed:
            if wait:
                self._patient.add(frame.camera)
            if wait and not self._changed.wait_for(
                lambda: self._closed or frame.camera not in self._frames, timeout_s
            ):
                return False
            if self._closed:
                return True
            if frame.camera in self._frames:
                self._replaced[frame.camera] = self._replaced.get(frame.camera, 0) + 1
                # The new frame keeps the old one's turn, so that a fast camera never overtakes a slow one.
            self._frames[frame.camera] = frame
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float) -> Frame | None:
        """Take the frame of the camera that has waited longest, or None after `timeout_s` or `close`."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or bool(self._frames), timeout_s)
            if not self._frames:
                return None
            frame = self._frames.pop(next(iter(self._frames)))
            self._changed.notify_all()
            return frame

    def loses_none(self, camera: str) -> bool:
        """Return whether the frames of `camera` wait for their place, so that none is lost."""
        with self._changed:
            return camera in self._patient

    def holds(self, camera: str) -> bool:
        """Return whether a frame of `camera` waits to be taken."""
        with self._changed:
            return camera in self._frames

    @property
    def replaced(self) -> dict[str, int]:
        """Frames replaced before anybody took them, by camera."""
        with self._changed:
            return dict(self._replaced)

    def close(self) -> None:
        """Wake everybody; nothing is handed over any more."""
        with self._changed:
            self._closed = True
            self._frames.clear()
            self._changed.notify_all()
