"""Follow the galleries on disk: say when another version is current, and hand out a recognizer with it.

On failure the last good gallery stays and the reason is told once. Swaps nothing itself.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from edge.core.errors import EdgeError, GalleryIntegrityError
from edge.core.metrics import Metrics
from edge.gallery.store.denials import Denials, DenialStore
from edge.gallery.store.store import GalleryStore
from edge.recognition.recognizer import Recognizer

log = logging.getLogger(__name__)

NOTHING = 0
"""The stamp of denials where there is no file."""


class GalleryFollower:
    """Watches one store."""

    def __init__(self, store: GalleryStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._refused: int | None = None
        self._error = ""

    def follow(self, recognizer: Recognizer, rebuild: Callable[[], Recognizer] | None) -> Recognizer | None:
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
                found = recognizer.with_gallery(self._store.load(model_id))
        except EdgeError as error:
            if str(error) != self._error:
                self._metrics.count("gallery.refused")
                log.error("gallery refused, the last good one serves: %s", error)
            self._refused, self._error = version, str(error)
            return None
        self._error = ""
        gallery = found.matcher.gallery
        self._refused = None if gallery.version == version else version
        log.info("gallery swapped", extra={"gallery_version": gallery.version, "subjects": gallery.size})
        return found


class BesideFollower:
    """Watches the gallery that the door may be switched to. `build` makes its recognizer; None: not tried."""

    def __init__(
        self, store: GalleryStore, build: Callable[[Recognizer], Recognizer | None], share: float
    ) -> None:
        self._store = store
        self._build = build
        self._share = share
        self._seen: tuple[int, str] | None = None

    def follow(self, recognizer: Recognizer) -> Recognizer | None:
        """Return `recognizer` with what lies beside it now, None where that has not changed.

        What cannot be used is told once and not tried: it would decide nothing anyway.
        """
        beside = None
        try:
            seen = (self._store.current_version(), recognizer.embedder.model_id)
            if seen == self._seen:
                return None
            self._seen = seen
            if seen[0]:
                beside = self._build(recognizer)
        except EdgeError as error:
            log.warning("the gallery to switch to is not tried: %s", error)
        if beside is None and recognizer.beside is None:
            return None
        if beside is not None:
            log.info("a gallery to switch to is tried", extra={"embedder": beside.stamp.embedder})
        return replace(recognizer, beside=beside, shadow_share=self._share if beside else 0.0)


class DenialFollower:
    """Watches who was said not to be whom. What is damaged is set aside, so that a door can start.

    Nothing here waits for a lock: what cannot be set aside now is tried again with the next look.
    """

    def __init__(self, store: DenialStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._seen: int | None = None
        self._damaged = False
        self._told = ""

    def watch(self, store: DenialStore) -> None:
        """Watch another one from now on; the next look reads what lies there, unless nothing does still."""
        self._store = store
        self._damaged = False
        if self._seen != NOTHING:
            self._seen = None

    def follow(self, recognizer: Recognizer) -> Recognizer | None:
        """Return `recognizer` with the denials of now, None where it has them or they cannot be read."""
        if self._damaged:
            self._set_aside()
        if self._store.stamp() == self._seen:
            return None
        found = self._read()
        if found is None or found.same(recognizer.denials):
            return None
        return replace(recognizer, denials=found)

    def _read(self) -> Denials | None:
        """Return the denials of now, None where they cannot be read, which is told."""
        self._seen = self._store.stamp()
        self._damaged = False
        try:
            return self._store.load()
        except EdgeError as error:
            self._metrics.count("denials.refused")
            log.error("denials refused, the last good ones serve, after a start none: %s", error)
            if isinstance(error, GalleryIntegrityError):
                self._set_aside()
            return None

    def _set_aside(self) -> None:
        """Try to set what is damaged aside; what takes its place is read with the next look."""
        try:
            aside = self._store.set_aside(timeout_s=0)
        except EdgeError as error:
            self._damaged = True
            if str(error) != self._told:
                self._told = str(error)
                log.error("damaged denials cannot be set aside, which is tried again: %s", error)
            return
        self._damaged = False
        self._told = ""
        if aside is None:
            self._seen = None
            return
        self._seen = NOTHING
        log.error("damaged denials are kept as %s", aside)
