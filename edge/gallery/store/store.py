"""The gallery on disk: the current version, the way to the next one, and the way back.

A new version is written beside the old one and becomes current in one step; what cannot be read is set
aside, and the last good version serves. Nothing is fetched here.
"""

import logging
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from edge.core.clock import utc_now
from edge.core.errors import (
    ConfigError,
    ErasureOwedError,
    GalleryError,
    GalleryIntegrityError,
    ModelMismatchError,
)
from edge.core.types import Subject
from edge.gallery.gallery import Gallery, Provenance
from edge.gallery.store.erasure import Erasure
from edge.gallery.store.rights import Fallen, Rights, regained
from edge.gallery.store.serving import ServingVersion
from edge.gallery.store.vault import Vault
from edge.gallery.store.versions import VersionFiles

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
        owed = self.commit_owing(gallery)
        if owed is not None:
            raise owed
        return self.gallery

    def commit_owing(self, gallery: Gallery) -> ErasureOwedError | None:
        """As `commit`, for whoever has more to do; return what is left to be erased."""
        try:
            self.gallery = self._commit(gallery)
        except ErasureOwedError as owed:
            self.gallery = replace(gallery, version=owed.version)
            return owed
        return None


@dataclass(frozen=True, slots=True)
class GalleryChange:
    """What a version has that the kept one before it had not; sorted ids.

    Who was removed is in no version any more: `removed` counts them. `gone` are in the version before, which
    was rolled back from, or are not in the gallery that was synchronised.
    """

    enrolled: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    removed: int = 0


@dataclass(frozen=True, slots=True)
class KeptVersion:
    """A version on the disk, made `at` (UTC); size and model are None where it cannot be read.

    `change` is None where the version before is not kept or one of the two cannot be read.
    """

    version: int
    at: datetime | None
    size: int | None
    model_id: str | None
    serves: bool
    change: GalleryChange | None = None


class GalleryStore:
    """The versions of one gallery in a directory. Threads and processes may share it.

    `keep_versions` counts the current one. `key` is the file with the device's key, by default `device.key`
    beside the directory, made at first use if `make_key`.

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
        self._files = VersionFiles(directory)
        self._vault = Vault(self._files, key or directory.parent / "device.key", make_key=make_key)
        self._rights = Rights(self._files, self._vault)
        self._serving = ServingVersion(self._files, self._vault, self._rights)
        self._erasure = Erasure(self._files, self._vault, now)
        self._keep_versions = keep_versions
        self._clock = clock
        self._lock_timeout_s = lock_timeout_s

    @property
    def set_aside(self) -> int:
        """How many versions this store found unreadable and set aside."""
        return self._serving.set_aside

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
        gallery = self._serving.find().gallery
        return gallery.model_id if gallery is not None and gallery.size else None

    def load(self, model_id: str, dim: int | None = None) -> Gallery:
        """Return the current gallery; an empty one of version 0 where nobody was ever enrolled.

        A version that cannot be read is set aside, and the one before it becomes the current one, with no
        more rights than the newest granted. Where that is impossible just now (a read-only disk, another
        process at work) it serves all the same.

        Raises:
            ModelMismatchError: The gallery was enrolled with another embedder than `model_id`.
            GalleryError: There is a gallery, but no version of it can be read.
        """
        found = self._serving.find()
        if found.damaged:
            try:
                with self._files.locked(0, self._clock):
                    found = self._serving.mend()
            except GalleryError as error:
                log.warning("the damaged gallery cannot be mended now: %s", error)
        elif found.gallery is not None:
            self._keep_rights(found.gallery)
        return self._of_model(found.gallery, model_id, dim)

    def fallen(self) -> Fallen | None:
        """Return how what serves took the place of what cannot be read, None where it was committed.

        Raises:
            GalleryError: The directory cannot be read.
        """
        return self._rights.fallen(self.current_version())

    def regained(self, version: int) -> list[str]:
        """Return who would have rights by a kept version that it does not have now.

        Raises:
            GalleryError: There is no such version, or it cannot be read.
        """
        now = self._serving.find().gallery
        return [] if now is None else regained(now, self._kept(version))

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

    def erase_owed(self, also: Collection[str] | None = ()) -> bool:
        """Erase whoever is still in older versions because it failed when they were removed.

        `also` (None: all) go as well where only other versions have them, which were rolled back from.

        Returns:
            Whether one of `also` may have been there.

        Raises:
            ErasureOwedError: It fails, or fails again.
            GalleryError: The gallery cannot be read, or somebody else changes it.
        """
        if not self.versions() or not (self._erasure.owed or also is None or also):
            return False
        with self._files.locked(self._lock_timeout_s, self._clock):
            gallery = self._serving.find().gallery
            if gallery is None:
                return False
            found = self._erasure.owe_also(gallery, also)
            self._erasure.settle(gallery)
            return found

    @contextmanager
    def edit(self, model_id: str, dim: int | None = None) -> Iterator[Edit]:
        """Hold the lock while the body makes the next version out of the current one.

        Raises:
            ModelMismatchError, GalleryError: As `load` and `commit`, or somebody else holds the lock.
        """
        self._files.prepare()
        with self._files.locked(self._lock_timeout_s, self._clock):
            yield Edit(self._of_model(self._serving.mend().gallery, model_id, dim), self._commit)

    def history(self) -> list[KeptVersion]:
        """Return the versions that are kept, rising, and which of them serves.

        Raises:
            GalleryError: The directory or the device's key cannot be read.
        """
        found = self._serving.find().gallery
        kept, removed = [], self._erasure.removed_by_version()
        before: Gallery | None = Gallery.empty("none")
        for version in self._files.versions():
            at, serves = self._files.written_at(version), found is not None and found.version == version
            try:
                gallery = self._vault.read(version)
            except FileNotFoundError:
                continue
            except GalleryIntegrityError:
                kept.append(KeptVersion(version, at, None, None, serves))
                before = None
                continue
            change = None
            if before is not None and (kept or version == 1):
                change = _change(before, gallery, removed.get(version, 0))
            kept.append(KeptVersion(version, at, gallery.size, gallery.model_id, serves, change))
            before = gallery
        return kept

    def roll_back(self, version: int, returning: Collection[str] | None = None) -> Gallery:
        """Make what a kept version holds the next version, and return it.

        Who was removed since is not in it: who is removed is in no version. Who was enrolled since stays in
        the versions above, which are the way forward again, until removed by name (`erase_owed`). `returning`
        is who may have rights again (`regained`); None: whoever.

        Raises:
            GalleryError: There is no such version, or it serves already, or cannot be read, or gives rights
                back to somebody else.
            ErasureOwedError: Somebody who was removed is still in kept versions; nothing has changed.
        """
        self._files.prepare()
        with self._files.locked(self._lock_timeout_s, self._clock):
            current = self._serving.mend().gallery
            if current is None or version == current.version:
                raise GalleryError(f"{self._files.directory}: version {version} is not one to go back to")
            self._erasure.settle(current)
            gallery = self._kept(version)
            if returning is not None and set(regained(current, gallery)) - set(returning):
                raise GalleryError(
                    f"{self._files.directory}: the gallery changed meanwhile; look again who has rights back"
                )
            return self._commit(replace(gallery, version=current.version), removing=False)

    def _kept(self, version: int) -> Gallery:
        try:
            return self._vault.read(version)
        except FileNotFoundError:
            kept = ", ".join(map(str, self.versions()))
            raise GalleryError(
                f"{self._files.directory}: version {version} is not kept; there are: {kept}"
            ) from None

    def _keep_rights(self, gallery: Gallery) -> None:
        """Begin to remember what the newest version grants, where an earlier release did not."""
        if self._rights.known():
            return
        try:
            with self._files.locked(0, self._clock):
                if self.current_version() == gallery.version:
                    self._rights.keep(gallery)
        except GalleryError as error:
            log.warning("what the gallery grants is not remembered: %s", error)

    def _commit(self, gallery: Gallery, *, removing: bool = True) -> Gallery:
        current = self.current_version()
        if gallery.version != current:
            raise GalleryError(
                f"{self._files.directory}: the gallery changed meanwhile (from version {gallery.version} to "
                f"{current}); repeat the change"
            )
        version = self._files.next_version()
        committed, before = replace(gallery, version=version), self._before()
        if removing:
            self._erasure.owe(current, before, committed)
        self._rights.note(current, before, committed)
        self._vault.write(committed)
        try:
            self._files.point(version)
        except GalleryError:
            if self._files.pointed() != version:
                self._files.remove(version)
            raise
        self._prune(current, version)
        try:
            self._erasure.settle(committed)
        except ErasureOwedError as owed:
            raise ErasureOwedError(f"the change is made, but {owed}", owed.version) from None
        return committed

    def _before(self) -> Gallery | None:
        """Return what serves until now; None where it cannot be read."""
        try:
            return self._serving.find().gallery or Gallery.empty("none")
        except GalleryIntegrityError:
            return None

    def _prune(self, previous: int, current: int) -> None:
        """Remove all but the newest versions, and what was written but never came into force.

        `previous` was the current version until now: what lies between the two was left by a power cut.
        """
        versions = self.versions()
        abandoned = [version for version in versions if previous < version < current]
        kept = [version for version in versions if version not in abandoned]
        old = kept[: -self._keep_versions] + self._files.set_aside_versions()[: -self._keep_versions]
        try:
            for version in abandoned + old:
                self._files.remove(version)
        except GalleryError as error:
            log.warning("old gallery versions are still there: %s", error)

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


def _change(before: Gallery, after: Gallery, removed: int) -> GalleryChange:
    """Return what one version has that the one before it had not; `removed`: how many were erased by it."""
    old, new = _described(before), _described(after)
    return GalleryChange(
        enrolled=tuple(sorted(new.keys() - old.keys())),
        changed=tuple(sorted(each for each in new.keys() & old.keys() if new[each] != old[each])),
        gone=tuple(sorted(old.keys() - new.keys())),
        removed=removed,
    )


def _described(gallery: Gallery) -> dict[str, tuple[Subject, tuple[Provenance, ...]]]:
    """Return each subject by id, and what is known of its templates."""
    spans = zip(gallery.subjects, gallery.starts, gallery.counts, strict=True)
    return {each.subject_id: (each, gallery.provenance[at : at + count]) for each, at, count in spans}


def install(store: GalleryStore, gallery: Gallery) -> tuple[int, str | None]:
    """Put a gallery in force that somebody else made; return its version here, and what is left to be erased.

    That is said as the reason why it could not be erased, None where nothing is left.

    Raises:
        GalleryError: It cannot be put in force.
    """
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
