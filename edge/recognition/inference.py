"""InferenceThread: THE hot loop. One thread, one recognizer, all cameras.

Takes the newest frame of the camera that has waited longest, runs its pipeline, hands events on. Everything
else (capture, disk, network, reload) happens elsewhere; a new recognizer arrives by one reference.
"""

import threading
from collections.abc import Callable, Mapping

from edge.camera.latest import LatestFrames
from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.core.threads import Beats, WorkerThread
from edge.core.types import FaceEvent
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer

Pipelines = Mapping[str, Pipeline]
"""By camera."""

BEAT = "inference"
"""The name of the thread, and of its beat for the watchdog."""

BEAT_LIMIT_S = 10.0
"""A step takes milliseconds; ten seconds without one mean that native code hangs."""

IDLE_S = 0.25
"""How long to wait for a frame before looking after visits at silent cameras."""

SILENT_S = 2.0
"""A camera without a frame for this long shows nobody any more. Twice the pause of a camera at 1 frame/s: to
say earlier that nobody is there would end the tracks between two frames of a slow camera."""


FRAME_LIMIT_S = 2.0
"""Age from which a frame is late when it is looked at, in seconds: what it shows has passed by."""

FRAMES_LATE, PASSED_OVER = "frames.late.", "frames.passed_over."
"""Counters, with the name of the camera, of frames that were late, and of frames that were not looked at so
that every camera gets its share of the processor."""


class InferenceThread(WorkerThread):
    """Runs until `stop`. `publish` gets every event at once and must not block."""

    def __init__(
        self,
        frames: LatestFrames,
        pipelines: Pipelines,
        recognizer: Recognizer,
        publish: Callable[[FaceEvent], None],
        *,
        beats: Beats,
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        super().__init__(BEAT, beat_limit_s=BEAT_LIMIT_S, beats=beats, metrics=metrics)
        self._frames = frames
        self._pipelines = pipelines
        self._next = (recognizer, pipelines)
        self._publish = publish
        self._clock = clock
        self._taken: dict[str, tuple[float, float]] = {}
        self._stopping = threading.Event()

    def swap(self, recognizer: Recognizer, pipelines: Pipelines | None = None) -> None:
        """Decide by `recognizer` from the next frame on, and for the cameras of `pipelines` if given."""
        self._next = (recognizer, self._next[1] if pipelines is None else pipelines)

    def stop(self, timeout_s: float) -> bool:
        """End after the current frame, end all visits, and say whether that was done in time."""
        self._stopping.set()
        self.join(timeout_s)
        return not self.is_alive()

    def turn(self) -> bool:
        """Take one step; returns whether to go on."""
        if not self._stopping.is_set():
            self._step()
        return not self._stopping.is_set()

    def finish(self) -> None:
        """Let everybody leave."""
        for pipeline in self._pipelines.values():
            self._hand_on(pipeline.flush(self._next[0]))

    def _step(self) -> None:
        frame = self._frames.take(IDLE_S)
        now_s = self._clock.monotonic()
        recognizer, pipelines = self._next
        if pipelines is not self._pipelines:
            self._retire(self._pipelines, pipelines, recognizer)
            self._pipelines = pipelines
        if frame is not None and (pipeline := pipelines.get(frame.camera)):
            self._taken[frame.camera] = (frame.monotonic_s, now_s)
            if now_s - frame.monotonic_s > FRAME_LIMIT_S:
                self._metrics.count(f"{FRAMES_LATE}{frame.camera}")
            with self._metrics.timed("loop"):
                events = pipeline.process(frame, recognizer)
                self._hand_on(events)
            self._metrics.count(f"frames.{frame.camera}")
        self._look_after_silent(now_s, recognizer, pipelines)

    def _look_after_silent(self, now_s: float, recognizer: Recognizer, pipelines: Pipelines) -> None:
        """Let time pass at cameras that give no frames; one whose frame waits for its turn is not silent."""
        for camera, (frame_s, taken_s) in self._taken.items():
            silent_s = now_s - taken_s
            if silent_s > SILENT_S and (pipeline := pipelines.get(camera)) and not self._frames.holds(camera):
                self._hand_on(pipeline.tick(frame_s + silent_s, recognizer))

    def _retire(self, old: Pipelines, new: Pipelines, recognizer: Recognizer) -> None:
        """End the visits before cameras that are gone."""
        for camera, pipeline in old.items():
            if new.get(camera) is not pipeline:
                self._taken.pop(camera, None)
                self._hand_on(pipeline.flush(recognizer))

    def _hand_on(self, events: list[FaceEvent]) -> None:
        for event in events:
            self._publish(event)
