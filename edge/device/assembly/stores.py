"""The stores of one device as the settings say: galleries, visits, denials, faces. Opens no file."""

from datetime import timedelta
from pathlib import Path

from edge.device.settings.load import Settings
from edge.gallery.store.crops import CropStore
from edge.gallery.store.denials import DenialStore
from edge.gallery.store.erasure import Erased
from edge.gallery.store.kept_visits import VisitStore
from edge.gallery.store.store import GalleryStore


def gallery_store(settings: Settings) -> GalleryStore:
    """Return the store of this device's gallery."""
    return _store(settings, settings.gallery_path)


def beside_store(settings: Settings) -> GalleryStore:
    """Return the store of the gallery that this device may be switched to, of another embedder."""
    return _store(settings, beside_path(settings))


def beside_path(settings: Settings) -> Path:
    """Return where the gallery lies that this device may be switched to."""
    return settings.state_dir / "gallery-next"


def visit_store(settings: Settings) -> VisitStore:
    """Return the store of strangers' visits."""
    return VisitStore(
        settings.state_dir / "strangers",
        settings.device_key_path,
        timedelta(hours=settings.strangers.keep_hours),
        make_key=settings.gallery.device_key is None,
    )


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
    return Erased((settings.gallery_path, beside_path(settings)))


def _store(settings: Settings, directory: Path) -> GalleryStore:
    values = settings.gallery
    return GalleryStore(
        directory,
        keep_versions=values.keep_versions,
        key=settings.device_key_path,
        make_key=values.device_key is None,
    )
