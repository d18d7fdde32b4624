"""Ballast: a file whose removal lets a full disk take the little that frees it again. Holds nothing.

On a full disk even a deletion fails, because its log needs room: delivered rows could not be forgotten, and
the space they take would never come back.
"""

import logging
import os
from contextlib import suppress
from pathlib import Path

log = logging.getLogger(__name__)

BALLAST_BYTES = 1024 * 1024
"""As much as the outbox's write-ahead log may grow to."""

SPARE = 8
"""How many times its own size must be free before it is laid: a nearly full disk is left to others."""

TEND_S = 60.0


class Ballast:
    """The file beside the database at `outbox`. Used by one thread."""

    def __init__(self, outbox: Path) -> None:
        self._path = outbox.with_name("outbox.ballast")
        self._due_s = 0.0

    def tend(self, now_s: float) -> None:
        """Lay the file where it is missing and there is room; looks once a minute (monotonic seconds)."""
        if now_s < self._due_s:
            return
        self._due_s = now_s + TEND_S
        try:
            if self._path.exists():
                return
            disk = os.statvfs(self._path.parent)
            if disk.f_bavail * disk.f_frsize < SPARE * BALLAST_BYTES:
                return
            with self._path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, BALLAST_BYTES)
        except OSError as error:
            log.info("no ballast for a full disk: %s", error)
            with suppress(OSError):
                self._path.unlink(missing_ok=True)

    def release(self, now_s: float) -> bool:
        """Give the room to the database; returns False when there was none left to give."""
        self._due_s = now_s + TEND_S
        try:
            self._path.unlink()
        except OSError:
            return False
        log.warning("the disk is full: the outbox's ballast of %d KiB was given up", BALLAST_BYTES // 1024)
        return True
