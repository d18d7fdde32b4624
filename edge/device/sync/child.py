"""Run `edge sync` as a child of the daemon: what it needs (TUF, HTTP) stays out of the door's process.

One child at a time and not too many; asked while one runs, another follows. Installs nothing: the child does,
and the daemon sees the new version on the disk.
"""

import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime

from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.core.pacing import TokenBucket
from edge.device.sync.outcome import MAX_ERROR_CHARS, SyncOutcome, read_outcome
from edge.gallery.gallery import Gallery
from edge.mqtt.contract.encode import to_millisecond
from edge.mqtt.contract.messages import CandidatePayload, GalleryReportedPayload
from edge.recognition.candidate import AGREED, DIFFERED
from edge.recognition.recognizer import Recognizer

log = logging.getLogger(__name__)

TIMEOUT_S = 120.0
"""A child that takes longer is stopped; the timer or the next request tries again."""

MAX_OUTPUT_BYTES = 64 * 1024

STARTS_PER_S = 0.1
STARTS_AT_ONCE = 4
"""Whoever may publish `gallery/desired` must not keep a small board busy with children."""

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
        self._wanted = False
        self._known: SyncOutcome | None = None
        self._failure: str | None = None
        self._bucket = TokenBucket(STARTS_PER_S, STARTS_AT_ONCE, clock.monotonic)

    def request(self, at_least: int = 0, scope: str | None = None) -> None:
        """Synchronise now, or after the child that is at it.

        Not if the last one found `at_least` of this scope already. Where more ask than are started, the last
        one is started later.
        """
        known = self._known
        if at_least and known is not None and known.scope == scope and known.version >= at_least:
            return
        self._wanted = True
        self._start()

    def know(self, outcome: SyncOutcome) -> None:
        """Take what a synchronisation came to that somebody else has started."""
        if outcome.status != "refused":
            self._known = outcome

    def poll(self) -> SyncOutcome | None:
        """Return what a child that has ended printed; None while none has. Never waits."""
        child = self._child
        if child is None:
            self._start()
            why, self._failure = self._failure, None
            return None if why is None else self._failed(why)
        if child.poll() is None:
            if self._clock.monotonic() - self._started_s > TIMEOUT_S:
                log.error("edge sync takes more than %.0f s and is stopped", TIMEOUT_S)
                child.kill()
            return None
        self._child = None
        assert child.stdout is not None
        with child.stdout as stdout:
            output = stdout.read(MAX_OUTPUT_BYTES)
        self._start()
        outcome = read_outcome(output)
        if outcome is None:
            self._metrics.count("sync.failed")
            log.error("edge sync ended with %d and said nothing that can be read", child.returncode)
            return self._failed(f"edge sync ended with {child.returncode}")
        self.know(outcome)
        return outcome

    def _start(self) -> None:
        """Start a child if one is wanted, none is at it, and they are not too many."""
        if not self._wanted or self._child is not None or not self._bucket.take():
            return
        self._wanted = False
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

    def _failed(self, why: str) -> SyncOutcome:
        return SyncOutcome("refused", 0, 0, None, why, reason="failed", at=self._clock.now())

    def stop(self) -> None:
        """End a child that still runs; what it had installed is installed whole."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            if self._child.stdout is not None:
                self._child.stdout.close()
            self._child = None


def gallery_report(
    outcome: SyncOutcome,
    gallery: Gallery,
    at: datetime,
    *,
    scope: str | None = None,
    published: int | None = None,
    revoked_applied_at: datetime | None = None,
    beside: CandidatePayload | None = None,
) -> GalleryReportedPayload:
    """Return what is published about a synchronisation, with the gallery that serves after it."""
    return GalleryReportedPayload(
        at=to_millisecond(at),
        scope=scope,
        status=outcome.status,
        published=published,
        version=gallery.version,
        count=gallery.size,
        model_id=gallery.model_id,
        not_after=None if gallery.not_after is None else to_millisecond(gallery.not_after),
        revoked_applied_at=None if revoked_applied_at is None else to_millisecond(revoked_applied_at),
        beside=beside,
        synchronised_at=None if outcome.at is None else to_millisecond(outcome.at),
        reason=outcome.reason,
        error=outcome.error[:MAX_ERROR_CHARS] if outcome.error else None,
    )


def beside_report(
    beside: Recognizer, counters: Mapping[str, int], published: int | None = None
) -> CandidatePayload:
    """Return what is published about the recognizer that is tried beside the one in force."""
    return CandidatePayload(
        published=published,
        version=beside.matcher.gallery.version,
        count=beside.matcher.gallery.size,
        model_id=beside.embedder.model_id,
        agreed=counters.get(AGREED, 0),
        differed=counters.get(DIFFERED, 0),
    )
