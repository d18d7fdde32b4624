"""How often a face whose shots are refused is looked at: ever less while still, at once when it moves."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from itertools import count

import cv2
import numpy as np
import pytest

from edge.core.clock import SystemClock
from edge.core.metrics import Metrics
from edge.core.types import Detection, Frame, Image, Refusal, Track
from edge.device.assembly.recognizer import build_pipeline
from edge.device.settings.load import load
from edge.recognition.presence import Presence
from edge.recognition.recognizer import Recognizer
from edge.recognition.visit import DENSE_TRIES, LOOK_AGAIN_S, SHOT_GAP_S
from tests.recognition.test_presence import RULE, quality

FPS = 15
PLACES = np.array([[30, 35], [70, 35], [50, 55], [35, 75], [65, 75]], np.float32)
AT = datetime(2026, 11, 24, 12, tzinfo=UTC)


def face(x: float = 200.0, size: float = 80.0, turn: float = 0.0) -> Detection:
    """A face at `x`; `turn` moves its nose, in face sizes."""
    landmarks = PLACES * size / 100 + np.float32(x)
    landmarks[2, 0] += turn * size
    return Detection(np.array([x, x, x + size, x + size], np.float32), landmarks, 0.9)


def looks(shown: Callable[[int], Detection | None], seconds: float) -> list[float]:
    """Return when a face was looked at whose every shot is refused; `shown` is asked frame by frame."""
    numbers = count(1)
    presence = Presence(RULE, lambda: f"v{next(numbers)}")
    when = []
    for number in range(round(seconds * FPS)):
        at_s, found = number / FPS, shown(number)
        track = Track(1, found, face().box, 0.0, at_s, 5)
        ((visit, _),) = presence.follow([track])
        if found is not None and visit.wants_shot(track, at_s):
            visit.refuse(quality(refused=Refusal.BLUR), found, at_s)
            when.append(at_s)
    return when


def test_a_poster_is_looked_at_once_a_second():
    when = looks(lambda number: face(), 60)
    assert when[:DENSE_TRIES] == [number / FPS for number in range(DENSE_TRIES)]
    assert np.diff(when).max() <= LOOK_AGAIN_S + 1 / FPS
    assert len(when) <= DENSE_TRIES + 4 + 60 / LOOK_AGAIN_S


@pytest.mark.parametrize(
    "shown",
    [
        pytest.param(lambda number: face(x=200 + 3 * number), id="walks by"),
        pytest.param(lambda number: face(size=40 * 1.03**number), id="comes closer"),
        pytest.param(lambda number: face(turn=0.04 * (number % 15)), id="turns its head"),
    ],
)
def test_a_face_that_moves_is_looked_at_in_every_frame(shown: Callable[[int], Detection]):
    assert len(looks(shown, 4)) == 4 * FPS


def test_a_face_that_stirs_after_a_long_time_is_looked_at_at_once():
    when = looks(lambda number: face(x=200 if number < 30 * FPS else 230), 31)
    after = [at_s for at_s in when if at_s >= 30]
    assert after[0] <= 30 + SHOT_GAP_S + 1 / FPS
    assert len(after) >= DENSE_TRIES


class Calls(Metrics):
    """Counts how often each stage ran."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def record_ms(self, name: str, duration_ms: float) -> None:
        super().record_ms(name, duration_ms)
        self.of[name] += 1


def test_a_blurred_face_that_nobody_moves_is_hardly_searched_and_decided_once_it_is_sharp(
    recognizer: Recognizer, man: Image
):
    blurred = np.asarray(cv2.GaussianBlur(man, (0, 0), 12), np.uint8)
    calls = Calls()
    pipeline = build_pipeline("front", load(), metrics=calls, clock=SystemClock(), live=False)
    for number in range(20 * FPS):
        assert pipeline.process(Frame("front", blurred, AT, number / FPS, number), recognizer) == []
    assert calls.counts()["shots.refused.blur"] == calls.of["align"] <= DENSE_TRIES + 25
    assert calls.of["detect"] <= DENSE_TRIES + 45, "for the looks, and once a second as in every still scene"
    events, number = [], 20 * FPS
    while not events and number < 25 * FPS:
        events = pipeline.process(Frame("front", man, AT, number / FPS, number), recognizer)
        number += 1
    assert [event.event_type for event in events] == ["match"]
    assert number / FPS - 20 <= LOOK_AGAIN_S + 2 * SHOT_GAP_S


def test_a_poster_that_the_detector_misses_now_and_then_is_one_visit(recognizer: Recognizer, man: Image):
    blurred = np.asarray(cv2.GaussianBlur(man, (0, 0), 12), np.uint8)
    numbers = count()

    class Blinking:
        """Does not see the face in every third frame that it is given."""

        def __getattr__(self, name: str) -> object:
            return getattr(recognizer.detector, name)

        def detect(self, image: Image) -> list[Detection]:
            return recognizer.detector.detect(image) if next(numbers) % 3 else []

        def search(self, image: Image, doubtful_from: float) -> tuple[list[Detection], list[Detection]]:
            return self.detect(image), []

    pipeline = build_pipeline("front", load(), metrics=Metrics(), clock=SystemClock(), live=False)
    half_blind = replace(recognizer, detector=Blinking())
    for number in range(20 * FPS):
        assert pipeline.process(Frame("front", blurred, AT, number / FPS, number), half_blind) == []
