"""The capture thread keeps a camera delivering: absent, unplugged, stalled, hung."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edge.camera.capture import MAX_ABANDONED, NOT_TAKEN, CaptureThread
from edge.camera.clips import ReplayCamera
from edge.camera.pipe import PipeCamera
from edge.camera.sources import Camera, OpenCVCamera
from edge.core.errors import CameraError
from edge.core.types import Frame
from tests.camera.rig import CLOCK, CountingCamera, HungCamera, Rig
from tests.support.ports import free_port
from tests.support.streams import MjpegServer, SilentServer, jpeg, make_clip
from tests.support.waits import LIMIT_S, Stopwatch


def http(port: int) -> Callable[[], Camera]:
    return lambda: OpenCVCamera(
        "front", f"http://u:secret@127.0.0.1:{port}/v", clock=CLOCK, open_timeout_s=1.0, read_timeout_s=0.4
    )


def test_a_camera_that_is_absent_then_there_then_gone_then_back(rig: Rig, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    port = free_port()
    rig.start(http(port))
    rig.until(lambda: bool(rig.statuses))
    assert rig.statuses[0][0] is False
    for _ in range(2):
        with MjpegServer(port) as server:
            assert server.port == port
            rig.take(5)
            rig.until(lambda: rig.online is True)
        rig.until(lambda: rig.online is False)
    assert "secret" not in caplog.text + str(rig.statuses)


def test_a_stream_that_falls_silent_is_replaced(rig: Rig):
    with MjpegServer(stall_after=4) as server:
        rig.start(http(server.port))
        rig.take(3)
        rig.until(lambda: rig.online is False)
        rig.until(lambda: [online for online, _ in rig.statuses].count(True) >= 2)


def test_a_camera_that_says_nothing_at_open_is_retried(rig: Rig):
    with SilentServer() as server:
        rig.start(http(server.port))
        rig.until(lambda: rig.metrics.counts().get("camera.front.retries", 0) >= 1)
    assert rig.statuses[0][0] is False


def test_a_hung_read_is_abandoned_replaced_and_counted(rig: Rig):
    release, closed = threading.Event(), []
    rig.start(lambda: HungCamera(release, closed), stall_s=0.5)
    rig.until(lambda: rig.metrics.counts().get("camera.front.abandoned", 0) >= 2)
    assert "no frame for" in rig.statuses[0][1]
    assert closed == []
    release.set()
    rig.until(lambda: len(closed) >= 2)


def test_hung_readers_do_not_pile_up(rig: Rig):
    release, closed = threading.Event(), []
    rig.start(lambda: HungCamera(release, closed), stall_s=0.5)
    rig.until(lambda: "hang in the driver" in (rig.statuses[-1][1] if rig.statuses else ""))
    assert rig.metrics.counts()["camera.front.abandoned"] == MAX_ABANDONED
    release.set()


def test_stop_does_not_wait_for_a_hung_read(rig: Rig):
    release = threading.Event()
    thread = rig.start(lambda: HungCamera(release, []), stall_s=3.0)
    time.sleep(0.2)
    watch = Stopwatch()
    thread.stop(3.0)
    assert watch.undisturbed_s < 2.0
    assert not thread.is_alive()
    release.set()


def test_a_program_that_dies_is_started_again(rig: Rig, tmp_path: Path):
    command = (
        "ffmpeg -v error -f lavfi -i color=red:size=64x48:rate=50:duration=0.2 -pix_fmt bgr24 -f rawvideo -"
    )
    rig.start(
        lambda: PipeCamera("front", tuple(command.split()), clock=CLOCK, read_timeout_s=1.0, size=(48, 64))
    )
    rig.until(lambda: [online for online, _ in rig.statuses].count(True) >= 2)


def test_a_clip_ends_once_and_is_not_an_error(rig: Rig, tmp_path: Path):
    clip = make_clip(tmp_path / "a.mp4", seconds=0.5)
    thread = rig.start(lambda: ReplayCamera("front", clip, clock=CLOCK, realtime=False))
    numbers = [frame.number for frame in rig.take(10)]
    assert numbers == list(range(10)), "a replay that is not paced loses no frame"
    assert thread.finished.wait(LIMIT_S)
    assert rig.statuses == [(True, str(clip)), (False, "ended")]


def test_several_cameras_deliver_side_by_side(rig: Rig, tmp_path: Path):
    clip = make_clip(tmp_path / "a.mp4", seconds=2.0)
    for name in ("front", "side"):
        rig.start(lambda name=name: ReplayCamera(name, clip, clock=CLOCK), name=name)
    seen: set[str] = set()
    rig.until(lambda: seen.add(rig.take(1)[0].camera) or seen == {"front", "side"})


def test_a_camera_in_back_off_still_beats(rig: Rig):
    rig.start(http(free_port()))
    rig.until(lambda: rig.metrics.counts().get("camera.front.retries", 0) >= 3)
    assert rig.beats.late() == []


def test_a_replay_is_not_started_anew_when_its_frames_are_taken_late(rig: Rig):
    made: list[CountingCamera] = []
    rig.start(lambda: CountingCamera(made), stall_s=0.5)
    rig.take(3)
    time.sleep(1.2)
    assert [frame.number for frame in rig.take(4)] == [3, 4, 5, 6]
    assert len(made) == 1
    assert "camera.front.abandoned" not in rig.metrics.counts()


def test_a_camera_whose_frames_are_not_taken_is_offline_until_they_are(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge.camera.capture.CLIP_SILENCE_S", 2.0)
    made: list[CountingCamera] = []
    thread = rig.start(lambda: CountingCamera(made))
    rig.take(3)
    rig.until(lambda: rig.online is False)
    assert rig.statuses == [(True, "counting"), (False, NOT_TAKEN)]
    assert thread.steady_s == 0.0
    rig.take(4)
    rig.until(lambda: rig.online is True)
    assert len(made) == 1, "opening it anew would not help"


def test_a_camera_that_does_not_let_go_is_offline_all_the_same(rig: Rig):
    release = threading.Event()

    class Clinging(HungCamera):
        def interrupt(self) -> None:
            release.wait(LIMIT_S)

    rig.start(lambda: Clinging(release, []), stall_s=0.5)
    rig.until(lambda: rig.online is False)
    assert "no frame for" in rig.statuses[-1][1]
    release.set()


def test_a_camera_delivers_without_a_break_from_its_first_frame_on(rig: Rig):
    with MjpegServer(fps=20.0) as server:
        thread = rig.start(http(server.port), stall_s=3.0)
        rig.until(lambda: thread.steady_s > 0.5 and rig.online is True)
    rig.until(lambda: rig.online is False)
    assert thread.steady_s == 0.0


def test_one_frame_with_each_connection_is_not_steady(rig: Rig):
    class OneFrame(CountingCamera):
        live = paced = True

        def read(self) -> Frame | None:
            if self._number % 100:
                raise CameraError("reset by peer")
            return super().read()

    made: list[CountingCamera] = []
    thread = rig.start(lambda: OneFrame(made))
    steady_s = []
    rig.until(lambda: steady_s.append(thread.steady_s) or len(made) >= 6)
    assert max(steady_s) == 0.0


def test_a_replay_that_pauses_longer_than_a_stall_goes_on(rig: Rig, tmp_path: Path):
    for i in range(2):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(50))
    rig.start(lambda: ReplayCamera("front", tmp_path, clock=CLOCK, fps=0.8), stall_s=0.5)
    assert [frame.number for frame in rig.take(2)] == [0, 1]
    rig.until(lambda: rig.online is False)
    assert rig.statuses[-1] == (False, "ended")


def test_a_stopped_replay_leaves_nothing_behind(rig: Rig):
    made: list[CountingCamera] = []
    thread = rig.start(lambda: CountingCamera(made))
    rig.take(1)
    rig.until(lambda: rig.frames.holds("front"))
    watch = Stopwatch()
    thread.stop(2.0)
    assert watch.undisturbed_s < 1.0
    assert made[0].closed.wait(LIMIT_S), "a reader that waits for its place has to let go"
    rig.take(1)  # the one that was in its place
    time.sleep(0.2)
    assert rig.frames.take(0) is None, "a camera that was removed delivers nothing"
    assert rig.statuses[-1] == (False, "stopped")
    assert not thread.finished.is_set()


def test_a_reader_that_wakes_late_delivers_nothing(rig: Rig):
    release, made = threading.Event(), []

    class Late(CountingCamera):
        live = True

        def interrupt(self) -> None:
            pass

    rig.start(lambda: Late(made, pause=release if not made else None), stall_s=0.5)
    numbers = {frame.number for frame in rig.take(5)}
    release.set()
    assert made[0].closed.wait(LIMIT_S)
    numbers |= {frame.number for frame in rig.take(5)}
    assert min(numbers) >= 100, "the first camera hung in its first read"


def test_a_waiting_camera_is_interrupted_by_stop(rig: Rig):
    made: list[CountingCamera] = []
    thread = rig.start(lambda: CountingCamera(made, pause=threading.Event()))
    rig.until(lambda: bool(made))
    thread.stop(2.0)
    assert made[0].closed.wait(LIMIT_S)


def test_a_camera_that_gives_up_opening_by_itself_is_not_called_hung(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("edge.camera.capture.OPEN_GRACE_S", LIMIT_S)
    with SilentServer() as server:
        rig.start(http(server.port))
        rig.until(lambda: rig.metrics.counts().get("camera.front.retries", 0) >= 3)
    assert "camera.front.abandoned" not in rig.metrics.counts()
    assert "no video within 1 s" in rig.statuses[0][1]


def test_a_camera_that_flaps_is_left_alone_longer_and_longer(rig: Rig):
    class Flapping(CountingCamera):
        live = True

        def read(self) -> Frame | None:
            if self._number % 100 == 1:
                raise CameraError("unplugged")
            return super().read()

    made: list[CountingCamera] = []
    started: list[float] = []
    asked: list[float] = []

    def factory() -> Camera:
        started.append(time.monotonic())
        return Flapping(made)

    def uniform(low: float, high: float) -> float:
        asked.append(0.2 * high)
        return asked[-1]

    thread = CaptureThread(
        factory,
        rig.frames,
        name="front",
        stall_s=1.0,
        open_timeout_s=1.0,
        backoff_max_s=30.0,
        beats=rig.beats,
        metrics=rig.metrics,
        clock=CLOCK,
        on_status=lambda camera, online, why: rig.statuses.append((online, why)),
        uniform=uniform,
    )
    rig.threads.append(thread)
    thread.start()
    rig.take(5)
    waited, pauses = np.diff(started)[:4], np.array(asked[:4])
    assert np.all(waited >= pauses), (waited, pauses)
    assert np.all(pauses[1:] > 1.3 * pauses[:-1]), pauses


def test_an_error_in_a_camera_is_counted_and_the_camera_replaced(rig: Rig, caplog: pytest.LogCaptureFixture):
    class Broken(CountingCamera):
        def read(self) -> Frame | None:
            if self._number == 2:
                raise ZeroDivisionError
            return super().read()

    made: list[CountingCamera] = []
    rig.start(lambda: Broken(made))
    assert [frame.number for frame in rig.take(3)] == [0, 1, 100]
    assert rig.metrics.counts()["camera.front.failures"] == 1
    assert made[0].closed.is_set()
    assert any("internal error: ZeroDivisionError" in why for _, why in rig.statuses)


def test_a_hung_program_is_killed_when_the_camera_is_stopped(rig: Rig):
    made: list[PipeCamera] = []

    def factory() -> Camera:
        made.append(
            PipeCamera("front", ("sleep", "60"), clock=CLOCK, read_timeout_s=1.0, open_timeout_s=30.0)
        )
        return made[-1]

    thread = rig.start(factory)
    rig.until(lambda: bool(made) and made[0]._process is not None)
    process = made[0]._process
    thread.stop(2.0)
    assert process.wait(LIMIT_S) == -9


def test_a_clip_that_gives_no_frame_for_long_is_offline(rig: Rig, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("edge.camera.capture.CLIP_SILENCE_S", 0.5)
    pause = threading.Event()
    made: list[CountingCamera] = []
    rig.start(lambda: CountingCamera(made, pause=None if made else pause))
    assert rig.take(1)[0].number >= 100, "a fresh one took its place"
    assert [why for online, why in rig.statuses if not online and why.startswith("no frame for ")]


def test_dead_cameras_hold_up_no_other_one(rig: Rig):
    """OpenCV opens FFmpeg captures under one lock of the whole process, unless it is told otherwise."""

    def camera(url: str) -> Callable[[], Camera]:
        return lambda: OpenCVCamera("any", url, clock=CLOCK, open_timeout_s=30, read_timeout_s=30)

    with SilentServer() as dead, MjpegServer() as good:
        silent = [
            rig.start(camera(f"rtsp://127.0.0.1:{dead.port}/x"), name=f"dead-{number}", open_timeout_s=30)
            for number in range(3)
        ]
        rig.until(lambda: len(dead.taken) == 3)  # all three hang in the library
        alive = [rig.start(camera(good.url), name=f"good-{number}", stall_s=30) for number in range(2)]
        rig.until(lambda: all(thread.last_frame_s is not None for thread in alive))
        assert [thread.last_frame_s for thread in silent] == [None] * 3
        assert not {f"camera.{thread.camera}.retries" for thread in alive} & set(rig.metrics.counts())
