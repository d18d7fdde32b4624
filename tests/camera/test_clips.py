"""Clips and folders as cameras: truthful time, and an end that is no error."""

import logging
import subprocess
import threading
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.clips import LATE_S, ReplayCamera
from edge.core.clock import SystemClock
from edge.core.errors import CameraError
from tests.camera.player import play
from tests.support.clock import SteppedClock
from tests.support.streams import jpeg, make_clip
from tests.support.waits import Stopwatch

CLOCK = SystemClock()


def replay(path: Path, *, realtime: bool = False, **options: object) -> ReplayCamera:
    return ReplayCamera("clip", path, clock=CLOCK, realtime=realtime, **options)


def ffmpeg(*arguments: object) -> None:
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def test_a_clip_plays_to_its_end_with_its_own_time(tmp_path: Path):
    frames = play(replay(make_clip(tmp_path / "a.mp4", seconds=1.0, fps=20)))
    assert len(frames) == 20
    steps = np.diff([frame.monotonic_s for frame in frames])
    assert np.allclose(steps, 0.05, atol=0.002)
    assert (frames[-1].captured_at - frames[0].captured_at).total_seconds() == pytest.approx(0.95, abs=0.01)


def test_a_clip_in_real_time_takes_as_long_as_it_shows(tmp_path: Path):
    camera = replay(make_clip(tmp_path / "a.mp4", seconds=0.6), realtime=True)
    watch = Stopwatch()
    play(camera)
    assert watch.wall_s >= 0.5
    assert watch.undisturbed_s < 2.0


def test_a_clip_that_loops_goes_on_with_rising_time(tmp_path: Path):
    frames = play(replay(make_clip(tmp_path / "a.mp4", seconds=0.5), loop=True), 25)
    assert np.all(np.diff([frame.monotonic_s for frame in frames]) > 0)


def test_a_folder_plays_images_and_clips_in_the_order_of_their_names(tmp_path: Path):
    make_clip(tmp_path / "b.mp4", size="64x48", seconds=0.5)
    (tmp_path / "a.jpg").write_bytes(jpeg(10))
    (tmp_path / "c.png").write_bytes(cv2.imencode(".png", np.zeros((20, 20, 3), np.uint8))[1].tobytes())
    (tmp_path / "notes.txt").write_text("not a picture")
    frames = play(replay(tmp_path))
    assert [frame.image.shape[:2] for frame in frames] == [(120, 160), *[(48, 64)] * 10, (20, 20)]
    assert np.all(np.diff([frame.monotonic_s for frame in frames]) > 0)


def test_a_change_of_resolution_is_delivered_as_it_is(tmp_path: Path):
    make_clip(tmp_path / "1.mp4", size="320x240", seconds=0.3)
    make_clip(tmp_path / "2.mp4", size="160x120", seconds=0.3)
    assert {frame.image.shape[:2] for frame in play(replay(tmp_path))} == {(240, 320), (120, 160)}


@pytest.mark.parametrize("suffix", [".avi", ".mp4", ".mkv", ".ts"])
def test_a_truncated_clip_plays_as_far_as_it_goes_and_says_so(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
):
    clip = tmp_path / f"a{suffix}"
    source = ["-f", "lavfi", "-i", "testsrc=size=320x240:rate=20:duration=2", "-pix_fmt", "yuv420p"]
    ffmpeg(*source, *(["-movflags", "+faststart"] if suffix == ".mp4" else []), clip)
    assert len(play(replay(clip))) == 40
    assert caplog.text == ""
    data = clip.read_bytes()
    clip.write_bytes(data[: len(data) // 2])
    decoded = len(play(replay(clip)))
    assert 0 < decoded < 40
    if suffix != ".ts":  # which promises no length
        assert f"truncated or damaged: {decoded} of 40 frames" in caplog.text


def test_a_clip_cut_before_its_index_is_named(tmp_path: Path):
    clip = make_clip(tmp_path / "a.mp4", seconds=1.0)
    clip.write_bytes(clip.read_bytes()[:5000])
    with pytest.raises(CameraError, match="cannot be decoded; not a video, or damaged"):
        play(replay(clip))


def test_a_clip_filmed_upright_is_played_upright(tmp_path: Path):
    lying = make_clip(tmp_path / "lying.mp4", seconds=0.2)
    ffmpeg("-i", lying, "-c", "copy", "-metadata:s:v", "rotate=90", tmp_path / "upright.mp4")
    [expected, *_], [turned, *_] = play(replay(lying)), play(replay(tmp_path / "upright.mp4"))
    assert turned.image.shape == (320, 240, 3)
    turns = [np.rot90(expected.image, k).astype(int) for k in (1, 3)]
    assert min(np.abs(turned.image - turn).mean() for turn in turns) < 2


def test_a_clip_that_changes_its_resolution_goes_on(tmp_path: Path):
    parts = [make_clip(tmp_path / f"{size}.ts", size=size, seconds=0.5) for size in ("320x240", "160x120")]
    clip = tmp_path / "both.ts"
    clip.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = play(replay(clip))
    assert len(frames) >= 18
    assert {frame.image.shape for frame in frames} == {(240, 320, 3)}
    assert np.all(np.diff([frame.monotonic_s for frame in frames]) > 0)
    small = play(replay(parts[1]))[0].image
    scaled = cv2.resize(small, (320, 240)).astype(int)
    assert min(np.abs(frame.image - scaled).mean() for frame in frames[9:12]) < 12, "scaled, not cropped"


def test_time_is_that_of_the_clip_and_starts_where_it_is_told(tmp_path: Path):
    clip = make_clip(tmp_path / "a.mp4", seconds=0.5, fps=10)
    at = datetime(2025, 12, 31, 23, 59, 59, 800_000, tzinfo=UTC)
    clock = SteppedClock(1000.0)
    frames = play(ReplayCamera("clip", clip, clock=clock, realtime=False, started_at=at))
    assert [(frame.captured_at - at).total_seconds() for frame in frames] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4]
    )
    assert [frame.monotonic_s for frame in frames] == pytest.approx([1000, 1000.1, 1000.2, 1000.3, 1000.4])
    untold = play(ReplayCamera("clip", clip, clock=clock, realtime=False))
    assert untold[0].captured_at == clock.now()


def test_a_folder_of_pictures_has_the_speed_that_is_asked_for(tmp_path: Path):
    for i in range(4):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(50))
    for fps, step_s in ((None, 0.1), (2.0, 0.5)):
        frames = play(ReplayCamera("clip", tmp_path, clock=SteppedClock(), realtime=False, fps=fps))
        assert np.diff([frame.monotonic_s for frame in frames]) == pytest.approx([step_s] * 3)


def test_a_single_picture_is_a_clip_of_one_frame(tmp_path: Path):
    (tmp_path / "a.jpg").write_bytes(jpeg(50))
    assert len(play(replay(tmp_path / "a.jpg"))) == 1


def test_an_interrupted_replay_does_not_wait_for_the_next_picture(tmp_path: Path):
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(50))
    camera = replay(tmp_path, realtime=True, fps=0.05)
    timer = threading.Timer(0.3, camera.interrupt)
    timer.start()
    watch = Stopwatch()
    play(camera)
    assert watch.undisturbed_s < 3
    timer.join()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        pytest.param(None, "no such clip", id="absent"),
        pytest.param(b"", "cannot be decoded", id="empty"),
        pytest.param(b"this is no video" * 100, "cannot be decoded", id="text"),
    ],
)
def test_a_file_that_is_no_clip_is_named(tmp_path: Path, content: bytes | None, says: str):
    path = tmp_path / "x.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CameraError, match=says):
        play(replay(path))


def test_an_empty_folder_and_a_folder_of_damage_are_named(tmp_path: Path):
    with pytest.raises(CameraError, match="no images or clips"):
        play(replay(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff damaged")
    (tmp_path / "b.mp4").write_bytes(b"damaged")
    for loop in (False, True):
        with pytest.raises(CameraError, match=r"a\.jpg"):
            play(replay(tmp_path, loop=loop))


def test_damaged_parts_of_a_folder_are_skipped_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (tmp_path / "a.jpg").write_bytes(jpeg(10))
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff damaged")
    (tmp_path / "c.mp4").write_bytes(b"damaged")
    (tmp_path / "d.jpg").write_bytes(jpeg(10))
    assert len(play(replay(tmp_path))) == 2
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 2
    assert "b.jpg" in warnings[0]
    assert "c.mp4" in warnings[1]


@pytest.mark.parametrize("jump_s", [pytest.param(-7200, id="two hours back"), pytest.param(7200, id="ahead")])
def test_a_clip_whose_clock_jumps_goes_on_frame_by_frame(
    tmp_path: Path, jump_s: int, caplog: pytest.LogCaptureFixture
):
    """Two recordings of three seconds in one transport stream; the second was made under another clock."""
    source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=3", "-pix_fmt", "yuv420p"]
    parts = []
    for number, offset_s in enumerate((90_000, 90_000 + jump_s)):
        parts.append(tmp_path / f"{number}.ts")
        ffmpeg(*source, "-output_ts_offset", offset_s, "-muxdelay", 0, parts[-1])
    clip = tmp_path / "jumps.ts"
    clip.write_bytes(b"".join(part.read_bytes() for part in parts))
    frames = play(replay(clip))
    steps = np.diff([frame.monotonic_s for frame in frames])
    assert len(frames) >= 55, "the seam of the two may cost some frames, no more"
    assert steps.min() > 0
    assert steps.max() < 0.5
    assert "truncated" not in caplog.text


def test_a_clip_is_not_taken_for_a_protocol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    make_clip(tmp_path / "2026-11-29T10:15:00.mp4", seconds=0.2)
    monkeypatch.chdir(tmp_path)
    assert len(play(replay(Path("2026-11-29T10:15:00.mp4")))) == 4


def test_a_clip_without_a_decoder_here_says_so(tmp_path: Path):
    clip = tmp_path / "av1.mkv"
    source = ["-f", "lavfi", "-i", "testsrc=size=160x120:rate=10:duration=0.5", "-pix_fmt", "yuv420p"]
    ffmpeg(*source, "-c:v", "libaom-av1", "-cpu-used", "8", "-usage", "realtime", clip)
    with pytest.raises(CameraError, match=r"there is no decoder for AV1 here; save the clip as H\.264"):
        play(replay(clip))


def late_replay(path: Path, clock: SteppedClock, **options: object) -> ReplayCamera:
    camera = ReplayCamera("clip", path, clock=clock, realtime=True, **options)
    camera.open()
    camera.interrupt()  # the stepped clock does not go on by itself: nothing is waited for
    return camera


@pytest.mark.parametrize("kind", ["clip", "folder"])
def test_a_clip_that_is_late_passes_frames_over(tmp_path: Path, kind: str):
    if kind == "clip":
        make_clip(tmp_path / "a.mp4", seconds=3.0, fps=10)
    else:
        for number in range(30):
            (tmp_path / f"{number:02}.jpg").write_bytes(jpeg(50))
    clock = SteppedClock(100.0)
    camera = late_replay(tmp_path, clock)
    ages_s = []
    while (frame := camera.read()) is not None:
        clock.now_s = max(clock.now_s, frame.monotonic_s)
        ages_s.append(clock.now_s - frame.monotonic_s)
        clock.now_s += 0.35  # whoever takes it is busy for so long
    assert max(ages_s) <= LATE_S
    assert clock.now_s == pytest.approx(103, abs=0.5), "the clip keeps its own time"
    assert camera.passed_over + len(ages_s) == 30
    assert len(ages_s) < 15


def test_a_clip_that_cannot_be_decoded_in_time_pauses_instead_of_falling_behind(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    class SlowClock(SteppedClock):
        """Each look at it takes .3 s: three times as long as a frame lasts."""

        def monotonic(self) -> float:
            self.now_s += 0.3
            return super().monotonic()

    make_clip(tmp_path / "a.mp4", seconds=3.0, fps=10)
    clock = SlowClock(100.0)
    camera = late_replay(tmp_path / "a.mp4", clock, loop=True)
    frames = []
    while clock.now_s < 130:
        frame = camera.read()
        assert frame is not None
        frames.append(frame)
        assert clock.now_s - frame.monotonic_s <= LATE_S + 0.7
    assert len(frames) > 10
    assert np.all(np.diff([frame.monotonic_s for frame in frames]) > 0)
    assert "decoding is slower than life" in caplog.text
