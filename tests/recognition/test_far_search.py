"""Far faces in the pipeline: found and followed, and what is still or no face costs nothing. By counting."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.types import FloatArray, Frame, Image
from edge.device.assembly.recognizer import build_pipeline, build_recognizer
from edge.device.settings.load import load
from edge.face.session import Session
from edge.gallery.gallery import Gallery
from edge.lab.bench.scenes import Cutout, cut_out, paste, portraits
from edge.recognition.recognizer import Recognizer

FPS = 15
HEIGHT, WIDTH = 1080, 1920
AT = datetime(2026, 1, 1, tzinfo=UTC)
KINDS = ("looks", "regions")


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    recognizer = build_recognizer(load())
    return recognizer.with_gallery(Gallery.empty(recognizer.embedder.model_id))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """The shapes of everything that a network is run on."""
    shapes: list[tuple[int, ...]] = []
    run = Session.run

    def counted(session: Session, array: FloatArray, grids: dict[str, tuple[int, ...]]) -> list[FloatArray]:
        shapes.append(array.shape)
        return run(session, array, grids)

    monkeypatch.setattr(Session, "run", counted)
    return shapes


@pytest.fixture(scope="module")
def face(recognizer: Recognizer, media: Path) -> Cutout:
    return cut_out(recognizer, portraits(load(), None, 1), 1)[0]


def wall() -> Image:
    picture = np.full((HEIGHT, WIDTH, 3), 150, np.uint8)
    picture[:, ::240] = 90
    return picture


def with_face(face: Cutout, x: float, size_px: float = 40) -> Image:
    """The wall, and somebody in front of it."""
    picture = wall()
    paste(picture, face, size_px, x, 400)
    return picture


def play(recognizer: Recognizer, pictures: Callable[[int], Image], frames: int) -> tuple[Metrics, int]:
    """Run a clip; returns the counters and how many faces are followed in the end."""
    metrics = Metrics()
    pipeline = build_pipeline("front", load(), metrics=metrics, clock=SystemClock(), live=False)
    for number in range(frames):
        pipeline.process(Frame("front", pictures(number), AT, number / FPS, number), recognizer)
    return metrics, len(pipeline.scene())


def noisy(image: Image, number: int) -> Image:
    noise = np.random.default_rng(number).normal(0, 2, (HEIGHT // 4, WIDTH // 4, 1)).repeat(4, 0).repeat(4, 1)
    return np.clip(image + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("poster", [False, True])
def test_a_still_scene_costs_no_search_with_a_poster_or_without(
    recognizer: Recognizer, runs: list[tuple[int, ...]], face: Cutout, poster: bool
):
    still = with_face(face, 900) if poster else wall()
    counts = []
    for each in (recognizer, replace(recognizer, far=None)):
        runs.clear()
        metrics, _ = play(each, lambda number: noisy(still, number), 3 * FPS)
        assert not any(name.startswith("far.") for name in metrics.counts())
        counts.append(len(runs))
    assert counts[0] == counts[1]


def test_a_poster_beside_what_moves_costs_no_look_of_its_own(recognizer: Recognizer, face: Cutout):
    def street(number: int, poster: bool) -> Image:
        picture = with_face(face, 900) if poster else wall()
        left = 60 * (number % 20)
        picture[900:1000, left : left + 200] = 30
        return picture

    counts = []
    for poster in (True, False):
        metrics, followed = play(recognizer, lambda number, poster=poster: street(number, poster), 4 * FPS)
        assert followed == 0
        counts.append({name: n for name, n in metrics.counts().items() if name.startswith("far.")})
    assert counts[0] == counts[1]
    assert counts[0].get("far.looks", 0) == 0 < counts[0]["far.regions"]


def test_a_far_face_is_followed_and_once_it_stands_still_looked_at_once_a_second(
    recognizer: Recognizer, face: Cutout
):
    def walks_and_stands(number: int) -> Image:
        picture = with_face(face, 600 + 8 * min(number, 2 * FPS))
        left = 60 * (number % 20)
        picture[900:1000, left : left + 100] = 30
        return picture

    walking, followed = play(recognizer, walks_and_stands, 2 * FPS)
    assert followed == 1
    assert FPS - 2 <= walking.counts()["far.looks"] <= FPS + 2, "in every second frame"
    standing, followed = play(recognizer, walks_and_stands, 7 * FPS)
    assert followed == 1
    assert 4 <= standing.counts()["far.looks"] - walking.counts()["far.looks"] <= 8


def test_one_frame_does_not_pay_for_a_look_at_who_is_followed_and_for_the_search_of_others(
    recognizer: Recognizer, face: Cutout
):
    metrics = Metrics()
    pipeline = build_pipeline("front", load(), metrics=metrics, clock=SystemClock(), live=False)
    spent = []
    for number in range(4 * FPS):
        picture = with_face(face, 600 + 8 * number)
        left = 60 * (number % 20)
        picture[900:1000, left : left + 100] = 30
        before = metrics.counts()
        pipeline.process(Frame("front", picture, AT, number / FPS, number), recognizer)
        spent.append([metrics.counts().get(f"far.{k}", 0) - before.get(f"far.{k}", 0) for k in KINDS])
    assert len(pipeline.scene()) == 1
    followed = spent[FPS:]
    assert all(looks <= 1 for looks, _ in followed)
    assert not any(looks and regions for looks, regions in followed)
    assert sum(regions for _, regions in followed) >= 3, "the street is looked at besides"


def test_whoever_is_too_far_to_be_recognised_is_not_followed_and_nothing_is_told(
    recognizer: Recognizer, face: Cutout
):
    """A street full of people: following them would cost looks, and be a `no_decision` for each."""
    events = []
    counts = {}
    for size_px in (14, 30):
        metrics = Metrics()
        pipeline = build_pipeline("front", load(), metrics=metrics, clock=SystemClock(), live=False)
        told = []
        for number in range(3 * FPS):
            image = with_face(face, 600 + 4 * number, size_px)
            told += pipeline.process(Frame("front", image, AT, number / FPS, number), recognizer)
        told += pipeline.flush(recognizer)
        events.append(len(told))
        counts[size_px] = metrics.counts().get("far.looks", 0)
    assert events[0] == counts[14] == 0
    assert events[1] >= 1
    assert counts[30] >= FPS
