"""Programs as cameras: those that write frames, and those that die, lie, hang or complain."""

import os
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.camera.pipe import PipeCamera
from edge.core.clock import SystemClock
from edge.core.errors import CameraError
from tests.camera.player import play
from tests.support.streams import jpeg
from tests.support.waits import LIMIT_S, Stopwatch, wait_until

RED = "ffmpeg -v error -f lavfi -i color=red:size=64x48:rate=20:duration=1 -pix_fmt bgr24 -f rawvideo -"
FRAME = jpeg(200)


def pipe(
    *command: str,
    size: tuple[int, int] | None = None,
    read_s: float = LIMIT_S,
    open_s: float = LIMIT_S,
    environment: dict[str, str] | None = None,
) -> PipeCamera:
    return PipeCamera(
        "front",
        command,
        clock=SystemClock(),
        read_timeout_s=read_s,
        open_timeout_s=open_s,
        size=size,
        environment=environment,
    )


def python(code: str) -> tuple[str, ...]:
    return (sys.executable, "-c", "import os, sys, time\n" + code)


def writes(data: bytes, then: str = "time.sleep(9)") -> tuple[str, ...]:
    return python(f"sys.stdout.buffer.write({data!r}); sys.stdout.flush(); {then}")


def alive(pid: int) -> bool:
    """Whether a process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_program_that_writes_mjpeg_is_a_camera(tmp_path: Path):
    for i in range(5):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg(50 * i))
    frames = play(pipe("sh", "-c", f"cat {tmp_path}/*.jpg; sleep 9"), 5)
    assert [round(float(frame.image.mean()), -1) for frame in frames] == [0, 50, 100, 150, 200]
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]


def test_ffmpeg_that_writes_mjpeg_is_a_camera():
    command = "ffmpeg -v error -f lavfi -i testsrc=size=320x240:rate=20:duration=1 -f mjpeg -"
    camera = pipe(*command.split())
    frames = play(camera, 20)
    assert {frame.image.shape for frame in frames} == {(240, 320, 3)}


def test_ffmpeg_that_writes_raw_frames_is_a_camera_that_can_be_opened_again():
    camera = pipe(*RED.split(), size=(48, 64))
    with pytest.raises(CameraError, match="ended with code 0"):
        play(camera)
    frames = play(camera, 20)
    assert [frame.number for frame in frames] == list(range(20))
    assert frames[0].image.shape == (48, 64, 3)
    assert frames[0].image[0, 0, 2] > 200


def test_garbage_before_and_a_damaged_frame_between_are_skipped():
    damaged = b"\xff\xd8\xff\xe0" + b"\0" * 50 + b"\xff\xd9"
    frames = play(pipe(*writes(b"junk" + FRAME + damaged + FRAME)), 2)
    assert [round(float(frame.image.mean())) for frame in frames] == [200, 200]


def test_half_a_frame_is_never_shown_as_one():
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    busy = cv2.imencode(".jpg", noise)[1].tobytes()
    frames = play(pipe(*writes(busy[: len(busy) // 2] + FRAME)), 1)
    assert round(float(frames[0].image.mean())) == 200


@pytest.mark.parametrize(
    ("command", "says"),
    [
        pytest.param(("/nonexistent/rpicam-vid",), "cannot be started: No such file", id="absent program"),
        pytest.param(("/etc/passwd",), "cannot be started: Permission denied", id="no program"),
        pytest.param(("a\0b",), "cannot be started: embedded null byte", id="no name"),
        pytest.param(
            python("sys.exit('no cameras available')"),
            "ended with code 1: no cameras available",
            id="program that complains",
        ),
        pytest.param(
            python("sys.stderr.write('first\\nsecond\\rlast words'); sys.exit(3)"),
            "ended with code 3: last words",
            id="program that complains without a newline",
        ),
        pytest.param(python("os.kill(os.getpid(), 9)"), "ended with code -9", id="program that is killed"),
        pytest.param(
            python("os.close(1); time.sleep(9)"), "closed its output", id="program that goes on mute"
        ),
        pytest.param(python("time.sleep(9)"), "too slow or silent: no whole JPEG", id="program that hangs"),
        pytest.param(
            python("while True: sys.stdout.buffer.write(bytes(65536))"),
            "writes no JPEG frames; check its options",
            id="program that writes garbage",
        ),
        pytest.param(
            python("while True: sys.stdout.buffer.write(b'x'); sys.stdout.flush(); time.sleep(.01)"),
            "no whole JPEG frame; check its options",
            id="program that trickles garbage",
        ),
    ],
)
def test_a_program_that_is_no_camera_is_named(
    command: tuple[str, ...], says: str, monkeypatch: pytest.MonkeyPatch
):
    if says != "closed its output":  # else it goes on, and is waited for in vain
        monkeypatch.setattr("edge.camera.pipe.EXIT_S", LIMIT_S)
    with pytest.raises(CameraError, match=says):
        play(pipe(*command, open_s=1.5 if "no whole JPEG" in says else LIMIT_S))


def test_a_frame_of_the_wrong_size_is_named():
    with pytest.raises(CameraError, match="9216 of 27648 bytes of a frame; check its size"):
        play(pipe("sh", "-c", "head -c 9216 /dev/zero; sleep 9", size=(96, 96), open_s=1.5))


def test_a_program_may_take_its_time_to_the_first_frame_only():
    write = f"sys.stdout.buffer.write({FRAME!r}); sys.stdout.flush()"
    camera = pipe(*python(f"time.sleep(.8); {write}; time.sleep(9)"), read_s=0.3)
    camera.open()
    assert camera.read().number == 0
    with pytest.raises(CameraError, match="too slow or silent"):
        camera.read()
    camera.close()


def test_what_a_program_says_is_shown_without_credentials():
    with pytest.raises(CameraError, match="ended with code 1: rtsp://host/x failed") as caught:
        play(pipe(*python("sys.exit('rtsp://me:secret@host/x failed')")))
    assert "secret" not in str(caught.value)


def test_the_description_does_not_tell_the_arguments():
    assert pipe("curl", "--user", "me:secret", "http://x?y=secret").description == "program curl"


def test_a_program_that_complains_for_ever_neither_blocks_nor_fills_the_memory():
    chatter = "for i in range(300): sys.stderr.write('frame=1 fps=25\\r' * 1000)\n"
    code = f"{chatter}sys.stdout.buffer.write({FRAME!r})"
    camera = pipe(*python(code))
    camera.open()
    assert len(camera._last_words._tail) <= 4096
    camera.close()


def test_closing_kills_the_program_and_what_it_started(tmp_path: Path):
    note = tmp_path / "pids"
    image = tmp_path / "a.jpg"
    image.write_bytes(FRAME)
    camera = pipe("sh", "-c", f"sleep 60 & echo $$ $! > {note}; cat {image}; wait")
    camera.open()
    pids = [int(pid) for pid in note.read_text().split()]
    assert all(alive(pid) for pid in pids)
    camera.close()
    wait_until(lambda: not any(alive(pid) for pid in pids))
    with pytest.raises(CameraError, match="not running"):
        camera.read()


def test_a_failed_open_leaves_no_program_and_no_thread():
    before = set(threading.enumerate())
    camera = pipe(*python("time.sleep(60)"), open_s=0.3)
    with pytest.raises(CameraError):
        camera.open()
    assert camera._process is None
    assert set(threading.enumerate()) <= before


def test_an_interrupted_program_ends_the_wait():
    camera = pipe(*python("time.sleep(60)"))
    timer = threading.Timer(0.3, camera.interrupt)
    timer.start()
    watch = Stopwatch()
    with pytest.raises(CameraError):
        camera.open()
    assert watch.undisturbed_s < 3
    timer.join()


def test_a_program_is_given_only_the_environment_that_is_meant_for_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("EDGE_MQTT__PASSWORD", "secret")
    clean = {"PATH": os.environ["PATH"], "CAMERA": "1"}
    with pytest.raises(CameraError, match=r"ended with code 1: \['CAMERA'"):
        play(pipe(*python("sys.exit(sorted(k for k in os.environ if k[0] in 'CE'))"), environment=clean))
