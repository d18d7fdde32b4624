"""Follow the galleries on disk: say when another version is current, and hand out a recognizer with it.

On failure the last good gallery stays and the reason is told once. Swaps nothing itself.
"""

import logging
from collections.abc import Callable
from dataclasses import replace

from edge.errors import EdgeError, GalleryIntegrityError
from edge.gallery.denials import Denials, DenialStore
from edge.gallery.store import GalleryStore
from edge.metrics import Metrics
from edge.recognizer import Recognizer

log = logging.getLogger(__name__)


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
    """Watches who was said not to be whom. What is damaged is set aside, so that a door can start."""

    def __init__(self, store: DenialStore, metrics: Metrics) -> None:
        self._store = store
        self._metrics = metrics
        self._read()

    def follow(self, recognizer: Recognizer) -> Recognizer | None:
        """Return `recognizer` with the denials of now, None where they have not changed or cannot be read."""
        if self._store.stamp() == self._seen:
            return None
        found = self._read()
        return None if found is None else replace(recognizer, denials=found)

    def _read(self) -> Denials | None:
        """Return the denials of now, None where they cannot be read, which is told."""
        self._seen = self._store.stamp()
        try:
            return self._store.load()
        except GalleryIntegrityError as error:
            self._refuse(error)
        except EdgeError as error:
            self._refuse(error)
            return None
        try:
            aside = self._store.set_aside()
            if aside is not None:
                log.error("damaged denials are kept as %s", aside)
        except EdgeError as error:
            log.error("damaged denials cannot be set aside: %s", error)
        self._seen = self._store.stamp()
        return None

    def _refuse(self, error: EdgeError) -> None:
        self._metrics.count("denials.refused")
        log.error("denials refused, the last good ones serve, after a start none: %s", error)
