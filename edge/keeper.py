"""GalleryKeeper: keeps the galleries of a running daemon up to date, and says which one serves.

Synchronises on request, follows what is current on the disk, tries what lies beside. Swaps nothing itself.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from edge.assembly import build_beside, build_recognizer
from edge.clock import Clock
from edge.config import Settings
from edge.following import BesideFollower, DenialFollower, GalleryFollower
from edge.metrics import Metrics
from edge.mqtt.payloads_sync import GalleryReportedPayload
from edge.recognizer import Recognizer
from edge.selection import AUTO
from edge.stores import beside_store, denial_store, gallery_store
from edge.syncing import SyncRunner, beside_report, gallery_report

INSTALLED: Mapping[str, Any] = {"status": "updated"}
"""What came of a synchronisation that somebody else made, or of an enrolment at the door."""

ALONE: Mapping[str, Any] = {
    "status": "refused",
    "error": "sync.url is not set; this door has a gallery of its own",
}
"""What comes of a request to synchronise where there is no fleet."""


class GalleryKeeper:
    """One device's galleries. Used by the main thread; `sync_command` starts the child that synchronises."""

    def __init__(
        self, settings: Settings, sync_command: Sequence[str], *, metrics: Metrics, clock: Clock
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._syncing = SyncRunner(sync_command, metrics=metrics, clock=clock)
        self._outcome: Mapping[str, Any] = {"status": "current"}
        self._declined = False
        self._revoked_at: datetime | None = None
        self._settings = settings
        self._watch(settings)
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Follow by other settings from now on."""
        if settings.gallery != self._settings.gallery:  # its key may lie elsewhere
            self._watch(settings)
        self._settings = settings
        share = settings.gallery.shadow_share
        self._beside = BesideFollower(beside_store(settings), partial(build_beside, settings), share)

    def request(self, at_least: int) -> None:
        """Synchronise now, unless the fleet's gallery is known to be `at_least` this version."""
        if self._settings.sync.url is None:
            self._declined = self._outcome is not ALONE
        else:
            self._syncing.request(at_least)

    def tick(self, recognizer: Recognizer) -> tuple[Recognizer | None, bool]:
        """Return the recognizer to swap to, None where nothing has changed, and whether there is news.

        What cannot be used is told in the log, and the last good gallery stays.
        """
        outcome = ALONE if self._declined else self._syncing.poll()
        self._declined = False
        found = self._follow(recognizer)
        if outcome is not None or found is not None:
            self._outcome = outcome or INSTALLED
        return found, outcome is not None or found is not None

    def report(self, recognizer: Recognizer) -> GalleryReportedPayload:
        """Return what is published about the gallery that serves."""
        beside = recognizer.beside
        return gallery_report(
            self._outcome,
            recognizer.matcher.gallery,
            self._clock.now(),
            revoked_applied_at=self._revoked_at,
            beside=None if beside is None else beside_report(beside, self._metrics.counts()),
        )

    def stop(self) -> None:
        """End a synchronisation that still runs."""
        self._syncing.stop()

    def _watch(self, settings: Settings) -> None:
        self._follower = GalleryFollower(gallery_store(settings), self._metrics)
        self._denials = DenialFollower(denial_store(settings))

    def _follow(self, recognizer: Recognizer) -> Recognizer | None:
        auto = self._settings.recognition.embedder == AUTO
        found = self._follower.follow(recognizer, partial(build_recognizer, self._settings) if auto else None)
        if found is not None and recognizer.matcher.gallery.active - found.matcher.gallery.active:
            self._revoked_at = self._clock.now()
        found = self._denials.follow(found or recognizer) or found
        return self._beside.follow(found or recognizer) or found
