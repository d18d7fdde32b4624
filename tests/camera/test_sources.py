"""Network cameras and devices: those that fail say why in one line without credentials."""

import contextlib
import itertools
import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.camera.sources import Lateness, OpenCVCamera
from edge.core.clock import Clock, SystemClock
from edge.core.errors import CameraError
from tests.camera.player import play
from tests.camera.servers import RtspServer, http_answer
from tests.support.clock import SteppedClock
from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.streams import MjpegServer, SilentServer, jpeg, make_clip
from tests.support.waits import LIMIT_S, Stopwatch, wait_until

CLOCK = SystemClock()


def network(
    url: str, *, open_s: float = LIMIT_S, read_s: float = LIMIT_S, clock: Clock = CLOCK
) -> OpenCVCamera:
    return OpenCVCamera("front", url, clock=clock, open_timeout_s=open_s, read_timeout_s=read_s)


def test_an_http_camera_delivers_numbered_frames():
    with MjpegServer() as server:
        frames = play(network(server.url), 5)
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert frames[0].image.shape == (120, 160, 3)
    assert all(a.monotonic_s <= b.monotonic_s for a, b in itertools.pairwise(frames))


def test_an_rtsp_camera_delivers_with_its_login(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with RtspServer(tmp_path, login="user:secret") as server:
        camera = network(f"rtsp://user:secret@127.0.0.1:{server.port}/live?key=secret")
        frames = play(camera, 10)
    assert [frame.number for frame in frames] == list(range(10))
    assert frames[0].image.shape == (240, 320, 3)
    assert frames[0].image.std() > 50, "the test picture is colourful"
    assert all(transport.startswith("RTP/AVP/TCP") for transport in server.transports)
    assert camera.description == f"rtsp://127.0.0.1:{server.port}/live"
    assert "secret" not in caplog.text


def test_a_stream_that_comes_late_is_drained_to_its_newest_frame(tmp_path: Path):
    with RtspServer(tmp_path) as server:
        camera = network(f"rtsp://127.0.0.1:{server.port}/door")
        camera.open()
        try:
            before = [camera.read() for _ in range(10)]
            server.hold.set()
            wait_until(lambda: server.frames_held >= 75, "frames of three seconds")
            passed_over = camera.passed_over
            server.hold.clear()
            after = [camera.read() for _ in range(3)]
        finally:
            camera.close()
    assert camera.passed_over - passed_over >= 10
    stamps_s = [frame.monotonic_s for frame in (*before, *after) if frame is not None]
    assert len(stamps_s) == 13
    assert np.all(np.diff(stamps_s) >= 0)


@pytest.mark.parametrize(
    ("came", "late_s"),
    [
        pytest.param([(0, 100), (1, 101), (2, 102)], [0, 0, 0], id="in time"),
        pytest.param([(0, 100), (1, 104), (2, 104), (4.5, 104.5)], [0, 3, 2, 0], id="held up, then at once"),
        pytest.param([(0, 103), (1, 103), (2, 103), (4, 104), (5, 106)], [0, 0, 0, 0, 1], id="late at first"),
        pytest.param([(0, 100), (1, 103), (900, 104), (901, 105)], [0, 2, 0, 0], id="its clock is set"),
        pytest.param([(0, 100), (0, 103), (0, 106)], [0, 0, 0], id="no times"),
    ],
)
def test_a_frame_is_as_late_as_its_stream_says(came: list[tuple[float, float]], late_s: list[float]):
    lateness = Lateness()
    assert [lateness.of(stamp_s, arrived_s) for stamp_s, arrived_s in came] == pytest.approx(late_s, abs=0.01)


def test_clocks_that_do_not_go_alike_are_not_lateness():
    lateness = Lateness()
    assert max(lateness.of(0.04 * number, 0.0400004 * number) for number in range(100_000)) < 0.01


def test_a_stream_without_times_whose_frames_are_all_there_already_is_drained():
    """Whoever has to wait for nothing for half a second has fallen behind."""
    picture = jpeg(90)
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
    body, clock = (part + picture + b"\r\n") * 60, SteppedClock(100.0)
    kind = "multipart/x-mixed-replace; boundary=frame"
    with http_answer(200, body, kind=kind) as port:
        camera = network(f"http://127.0.0.1:{port}/video", clock=clock)
        camera.open()
        read = 0
        with contextlib.suppress(CameraError):  # the end of the stream
            while camera.read() is not None:
                read += 1
                clock.now_s += 0.1
        camera.close()
    assert 5 <= read < 30
    assert camera.passed_over > 10


def test_an_rtsp_camera_with_a_wrong_login_is_named(tmp_path: Path):
    with RtspServer(tmp_path, login="user:other") as server:
        with pytest.raises(CameraError, match="gives no video; check path, user and password") as caught:
            play(network(f"rtsp://user:secret@127.0.0.1:{server.port}/live"))
    assert "secret" not in str(caught.value)


def test_an_rtsp_camera_that_stalls_is_given_up_in_time(tmp_path: Path):
    with RtspServer(tmp_path, stall_after=60) as server:
        camera, watch = network(f"rtsp://127.0.0.1:{server.port}/live", read_s=1.0), Stopwatch()
        with pytest.raises(CameraError, match=r"gave no frame for \d+\.\d s") as caught:
            play(camera)
        silent_s = float(re.search(r"for (\d+\.\d) s", str(caught.value))[1])
        assert 1.0 <= silent_s < 2.0 + watch.disturbed_s


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_camera_that_accepts_and_says_nothing_is_given_up_in_time(scheme: str):
    with SilentServer() as server:
        watch = Stopwatch()
        with pytest.raises(CameraError, match="no video within 1 s"):
            play(network(f"{scheme}://127.0.0.1:{server.port}/x", open_s=1.0))
        assert watch.undisturbed_s < 3, "the limit of OpenCV alone is 30 s"


def test_a_stream_that_stalls_is_given_up_in_time():
    with MjpegServer(stall_after=3) as server:
        watch = Stopwatch()
        with pytest.raises(CameraError, match="gave no frame"):
            play(network(server.url, read_s=1.0))
        assert watch.undisturbed_s < 6


@pytest.mark.parametrize(
    ("source", "says"),
    [
        pytest.param("/dev/video99", "no such device", id="absent device"),
        pytest.param("/dev/null", "not a video device", id="not a camera"),
        pytest.param("file:///etc/passwd", "not a camera; use", id="file protocol"),
        pytest.param("concat:/etc/passwd|/etc/group", "not a camera; use", id="concat protocol"),
        pytest.param("ftp://host/x", "not a camera; use", id="ftp"),
        pytest.param("http:///x", "not a URL", id="no host"),
        pytest.param("http://[::1/x", "not a URL", id="open bracket"),
        pytest.param("http://host:port/x", "not a URL", id="port is no number"),
        pytest.param("http://host:0/x", "not a URL", id="port zero"),
        pytest.param("http://127.0.0.1:9/none", "Connection refused", id="refused, http"),
        pytest.param("rtsp://127.0.0.1:9/none", "Connection refused", id="refused, rtsp"),
        pytest.param("rtsp://no-such-host.invalid/x", "no such host", id="unknown host"),
    ],
)
def test_a_source_that_is_no_camera_is_named(source: str, says: str):
    with pytest.raises(CameraError, match=says):
        play(network(source))


def test_a_device_without_permission_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may open everything
    with pytest.raises(CameraError, match="group video"):
        play(network("/dev/null"))


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(401, b"", id="login wanted"),
        pytest.param(404, b"", id="wrong path"),
        pytest.param(200, b"<html>Camera menu" * 1000, id="a web page"),
        pytest.param(200, b"", id="nothing"),
        pytest.param(200, bytes(100_000), id="zeros"),
    ],
)
def test_a_server_without_video_is_named(status: int, body: bytes):
    with http_answer(status, body) as port, pytest.raises(CameraError, match="gives no video"):
        play(network(f"http://user:secret@127.0.0.1:{port}/x"))


CREDENTIALS = [
    pytest.param("rtsp://user:secret@{host}/live", "rtsp://{host}/live", id="plain"),
    pytest.param("RTSP://user:secret@{host}/live", "rtsp://{host}/live", id="capitals"),
    pytest.param("http://user:sec%40ret@{host}/x?key=secret#secret", "http://{host}/x", id="escaped, query"),
    pytest.param("rtsp://secret@{host}/", "rtsp://{host}/", id="user only"),
    pytest.param("rtsp://user:p@secret@{host}/", "rtsp://{host}/", id="at in password"),
    pytest.param("rtsp://user:p#secret@{host}/x", "rtsp://***", id="hash in password"),
    pytest.param("rtsp://user:p/secret@{host}/x", "rtsp://***", id="slash in password"),
    pytest.param("rtsp://user:secret?x@{host}/x", "rtsp://***", id="question mark in password"),
    pytest.param("rtsp://user:p@s/secret@{host}/x", "rtsp://***", id="at and slash in password"),
    pytest.param("rtsp://user:12/secret@{host}/x", "rtsp://***", id="password that begins like a port"),
    pytest.param("rtsp:/user:secret@{host}/x", "rtsp://***", id="one slash"),
    pytest.param("rtsp:user:secret@{host}/x", "rtsp://***", id="no slash"),
    pytest.param("http://[user:secret@{host}/x", "http://***", id="bracket"),
    pytest.param("http://{host}/x?user=a@b&password=secret", "http://***", id="at in query"),
    pytest.param("http://{host}/x?user=a&password=secret", "http://{host}/x", id="login in query"),
    pytest.param("ftp://user:secret@{host}/x", "ftp://{host}/x", id="unknown scheme"),
]


@pytest.mark.parametrize(("source", "shown"), CREDENTIALS)
def test_credentials_are_in_no_error_log_or_output(
    source: str,
    shown: str,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
):
    caplog.set_level(logging.DEBUG)
    with pytest.raises(CameraError) as caught:
        play(network(source.format(host="127.0.0.1:9"), open_s=0.5))
    out, err = capfd.readouterr()
    told = f"{caught.value} {caplog.text} {out} {err}"
    assert str(caught.value).startswith(shown.format(host="127.0.0.1:9") + ": ")
    assert not re.search("sec(%40|ret)", told), told
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


def test_a_password_that_must_be_escaped_says_how():
    with pytest.raises(CameraError, match="%2F %3F %23 %40"):
        network("rtsp://user:p#ss@door/live")


# What a camera under somebody else's control may make us open.

READS = """
import sys
from edge.camera.sources import Lateness, OpenCVCamera
from edge.core.clock import Clock, SystemClock
from edge.core.errors import CameraError
for url in sys.argv[1:]:
    camera = OpenCVCamera("front", url, clock=SystemClock(), open_timeout_s=30, read_timeout_s=30)
    try:
        camera.open()
        print("read", camera.read().image.shape)
    except CameraError as error:
        print("refused:", error)
    camera.close()
"""


def opened_elsewhere(*urls: str) -> list[str]:
    """What a process of its own says to each URL, because OpenCV reads its environment there."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    command = [sys.executable, "-c", READS, *urls]
    done = subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def playlist(target: str) -> bytes:
    return f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n".encode()


def test_a_camera_cannot_make_us_read_files_of_this_device(tmp_path: Path):
    path = make_clip(tmp_path / "private.ts", seconds=1.0)
    targets = [f"file://{path}", str(path), f"concat:{path}", f"subfile,,start,0,end,0,,:{path}"]
    answers = [(200, playlist(target), "") for target in targets] + [(302, b"", f"file://{path}")]
    with contextlib.ExitStack() as stack:
        ports = [
            stack.enter_context(
                http_answer(status, body, kind="application/vnd.apple.mpegurl", location=location)
            )
            for status, body, location in answers
        ]
        said = opened_elsewhere(*[f"http://127.0.0.1:{port}/live.m3u8" for port in ports])
    assert len(said) == len(answers)
    assert [line for line in said if not line.startswith("refused")] == []


def test_a_stream_is_really_read_by_that_process():
    with MjpegServer() as server:
        assert opened_elsewhere(server.url) == ["read (120, 160, 3)"]


def test_a_port_without_a_server_is_refused_again_and_again():
    camera = network(f"http://127.0.0.1:{free_port()}/x")
    for _ in range(3):
        with pytest.raises(CameraError, match="Connection refused"):
            camera.open()
    camera.close()
    camera.close()
