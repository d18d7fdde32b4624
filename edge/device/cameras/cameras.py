"""The cameras of one device, captures and pipelines, and the writer of the visits that these hand over."""

import logging
import queue
import threading
from collections.abc import Callable
from datetime import timedelta

from edge.camera.capture import CaptureThread
from edge.camera.latest import LatestFrames
from edge.camera.view import ViewFault
from edge.core.clock import Clock
from edge.core.errors import EdgeError, ToldOnce
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.core.types import Image
from edge.device.assembly.recognizer import build_pipeline, camera_factory, visit_rule
from edge.device.settings.load import Settings
from edge.gallery.store.kept_visits import KeptVisit, VisitStore
from edge.mqtt.contract.problems import DoorProblem
from edge.recognition.pipeline import Pipeline

log = logging.getLogger(__name__)

STOP_S = 1.0
"""Left for all captures together of the 5 s from SIGTERM to the exit."""

MAX_WAITING = 64
"""Visits that wait to be written; what comes beyond is dropped and counted."""

VIEW_PROBLEMS = {
    ViewFault.BLACK: DoorProblem.CAMERA_BLACK,
    ViewFault.COVERED: DoorProblem.CAMERA_COVERED,
    ViewFault.FROZEN: DoorProblem.CAMERA_FROZEN,
    ViewFault.DEFOCUSED: DoorProblem.CAMERA_DEFOCUSED,
    ViewFault.MOVED: DoorProblem.CAMERA_MOVED,
}

EXPIRE_EVERY = timedelta(minutes=10)


class Cameras:
    """The capture threads and pipelines, started, replaced and stopped together. Used by the main thread.

    A camera whose settings did not change goes on through a reload without losing a frame or a visit.
    `on_status` is told the camera, whether it delivers, and why; `on_removed` one that was taken out.
    `keep_visit` gets visits that have ended.
    """

    def __init__(
        self,
        settings: Settings,
        frames: LatestFrames,
        on_status: Callable[[str, bool, str], None],
        on_removed: Callable[[str], None],
        *,
        beats: Beats,
        metrics: Metrics,
        clock: Clock,
        keep_visit: Callable[[KeptVisit], None] | None = None,
    ) -> None:
        self._keep_visit = keep_visit
        self._settings = settings
        self._frames = frames
        self._on_status, self._on_removed = on_status, on_removed
        self._beats = beats
        self._metrics = metrics
        self._clock = clock
        self._captures: dict[str, CaptureThread] = {}
        self.pipelines = {name: self._pipeline(name) for name in settings.cameras}

    def start(self) -> None:
        """Start to capture."""
        for name in self._settings.cameras:
            self._start_capture(name)

    def replace(self, settings: Settings, swap: Callable[[dict[str, Pipeline]], None]) -> None:
        """Replace the cameras that changed; `swap` puts the pipelines in use before new cameras start."""
        old, self._settings = self._settings, settings
        alike = old.capture == settings.capture
        alike &= old.recognition.motion_gate == settings.recognition.motion_gate
        kept = {name for name in self._captures if alike and settings.cameras.get(name) == old.cameras[name]}
        for name in self._captures.keys() - kept:
            self._captures.pop(name).stop(2.0)
            if name not in settings.cameras:
                self._on_removed(name)
        for name in kept:
            self.pipelines[name].use(visit_rule(settings))
        self.pipelines = {
            name: self.pipelines[name] if name in kept else self._pipeline(name) for name in settings.cameras
        }
        swap(self.pipelines)
        for name in settings.cameras.keys() - kept:
            self._start_capture(name)

    def last_frame_s(self) -> dict[str, float | None]:
        """Return when each camera delivered last, monotonic; None: never."""
        return {name: capture.last_frame_s for name, capture in self._captures.items()}

    def problems(self) -> dict[str, list[DoorProblem]]:
        """Return what is wrong with the view of each camera that delivers."""
        return {
            name: [VIEW_PROBLEMS[fault] for fault in self.pipelines[name].faults]
            for name, steady_s in self.steady_s().items()
            if steady_s and self.pipelines[name].faults
        }

    def steady_s(self) -> dict[str, float]:
        """Return for how long each camera delivers without a break, in seconds."""
        return {name: capture.steady_s for name, capture in self._captures.items()}

    def picture(self, name: str) -> Image | None:
        """Return the last frame of a camera that was looked at, None where there is none."""
        pipeline = self.pipelines.get(name)
        return None if pipeline is None else pipeline.picture

    def stop(self) -> None:
        """End all captures at once, not one after the other."""
        stoppers = [
            threading.Thread(target=capture.stop, args=(STOP_S,)) for capture in self._captures.values()
        ]
        for stopper in stoppers:
            stopper.start()
        for stopper in stoppers:
            stopper.join()
        self._frames.close()

    def _pipeline(self, name: str) -> Pipeline:
        return build_pipeline(
            name,
            self._settings,
            metrics=self._metrics,
            clock=self._clock,
            keep_visit=self._keep_visit,
        )

    def _tell(self, name: str, online: bool, why: str) -> None:
        """Pass on the status of a camera; one that was taken out, and hung when it was stopped, is gone."""
        if name in self._settings.cameras:
            self._on_status(name, online, why)

    def _start_capture(self, name: str) -> None:
        values = self._settings.capture
        capture = CaptureThread(
            camera_factory(name, self._settings, self._clock),
            self._frames,
            name=name,
            stall_s=values.stall_s,
            open_timeout_s=values.open_timeout_s,
            backoff_max_s=values.backoff_max_s,
            beats=self._beats,
            metrics=self._metrics,
            clock=self._clock,
            on_status=self._tell,
        )
        self._captures[name] = capture
        capture.start()


class VisitWriter:
    """Keeps visits that have ended on the disk: strangers', to enrol them, and matches, to deny them.

    `hand_over` is called by the inference thread and never waits; the rest by the main thread.
    """

    def __init__(self, store: VisitStore, metrics: Metrics, clock: Clock) -> None:
        self._store = store
        self._metrics = metrics
        self._clock = clock
        self._queue: queue.Queue[KeptVisit] = queue.Queue(MAX_WAITING)
        self._expired_s = -float("inf")
        self._told = ToldOnce()

    def use(self, store: VisitStore) -> None:
        """Keep them there from now on: the device's key may have moved."""
        self._store = store

    def hand_over(self, visit: KeptVisit) -> None:
        """Take a visit that has ended."""
        try:
            self._queue.put_nowait(visit)
        except queue.Full:
            self._metrics.count("strangers.dropped")

    def tick(self) -> None:
        """Write what has come, and delete what is too old. What fails is told once."""
        try:
            while not self._queue.empty():
                self._store.put(self._queue.get_nowait())
                self._metrics.count("strangers.kept")
            now_s = self._clock.monotonic()
            if now_s - self._expired_s >= EXPIRE_EVERY.total_seconds():
                self._expired_s = now_s
                self._store.expire(self._clock.now())
        except EdgeError as error:
            self._metrics.count("strangers.failed")
            if self._told.is_new(error):
                log.error("visits cannot be kept: %s", error)
