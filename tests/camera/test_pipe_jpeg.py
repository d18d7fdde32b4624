"""The splitter: whole pictures out of a stream, however it is cut, damaged or padded."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.camera.pipe import JpegSplitter
from tests.support.streams import jpeg

NOISE = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
BUSY = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_RST_INTERVAL, 2])[1].tobytes()
PROGRESSIVE = cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
PLAIN = jpeg(200)


def with_thumbnail(picture: bytes, thumbnail: bytes) -> bytes:
    segment = b"Exif\0\0" + thumbnail
    return picture[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + picture[2:]


THUMBNAILED = with_thumbnail(PLAIN, jpeg(9, (16, 16)))


def split(stream: bytes, chunk_bytes: int = 1 << 16, **options: int) -> list[bytes]:
    splitter, pictures = JpegSplitter(**options), []
    for at in range(0, len(stream), chunk_bytes):
        splitter.feed(stream[at : at + chunk_bytes])
        while (picture := splitter.take()) is not None:
            pictures.append(picture)
    return pictures


@pytest.mark.parametrize("chunk_bytes", [1, 2, 3, 7, 1000, 1 << 16])
def test_every_picture_comes_out_as_it_was_however_the_stream_is_cut(chunk_bytes: int):
    pictures = [PLAIN, BUSY, PROGRESSIVE, THUMBNAILED, PLAIN]
    assert split(b"".join(pictures), chunk_bytes) == pictures


@pytest.mark.parametrize(
    ("stream", "expected"),
    [
        pytest.param(b"junk \xff\xd9 \xff" + PLAIN, [PLAIN], id="junk before"),
        pytest.param(PLAIN + b"\0\0\r\n--frame\r\n" + BUSY, [PLAIN, BUSY], id="padding between"),
        pytest.param(BUSY[: len(BUSY) // 2] + PLAIN, [PLAIN], id="end lost in the scan"),
        pytest.param(PLAIN[:30] + PLAIN + PLAIN, [PLAIN], id="end lost in a header"),
        pytest.param(b"\xff\xd8\xff\xd8" + PLAIN, [PLAIN], id="start twice"),
        pytest.param(PLAIN[:-1] + b"\xff\xff\xd9" + PLAIN, 2, id="fill bytes before the end"),
        pytest.param(BUSY[:-2], [], id="no end"),
        pytest.param(b"", [], id="nothing"),
    ],
)
def test_what_belongs_to_no_picture_is_skipped(stream: bytes, expected: list[bytes] | int):
    found = split(stream)
    assert len(found) == expected if isinstance(expected, int) else found == expected


def test_garbage_is_counted_and_not_kept():
    splitter = JpegSplitter(max_bytes=1000)
    for _ in range(100):
        splitter.feed(bytes(1000))
        assert splitter.take() is None
        assert len(splitter._pending) < 10
    assert splitter.skipped_bytes > 99_000


def test_a_picture_without_end_is_bounded():
    splitter = JpegSplitter(max_bytes=10_000)
    splitter.feed(BUSY[:-2])
    for _ in range(100):
        splitter.feed(bytes(1000))
        splitter.take()
        assert len(splitter._pending) <= 11_000
    splitter.feed(PLAIN)
    assert splitter.take() == PLAIN


@given(st.lists(st.one_of(st.binary(max_size=60), st.sampled_from([b"\xff\xd8\xff", b"\xff\xda", PLAIN]))))
def test_no_stream_breaks_it(pieces: list[bytes]):
    splitter = JpegSplitter(max_bytes=4096)
    for piece in pieces:
        splitter.feed(piece)
        while (picture := splitter.take()) is not None:
            assert picture.startswith(b"\xff\xd8\xff")
            assert picture.endswith(b"\xff\xd9")
