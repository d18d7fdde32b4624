"""Run `edge sync` as a child of the daemon: what it needs (TUF, HTTP) stays out of the door's process.

One child at a time; asked while one runs, another follows. Installs nothing: the child does, and the daemon
sees the new version on the disk.
"""

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from edge.clock import Clock
from edge.gallery.gallery import Gallery
from edge.metrics import Metrics
from edge.mqtt.codec import to_millisecond
from edge.mqtt.payloads_sync import BesidePayload, GalleryReportedPayload
from edge.recognizer import Recognizer
from edge.shadow import AGREED, DIFFERED

log = logging.getLogger(__name__)

TIMEOUT_S = 120.0
"""A child that takes longer is stopped; the timer or the next request tries again."""

MAX_OUTPUT_BYTES = 64 * 1024


SYNC_COMMAND = (sys.executable, "-m", "edge", "sync", "--json")
"""The child as started without a settings file."""


class SyncRunner:
    """Starts `command` on request and reads the one JSON document it prints. Used by one thread."""

    def __init__(self, command: Sequence[str], *, metrics: Metrics, clock: Clock) -> None:
        self._command = command
        self._metrics = metrics
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._started_s = 0.0
        self._again = False
        self._published = 0
        self._failure: str | None = None

    def request(self, at_least: int = 0) -> None:
        """Synchronise now, or after the child that is at it; not if the last one found `at_least` already."""
        if at_least and self._published >= at_least:
            return
        if self._child is not None:
            self._again = True
            return
        self._metrics.count("sync.started")
        self._started_s = self._clock.monotonic()
        try:
            self._child = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
            )
        except OSError as error:
            self._metrics.count("sync.failed")
            self._failure = f"edge sync cannot be started: {error.strerror}; ask again later"
            log.error("%s", self._failure)

    def poll(self) -> dict[str, Any] | None:
        """Return what a child that has ended printed; None while none has. Never waits."""
        child = self._child
        if child is None:
            why, self._failure = self._failure, None
            return None if why is None else {"status": "refused", "error": why}
        if child.poll() is None:
            if self._clock.monotonic() - self._started_s > TIMEOUT_S:
                log.error("edge sync takes more than %.0f s and is stopped", TIMEOUT_S)
                child.kill()
            return None
        self._child = None
        assert child.stdout is not None
        with child.stdout as stdout:
            output = stdout.read(MAX_OUTPUT_BYTES)
        if self._again:
            self._again = False
            self.request()
        try:
            outcome = json.loads(output)
            if not isinstance(outcome, dict):
                raise TypeError
        except (ValueError, TypeError, RecursionError):
            self._metrics.count("sync.failed")
            log.error("edge sync ended with %d and said nothing that can be read", child.returncode)
            return {"status": "refused", "error": f"edge sync ended with {child.returncode}"}
        if outcome.get("status") in ("updated", "current") and isinstance(outcome.get("version"), int):
            self._published = outcome["version"]
        return outcome

    def stop(self) -> None:
        """End a child that still runs; what it had installed is installed whole."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            if self._child.stdout is not None:
                self._child.stdout.close()
            self._child = None


def gallery_report(
    outcome: Mapping[str, Any],
    gallery: Gallery,
    at: datetime,
    *,
    revoked_applied_at: datetime | None = None,
    beside: BesidePayload | None = None,
) -> GalleryReportedPayload:
    """Return what is published about a synchronisation, with the gallery that serves after it."""
    status = outcome.get("status")
    return GalleryReportedPayload(
        at=to_millisecond(at),
        status=status if status in ("updated", "current") else "refused",
        version=gallery.version,
        count=gallery.size,
        model_id=gallery.model_id,
        not_after=None if gallery.not_after is None else to_millisecond(gallery.not_after),
        revoked_applied_at=None if revoked_applied_at is None else to_millisecond(revoked_applied_at),
        beside=beside,
        error=str(outcome["error"])[:500] if outcome.get("error") else None,
    )


def beside_report(beside: Recognizer, counters: Mapping[str, int]) -> BesidePayload:
    """Return what is published about the recognizer that is tried beside the one in force."""
    return BesidePayload(
        version=beside.matcher.gallery.version,
        count=beside.matcher.gallery.size,
        model_id=beside.embedder.model_id,
        agreed=counters.get(AGREED, 0),
        differed=counters.get(DIFFERED, 0),
    )
