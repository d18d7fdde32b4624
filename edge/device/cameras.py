"""Cameras: the capture threads and pipelines of one device, started, replaced and stopped together.

A camera whose settings did not change goes on through a reload without losing a frame or a visit.
"""

import threading
from collections.abc import Callable

from edge.camera.capture import CaptureThread
from edge.camera.latest import LatestFrames
from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.core.types import Image
from edge.device.assembly.recognizer import build_pipeline, camera_factory, visit_rule
from edge.device.settings.load import Settings
from edge.gallery.store.kept_visits import KeptVisit
from edge.recognition.pipeline import Pipeline

STOP_S = 1.0
"""Left for all captures together of the 5 s from SIGTERM to the exit."""

REMOVED = "removed from the configuration"


class Cameras:
    """Used by the main thread. `on_status` is told the camera, whether it delivers, and why."""

    def __init__(
        self,
        settings: Settings,
        frames: LatestFrames,
        on_status: Callable[[str, bool, str], None],
        *,
        beats: Beats,
        metrics: Metrics,
        clock: Clock,
        keep_visit: Callable[[KeptVisit], None] | None = None,
    ) -> None:
        self._keep_visit = keep_visit
        self._settings = settings
        self._frames = frames
        self._on_status = on_status
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
                self._on_status(name, False, REMOVED)
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
            on_status=self._on_status,
        )
        self._captures[name] = capture
        capture.start()
