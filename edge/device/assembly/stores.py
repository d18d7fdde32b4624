"""The stores of one device as the settings say: galleries, visits, denials, faces."""

import logging
import os
from datetime import timedelta
from pathlib import Path

import numpy as np

from edge.core.clock import SystemClock
from edge.core.errors import EdgeError, FileError, KeyFileError
from edge.core.types import FloatArray
from edge.device.settings.load import Settings
from edge.gallery.store.crops import CropStore
from edge.gallery.store.denials import DenialStore
from edge.gallery.store.erasure import Erased
from edge.gallery.store.kept_visits import VisitStore, group
from edge.gallery.store.sealed import device_key
from edge.gallery.store.store import GalleryStore

log = logging.getLogger(__name__)


def check_device_key(settings: Settings) -> None:
    """Accept the device's key; none where none is configured, which is made at first use.

    A disk that does not give it keeps no door shut.

    Raises:
        KeyFileError: It is no key, others may read it, or it is configured and not there.
    """
    path = settings.device_key_path
    if settings.gallery.device_key is None and not os.path.lexists(path):
        return
    try:
        device_key(path, make=False)
    except KeyFileError:
        raise
    except FileError as error:
        log.error("%s", error)


def gallery_store(settings: Settings) -> GalleryStore:
    """Return the store of this device's gallery."""
    return _store(settings, settings.gallery_path)


def candidate_store(settings: Settings) -> GalleryStore:
    """Return the store of the candidate: the gallery of another embedder that may be switched to."""
    return _store(settings, candidate_path(settings))


def candidate_path(settings: Settings) -> Path:
    """Return where the candidate lies; from where the last release kept it, it is moved."""
    path, before = settings.state_dir / "gallery-candidate", settings.state_dir / "gallery-next"
    if before.is_dir() and not path.is_dir():
        try:
            before.rename(path)
        except OSError as error:
            if not path.is_dir():  # else another process was faster
                log.warning("%s: cannot be renamed to %s: %s", before, path.name, error.strerror)
                return before
        else:
            log.info("the candidate lies in %s now", path)
    return path


def visit_store(settings: Settings) -> VisitStore:
    """Return the store of strangers' visits."""
    return VisitStore(
        settings.state_dir / "strangers",
        settings.device_key_path,
        timedelta(hours=settings.strangers.keep_hours),
        make_key=settings.gallery.device_key is None,
    )


def strangers_kept(settings: Settings, model_id: str, same: float) -> FloatArray | None:
    """Return an embedding of each stranger who was kept, who came last first, (n, D); None: nobody is.

    Visits of this embedder are one stranger's where they are alike by `same`, a cosine.

    Where they cannot be read nobody is either: they only raise a threshold.
    """
    if not settings.strangers.keep_hours:
        return None
    try:
        visits = visit_store(settings).load(SystemClock().now())
    except EdgeError as error:
        log.warning("strangers who were kept cannot be read: %s", error)
        return None
    mine = [each for each in visits if each.probe.model_id == model_id and not each.taken_for]
    found = [stranger.best.probe.embedding for stranger in group(mine, same)]
    return np.stack(found) if found else None


def crop_store(settings: Settings) -> CropStore:
    """Return the store of enrolment's faces."""
    own = settings.gallery.device_key is None
    return CropStore(settings.state_dir / "crops", settings.device_key_path, make_key=own)


def denial_store(settings: Settings) -> DenialStore:
    """Return the store of who is not whom."""
    return DenialStore(
        settings.state_dir / "denials.sealed",
        settings.device_key_path,
        make_key=settings.gallery.device_key is None,
    )


def erased_here(settings: Settings) -> Erased:
    """Return who was ever removed from this device's galleries."""
    return Erased((settings.gallery_path, candidate_path(settings)))


def _store(settings: Settings, directory: Path) -> GalleryStore:
    values = settings.gallery
    return GalleryStore(
        directory,
        keep_versions=values.keep_versions,
        key=settings.device_key_path,
        make_key=values.device_key is None,
    )
