"""Which pictures leave the device on the topic of a camera, how often, and how large they are."""

from datetime import UTC, datetime

import cv2
import numpy as np
import pytest

from edge.core.metrics import Metrics
from edge.core.types import EventType, Frame, Image
from edge.device.cameras.snapshots import AT_ONCE, MAX_BYTES, MOST_WAITING, PER_S, Snapshots, snapshot_jpeg
from edge.device.settings.load import Settings, load
from tests.support.clock import SteppedClock
from tests.support.door import make_event

NOISE = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), np.uint8)
PLAIN = np.full((480, 640, 3), 90, np.uint8)


def settings(snapshot: str, *, anonymous: bool = False) -> Settings:
    cameras = {"front": {"source": "clip.mp4", "snapshot": snapshot}, "back": {"source": "clip.mp4"}}
    return load(None, {"cameras": cameras, "privacy": {"anonymous": anonymous}})


class Bench:
    def __init__(self, given: Settings) -> None:
        self.clock, self.metrics, self.sent = SteppedClock(), Metrics(), list[tuple[str, bytes]]()
        self.snapshots = Snapshots(
            given, lambda camera, jpeg: self.sent.append((camera, jpeg)), self.metrics, self.clock
        )

    def decide(self, kind: EventType = EventType.MATCH, camera: str = "front", image: Image = PLAIN) -> None:
        frame = Frame(camera, image, datetime.now(UTC), self.clock.monotonic(), 0)
        self.snapshots.notice(frame, [make_event(kind)])
        self.snapshots.tick()


def test_a_decision_shows_its_frame_and_the_end_of_a_visit_none():
    bench = Bench(settings("decision"))
    bench.decide(EventType.LEFT)
    bench.decide(camera="back")
    assert bench.sent == []
    bench.decide(EventType.REJECT)
    [(camera, jpeg)] = bench.sent
    assert camera == "front"
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape == PLAIN.shape


@pytest.mark.parametrize(
    ("given", "at_decisions", "asked"),
    [
        pytest.param(settings("off"), 0, False, id="off"),
        pytest.param(settings("request"), 0, True, id="on request"),
        pytest.param(settings("decision"), 1, True, id="at decisions"),
        pytest.param(settings("decision", anonymous=True), 0, False, id="privacy mode"),
    ],
)
def test_what_a_camera_shows_is_what_its_setting_says(given: Settings, at_decisions: int, asked: bool):
    bench = Bench(given)
    bench.decide()
    assert len(bench.sent) == at_decisions
    assert bench.snapshots.show("front", b"jpeg") is asked
    assert len(bench.sent) == at_decisions + asked
    assert not bench.snapshots.show("nowhere", b"jpeg")


def test_other_settings_hold_from_the_next_frame_on():
    bench = Bench(settings("decision"))
    bench.snapshots.use(settings("off"))
    bench.decide()
    assert bench.sent == []


def test_a_crowd_is_a_few_pictures_and_the_rest_is_counted():
    bench = Bench(settings("decision"))
    for _ in range(AT_ONCE + 2):
        bench.decide()
    assert len(bench.sent) == AT_ONCE
    bench.clock.now_s += 1 / PER_S
    bench.decide()
    assert len(bench.sent) == AT_ONCE + 1
    assert bench.metrics.counts()["snapshots.dropped"] == 2
    frame = Frame("front", PLAIN, datetime.now(UTC), 0.0, 0)
    for _ in range(MOST_WAITING + 1):
        bench.snapshots.notice(frame, [make_event()])
    assert bench.metrics.counts()["snapshots.dropped"] == 3


def test_no_picture_is_larger_than_it_may_be():
    jpeg = snapshot_jpeg(NOISE)
    assert len(jpeg) <= MAX_BYTES
    assert max(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape) <= 960
