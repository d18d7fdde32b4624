"""Puts a gallery in force that somebody else made; what is left to be erased is told, for the next try."""

import logging
from dataclasses import replace

from edge.core.errors import ErasureOwedError, GalleryError
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore

log = logging.getLogger(__name__)


def install(store: GalleryStore, gallery: Gallery) -> tuple[int, str | None]:
    """Return the version that a gallery serves as now, and why who is not in it could not be erased."""
    try:
        return store.commit(replace(gallery, version=store.current_version())).version, None
    except ErasureOwedError as owed:
        log.error("%s", owed)
        return owed.version, str(owed)


def settle(store: GalleryStore) -> str | None:
    """Erase what an earlier installation could not; return why it cannot be erased now either."""
    try:
        store.erase_owed()
    except GalleryError as error:
        return str(error)
    return None
