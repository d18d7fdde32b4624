"""CaptureThread: keep one camera delivering, whatever it does.

Opens, watches, replaces, backs off. Native code may hang for ever in open or read: the camera is therefore
used by a reader thread of its own, which is abandoned when it stalls. What frames show is not its business.
"""

import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from edge.camera.latest import LatestFrames
from edge.camera.sources import Camera
from edge.core.clock import Clock
from edge.core.errors import CameraError
from edge.core.metrics import Metrics
from edge.core.pacing import Backoff, Uniform
from edge.core.threads import Beats
from edge.core.types import Frame

log = logging.getLogger(__name__)

FIRST_PAUSE_S = 0.5
"""Bound of the first pause between two tries to open a camera; it doubles from try to try."""

SHORTEST_PAUSE_S = 0.05
"""Between two tries, whatever the jitter says."""

BEAT_LIMIT_S = 10.0
"""The thread beats every `POLL_S`; ten seconds without one mean that it hangs."""

POLL_S = 0.1
"""How often the reader is looked after; a stall is noticed this much late at most."""

CLIP_SILENCE_S = 10.0
"""A clip may pause for some seconds (`clips.MAX_STEP_S`); silent for longer it counts as hung."""

STEADY_S = 5.0
"""Back-off starts anew only for a camera that delivered this long, so that a flapping one is left alone."""

OPEN_GRACE_S = 1.0
"""A camera gives up opening by itself; its thread counts as hung only this much later."""

STOP_S = 0.5
"""How long a reader may take to finish its frame and close its camera when the daemon stops."""

NOT_TAKEN = "its frames are not looked at"
"""Why a camera counts as offline that has more frames to give."""

MAX_ABANDONED = 4
"""Readers that may hang in native code at once; then no further one is started until one comes back."""


@dataclass(slots=True)
class _Reader:
    """What a reader thread and its capture thread share."""

    camera: Camera
    thread: threading.Thread | None = None
    delivery: threading.Lock = field(default_factory=threading.Lock)
    """Held while a frame is handed over, so that nothing follows once `abandoned` is set."""
    abandoned: bool = False
    progress_s: float = 0.0
    delivering_s: float | None = None
    """When its first frame came."""
    opened: bool = False
    frames: int = 0
    ended: str | None = None
    finished: bool = False


class CaptureThread(threading.Thread):
    """Runs until `stop`, or until a finite source has ended.

    `open_camera` makes a fresh camera for every try. `on_status` hears of every change with its reason.
    """

    def __init__(
        self,
        open_camera: Callable[[], Camera],
        frames: LatestFrames,
        *,
        name: str,
        stall_s: float,
        open_timeout_s: float,
        backoff_max_s: float,
        beats: Beats,
        metrics: Metrics,
        clock: Clock,
        on_status: Callable[[str, bool, str], None],
        uniform: Uniform = random.uniform,
    ) -> None:
        super().__init__(name=f"capture-{name}", daemon=True)
        self.camera = name
        self._open_camera, self._frames, self._on_status = open_camera, frames, on_status
        self._stall_s, self._open_timeout_s = stall_s, open_timeout_s
        self._beats, self._metrics, self._clock = beats, metrics, clock
        self._backoff = Backoff(FIRST_PAUSE_S, backoff_max_s, uniform)
        self._stopping = threading.Event()
        self._hung: list[_Reader] = []
        self._online: bool | None = None
        self._why = ""
        self.last_frame_s: float | None = None
        self._first_frame_s: float | None = None
        self._ended = False
        self.finished = threading.Event()
        """Set when a finite source has ended."""

    @property
    def steady_s(self) -> float:
        """For how long it delivers without a break, from its first frame to its last; 0 while offline."""
        first_s, last_s = self._first_frame_s, self.last_frame_s
        return 0.0 if first_s is None or last_s is None else max(0.0, last_s - first_s)

    def stop(self, timeout_s: float) -> None:
        """End; a reader that hangs in native code is left behind."""
        self._stopping.set()
        self.join(timeout_s)

    def run(self) -> None:
        """Keep the camera running."""
        self._beats.register(self.name, BEAT_LIMIT_S)
        try:
            while not self._stopping.is_set():
                why = self._session()
                if why is None:
                    break
                self._tell(False, why)
                self._pause()
            self._tell(False, "ended" if self._ended else "stopped")
        except Exception:
            self._metrics.count(f"camera.{self.camera}.failures")
            log.exception("capture ended by an error", extra={"camera": self.camera})
            self._tell(False, "internal error")
            return  # the beat is still expected: the watchdog restarts the process
        self._beats.forget(self.name)
        if self._ended:
            self.finished.set()

    def _session(self) -> str | None:
        """Run one camera until it fails (returns why), ends or is to be stopped (returns None)."""
        self._hung = [reader for reader in self._hung if reader.thread and reader.thread.is_alive()]
        if len(self._hung) >= MAX_ABANDONED:
            return f"{len(self._hung)} reads hang in the driver; reconnect the camera or restart the device"
        try:
            reader = _Reader(self._open_camera())
        except CameraError as error:
            return str(error)
        reader.progress_s = self._clock.monotonic()
        reader.thread = threading.Thread(
            target=self._read, args=(reader,), name=f"reader-{self.camera}", daemon=True
        )
        reader.thread.start()
        return self._watch(reader, reader.thread)

    def _watch(self, reader: _Reader, thread: threading.Thread) -> str | None:
        seen = -1
        while True:
            thread.join(POLL_S)
            if reader.frames != seen and reader.opened:
                if reader.frames > 0:
                    self._tell(True, reader.camera.description)
                    self._first_frame_s = self._first_frame_s or self.last_frame_s
                seen = reader.frames
            now_s = self._clock.monotonic()
            if reader.delivering_s is not None and now_s - reader.delivering_s >= STEADY_S:
                self._backoff.reset()
            if not thread.is_alive():
                self._ended = reader.finished
                return None if reader.finished or self._stopping.is_set() else reader.ended or "reader ended"
            if self._stopping.is_set():
                self._abandon(reader)
                thread.join(STOP_S)
                return None
            silent_s, limit_s = now_s - reader.progress_s, self._limit_s(reader)
            if silent_s >= limit_s:
                why = f"no {'frame' if reader.opened else 'answer'} for {silent_s:.1f} s"
                self._tell(False, why)
                self._abandon(reader)
                self._hung.append(reader)
                self._metrics.count(f"camera.{self.camera}.abandoned")
                return why
            if reader.frames and self.last_frame_s is not None and now_s - self.last_frame_s >= limit_s:
                self._tell(False, NOT_TAKEN)  # opening it anew would not help
            self._beats.beat(self.name)

    def _limit_s(self, reader: _Reader) -> float:
        """Return how long a reader may be silent before it counts as hung."""
        if not reader.opened:
            return self._open_timeout_s + OPEN_GRACE_S
        return self._stall_s if reader.camera.live else CLIP_SILENCE_S

    def _abandon(self, reader: _Reader) -> None:
        """Leave a reader alone: when it comes back, it closes its camera and delivers nothing."""
        reader.abandoned = True
        with reader.delivery:
            pass  # a frame that is being handed over was the last
        reader.camera.interrupt()

    def _read(self, reader: _Reader) -> None:
        """The reader thread: open, read, hand over."""
        camera = reader.camera
        try:
            camera.open()
            reader.progress_s, reader.opened = self._clock.monotonic(), True
            while not reader.abandoned:
                frame = camera.read()
                if frame is None:
                    reader.finished = not reader.abandoned
                    return
                while not (reader.abandoned or self._deliver(reader, frame)):
                    # Its place is taken, which is not its fault. Look whether to go on, and wait again.
                    reader.progress_s = self._clock.monotonic()
        except CameraError as error:
            reader.ended = str(error)
        except Exception as error:
            self._metrics.count(f"camera.{self.camera}.failures")
            log.exception("camera failed", extra={"camera": self.camera})
            reader.ended = f"internal error: {type(error).__name__}"
        finally:
            camera.close()

    def _deliver(self, reader: _Reader, frame: Frame) -> bool:
        """Hand a frame over, unless abandoned; False if its place is still taken."""
        with reader.delivery:
            if reader.abandoned:
                return True
            if not self._frames.put(frame, wait=not reader.camera.paced, timeout_s=POLL_S):
                return False
            reader.progress_s = self.last_frame_s = self._clock.monotonic()
            reader.delivering_s = reader.delivering_s or reader.progress_s
            reader.frames += 1
            return True

    def _tell(self, online: bool, why: str) -> None:
        if (online, why) == (self._online, self._why):
            return
        if online != self._online:
            log.log(
                logging.INFO if online or why in ("ended", "stopped") else logging.WARNING,
                "camera %s",
                "online" if online else "offline",
                extra={"camera": self.camera, "why": why},
            )
        if not online:
            self._first_frame_s = None
        self._online, self._why = online, why
        self._on_status(self.camera, online, why)

    def _pause(self) -> None:
        """Wait before the next try."""
        pause_s = max(SHORTEST_PAUSE_S, self._backoff.next_s())
        self._metrics.count(f"camera.{self.camera}.retries")
        self._beats.beat(self.name, extra_s=pause_s)
        self._stopping.wait(pause_s)
