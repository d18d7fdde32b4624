"""Five hundred galleries swapped under a running inference thread: each frame is seen, by one gallery."""

import threading
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from edge.camera.latest import LatestFrames
from edge.core.clock import SystemClock
from edge.core.errors import ModelIntegrityError
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.core.types import FaceEvent, Frame, Probe, Subject
from edge.device.assembly.recognizer import build_recognizer
from edge.device.galleries import GalleryWatch
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from edge.recognition.inference import InferenceThread
from edge.recognition.recognizer import Recognizer
from tests.support.gallery_samples import QUALITY, template, unit_rows
from tests.support.waits import wait_until

SWAPS = 500
OTHERS = 40
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)
ROWS = unit_rows(OTHERS + 1, seed=5)


@dataclass
class Looker:
    """In the place of a pipeline: identifies the same face in every frame and notes by which gallery."""

    probe: Probe
    seen: list[tuple[int, int, str]] = field(default_factory=list)

    def process(self, frame: Frame, recognizer: Recognizer) -> list[FaceEvent]:
        decision = recognizer.identify(self.probe, frame.captured_at)
        assert decision.subject is not None
        gallery = recognizer.matcher.gallery
        self.seen.append((recognizer.stamp.gallery_version, gallery.version, decision.subject.subject_id))
        return []

    def tick(self, at_s: float, recognizer: Recognizer) -> list[FaceEvent]:
        return []

    def flush(self, recognizer: Recognizer) -> list[FaceEvent]:
        return []


def gallery_with(version: int, model_id: str) -> Gallery:
    """Return a gallery in which the face belongs to a subject that is named after the version to come."""
    subjects = [Subject(f"p-{number}", "") for number in range(OTHERS)]
    subjects.insert(version % OTHERS, Subject(f"v-{version}", ""))
    rows = list(ROWS[1:])
    rows.insert(version % OTHERS, ROWS[0])
    return Gallery.empty(model_id).with_subjects(
        (subject, [template(row, model_id)]) for subject, row in zip(subjects, rows, strict=True)
    )


class Feeder(threading.Thread):
    """Hands over frame after frame as fast as they are taken, and counts them."""

    def __init__(self, frames: LatestFrames) -> None:
        super().__init__()
        self.fed, self.stopping, self._frames = 0, threading.Event(), frames

    def run(self) -> None:
        image = np.zeros((8, 8, 3), np.uint8)
        while not self.stopping.is_set():
            if self._frames.put(Frame("front", image, AT, monotonic(), self.fed), wait=True, timeout_s=1):
                self.fed += 1


def test_no_frame_is_dropped_and_no_gallery_is_torn(tmp_path: Path):
    store = GalleryStore(tmp_path / "gallery", keep_versions=3)
    nobody = build_recognizer(load(), Gallery.empty("none"))
    model_id = nobody.embedder.model_id
    current = store.commit(gallery_with(1, model_id))
    recognizer = nobody.with_gallery(current)
    metrics, clock, frames = Metrics(), SystemClock(), LatestFrames()
    looker = Looker(Probe(ROWS[0], model_id, QUALITY))
    follower = GalleryWatch(store, metrics)
    inference = InferenceThread(
        frames,
        {"front": looker},
        recognizer,
        lambda event: None,
        beats=Beats(clock.monotonic),
        metrics=metrics,
        clock=clock,
    )
    feeder = Feeder(frames)
    inference.start()
    feeder.start()
    try:
        for number in range(2, SWAPS + 2):
            current = store.commit(replace(gallery_with(number, model_id), version=current.version))
            followed = follower.look(recognizer, None)
            assert followed is not None
            recognizer = followed
            inference.swap(recognizer)
    finally:
        feeder.stopping.set()
        feeder.join()
        wait_until(lambda: len(looker.seen) == feeder.fed, "the last frame")
        assert inference.stop(5)
        frames.close()
    assert metrics.counts()["frames.front"] == feeder.fed > SWAPS
    assert frames.replaced.get("front", 0) == 0
    assert all(stamp == version and subject == f"v-{version}" for stamp, version, subject in looker.seen)
    order = [version for version, _, _ in looker.seen]
    assert order == sorted(order)
    assert len(set(order)) > SWAPS // 2, "the thread saw most of the galleries"
    assert metrics.counts().get("inference.errors", 0) == 0


def test_the_models_that_serve_can_be_asked_whether_they_still_work(monkeypatch: pytest.MonkeyPatch):
    recognizer = build_recognizer(load())
    recognizer.self_test()
    session = recognizer.embedder._session
    monkeypatch.setattr(session, "run", lambda array: [np.ones((1, recognizer.embedder.dim), np.float32)])
    with pytest.raises(ModelIntegrityError, match="self-test failed"):
        recognizer.self_test()
