"""The embedder to switch to, tried on a share of the visits: it is counted, and it decides nothing."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from edge.camera.clips import ReplayCamera
from edge.core.clock import SystemClock
from edge.core.errors import ModelError
from edge.core.metrics import Metrics
from edge.core.types import EventType, FaceEvent, FloatArray, Image
from edge.device.assembly.recognizer import build_pipeline, build_recognizer
from edge.device.settings.load import Settings, load
from edge.face.embedder import Embedder
from edge.gallery.gallery import Gallery
from edge.lab.demo.device import enrolled
from edge.recognition.recognizer import Recognizer


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


def run(
    recognizer: Recognizer, clip: Path, metrics: Metrics | None = None
) -> tuple[list[FaceEvent], dict[str, int]]:
    metrics = metrics or Metrics()
    pipeline = build_pipeline("front", load(), metrics=metrics, clock=SystemClock(), live=False)
    camera = ReplayCamera("front", clip, clock=SystemClock(), realtime=False)
    camera.open()
    events = []
    while (frame := camera.read()) is not None:
        events += pipeline.process(frame, recognizer)
    camera.close()
    events += pipeline.flush(recognizer)
    counts = metrics.counts()
    return events, {name: counts[name] for name in counts if name.startswith("candidate.")}


@pytest.mark.parametrize(
    ("clip", "event_type"),
    [("single_face.mp4", EventType.MATCH), ("WolfgangLanger_Pexels.mp4", EventType.REJECT)],
)
def test_two_embedders_that_know_the_same_people_agree(
    old: Recognizer, new: Recognizer, media: Path, clip: str, event_type: EventType
):
    events, counts = run(replace(old, candidate=new, candidate_share=1.0), media / clip)
    assert events[0].event_type == event_type
    assert events[0].model.embedder == "sface-int8"
    assert counts == {"candidate.agreed": 1}


def test_one_that_does_not_know_the_man_differs_and_he_passes_all_the_same(
    old: Recognizer, new: Recognizer, media: Path
):
    forgetful = new.with_gallery(new.matcher.gallery.without_subject("p-man"))
    events, counts = run(replace(old, candidate=forgetful, candidate_share=1.0), media / "single_face.mp4")
    assert (events[0].event_type, events[0].subject.subject_id) == (EventType.MATCH, "p-man")
    assert counts == {"candidate.differed": 1}


def test_one_that_takes_him_for_somebody_else_differs(old: Recognizer, new: Recognizer, media: Path):
    gallery = new.matcher.gallery
    swapped = replace(gallery, subjects=(gallery.subjects[1], gallery.subjects[0], *gallery.subjects[2:]))
    assert {gallery.counts[0], gallery.counts[1]} == {1}
    _, counts = run(
        replace(old, candidate=new.with_gallery(swapped), candidate_share=1.0), media / "single_face.mp4"
    )
    assert counts == {"candidate.differed": 1}


def test_what_the_last_release_called_shadow_is_told_by_both_names(
    old: Recognizer, new: Recognizer, media: Path
):
    metrics = Metrics()
    run(replace(old, candidate=new, candidate_share=1.0), media / "single_face.mp4", metrics)
    assert metrics.counts()["shadow.agreed"] == metrics.counts()["candidate.agreed"] == 1
    assert metrics.percentiles_ms()["shadow"] == metrics.percentiles_ms()["candidate"]


def test_a_share_of_none_tries_nobody(old: Recognizer, new: Recognizer, media: Path):
    _, counts = run(replace(old, candidate=new, candidate_share=0.0), media / "single_face.mp4")
    assert counts == {}


class BrokenEmbedder:
    """Aligns as another one does, and then answers with nothing that could be used."""

    def __init__(self, whole: Embedder) -> None:
        self.model_id, self.align = whole.model_id, whole.align

    def embed(self, face: Image) -> FloatArray:
        raise ModelError("broken: the embedder answered with norm nan")


def broken_embedder(new: Recognizer) -> Recognizer:
    return replace(new, embedder=BrokenEmbedder(new.embedder))


def foreign_gallery(new: Recognizer) -> Recognizer:
    return replace(new, matcher=new.with_gallery(Gallery.empty("another@1")).matcher)


@pytest.mark.parametrize("spoiled", [broken_embedder, foreign_gallery])
def test_one_that_fails_is_given_up_and_the_man_passes_all_the_same(
    old: Recognizer,
    new: Recognizer,
    media: Path,
    spoiled: Callable[[Recognizer], Recognizer],
    caplog: pytest.LogCaptureFixture,
):
    caplog.set_level(logging.ERROR)
    candidate = replace(old, candidate=spoiled(new), candidate_share=1.0)
    events, counts = run(candidate, media / "single_face.mp4")
    assert [(event.event_type, event.shots.used) for event in events] == [("match", 2), ("left", 2)]
    assert counts == {"candidate.failed": 1}
    assert caplog.text.count("given up") == 1


def test_after_one_that_failed_another_is_tried(old: Recognizer, new: Recognizer, media: Path):
    metrics = Metrics()
    pipeline = build_pipeline("front", load(), metrics=metrics, clock=SystemClock(), live=False)
    newer = replace(new, stamp=replace(new.stamp, gallery_version=new.stamp.gallery_version + 1))
    for candidate in (broken_embedder(new), new, newer):
        camera = ReplayCamera("front", media / "single_face.mp4", clock=SystemClock(), realtime=False)
        camera.open()
        while (frame := camera.read()) is not None:
            pipeline.process(frame, replace(old, candidate=candidate, candidate_share=1.0))
        camera.close()
        pipeline.flush(old)
    counts = metrics.counts()
    assert (counts["candidate.failed"], counts["candidate.agreed"]) == (1, 1), (
        "the same one is not tried again"
    )
