"""The gallery on disk: the current version, the way to the next one, and the way back.

A new version is written beside the old one and becomes current in one step; what cannot be read is set
aside, and the last good version serves. Nothing is fetched here.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from edge.clock import utc_now
from edge.errors import ConfigError, GalleryError, GalleryIntegrityError, ModelMismatchError
from edge.gallery.erasure import Erasure
from edge.gallery.gallery import Gallery
from edge.gallery.vault import Vault
from edge.gallery.versions import VersionFiles

log = logging.getLogger(__name__)

LOCK_TIMEOUT_S = 10.0
"""A commit takes milliseconds; who waits longer than this waits for a program that hangs."""


@dataclass(slots=True, eq=False)
class Edit:
    """The sole right to change the gallery. `gallery` is the current one, also after a commit."""

    gallery: Gallery
    _commit: Callable[[Gallery], Gallery]

    def commit(self, gallery: Gallery) -> Gallery:
        """Make `gallery` the next version; see `GalleryStore.commit`."""
        self.gallery = self._commit(gallery)
        return self.gallery


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    """The version that serves (None: nobody was ever enrolled) and what stood in its way."""

    pointed: int | None
    gallery: Gallery | None
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def damaged(self) -> bool:
        return self.gallery is not None and self.gallery.version != self.pointed


class GalleryStore:
    """The versions of one gallery in a directory. Threads and processes may share it.

    `keep_versions` counts the current one. `key` is the file with the device's key, by default `device.key`
    beside the directory, made at first use if `make_key`. `set_aside` counts the versions that this store
    found unreadable.

    Raises:
        ConfigError: keep_versions is less than 1.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep_versions: int,
        key: Path | None = None,
        make_key: bool = True,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = utc_now,
        lock_timeout_s: float = LOCK_TIMEOUT_S,
    ) -> None:
        if keep_versions < 1:
            raise ConfigError(f"gallery.keep_versions: {keep_versions} must be 1 or more")
        self.set_aside = 0
        self._files = VersionFiles(directory)
        self._vault = Vault(self._files, key or directory.parent / "device.key", make_key=make_key)
        self._erasure = Erasure(self._files, self._vault, now)
        self._keep_versions = keep_versions
        self._clock = clock
        self._lock_timeout_s = lock_timeout_s

    def current_version(self) -> int:
        """Return the version that the pointer names, 0 where there is none. Cheap enough to be polled.

        Raises:
            GalleryError: The directory cannot be read.
        """
        return self._files.pointed() or 0

    def versions(self) -> list[int]:
        """Return the versions that are kept, rising."""
        return self._files.versions()

    def enrolled_with(self) -> str | None:
        """Return the model id of the current gallery's templates, None where there are none.

        Raises:
            GalleryError: There is a gallery, but no version of it can be read.
        """
        gallery = self._find().gallery
        return gallery.model_id if gallery is not None and gallery.size else None

    def load(self, model_id: str, dim: int | None = None) -> Gallery:
        """Return the current gallery; an empty one of version 0 where nobody was ever enrolled.

        A version that cannot be read is set aside, and the one before it becomes the current one. Where
        that is impossible just now (a read-only disk, another process at work) it serves all the same.

        Raises:
            ModelMismatchError: The gallery was enrolled with another embedder than `model_id`.
            GalleryError: There is a gallery, but no version of it can be read.
        """
        found = self._find()
        if found.damaged:
            try:
                with self._files.locked(0, self._clock):
                    found = self._mend()
            except GalleryError as error:
                log.warning("the damaged gallery cannot be mended now: %s", error)
        return self._of_model(found.gallery, model_id, dim)

    def commit(self, gallery: Gallery) -> Gallery:
        """Make `gallery` the current version and return it with its number, higher than any before.

        Subjects that it does not have any more are erased from the versions that are kept, too.

        Raises:
            GalleryError: The current version is not the one that `gallery` was made from, or the disk is
                full or read-only. The current version stays.
            ErasureOwedError: It is current, but who was removed is still in older versions.
        """
        self._files.prepare()
        with self._files.locked(self._lock_timeout_s, self._clock):
            return self._commit(gallery)

    def erase_owed(self) -> None:
        """Erase whoever is still in older versions because it failed when they were removed.

        Raises:
            ErasureOwedError: It fails again.
            GalleryError: The gallery cannot be read, or somebody else changes it.
        """
        if not self._erasure.owed:
            return
        with self._files.locked(self._lock_timeout_s, self._clock):
            gallery = self._find().gallery
            if gallery is not None:
                self._erasure.settle(gallery)

    @contextmanager
    def edit(self, model_id: str, dim: int | None = None) -> Iterator[Edit]:
        """Hold the lock while the body makes the next version out of the current one.

        Raises:
            ModelMismatchError, GalleryError: As `load` and `commit`, or somebody else holds the lock.
        """
        self._files.prepare()
        with self._files.locked(self._lock_timeout_s, self._clock):
            yield Edit(self._of_model(self._mend().gallery, model_id, dim), self._commit)

    def roll_back(self) -> int:
        """Make the version before the current one current again and return it.

        The versions above stay until the next commit, which takes a number higher than all of them.

        Raises:
            GalleryError: There is none that can be read.
        """
        self._files.prepare()
        with self._files.locked(self._lock_timeout_s, self._clock):
            current = self.current_version()
            for version in reversed([version for version in self.versions() if version < current]):
                try:
                    self._vault.read(version)
                except GalleryIntegrityError as error:
                    self._set_aside(version, str(error))
                else:
                    self._files.point(version)
                    return version
            raise GalleryError(f"{self._files.directory}: no version before {current} is kept")

    def _commit(self, gallery: Gallery) -> Gallery:
        current = self.current_version()
        if gallery.version != current:
            raise GalleryError(
                f"{self._files.directory}: the gallery changed meanwhile (from version {gallery.version} to "
                f"{current}); repeat the change"
            )
        version = 1 + max((current, *self.versions(), *self._files.set_aside_versions()))
        committed = replace(gallery, version=version)
        self._erasure.owe(current, self._before(current), committed)
        self._vault.write(committed)
        try:
            self._files.point(version)
        except GalleryError:
            if self._files.pointed() != version:
                self._files.remove(version)
            raise
        self._prune(current, version)
        self._erasure.settle(committed)
        return committed

    def _before(self, current: int) -> Gallery | None:
        """Return what serves until now; None where it cannot be read."""
        try:
            return self._find().gallery or Gallery.empty("none")
        except GalleryIntegrityError:
            return None

    def _prune(self, previous: int, current: int) -> None:
        """Remove what was rolled back from, and all but the newest versions."""
        versions = self.versions()
        abandoned = [version for version in versions if previous < version < current]
        kept = [version for version in versions if version not in abandoned]
        old = kept[: -self._keep_versions] + self._files.set_aside_versions()[: -self._keep_versions]
        try:
            for version in abandoned + old:
                self._files.remove(version)
        except GalleryError as error:
            log.warning("old gallery versions are still there: %s", error)

    def _find(self) -> _Found:
        """Find the version that serves, without changing anything.

        That is the one which the pointer names; where it cannot be read the newest good one before it;
        where the pointer is lost the newest good one.
        """
        while True:
            pointed = self._files.pointed()
            found = self._find_from(pointed)
            if found.gallery is not None and found.gallery.version == pointed:
                return found
            if self._files.pointed() == pointed:
                break  # else a commit went by, and perhaps pruned what was looked for
        if found.gallery is None and (pointed or found.unreadable or self._files.set_aside_versions()):
            reason = next(iter(found.unreadable.values()), "all versions were set aside")
            raise GalleryIntegrityError(
                f"{self._files.directory}: no version of the gallery can be read ({reason}); restore a "
                "backup or move the directory away and enrol again"
            )
        return found

    def _find_from(self, pointed: int | None) -> _Found:
        unreadable: dict[int, str] = {}
        for version in self._candidates(pointed):
            try:
                return _Found(pointed, self._vault.read(version), unreadable)
            except FileNotFoundError:
                unreadable[version] = "it is missing"
            except GalleryIntegrityError as error:
                unreadable[version] = str(error)
        return _Found(pointed, None, unreadable)

    def _candidates(self, pointed: int | None) -> Iterator[int]:
        if pointed is not None:
            yield pointed
        yield from reversed([v for v in self._files.versions() if pointed is None or v < pointed])

    def _mend(self) -> _Found:
        """Find the version that serves and make the pointer say so. The lock is held."""
        found = self._find()
        if found.gallery is not None and found.damaged:
            for version, reason in found.unreadable.items():
                self._set_aside(version, reason)
            self._files.point(found.gallery.version)
            log.warning("the pointer was mended", extra={"gallery_version": found.gallery.version})
        return found

    def _set_aside(self, version: int, reason: str) -> None:
        self._files.set_aside(version)
        self.set_aside += 1
        log.warning("gallery version %d was set aside: %s", version, reason)

    def _of_model(self, gallery: Gallery | None, model_id: str, dim: int | None) -> Gallery:
        if gallery is None or not gallery.size:
            return Gallery.empty(model_id, gallery.version if gallery else 0, dim or 0)
        if gallery.model_id != model_id or dim not in (None, gallery.dim):
            raise ModelMismatchError(
                f"{self._files.directory}: gallery version {gallery.version} was enrolled with "
                f"{gallery.model_id!r}, dimension {gallery.dim}; the embedder is {model_id!r}, dimension "
                f"{dim or 'unknown'}; set recognition.embedder back or move the directory away and "
                "enrol again"
            )
        return gallery
