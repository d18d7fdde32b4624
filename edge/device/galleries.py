"""GalleryKeeper: keeps the galleries of a running daemon up to date, and says which one serves.

Synchronises on request, follows what is current on the disk, tries what lies beside. Swaps nothing itself.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from edge.core.clock import Clock
from edge.core.metrics import Metrics
from edge.device.assembly.recognizer import build_beside, build_recognizer
from edge.device.assembly.stores import beside_store, denial_store, gallery_store
from edge.device.following import BesideFollower, DenialFollower, GalleryFollower
from edge.device.settings.load import Settings
from edge.device.sync.child import SyncRunner, beside_report, gallery_report
from edge.device.sync.floors import FILE_NAME, beside_version, published_version
from edge.device.sync.outcome import OutcomeFollower, SyncOutcome, load_outcome
from edge.face.choice import AUTO
from edge.mqtt.contract.payloads_sync import GalleryReportedPayload
from edge.recognition.recognizer import Recognizer

NONE_YET = SyncOutcome("current", 0, 0, None)
"""What is told before the first synchronisation."""

ALONE = SyncOutcome(
    "refused", 0, 0, None, "sync.url is not set; this door has a gallery of its own", reason="config"
)
"""What comes of a request to synchronise where there is no fleet."""


class GalleryKeeper:
    """One device's galleries. Used by the main thread; `sync_command` starts the child that synchronises."""

    def __init__(
        self, settings: Settings, sync_command: Sequence[str], *, metrics: Metrics, clock: Clock
    ) -> None:
        self._metrics = metrics
        self._clock = clock
        self._syncing = SyncRunner(sync_command, metrics=metrics, clock=clock)
        self._left = OutcomeFollower(settings.sync_path)
        self._outcome = load_outcome(settings.sync_path) or NONE_YET
        self._syncing.know(self._outcome)
        self._declined = False
        self._revoked_at: datetime | None = None
        self._settings = settings
        self._denials = DenialFollower(denial_store(settings), metrics)
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
            self._declined = True
        else:
            self._syncing.request(at_least, self._settings.sync_scope)

    def tick(self, recognizer: Recognizer) -> tuple[Recognizer | None, bool]:
        """Return the recognizer to swap to, None where nothing has changed, and whether there is news.

        What cannot be used is told in the log, and the last good gallery stays.
        """
        ended = [ALONE if self._declined else None, self._syncing.poll(), self._left.follow()]
        self._declined = False
        outcomes = [each for each in ended if each is not None and each != self._outcome]
        found = self._follow(recognizer)
        for outcome in outcomes:
            self._take(outcome)
        if found is not None and not outcomes and self._outcome.status == "current":
            # Somebody enrolled at the door. A refusal stands until a synchronisation succeeds.
            self._outcome = replace(self._outcome, status="updated")
        return found, bool(outcomes) or found is not None

    def report(self, recognizer: Recognizer) -> GalleryReportedPayload:
        """Return what is published about the gallery that serves."""
        settings, beside, gallery = self._settings, recognizer.beside, recognizer.matcher.gallery
        path, scope = settings.sync_path / FILE_NAME, settings.sync_scope
        told = None
        if beside is not None:
            of_fleet = beside_version(path, scope, beside.matcher.gallery.version)
            told = beside_report(beside, self._metrics.counts(), of_fleet)
        return gallery_report(
            self._outcome,
            gallery,
            self._clock.now(),
            scope=scope if settings.sync.url else None,
            published=published_version(path, scope, gallery.version),
            revoked_applied_at=self._revoked_at,
            beside=told,
        )

    def stop(self) -> None:
        """End a synchronisation that still runs."""
        self._syncing.stop()

    def _take(self, outcome: SyncOutcome) -> None:
        if outcome == self._outcome:
            return  # the child said what it has left
        self._outcome = outcome
        self._syncing.know(outcome)
        if outcome.status == "refused":
            self._metrics.count(f"sync.refused.{outcome.reason or 'gallery'}")

    def _watch(self, settings: Settings) -> None:
        self._follower = GalleryFollower(gallery_store(settings), self._metrics)
        self._denials.watch(denial_store(settings))

    def _follow(self, recognizer: Recognizer) -> Recognizer | None:
        auto = self._settings.recognition.embedder == AUTO
        rebuild = partial(build_recognizer, self._settings, denials=recognizer.denials)
        found = self._follower.follow(recognizer, rebuild if auto else None)
        if found is not None and recognizer.matcher.gallery.active - found.matcher.gallery.active:
            self._revoked_at = self._clock.now()
        found = self._denials.follow(found or recognizer) or found
        return self._beside.follow(found or recognizer) or found
