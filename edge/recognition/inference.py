"""InferenceThread: THE hot loop. One thread, one recognizer, all cameras.

Takes the newest frame of the camera that has waited longest, runs its pipeline, hands events on. Where the
processor cannot look at all frames, every camera gets the same number of looks. Everything else (capture,
disk, network, reload) happens elsewhere; a new recognizer arrives by one reference.
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from edge.camera.latest import LatestFrames
from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.core.threads import Beats, WorkerThread
from edge.core.types import FaceEvent, Frame
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer

Pipelines = Mapping[str, Pipeline]
"""By camera."""

Watch = Callable[[Frame, Pipeline, Recognizer, list[FaceEvent]], None]
"""Hears of every frame that was looked at: by which pipeline and recognizer, and what it made certain."""

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


BUSY = 0.9
"""Share of the time that looking at frames may take. Above it frames are passed over: the processor is needed
by capture and delivery, too, and every frame would be looked at late."""

LEAST_HZ = 2.0
"""How often each camera is looked at, a second, whatever that takes."""

RECENT = 0.1
"""Weight of the newest look in what a look takes, and of the newest frame in how often frames come."""


@dataclass(slots=True)
class _Looked:
    """What is known of one camera: what a look takes, how often frames come, and when to look again."""

    frame: Frame
    cost_s: float
    every_s: float = 1.0
    next_s: float = -math.inf


class LookShares:
    """How often each camera is looked at, so that all together take `BUSY` of the time.

    Each gets the same number of looks a second. What a camera of few frames does not need goes to the others.
    """

    def __init__(self) -> None:
        self._cameras: dict[str, _Looked] = {}

    def due(self, frame: Frame, now_s: float) -> bool:
        """Return whether to look at a frame that has come."""
        seen = self._cameras.get(frame.camera)
        if seen is None:
            return True
        frames, passed_s = frame.number - seen.frame.number, frame.monotonic_s - seen.frame.monotonic_s
        if frames > 0 and passed_s > 0:
            seen.every_s += RECENT * (min(1.0, passed_s / frames) - seen.every_s)
        seen.frame = frame
        every_s = 1 / self.hz()
        if now_s < seen.next_s:
            return False
        seen.next_s = max(seen.next_s + every_s, now_s)
        return True

    def looked(self, frame: Frame, cost_s: float) -> None:
        """Note what a look has taken, in seconds."""
        seen = self._cameras.setdefault(frame.camera, _Looked(frame, cost_s))
        seen.cost_s += RECENT * (cost_s - seen.cost_s)

    def forget(self, camera: str) -> None:
        """Give the share of a camera that is gone, or silent, to the others."""
        self._cameras.pop(camera, None)

    def hz(self) -> float:
        """Return how often a camera is looked at, at most, a second."""
        left, eager = BUSY, sorted(self._cameras.values(), key=lambda each: -each.every_s)
        while eager:
            cost_s = sum(each.cost_s for each in eager)
            hz = left / cost_s if cost_s > 0 else math.inf
            if 1 / eager[0].every_s > hz:
                return max(LEAST_HZ, hz)
            calm = eager.pop(0)
            left -= calm.cost_s / calm.every_s
        return math.inf


class InferenceThread(WorkerThread):
    """Runs until `stop`. `publish` gets every event at once; neither it nor `watch` may block."""

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
        watch: Watch | None = None,
    ) -> None:
        super().__init__(BEAT, beat_limit_s=BEAT_LIMIT_S, beats=beats, metrics=metrics)
        self._frames = frames
        self._pipelines = pipelines
        self._next = (recognizer, pipelines)
        self._publish = publish
        self._clock = clock
        self._watch = watch
        self._taken: dict[str, tuple[float, float]] = {}
        self._shares = LookShares()
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
            if self._frames.loses_none(frame.camera) or self._shares.due(frame, now_s):
                with self._metrics.timed("loop"):
                    events = pipeline.process(frame, recognizer)
                    self._hand_on(events)
                    if self._watch is not None:
                        self._watch(frame, pipeline, recognizer, events)
                self._shares.looked(frame, self._clock.monotonic() - now_s)
                self._metrics.count(f"frames.{frame.camera}")
            else:
                self._metrics.count(f"{PASSED_OVER}{frame.camera}")
        self._look_after_silent(now_s, recognizer, pipelines)

    def _look_after_silent(self, now_s: float, recognizer: Recognizer, pipelines: Pipelines) -> None:
        """Let time pass at cameras that give no frames; one whose frame waits for its turn is not silent."""
        for camera, (frame_s, taken_s) in self._taken.items():
            silent_s = now_s - taken_s
            if silent_s > SILENT_S and (pipeline := pipelines.get(camera)) and not self._frames.holds(camera):
                self._shares.forget(camera)
                self._hand_on(pipeline.tick(frame_s + silent_s, recognizer))

    def _retire(self, old: Pipelines, new: Pipelines, recognizer: Recognizer) -> None:
        """End the visits before cameras that are gone."""
        for camera, pipeline in old.items():
            if new.get(camera) is not pipeline:
                self._taken.pop(camera, None)
                self._shares.forget(camera)
                self._hand_on(pipeline.flush(recognizer))

    def _hand_on(self, events: list[FaceEvent]) -> None:
        for event in events:
            self._publish(event)
