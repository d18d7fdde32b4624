"""Galleries: what a running door recognises by, kept up to date, and what is told of it.

They synchronise on request and follow what is current on the disk, the candidate and the denials as well. On
failure the last good gallery stays, and the reason is told once. The daemon does the swap.
"""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial

from edge.core.clock import Clock
from edge.core.errors import EdgeError, GalleryIntegrityError, ToldOnce
from edge.core.metrics import Metrics
from edge.core.types import FloatArray
from edge.device.assembly.recognizer import build_candidate, build_recognizer, strangers_for
from edge.device.assembly.stores import candidate_store, denial_store, gallery_store
from edge.device.children.sync_runner import SyncRunner
from edge.device.reports import candidate_report, gallery_report
from edge.device.settings.load import Settings
from edge.device.sync.floors import FILE_NAME, candidate_version, published_version
from edge.device.sync.outcome import SyncOutcome
from edge.face.manifest import AUTO, usable_embedders
from edge.gallery.store.denials import Denials, DenialStore
from edge.gallery.store.store import GalleryStore
from edge.mqtt.contract.messages import GalleryReportedPayload
from edge.mqtt.contract.problems import DoorProblem
from edge.recognition.recognizer import Recognizer

log = logging.getLogger(__name__)

NOTHING = 0
"""The stamp of denials where there is no file."""

TOLD_SHIFT = 0.005
"""By how much the threshold's shift has to change for the log to tell, a cosine."""

NONE_YET = SyncOutcome("current", 0, 0, None)
"""What is told before the first synchronisation."""

ALONE = SyncOutcome(
    "refused", 0, 0, None, "sync.url is not set; this door has a gallery of its own", reason="config"
)
"""What comes of a request to synchronise where there is no fleet."""


class Galleries:
    """One door's galleries. Used by the main thread.

    The child that synchronises gets `config_arguments`, so that it reads the same settings.
    """

    def __init__(
        self,
        settings: Settings,
        config_arguments: Sequence[str],
        *,
        metrics: Metrics,
        clock: Clock,
        time_known: Callable[[], bool] = lambda: True,
    ) -> None:
        self._time_known = time_known
        self._metrics = metrics
        self._clock = clock
        self._sync = SyncRunner(settings.sync_path, config_arguments, metrics=metrics, clock=clock)
        self._outcome = self._sync.before or NONE_YET
        self._declined = False
        self._revoked_at: datetime | None = None
        self._settings = settings
        self._denials = DenialWatch(denial_store(settings), metrics)
        self._watch(settings)
        self.use(settings)

    def use(self, settings: Settings) -> None:
        """Follow by other settings from now on."""
        if settings.gallery != self._settings.gallery:  # its key may lie elsewhere
            self._watch(settings)
        self._settings = settings
        share = settings.gallery.candidate_share
        self._candidate = CandidateWatch(candidate_store(settings), partial(build_candidate, settings), share)

    def request(self, at_least: int) -> None:
        """Synchronise now, unless the fleet's gallery is known to be `at_least` this version."""
        if self._settings.sync.url is None:
            self._declined = True
        else:
            self._sync.request(at_least, self._settings.sync_scope)

    def tick(self, recognizer: Recognizer) -> tuple[Recognizer | None, bool]:
        """Return the recognizer to swap to, None where nothing has changed, and whether there is news.

        What cannot be used is told in the log, and the last good gallery stays.
        """
        ended = [ALONE if self._declined else None, self._sync.poll()]
        self._declined = False
        outcomes = [each for each in ended if each is not None and each != self._outcome]
        found = self._follow(recognizer)
        for outcome in outcomes:
            self._outcome = outcome
            if outcome.status == "refused":
                self._metrics.count(f"sync.refused.{outcome.reason or 'gallery'}")
        if found is not None and not outcomes and self._outcome.status == "current":
            # Somebody enrolled at the door. A refusal stands until a synchronisation succeeds.
            self._outcome = replace(self._outcome, status="updated")
        return found, bool(outcomes) or found is not None

    def report(self, recognizer: Recognizer) -> GalleryReportedPayload:
        """Return what is published about the gallery that serves."""
        settings, candidate, gallery = self._settings, recognizer.candidate, recognizer.matcher.gallery
        path, scope = settings.sync_path / FILE_NAME, settings.sync_scope
        told = None
        if candidate is not None:
            of_fleet = candidate_version(path, scope, candidate.matcher.gallery.version)
            told = candidate_report(candidate, self._metrics.counts(), of_fleet)
        return gallery_report(
            self._outcome,
            gallery,
            self._clock.now(),
            scope=scope if settings.sync.url else None,
            published=published_version(path, scope, gallery.version),
            revoked_applied_at=self._revoked_at,
            candidate=told,
            embedders=self._embedders(),
        )

    def problems(self, recognizer: Recognizer) -> list[DoorProblem]:
        """Return what an operator has to mend."""
        not_after = recognizer.matcher.gallery.not_after
        stale = not_after is not None and self._clock.now() >= not_after
        return [
            *self._gallery.problems(recognizer),
            *([DoorProblem.GALLERY_STALE] if stale else []),
            *([DoorProblem.GALLERY_ALIKE] if recognizer.rule.very_alike else []),
            *self._denials.problems(recognizer),
        ]

    def stop(self) -> None:
        """End a synchronisation that still runs."""
        self._sync.stop()

    def _embedders(self) -> Iterable[str] | None:
        """Return the models that a gallery for this door may be of; None where a manifest cannot be read."""
        try:
            return usable_embedders(self._settings.recognition.embedder, self._settings.models_path)
        except EdgeError as error:
            log.warning("nobody knows which embedders can be used: %s", error)
            return None

    def _watch(self, settings: Settings) -> None:
        self._gallery = GalleryWatch(gallery_store(settings), self._metrics, self._strangers)
        self._denials.watch(denial_store(settings))

    def _strangers(self, recognizer: Recognizer) -> FloatArray | None:
        return strangers_for(recognizer.rule, self._settings, recognizer.embedder.model_id)

    def _follow(self, recognizer: Recognizer) -> Recognizer | None:
        auto = self._settings.recognition.embedder == AUTO
        rebuild = partial(
            build_recognizer, self._settings, denials=recognizer.denials, time_known=self._time_known
        )
        found = self._gallery.look(recognizer, rebuild if auto else None)
        if found is not None and recognizer.matcher.gallery.active - found.matcher.gallery.active:
            self._revoked_at = self._clock.now()
        found = self._denials.look(found or recognizer) or found
        return self._candidate.look(found or recognizer) or found


class GalleryWatch:
    """Looks whether another version of the gallery in a store is current.

    `strangers` returns those who were kept, for the shift of a new version (`Recognizer.with_gallery`).
    """

    def __init__(
        self,
        store: GalleryStore,
        metrics: Metrics,
        strangers: Callable[[Recognizer], FloatArray | None] = lambda _: None,
    ) -> None:
        self._store = store
        self._metrics = metrics
        self._strangers = strangers
        self._refused: int | None = None
        self._told = ToldOnce()

    def look(self, recognizer: Recognizer, rebuild: Callable[[], Recognizer] | None) -> Recognizer | None:
        """Return a recognizer with the current version, None where that one has it or it cannot be used.

        `rebuild` is asked when the gallery is of another embedder; None: such a gallery is refused.
        """
        version: int | None = None
        try:
            version = self._store.current_version()
            if version in (recognizer.stamp.gallery_version, self._refused):
                return None
            model_id = recognizer.embedder.model_id
            if rebuild is not None and self._store.enrolled_with() not in (None, model_id):
                found = rebuild()
            else:
                found = recognizer.with_gallery(self._store.load(model_id), self._strangers(recognizer))
        except EdgeError as error:
            if self._told.is_new(error):
                self._metrics.count("gallery.refused")
                log.error("gallery refused, the last good one serves: %s", error)
            self._refused = version
            return None
        self._told.forget()
        gallery = found.matcher.gallery
        self._refused = None if gallery.version == version else version
        log.info("gallery swapped", extra={"gallery_version": gallery.version, "subjects": gallery.size})
        _tell_shift(recognizer, found)
        return found

    def problems(self, recognizer: Recognizer) -> list[DoorProblem]:
        """Return whether what serves is not the newest gallery."""
        try:
            if self._store.fallen() is not None:
                return [DoorProblem.GALLERY_FALLBACK]
            current = self._store.current_version()
        except EdgeError:
            return [DoorProblem.GALLERY_REFUSED]
        return [DoorProblem.GALLERY_REFUSED] if current != recognizer.stamp.gallery_version else []


def _tell_shift(before: Recognizer, now: Recognizer) -> None:
    """Tell in the log that a new gallery shows people to be more alike, or no longer shows it."""
    comparisons = float(now.matcher.gallery.comparisons.sum())
    old, new = before.rule.shift_for(comparisons), now.rule.shift_for(comparisons)
    if old is None or new is None:
        return
    if new.value - old.value >= TOLD_SHIFT:
        log.warning(
            "the enrolled look more alike than before: the threshold is %.3f higher than for faces of the "
            "calibration, it was %.3f; `edge gallery doctor` tells more",
            new.value,
            old.value,
        )
    elif old.value - new.value >= TOLD_SHIFT:
        log.info("the enrolled look less alike than before: %.3f instead of %.3f", new.value, old.value)


class CandidateWatch:
    """Looks for the candidate. `build` makes its recognizer, None where it is not tried.

    `share` is the part of the visits that it is tried on, in [0, 1].
    """

    def __init__(
        self, store: GalleryStore, build: Callable[[Recognizer], Recognizer | None], share: float
    ) -> None:
        self._store = store
        self._build = build
        self._share = share
        self._seen: tuple[int, str] | None = None

    def look(self, recognizer: Recognizer) -> Recognizer | None:
        """Return `recognizer` with the candidate of now, None where that has not changed.

        What cannot be used is told once and not tried: it would decide nothing anyway.
        """
        candidate = None
        try:
            seen = (self._store.current_version(), recognizer.embedder.model_id)
            if seen == self._seen:
                return None
            self._seen = seen
            if seen[0]:
                candidate = self._build(recognizer)
        except EdgeError as error:
            log.warning("the candidate is not tried: %s", error)
        if candidate is None and recognizer.candidate is None:
            return None
        if candidate is not None:
            log.info("a candidate is tried", extra={"embedder": candidate.stamp.embedder})
        return replace(recognizer, candidate=candidate, candidate_share=self._share if candidate else 0.0)


class DenialWatch:
    """Looks who was said not to be whom. What is damaged is set aside, so that a door can start.

    Nothing here waits for a lock: what cannot be set aside now is tried again with the next look.
    """

    def __init__(self, store: DenialStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._seen: int | None = None
        self._damaged = False
        self._refused = False
        self._told = ToldOnce()

    def problems(self, recognizer: Recognizer) -> list[DoorProblem]:
        """Return whether denials are lost, or will be with the next start."""
        return [DoorProblem.DENIALS_LOST] if recognizer.denials.lost or self._refused else []

    def watch(self, store: DenialStore) -> None:
        """Watch another one from now on; the next look reads what lies there, unless nothing does still."""
        self._store = store
        self._damaged = False
        if self._seen != NOTHING:
            self._seen = None

    def look(self, recognizer: Recognizer) -> Recognizer | None:
        """Return `recognizer` with the denials of now, None where it has them or they cannot be read."""
        if self._damaged:
            self._set_aside()
        if self._store.stamp() == self._seen:
            return None
        found = self._read()
        if found is None or found.same(recognizer.denials):
            return None
        if found.lost and not recognizer.denials.lost:
            log.error("denials are gone: whoever had some is rejected as ambiguous until they are restored")
        return replace(recognizer, denials=found)

    def _read(self) -> Denials | None:
        """Return the denials of now, None where they cannot be read, which is told."""
        self._seen = self._store.stamp()
        self._damaged = False
        try:
            found = self._store.load()
        except EdgeError as error:
            self._refused = True
            self._metrics.count("denials.refused")
            log.error(
                "denials refused, the last good ones serve; after a start whoever had some is rejected as "
                "ambiguous: %s",
                error,
            )
            if isinstance(error, GalleryIntegrityError):
                self._set_aside()
            return None
        self._refused = False
        try:
            self._store.remember()
        except EdgeError as error:
            log.warning("it is not remembered who has denials: %s", error)
        return found

    def _set_aside(self) -> None:
        """Try to set what is damaged aside; what takes its place is read with the next look."""
        try:
            aside = self._store.set_aside(timeout_s=0)
        except EdgeError as error:
            self._damaged = True
            if self._told.is_new(error):
                log.error("damaged denials cannot be set aside, which is tried again: %s", error)
            return
        self._damaged = False
        self._told.forget()
        if aside is None:
            self._seen = None
            return
        self._seen = NOTHING
        log.error("damaged denials are kept as %s", aside)
