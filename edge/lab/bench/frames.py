"""Frames per second and time per stage of the pipeline, beside the usual OpenCV loop, on approach clips.

All contestants run alternately in one process on the same decoded frames; ratios outlive a noisy machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np

from edge.camera.clips import ReplayCamera
from edge.core.clock import SystemClock
from edge.core.download import Progress
from edge.core.metrics import Metrics
from edge.core.types import EventType, Frame, Image
from edge.device.assembly.recognizer import build_pipeline, build_recognizer
from edge.device.settings.load import Settings
from edge.face.manifest import installed_path, load_manifest
from edge.gallery.gallery import Gallery
from edge.lab.demo import scenario
from edge.lab.demo.device import enrolled
from edge.lab.demo.media import media_dir
from edge.recognition.recognizer import Recognizer

SCORE = 0.7
NMS = 0.3
"""The detector settings of OpenCV's own tutorial loop."""

CLIPS = ("noface_face.mov", "face_noface.mov")
"""A man comes to the door, stands, and goes: what a door camera sees most of the time it sees anything."""

EMBEDDERS = ("sface-int8", "sface-fp32")
SIZES = {"480p": (854, 480), "720p": (1280, 720), "1080p": (1920, 1080)}
EQUAL_RANGE = {"720p": (24, 1280), "1080p": (32, 1280)}
"""The smallest face, in px, of which the pipeline finds about nine of ten in time, and how wide frames are to
be for OpenCV's detector to find as many.

Source: `edge bench range`. OpenCV's detector finds .98 of 32 px faces in 1920x1080 at a width of 1280, .82 at
960; of 24 px faces in 1280x720 .98 at the full width (40 to 60 lfw-dev faces in scenes).
"""

FPS = 25
NATIVE_STAGES = ("gate", "detect", "far", "align", "embed", "match", "decide")
"""Stages that spend their time in onnxruntime, OpenCV and numpy; all else of the loop is our own overhead."""

RIVAL_STEP = 5
"""The loop is given every so-manyth frame: it remembers nothing between frames, and takes its time."""

RIVAL, RIVAL_AT_RANGE = "opencv-loop", "opencv-loop-equal-range"

RIVAL_THRESHOLD = 0.363
"""Source: OpenCV's face recognition tutorial, cosine threshold of SFace."""


class OpenCVLoop:
    """The loop a user would write instead: OpenCV's own detector and recognizer on every face of every frame.

    FaceDetectorYN and FaceRecognizerSF with a dictionary of features, as short as tutorials show it. With
    `width_px` the detector searches frames that are reduced to this width.
    """

    width_px: int | None = None

    def __init__(self, detector: Path, recognizer: Path, threshold: float) -> None:
        self._detector = cv2.FaceDetectorYN.create(str(detector), "", (320, 320), SCORE, NMS)
        self._recognizer = cv2.FaceRecognizerSF.create(str(recognizer), "")
        self._threshold = threshold
        self._features: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}

    def enroll(self, subject: str, photo: Image) -> bool:
        """Remember the largest face of a photo; returns whether there was one."""
        faces = self._detect(photo)
        if len(faces):
            crop = self._recognizer.alignCrop(photo, max(faces, key=lambda face: face[2] * face[3]))
            self._features[subject] = np.array(self._recognizer.feature(crop), np.float32)
        return bool(len(faces))

    def process(self, image: Image) -> list[str | None]:
        """Return the subject of every face in a frame, None for strangers."""
        names: list[str | None] = []
        for face in self._detect(image):
            feature = self._recognizer.feature(self._recognizer.alignCrop(image, face))
            best, name = -1.0, None
            for subject, known in self._features.items():
                score = self._recognizer.match(feature, known, cv2.FaceRecognizerSF_FR_COSINE)
                if score > best:
                    best, name = score, subject
            names.append(name if best >= self._threshold else None)
        return names

    def run(self, frames: Sequence[Image]) -> set[str]:
        """Process frames and return the subjects seen."""
        return {name for frame in frames for name in self.process(frame) if name is not None}

    def _detect(self, image: Image) -> Sequence[np.ndarray[tuple[int, ...], np.dtype[np.float32]]]:
        scale = min(1.0, (self.width_px or image.shape[1]) / image.shape[1])
        small = image if scale == 1 else cv2.resize(image, None, fx=scale, fy=scale)
        self._detector.setInputSize((small.shape[1], small.shape[0]))
        faces = self._detector.detect(small)[1]
        if faces is not None:
            faces = np.concatenate([faces[:, :14] / scale, faces[:, 14:]], axis=1, dtype=np.float32)
        return [] if faces is None else list(faces)


@dataclass(slots=True)
class Run:
    """One run of a contestant over the clips."""

    seconds: float
    frames: int
    subjects: set[str]


def load_frames(media: Path, size: tuple[int, int], metrics: Metrics) -> list[Image]:
    """Decode the clips (960x540, H.264; timed as "decode") and bring them to (width, height)."""
    frames = []
    for clip in CLIPS:
        camera = ReplayCamera("bench", media / clip, clock=SystemClock(), realtime=False)
        camera.open()
        while True:
            with metrics.timed("decode"):
                frame = camera.read()
            if frame is None:
                break
            frames.append(np.asarray(cv2.resize(frame.image, size, interpolation=cv2.INTER_AREA), np.uint8))
        camera.close()
    return frames


def recognizer_of(embedder: str, settings: Settings, media: Path) -> Recognizer:
    """Return a recognizer with that embedder which knows the demo's 42 subjects."""
    recognition = settings.recognition.model_copy(update={"embedder": embedder})
    manifest = load_manifest(embedder, settings.models_path)
    recognizer = build_recognizer(
        settings.model_copy(update={"recognition": recognition}),
        Gallery.empty(manifest.model_id),
    )
    return recognizer.with_gallery(enrolled(recognizer, media, lambda what, done, total: None))


def run_pipeline(
    settings: Settings, recognizer: Recognizer, images: Sequence[Image], metrics: Metrics
) -> Run:
    """Run the daemon's own pipeline over frames as fast as it goes."""
    pipeline = build_pipeline("bench", settings, metrics=metrics, clock=SystemClock(), live=False)
    start = datetime(2026, 1, 1, tzinfo=UTC)
    subjects: set[str] = set()
    begun_s = perf_counter()
    for number, image in enumerate(images):
        offset_s = number / FPS
        frame = Frame("bench", image, start + timedelta(seconds=offset_s), offset_s, number)
        with metrics.timed("loop"):
            events = pipeline.process(frame, recognizer)
        subjects |= {
            event.subject.subject_id
            for event in events
            if event.event_type == EventType.MATCH and event.subject is not None
        }
    return Run(perf_counter() - begun_s, len(images), subjects)


def run_rival(rival: OpenCVLoop, images: Sequence[Image]) -> Run:
    """Run the usual loop over the same frames."""
    begun_s = perf_counter()
    subjects = rival.run(images)
    return Run(perf_counter() - begun_s, len(images), subjects)


def measure(settings: Settings, rounds: int, step: Progress) -> dict[str, Any]:
    """Run all contestants alternately at all sizes; returns frames per second, ratios, stages, decisions."""
    media = media_dir(settings)
    recognizers = {name: recognizer_of(name, settings, media) for name in EMBEDDERS}
    rival = OpenCVLoop(
        installed_path(load_manifest("yunet-2023mar"), settings.models_path),
        installed_path(load_manifest("sface"), settings.models_path),
        RIVAL_THRESHOLD,
    )
    for photo in scenario.photos(media):
        rival.enroll(photo.subject.subject_id, photo.image)
    report: dict[str, Any] = {}
    for label, size in SIZES.items():
        metrics = {name: Metrics() for name in recognizers}
        images = load_frames(media, size, metrics["sface-int8"])
        face_px, width_px = EQUAL_RANGE.get(label, (None, size[0]))
        rivals = {RIVAL: None} | ({RIVAL_AT_RANGE: width_px} if width_px < size[0] else {})
        runs: dict[str, list[Run]] = {name: [] for name in (*recognizers, *rivals)}
        for round_number in range(rounds):
            for name, recognizer in recognizers.items():
                runs[name].append(run_pipeline(settings, recognizer, images, metrics[name]))
            for name, rival.width_px in rivals.items():
                runs[name].append(run_rival(rival, images[::RIVAL_STEP]))
            step(label, round_number + 1, rounds)
        seen = {"face_px": face_px, "width_px": width_px} if face_px is not None else None
        report[label] = _sum_up(runs, metrics) | {"equal_range": seen}
    return report


def _sum_up(runs: dict[str, list[Run]], metrics: dict[str, Metrics]) -> dict[str, Any]:
    fps = {name: [run.frames / run.seconds for run in those] for name, those in runs.items()}
    ratios, ratios_at_range = (
        [ours / theirs for ours, theirs in zip(fps["sface-int8"], fps[name], strict=True)]
        for name in (RIVAL, RIVAL_AT_RANGE if RIVAL_AT_RANGE in fps else RIVAL)
    )
    decisions = {name: sorted(set.union(*(run.subjects for run in those))) for name, those in runs.items()}
    return {
        "fps": {name: round(float(np.median(values)), 1) for name, values in fps.items()},
        "times_opencv_loop": round(float(np.median(ratios)), 2),
        "times_at_equal_range": round(float(np.median(ratios_at_range)), 2),
        "decisions": decisions,
        "decisions_equal": len({tuple(subjects) for subjects in decisions.values()}) == 1,
        "stages_ms": {name: those.percentiles_ms() for name, those in metrics.items()},
        "own_overhead": {name: round(_own_overhead(those), 4) for name, those in metrics.items()},
    }


def _own_overhead(metrics: Metrics) -> float:
    totals = metrics.totals_ms()
    return (totals["loop"] - sum(totals.get(stage, 0.0) for stage in NATIVE_STAGES)) / totals["loop"]
