"""JpegSplitter: cut a stream of concatenated JPEG pictures into whole ones. Decodes nothing.

Walks the markers instead of searching for an end: thumbnails inside a picture have ends of their own.
"""

import re

MAX_JPEG_BYTES = 16 * 1024 * 1024
"""A larger frame is not a camera's: the stream is garbage."""

START = b"\xff\xd8\xff"
"""SOI and the first byte of the marker after it. Source: ITU-T T.81, annex B, as for all below."""

SOI, EOI, SOS, TEM = 0xD8, 0xD9, 0xDA, 0x01
RESTARTS = range(0xD0, 0xD8)

END_OF_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)
"""A marker that ends entropy-coded data: no stuffed byte, no restart, no fill byte."""


class JpegSplitter:
    """Feed it bytes as they come, take pictures as they are complete.

    `skipped_bytes` counts what belonged to no picture since the last whole one.
    """

    def __init__(self, max_bytes: int = MAX_JPEG_BYTES) -> None:
        self._max_bytes = max_bytes
        self._pending = bytearray()
        self._at: int | None = None
        """Where in the picture the walk stands; None while its start is searched."""
        self._in_scan = False
        self.skipped_bytes = 0

    def feed(self, data: bytes) -> None:
        """Add what was read."""
        self._pending += data

    def take(self) -> bytes | None:
        """Return the next whole picture, or None until more has been fed."""
        while self._at is not None or self._find_start():
            end = self._walk()
            if end is not None:
                picture = bytes(self._pending[:end])
                self._drop(end)
                self.skipped_bytes = 0
                return picture
            if self._at is not None:  # all that there is has been walked
                if len(self._pending) > self._max_bytes:
                    self._skip(len(START))
                    continue
                return None
        return None

    def _find_start(self) -> bool:
        start = self._pending.find(START)
        self._skip(start if start >= 0 else max(0, len(self._pending) - len(START) + 1))
        if start < 0:
            return False
        self._at, self._in_scan = 2, False
        return True

    def _walk(self) -> int | None:
        """Return where the picture ends. None: more is needed, or (`_at` None) it is damaged and skipped."""
        data = self._pending
        while self._at is not None:
            at = self._at
            if self._in_scan:
                found = END_OF_SCAN.search(data, at)
                if found is None:
                    self._at = max(at, len(data) - 1)
                    return None
                self._at, self._in_scan = found.start(), False
                continue
            if len(data) < at + 2:
                return None
            mark, code = data[at], data[at + 1]
            if mark != 0xFF or code == SOI:
                self._skip(at)  # the end was lost; the next picture may begin here
            elif code == EOI:
                return at + 2
            elif code == 0xFF:
                self._at = at + 1
            elif code == TEM or code in RESTARTS:
                self._at = at + 2
            elif len(data) < at + 4:
                return None
            else:
                self._at = at + 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
                self._in_scan = code == SOS
        return None

    def _skip(self, count: int) -> None:
        self.skipped_bytes += count
        self._drop(count)

    def _drop(self, count: int) -> None:
        del self._pending[:count]
        self._at = None
