"""Cameras that work, and cameras that do not: each failure is one clear line without credentials."""

import sys
import time
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.pipe import PipeCamera
from edge.camera.replay import ReplayCamera
from edge.camera.sources import Camera, OpenCVCamera
from edge.clock import SystemClock
from edge.errors import CameraError
from edge.redact import without_credentials
from edge.types import Frame
from tests.streams import MjpegServer, SilentServer, jpeg, make_clip

CLOCK = SystemClock()


def network(url: str, *, open_s: float = 2.0, read_s: float = 1.0) -> OpenCVCamera:
    return OpenCVCamera("front", url, clock=CLOCK, open_timeout_s=open_s, read_timeout_s=read_s)


def pipe(*command: str, size: tuple[int, int] | None = None, read_s: float = 2.0) -> PipeCamera:
    return PipeCamera("front", command, clock=CLOCK, read_timeout_s=read_s, size=size)


def replay(path: Path, *, realtime: bool = False, **options: object) -> ReplayCamera:
    return ReplayCamera("clip", path, clock=CLOCK, realtime=realtime, **options)


def play(camera: Camera, limit: int = 10_000) -> list[Frame]:
    camera.open()
    try:
        frames = []
        while len(frames) < limit and (frame := camera.read()) is not None:
            frames.append(frame)
        return frames
    finally:
        camera.close()


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", code)


# Network and device


def test_an_http_camera_delivers_numbered_frames():
    with MjpegServer() as server:
        frames = play(network(server.url), 5)
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].image.shape == (120, 160, 3)
    assert all(a.monotonic_s <= b.monotonic_s for a, b in pairwise(frames))


def test_a_camera_that_accepts_and_says_nothing_is_given_up_in_time():
    with SilentServer() as server:
        for scheme in ("rtsp", "http"):
            started_s = time.monotonic()
            with pytest.raises(CameraError, match="cannot be opened"):
                play(network(f"{scheme}://127.0.0.1:{server.port}/x", open_s=1.0))
            assert time.monotonic() - started_s < 5, "the limit of OpenCV alone is 30 s"


def test_a_stream_that_stalls_is_given_up_in_time():
    with MjpegServer(stall_after=3) as server:
        camera = network(server.url, read_s=1.0)
        started_s = time.monotonic()
        with pytest.raises(CameraError, match="gave no frame"):
            play(camera)
        assert time.monotonic() - started_s < 6


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param("/dev/video99", "no such device", id="absent device"),
        pytest.param("/dev/null", "cannot be opened", id="not a camera"),
        pytest.param("file:///etc/passwd", "not a camera; use", id="file protocol"),
        pytest.param("concat:/etc/passwd|/etc/group", "not a camera; use", id="concat protocol"),
        pytest.param("ftp://host/x", "not a camera; use", id="ftp"),
        pytest.param("http://127.0.0.1:9/none", "cannot be opened", id="refused"),
    ],
)
def test_a_source_that_is_no_camera_is_named(source: str, says: str):
    with pytest.raises(CameraError, match=says):
        play(network(source))


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://user:secret@127.0.0.1:9/live",
        "http://user:sec%40ret@127.0.0.1:9/x?token=secret",
        "rtsp://secret@127.0.0.1:9/",
    ],
)
def test_credentials_never_appear(url: str):
    camera = network(url, open_s=0.5)
    with pytest.raises(CameraError) as caught:
        play(camera)
    told = f"{caught.value} {camera.description} {without_credentials(url)}"
    assert "sec" not in told
    assert "127.0.0.1:9" in told


# Programs


def test_a_program_that_writes_mjpeg_is_a_camera(tmp_path: Path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(50 * i))
    code = (
        "import pathlib, sys, time\n"
        f"for path in sorted(pathlib.Path({str(tmp_path)!r}).glob('*.jpg')):\n"
        "    sys.stdout.buffer.write(path.read_bytes())\n"
        "sys.stdout.flush(); time.sleep(5)"
    )
    frames = play(pipe(*python(code)), 5)
    assert [round(float(frame.image.mean()), -1) for frame in frames] == [0, 50, 100, 150, 200]


def test_ffmpeg_that_writes_raw_frames_is_a_camera():
    command = (
        "ffmpeg -v error -f lavfi -i color=red:size=64x48:rate=20:duration=1 -pix_fmt bgr24 -f rawvideo -"
    )
    with pytest.raises(CameraError, match="ended with code 0"):
        play(camera := pipe(*command.split(), size=(48, 64)))
    frames = play(camera, 10)
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image[0, 0, 2] > 200


def test_garbage_before_and_a_damaged_frame_between_are_skipped():
    good, damaged = jpeg(200), b"\xff\xd8\xff\xe0" + b"\0" * 50 + b"\xff\xd9"
    code = (
        "import sys, time\n"
        f"sys.stdout.buffer.write(b'junk' + {good!r} + {damaged!r} + {good!r})\n"
        "sys.stdout.flush(); time.sleep(5)"
    )
    assert len(play(pipe(*python(code)), 2)) == 2


@pytest.mark.parametrize(
    ("command", "says"),
    [
        pytest.param(("/nonexistent/rpicam-vid",), "cannot be started: No such file", id="absent program"),
        pytest.param(
            python("import sys; sys.exit('no cameras available')"),
            "ended with code 1: no cameras available",
            id="program that complains",
        ),
        pytest.param(python("import time; time.sleep(9)"), "wrote nothing for", id="program that hangs"),
        pytest.param(
            python("import sys\nwhile True: sys.stdout.buffer.write(bytes(65536))"),
            "writes no JPEG",
            id="program that writes garbage",
        ),
        pytest.param(
            python("import sys; sys.exit('rtsp://me:secret@host failed')"),
            "rtsp://host failed",
            id="program that tells credentials",
        ),
    ],
)
def test_a_program_that_is_no_camera_is_named(command: tuple[str, ...], says: str):
    with pytest.raises(CameraError, match=says):
        play(pipe(*command, read_s=1.0))


def test_closing_kills_the_program():
    camera = pipe(*python("import time; time.sleep(60)"))
    camera.open()
    process = camera._process
    camera.close()
    assert process.returncode is not None


# Clips and folders


def test_a_clip_plays_to_its_end_with_its_own_time(tmp_path: Path):
    frames = play(replay(make_clip(tmp_path / "a.mp4", seconds=1.0, fps=20)))
    assert len(frames) == 20
    steps = np.diff([frame.monotonic_s for frame in frames])
    assert np.allclose(steps, 0.05, atol=0.002)
    assert (frames[-1].captured_at - frames[0].captured_at).total_seconds() == pytest.approx(0.95, abs=0.01)


def test_a_clip_in_real_time_takes_as_long_as_it_shows(tmp_path: Path):
    camera = replay(make_clip(tmp_path / "a.mp4", seconds=0.6), realtime=True)
    started_s = time.monotonic()
    play(camera)
    assert 0.5 <= time.monotonic() - started_s < 2.0


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


def test_a_truncated_clip_plays_as_far_as_it_goes(tmp_path: Path):
    whole = make_clip(tmp_path / "a.avi", seconds=2.0)
    cut = tmp_path / "cut.avi"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert 0 < len(play(replay(cut))) < 40


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


def test_an_empty_folder_and_a_damaged_picture_are_named(tmp_path: Path):
    with pytest.raises(CameraError, match="no images or clips"):
        play(replay(tmp_path))
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff damaged")
    with pytest.raises(CameraError, match=r"a\.jpg"):
        play(replay(tmp_path))
