"""The hot loop over simulated time: slow cameras and many cameras decide, silent ones let people leave."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from edge.camera.latest import LatestFrames
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.core.types import FaceEvent, Frame, Image
from edge.device.assembly.recognizer import build_pipeline
from edge.device.settings.load import load
from edge.recognition.inference import SILENT_S, InferenceThread
from edge.recognition.recognizer import Recognizer
from tests.support.clock import START, SteppedClock

EMPTY = np.full((360, 640, 3), 90, np.uint8)


class SimulatedFrames(LatestFrames):
    """Cameras that each give a picture every so often until a moment; a step of the loop takes `cost_s`."""

    def __init__(
        self, clock: SteppedClock, shows: dict[str, Image], every_s: float, until_s: float, cost_s: float
    ) -> None:
        super().__init__()
        self._clock, self._shows, self._every_s, self._until_s = clock, shows, every_s, until_s
        self._cost_s = cost_s
        self._due_s = dict.fromkeys(shows, 0.0)

    def take(self, timeout_s: float) -> Frame | None:
        self._clock.now_s += self._cost_s
        self._arrive()
        next_s = min(self._due_s.values())
        if (frame := super().take(0)) is None:
            self._clock.now_s = min(self._clock.now_s + timeout_s, max(self._clock.now_s, next_s))
            self._arrive()
            frame = super().take(0)
        return frame

    def _arrive(self) -> None:
        for camera in self._shows:
            while self._due_s[camera] <= min(self._clock.now_s, self._until_s):
                at_s = self._due_s[camera]
                self.put(Frame(camera, self._shows[camera], START, at_s, round(at_s / self._every_s)))
                self._due_s[camera] = at_s + self._every_s
            if self._due_s[camera] > self._until_s:
                self._due_s[camera] = float("inf")


class EagerFrames(LatestFrames):
    """Cameras that give so many frames a second, for ever."""

    def __init__(self, clock: SteppedClock, fps: dict[str, float]) -> None:
        super().__init__()
        self._clock, self._fps = clock, fps
        self._given = dict.fromkeys(fps, 0)

    def take(self, timeout_s: float) -> Frame | None:
        self._arrive()
        if (frame := super().take(0)) is None:
            self._clock.now_s = min((count + 1) / self._fps[camera] for camera, count in self._given.items())
            self._arrive()
            frame = super().take(0)
        return frame

    def _arrive(self) -> None:
        for camera, fps in self._fps.items():
            while (at_s := (self._given[camera] + 1) / fps) <= self._clock.now_s:
                self._given[camera] += 1
                self.put(Frame(camera, EMPTY, START, at_s, self._given[camera]))


@dataclass
class Door:
    """What was published, and when."""

    clock: SteppedClock
    metrics: Metrics = field(default_factory=Metrics)
    told: list[tuple[float, FaceEvent]] = field(default_factory=list)

    def publish(self, event: FaceEvent) -> None:
        self.told.append((self.clock.now_s, event))

    def decided(self, camera: str) -> list[tuple[str, str | None]]:
        return [
            (event.event_type, event.subject.subject_id if event.subject else None)
            for _, event in self.told
            if event.camera == camera
        ]


def watch(
    recognizer: Recognizer,
    shows: dict[str, Image],
    every_s: float,
    *,
    seconds: float = 20.0,
    frames_until_s: float = 1e9,
    cost_s: float = 0.005,
) -> Door:
    clock = SteppedClock()
    door = Door(clock)
    pipelines = {
        camera: build_pipeline(camera, load(), metrics=door.metrics, clock=clock, live=True)
        for camera in shows
    }
    thread = InferenceThread(
        SimulatedFrames(clock, shows, every_s, frames_until_s, cost_s),
        pipelines,
        recognizer,
        door.publish,
        beats=Beats(clock.monotonic),
        metrics=door.metrics,
        clock=clock,
    )
    while clock.now_s < seconds:
        thread.turn()
    return door


@pytest.mark.parametrize(
    ("fps", "within_s"),
    [(30, 2), (15, 2), (5, 2), (3.5, 2), (3, 2), (2, 2.5), (1.2, 3), (1, 3)],
)
def test_somebody_who_stands_still_is_recognised_at_every_frame_rate(
    recognizer: Recognizer, man: Image, fps: float, within_s: float
):
    door = watch(recognizer, {"front": man}, 1 / fps)
    assert door.decided("front") == [("match", "p-man")]
    assert door.told[0][0] <= within_s


@pytest.mark.parametrize(
    ("cameras", "cost_s"),
    [
        pytest.param(4, 0.04, id="four"),
        pytest.param(8, 0.04, id="eight"),
        pytest.param(8, 0.15, id="eight on a slow board: each looked at every 1.2 s"),
        pytest.param(8, 0.4, id="eight on a very slow board: each looked at every 3.2 s"),
    ],
)
def test_a_camera_that_waits_for_its_turn_is_not_silent(
    recognizer: Recognizer, man: Image, cameras: int, cost_s: float
):
    shows = {f"c{number}": EMPTY if number else man for number in range(cameras)}
    door = watch(recognizer, shows, 1 / 15, cost_s=cost_s)
    assert door.decided("c0") == [("match", "p-man")]


@pytest.mark.parametrize("fps", [15, 3, 1])
def test_people_leave_in_time_before_a_camera_that_falls_silent(
    recognizer: Recognizer, man: Image, fps: float
):
    door = watch(recognizer, {"front": man}, 1 / fps, frames_until_s=5.0)
    assert door.decided("front") == [("match", "p-man"), ("left", "p-man")]
    assert door.told[1][0] == pytest.approx(5 + load().decision.cooldown_s, abs=0.5)


def test_who_is_seen_once_before_a_camera_falls_silent_is_told_of_soon(recognizer: Recognizer, man: Image):
    door = watch(recognizer, {"front": man}, 1 / 15, frames_until_s=0.0)
    assert [kind for kind, _ in door.decided("front")] == ["no_decision", "left"]
    assert door.told[0][0] <= SILENT_S + 0.5


def test_at_one_frame_a_second_somebody_else_in_the_same_place_is_looked_at(
    recognizer: Recognizer, man: Image
):
    clock = SteppedClock()
    pipeline = build_pipeline("front", load(), metrics=(metrics := Metrics()), clock=clock, live=True)
    for number in range(10):
        pipeline.process(Frame("front", man, START, float(number), number), recognizer)
    spent = metrics.totals_ms()["embed"] / metrics.percentiles_ms()["embed"]["p50"]
    assert spent > 5, "at every frame: between two of them nobody saw who stands there"


@dataclass
class CostlyPipeline:
    """Takes so many seconds for a frame, and sees nobody."""

    clock: SteppedClock
    cost_s: float

    def process(self, frame: Frame, recognizer: object) -> list[FaceEvent]:
        self.clock.now_s += self.cost_s
        return []

    tick = flush = lambda *_: []


@pytest.mark.parametrize(
    ("cameras", "looks_hz"),
    [
        pytest.param([(15, 0.02), (15, 0.02)], [15, 15], id="enough for all"),
        pytest.param([(15, 0.1)], [9], id="one that is too much"),
        pytest.param([(15, 0.1), (15, 0.02)], [7.5, 7.5], id="a costly one takes no more looks"),
        pytest.param([(3, 0.1), (15, 0.1)], [3, 6], id="what a slow one does not need goes to the other"),
        pytest.param([(15, 0.5), (15, 0.5)], [1, 1], id="too much: all there is, in equal parts"),
    ],
)
def test_each_camera_gets_its_share_of_the_processor(
    cameras: list[tuple[float, float]], looks_hz: list[float]
):
    clock, metrics = SteppedClock(), Metrics()
    frames = EagerFrames(clock, {f"c{number}": fps for number, (fps, _) in enumerate(cameras)})
    thread = InferenceThread(
        frames,
        {f"c{number}": CostlyPipeline(clock, cost_s) for number, (_, cost_s) in enumerate(cameras)},  # type: ignore[misc]
        None,  # type: ignore[arg-type]
        lambda event: None,
        beats=Beats(clock.monotonic),
        metrics=metrics,
        clock=clock,
    )
    while clock.now_s < 60:
        thread.turn()
    before, began_s = metrics.counts(), clock.now_s
    while clock.now_s < 180:
        thread.turn()
    seconds, counts = clock.now_s - began_s, metrics.counts()
    found = [(counts[f"frames.c{n}"] - before[f"frames.c{n}"]) / seconds for n in range(len(cameras))]
    assert found == pytest.approx(looks_hz, rel=0.1)


def test_a_replay_that_loses_no_frame_is_looked_at_whatever_it_takes():
    clock, metrics = SteppedClock(), Metrics()
    frames = LatestFrames()
    thread = InferenceThread(
        frames,
        {"clip": CostlyPipeline(clock, 0.5)},  # type: ignore[dict-item]
        None,  # type: ignore[arg-type]
        lambda event: None,
        beats=Beats(clock.monotonic),
        metrics=metrics,
        clock=clock,
    )
    for number in range(50):
        assert frames.put(Frame("clip", EMPTY, START, number / 15, number), wait=True, timeout_s=0)
        thread.turn()
    assert metrics.counts()["frames.clip"] == 50
