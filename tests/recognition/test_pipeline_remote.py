"""The pipeline beside a remote gallery: strangers are asked about once, frames never wait, clips do."""

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from time import monotonic

import numpy as np
import pytest

from edge.camera.clips import ReplayCamera
from edge.core.access import Access, SubjectState
from edge.core.clock import SystemClock
from edge.core.errors import RemoteGalleryError
from edge.core.metrics import Metrics
from edge.core.types import Decision, EventType, FaceEvent, Match, Probe, Quality, Reason
from edge.device.assembly.recognizer import build_pipeline, build_recognizer
from edge.device.settings.load import load
from edge.gallery.gallery import Gallery
from edge.gallery.matcher import DenseMatcher
from edge.gallery.remote.question import RemoteGallery
from edge.lab.demo.device import enrolled
from edge.recognition.recognizer import Recognizer
from edge.recognition.remote_answers import RemoteAnswers
from edge.recognition.visit import Visit, VisitRule


class Remote:
    """A remote gallery that answers at once, later, or never."""

    def __init__(self, gallery: Gallery) -> None:
        self._matcher = DenseMatcher(gallery)
        self.asked: list[tuple[Future[Match], Match]] = []
        self.at_once = True

    def ask(self, probe: Probe) -> Future[Match]:
        future: Future[Match] = Future()
        self.asked.append((future, self._matcher.match(probe)))
        if self.at_once:
            self.answer()
        return future

    def answer(self) -> None:
        future, match = self.asked[-1]
        future.set_result(match)

    def close(self) -> None:
        pass


@pytest.fixture(scope="module")
def known(media: Path) -> Recognizer:
    nobody = build_recognizer(load(), Gallery.empty("none"))
    return nobody.with_gallery(enrolled(nobody, media, lambda what, done, total: None))


def asking(known: Recognizer, remote: Remote, timeout_s: float = 0.25) -> Recognizer:
    """Return a recognizer that knows nobody and asks `remote`."""
    gallery = RemoteGallery(remote, (), timeout_s=timeout_s, clock=monotonic, on_close=remote.close)
    nobody = known.with_gallery(Gallery.empty(known.embedder.model_id))
    return replace(nobody, remote=gallery)


def run(
    recognizer: Recognizer, clip: Path, *, live: bool, meanwhile: Callable[[int], None] = lambda number: None
) -> list[FaceEvent]:
    pipeline = build_pipeline("front", load(), metrics=Metrics(), clock=SystemClock(), live=live)
    camera = ReplayCamera("front", clip, clock=SystemClock(), realtime=False)
    camera.open()
    events, number = [], 0
    while (frame := camera.read()) is not None:
        meanwhile(number)
        events += pipeline.process(frame, recognizer)
        number += 1
    camera.close()
    return [*events, *pipeline.flush(recognizer)]


def told(events: list[FaceEvent]) -> list[tuple[str, str | None, str | None, str | None]]:
    return [
        (event.event_type, event.reason, event.subject.subject_id if event.subject else None, event.remote)
        for event in events
    ]


@pytest.mark.parametrize("live", [True, False])
def test_who_is_unknown_here_and_known_there_is_a_match(known: Recognizer, media: Path, live: bool):
    remote = Remote(known.matcher.gallery)
    events = run(asking(known, remote), media / "single_face.mp4", live=live)
    assert told(events)[0] == (EventType.MATCH, None, "p-man", "answered")
    assert len(remote.asked) == 1, "once per visit"


def test_who_is_unknown_everywhere_is_rejected_once_as_here(known: Recognizer, media: Path):
    remote = Remote(known.matcher.gallery)
    events = run(asking(known, remote), media / "WolfgangLanger_Pexels.mp4", live=False)
    assert told(events)[0] == (EventType.REJECT, "gallery_empty", None, "answered")
    assert len(remote.asked) == 1


def test_who_is_suspended_there_is_not_let_in(known: Recognizer, media: Path):
    gallery = known.matcher.gallery
    subjects = tuple(replace(each, access=Access(SubjectState.SUSPENDED)) for each in gallery.subjects)
    remote = Remote(replace(gallery, subjects=subjects))
    events = run(asking(known, remote), media / "single_face.mp4", live=False)
    assert told(events)[0] == (EventType.REJECT, "not_allowed_here", "p-man", "answered")


def test_an_answer_that_comes_in_time_is_waited_for_without_stopping_a_frame(known: Recognizer, media: Path):
    remote = Remote(known.matcher.gallery)
    remote.at_once = False
    asked_at: list[int] = []

    def meanwhile(number: int) -> None:
        if remote.asked and not asked_at:
            asked_at.append(number)
        if asked_at and number == asked_at[0] + 5:
            remote.answer()

    events = run(asking(known, remote, 60), media / "single_face.mp4", live=True, meanwhile=meanwhile)
    assert told(events)[0] == (EventType.MATCH, None, "p-man", "answered")
    assert len(remote.asked) == 1


def test_an_answer_that_does_not_come_leaves_the_local_decision_and_the_event_says_so(
    known: Recognizer, media: Path
):
    remote = Remote(known.matcher.gallery)
    remote.at_once = False
    events = run(asking(known, remote, 0.05), media / "single_face.mp4", live=False)
    assert told(events)[0] == (EventType.REJECT, "gallery_empty", None, "timeout")
    assert len(remote.asked) == 1


def test_an_engine_that_fails_leaves_the_local_decision(known: Recognizer, media: Path):
    remote = Remote(known.matcher.gallery)
    remote.answer = lambda: remote.asked[-1][0].set_exception(RemoteGalleryError("down"))  # type: ignore[method-assign]
    events = run(asking(known, remote), media / "single_face.mp4", live=False)
    assert told(events)[0] == (EventType.REJECT, "gallery_empty", None, "failed")


def test_who_is_known_here_is_not_asked_about(known: Recognizer, media: Path):
    remote = Remote(known.matcher.gallery)
    gallery = RemoteGallery(remote, (), timeout_s=1, clock=monotonic, on_close=remote.close)
    events = run(replace(known, remote=gallery), media / "single_face.mp4", live=False)
    assert told(events)[0] == (EventType.MATCH, None, "p-man", "not_asked")
    assert remote.asked == []


def test_a_question_about_a_visit_that_is_gone_is_forgotten(known: Recognizer):
    remote = Remote(known.matcher.gallery)
    remote.at_once = False
    recognizer = asking(known, remote, 60)
    visit = Visit("v-1", 1, VisitRule(2, 6, 3.0, 3.0), 0.0, np.zeros(4, np.float32))
    row = np.eye(1, known.embedder.dim, dtype=np.float32)[0]
    visit.add(Probe(row, known.embedder.model_id, Quality(80, 0.8, 0.0, 1.0, 0.9, 0.5)), 0.0)
    local = Decision(EventType.REJECT, Reason.BELOW_THRESHOLD, None, None)
    answers, at = RemoteAnswers(Metrics(), live=True), SystemClock().now()
    for _ in range(3):
        assert answers.settle(visit, local, at, 0.1, recognizer) is None
        answers.keep([visit])
    assert len(remote.asked) == 1
    answers.keep([])
    assert answers.settle(visit, local, at, 0.1, recognizer) is None
    assert len(remote.asked) == 2
