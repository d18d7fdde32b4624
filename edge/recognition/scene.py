"""What is seen before a camera at one moment, for people: each face, its size, last verdict and decision.

Holds no pixels. Goes from the daemon to `edge view` as JSON.
"""

from dataclasses import dataclass

from edge.core.types import EventType, FaceEvent, Frame, Refusal
from edge.recognition.pipeline import Pipeline
from edge.recognition.recognizer import Recognizer


@dataclass(frozen=True, slots=True)
class SceneFace:
    """One face that is followed. `box` is (x1, y1, x2, y2) in fractions of the frame.

    `seen`: the detector found it in this very frame. `face_px` is the shorter side of its box in pixels of
    the frame. `judged`: a shot of it was measured; `refused` is why the last one was of no use, None: it was.
    `sharpness`, `yaw_deg` and `exposure` belong to that shot. `decided` is what its visit was decided as,
    `told` that in words.
    """

    box: tuple[float, float, float, float]
    seen: bool
    face_px: float
    judged: bool
    refused: Refusal | None
    sharpness: float
    yaw_deg: float
    exposure: float
    decided: EventType | None
    told: str


@dataclass(frozen=True, slots=True)
class CameraScene:
    """The faces in one frame, the frame's size in pixels, and how large a face has to be, in the same."""

    camera: str
    width: int
    height: int
    needed_px: float
    faces: tuple[SceneFace, ...]


def scene_of(frame: Frame, pipeline: Pipeline, recognizer: Recognizer) -> CameraScene:
    """Return what a pipeline sees in the frame that it has just looked at. Used by the pipeline's thread."""
    height, width = frame.image.shape[:2]
    verdicts, faces = pipeline.verdicts(), []
    for track, event in pipeline.scene():
        x1, y1, x2, y2 = track.box.tolist()
        quality = verdicts.get(track.track_id)
        faces.append(
            SceneFace(
                (x1 / width, y1 / height, x2 / width, y2 / height),
                track.detection is not None,
                min(x2 - x1, y2 - y1),
                quality is not None,
                quality.refused if quality else None,
                quality.sharpness if quality else 0.0,
                quality.yaw_deg if quality else 0.0,
                quality.exposure if quality else 0.0,
                event.event_type if event else None,
                describe(event) if event else "",
            )
        )
    return CameraScene(pipeline.camera, width, height, _needed_px(pipeline, recognizer), tuple(faces))


def _needed_px(pipeline: Pipeline, recognizer: Recognizer) -> float:
    """Return how large a face has to be for a match: a liveness model may want more than the gate."""
    needed = float(recognizer.gate.min_face_px)
    if recognizer.liveness is not None and pipeline.live_from is not None:
        needed = max(needed, recognizer.liveness.min_face_px)
    return needed


def describe(event: FaceEvent) -> str:
    """Return an event in one line for people: what, who or why, and the score against the threshold."""
    words = [event.event_type.value]
    if event.subject is not None:
        words.append(event.subject.label)
    if event.reason is not None and event.reason != event.event_type.value:
        words.append(f"({event.reason})")
    if event.score is not None and event.score.best is not None:
        words.append(f"{event.score.best:.2f} vs {event.score.threshold:.2f}")
    if event.liveness.score is not None:
        words.append(f"live {event.liveness.score:.2f}")
    return " ".join(words)
