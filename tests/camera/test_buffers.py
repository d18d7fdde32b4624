"""Memory of frames is used again, and never while anybody holds the frame that lies in it."""

import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from zlib import crc32

import numpy as np
import pytest

from edge.camera.buffers import COUNT, FrameBuffers
from edge.camera.clips import ReplayCamera
from edge.camera.pipe import PipeCamera
from edge.camera.sources import Camera
from edge.core.clock import SystemClock
from edge.core.types import Frame, Image

SIZE = (48, 64)
RAW = f"""
import sys
for number in range(120):
    sys.stdout.buffer.write(bytes([number]) * {SIZE[0] * SIZE[1] * 3})
"""


def clip(media: Path) -> Camera:
    return ReplayCamera("front", media / "single_face.mp4", clock=SystemClock(), realtime=False, loop=True)


def program(media: Path) -> Camera:
    command = (sys.executable, "-c", RAW)
    return PipeCamera("front", command, clock=SystemClock(), read_timeout_s=20, size=SIZE)


@pytest.fixture(params=[clip, program])
def camera(request: pytest.FixtureRequest, media: Path) -> Iterator[Camera]:
    camera = request.param(media)
    camera.open()
    yield camera
    camera.close()


def read(camera: Camera) -> Frame:
    frame = camera.read()
    assert frame is not None
    return frame


def test_a_frame_is_never_overwritten_while_it_is_held(camera: Camera):
    """Frames are held for a while in every way that the daemon and its tools know, and then compared."""
    dice = random.Random(1)
    held: list[tuple[object, Image, int]] = []
    for _ in range(110):
        frame = read(camera)
        ways = (frame, frame.image, frame.image[10:20, ::2], frame.image.T, memoryview(frame.image))
        holder = dice.choice(ways)
        seen = np.asarray(getattr(holder, "image", holder))
        held.append((holder, seen, crc32(seen.tobytes())))
        del frame, ways, holder, seen
        while len(held) > dice.choice((1, 2, 3, 9)):
            _, pixels, sum_then = held.pop(dice.randrange(len(held)))
            assert crc32(pixels.tobytes()) == sum_then
            del pixels
    assert all(crc32(pixels.tobytes()) == sum_then for _, pixels, sum_then in held)


def test_a_frame_that_another_thread_holds_is_not_overwritten(camera: Camera):
    handed: Queue[tuple[Frame, int] | None] = Queue(maxsize=3)
    torn: list[int] = []

    def look() -> None:
        dice = random.Random(2)
        while (item := handed.get()) is not None:
            time.sleep(dice.random() * 0.004)
            if crc32(item[0].image.tobytes()) != item[1]:
                torn.append(item[0].number)
            del item

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(110):
        frame = read(camera)
        handed.put((frame, crc32(frame.image.tobytes())))
    handed.put(None)
    thread.join()
    assert torn == []


def test_memory_is_used_again_once_a_frame_is_let_go(camera: Camera):
    places: set[int] = set()
    before = read(camera)
    for _ in range(100):
        frame = read(camera)
        places.add(frame.image.ctypes.data)
        before = frame
    assert before.number == 100
    assert len(places) <= COUNT


def test_what_was_read_is_what_lies_in_the_frame(media: Path):
    camera = program(media)
    camera.open()
    held = [read(camera) for _ in range(20)]
    camera.close()
    assert [int(frame.image[0, 0, 0]) for frame in held] == list(range(20))


def test_more_frames_than_buffers_may_be_held_and_another_size_replaces_all():
    buffers = FrameBuffers(2)
    assert buffers.free() is None
    held = [np.zeros((4, 4, 3), np.uint8) for _ in range(3)]
    for image in held:
        buffers.keep(image)
    del image
    assert buffers.free() is None
    first = held[0].ctypes.data
    del held[0]
    free = buffers.free()
    assert free is not None
    assert free.ctypes.data == first
    del free
    held.append(np.zeros((8, 8, 3), np.uint8))
    buffers.keep(held[-1])
    assert buffers.free() is None, "those of the old size are forgotten"
    held.clear()
    free = buffers.free()
    assert free is not None
    assert free.shape == (8, 8, 3)
