"""A capture thread on its bench, and cameras that misbehave on demand."""

import threading
import time
from collections.abc import Callable

import numpy as np

from edge.camera.capture import CaptureThread
from edge.camera.latest import LatestFrames
from edge.camera.sources import Camera
from edge.core.clock import SystemClock
from edge.core.errors import CameraError
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.core.types import Frame
from tests.support.waits import LIMIT_S, wait_until

CLOCK = SystemClock()


class Rig:
    """A capture thread with what it needs, and a record of what it said."""

    def __init__(self) -> None:
        self.frames, self.metrics, self.beats = LatestFrames(), Metrics(), Beats()
        self.statuses: list[tuple[bool, str]] = []
        self.threads: list[CaptureThread] = []

    def start(
        self,
        factory: Callable[[], Camera],
        *,
        stall_s: float = 0.5,
        open_timeout_s: float = 1.0,
        name: str = "front",
    ) -> CaptureThread:
        thread = CaptureThread(
            factory,
            self.frames,
            name=name,
            stall_s=stall_s,
            open_timeout_s=open_timeout_s,
            backoff_max_s=0.2,
            beats=self.beats,
            metrics=self.metrics,
            clock=CLOCK,
            on_status=lambda camera, online, why: self.statuses.append((online, why)),
        )
        self.threads.append(thread)
        thread.start()
        return thread

    def take(self, count: int) -> list[Frame]:
        frames, until_s = [], time.monotonic() + LIMIT_S
        while len(frames) < count and time.monotonic() < until_s:
            if (frame := self.frames.take(0.1)) is not None:
                frames.append(frame)
        assert len(frames) == count, f"only {len(frames)} frames; {self.statuses}"
        return frames

    @property
    def online(self) -> bool | None:
        return self.statuses[-1][0] if self.statuses else None

    def until(self, met: Callable[[], bool]) -> None:
        wait_until(met, lambda: f"{self.statuses} {self.metrics.counts()}")


class HungCamera:
    """A camera whose read hangs as native code does, until the test lets go."""

    live = True
    paced = True
    description = "hung"

    def __init__(self, release: threading.Event, closed: list[str]) -> None:
        self._release, self._closed = release, closed

    def open(self) -> None:
        pass

    def read(self) -> Frame | None:
        self._release.wait(LIMIT_S)
        raise CameraError("came back")

    def interrupt(self) -> None:
        pass  # native code does not listen

    def close(self) -> None:
        self._closed.append("closed")


class CountingCamera:
    """A finite source that is not paced; each further instance numbers its frames from the next hundred."""

    live = False
    paced = False
    description = "counting"

    def __init__(self, made: list["CountingCamera"], *, pause: threading.Event | None = None) -> None:
        self._number = 100 * len(made)
        self._pause = pause
        self.closed = threading.Event()
        made.append(self)

    def open(self) -> None:
        pass

    def read(self) -> Frame | None:
        if self._pause is not None:
            self._pause.wait(LIMIT_S)
        frame = Frame("front", np.zeros((2, 2, 3), np.uint8), CLOCK.now(), CLOCK.monotonic(), self._number)
        self._number += 1
        return frame

    def interrupt(self) -> None:
        if self._pause is not None:
            self._pause.set()

    def close(self) -> None:
        self.closed.set()
