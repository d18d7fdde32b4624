"""Run a clip or a folder of images through the same pipeline as the daemon, without a broker.

As fast as it goes; time in the events is the clip's own.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from edge.camera.sources import Camera
from edge.core.types import FaceEvent
from edge.lab.annotate import AnnotatedVideo
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class ReplaySummary:
    """Frames run, the length of the footage in seconds by its own time, and the events by type."""

    frames: int
    footage_s: float
    events: dict[str, int]


def replay(
    camera: Camera,
    pipeline: Pipeline,
    recognizer: Recognizer,
    on_event: Callable[[FaceEvent], None],
    *,
    annotate: Path | None = None,
    fps: float = 25.0,
    on_frame: Callable[[int], None] = lambda number: None,
) -> ReplaySummary:
    """Feed every frame of `camera` to `pipeline`, events to `on_event` as they happen, and end all visits.

    Raises:
        CameraError: The footage cannot be read.
        MediaError: The annotated video cannot be written.
    """
    counts: dict[str, int] = {}
    frames, first_s, last_s = 0, 0.0, 0.0

    def tell(events: list[FaceEvent]) -> None:
        for event in events:
            counts[event.event_type] = counts.get(event.event_type, 0) + 1
            on_event(event)

    camera.open()
    try:
        with AnnotatedVideo(annotate, fps) if annotate else nullcontext() as video:
            while (frame := camera.read()) is not None:
                first_s = frame.monotonic_s if not frames else first_s
                last_s = frame.monotonic_s
                frames += 1
                events = pipeline.process(frame, recognizer)
                tell(events)
                on_frame(frames)
                if video is not None:
                    video.add(frame, pipeline.scene(), events)
    finally:
        camera.close()
    tell(pipeline.flush(recognizer))
    return ReplaySummary(frames, last_s - first_s, counts)
