"""Which version of a gallery serves, and how a damaged one gives way to the last that is good.

That one grants no more than the damaged one did (`rights`).
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.gallery.gallery import Gallery
from edge.gallery.store.rights import Fallen, Rights
from edge.gallery.store.vault import Vault
from edge.gallery.store.versions import VersionFiles

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ServingState:
    """The version that serves (None: nobody was ever enrolled) and what stood in its way."""

    pointed: int | None
    gallery: Gallery | None
    unreadable: dict[int, str] = field(default_factory=dict)
    restricted: bool = False
    """Whether `gallery` grants less than its version holds, because a newer one did."""

    @property
    def damaged(self) -> bool:
        """Whether the pointer names another version, or none."""
        return self.gallery is not None and self.gallery.version != self.pointed


class ServingVersion:
    """Finds the version that serves in one directory. `set_aside` counts what it found unreadable."""

    def __init__(self, files: VersionFiles, vault: Vault, rights: Rights) -> None:
        self.set_aside = 0
        self._files = files
        self._vault = vault
        self._rights = rights

    def find(self) -> ServingState:
        """Find the version that serves, without changing anything.

        That is the one which the pointer names; where it cannot be read the newest good one before it, with
        no more rights than the newest granted; where the pointer is lost the newest good one.
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
        return self._restricted(found)

    def mend(self) -> ServingState:
        """Find the version that serves and make the pointer say so. The lock is held.

        Where it may grant less than it holds, what it may grant becomes a version of its own.
        """
        found = self.find()
        if found.gallery is None or not found.damaged:
            return found
        gallery, source = found.gallery, found.gallery.version
        if found.restricted:
            gallery = replace(gallery, version=self._files.next_version())
            self._vault.write(gallery)
        for version, reason in found.unreadable.items():
            self._set_aside(version, reason)
        self._files.point(gallery.version)
        log.warning("the pointer was mended", extra={"gallery_version": gallery.version})
        if found.unreadable:
            try:
                self._rights.fell(
                    Fallen(version=gallery.version, source=source, lost=tuple(sorted(found.unreadable)))
                )
            except GalleryError as error:
                log.warning("that an older gallery serves is not remembered: %s", error)
        return ServingState(gallery.version, gallery, found.unreadable, found.restricted)

    def _restricted(self, found: ServingState) -> ServingState:
        """Return the same with no more rights than the newest version granted, which could not be read."""
        gallery = found.gallery
        if gallery is None or not found.damaged:
            return found
        newer = [version for version in self._files.set_aside_versions() if version > gallery.version]
        if not found.unreadable and not newer:
            return found  # only the pointer was lost
        restricted = self._rights.restricted(gallery, found.pointed)
        same = restricted.subjects == gallery.subjects and restricted.not_after == gallery.not_after
        return found if same else replace(found, gallery=restricted, restricted=True)

    def _find_from(self, pointed: int | None) -> ServingState:
        unreadable: dict[int, str] = {}
        for version in self._candidates(pointed):
            try:
                return ServingState(pointed, self._vault.read(version), unreadable)
            except FileNotFoundError:
                unreadable[version] = "it is missing"
            except GalleryIntegrityError as error:
                unreadable[version] = str(error)
        return ServingState(pointed, None, unreadable)

    def _candidates(self, pointed: int | None) -> Iterator[int]:
        if pointed is not None:
            yield pointed
        yield from reversed([v for v in self._files.versions() if pointed is None or v < pointed])

    def _set_aside(self, version: int, reason: str) -> None:
        self._files.set_aside(version)
        self.set_aside += 1
        log.warning("gallery version %d was set aside: %s", version, reason)
