"""The embedder to switch to, tried on a share of the visits: it is counted, and it decides nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from edge.assembly import build_pipeline, build_recognizer
from edge.camera.replay import ReplayCamera
from edge.clock import SystemClock
from edge.config import Settings, load
from edge.demo.device import enrolled
from edge.gallery.gallery import Gallery
from edge.metrics import Metrics
from edge.recognizer import Recognizer
from edge.types import EventType, FaceEvent


def settings_of(embedder: str) -> Settings:
    return load(overrides={"recognition": {"embedder": embedder}})


def knowing(embedder: str, media: Path) -> Recognizer:
    nobody = build_recognizer(settings_of(embedder), Gallery.empty("none"))
    return nobody.with_gallery(enrolled(nobody, media, lambda what, done, total: None))


@pytest.fixture(scope="module")
def old(media: Path) -> Recognizer:
    return knowing("sface-int8", media)


@pytest.fixture(scope="module")
def new(media: Path) -> Recognizer:
    return knowing("sface-fp32", media)


def run(recognizer: Recognizer, clip: Path) -> tuple[list[FaceEvent], dict[str, int]]:
    metrics = Metrics()
    pipeline = build_pipeline("front", load(), metrics=metrics, clock=SystemClock(), live=False)
    camera = ReplayCamera("front", clip, clock=SystemClock(), realtime=False)
    camera.open()
    events = []
    while (frame := camera.read()) is not None:
        events += pipeline.process(frame, recognizer)
    camera.close()
    events += pipeline.flush(recognizer)
    counts = metrics.counts()
    return events, {name: counts[name] for name in counts if name.startswith("shadow.")}


@pytest.mark.parametrize(
    ("clip", "event_type"),
    [("single_face.mp4", EventType.MATCH), ("WolfgangLanger_Pexels.mp4", EventType.REJECT)],
)
def test_two_embedders_that_know_the_same_people_agree(
    old: Recognizer, new: Recognizer, media: Path, clip: str, event_type: EventType
):
    events, counts = run(replace(old, beside=new, shadow_share=1.0), media / clip)
    assert events[0].event_type == event_type
    assert events[0].model.embedder == "sface-int8"
    assert counts == {"shadow.agreed": 1}


def test_one_that_does_not_know_the_man_differs_and_he_passes_all_the_same(
    old: Recognizer, new: Recognizer, media: Path
):
    forgetful = new.with_gallery(new.matcher.gallery.without_subject("p-man"))
    events, counts = run(replace(old, beside=forgetful, shadow_share=1.0), media / "single_face.mp4")
    assert (events[0].event_type, events[0].subject.subject_id) == (EventType.MATCH, "p-man")
    assert counts == {"shadow.differed": 1}


def test_one_that_takes_him_for_somebody_else_differs(old: Recognizer, new: Recognizer, media: Path):
    gallery = new.matcher.gallery
    swapped = replace(gallery, subjects=(gallery.subjects[1], gallery.subjects[0], *gallery.subjects[2:]))
    assert {gallery.counts[0], gallery.counts[1]} == {1}
    _, counts = run(
        replace(old, beside=new.with_gallery(swapped), shadow_share=1.0), media / "single_face.mp4"
    )
    assert counts == {"shadow.differed": 1}


def test_a_share_of_none_tries_nobody(old: Recognizer, new: Recognizer, media: Path):
    _, counts = run(replace(old, beside=new, shadow_share=0.0), media / "single_face.mp4")
    assert counts == {}
