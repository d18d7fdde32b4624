"""Which version of a gallery serves, and how a damaged one gives way to the last that is good."""

import logging
from collections.abc import Iterator
from dataclasses import dataclass, field

from edge.core.errors import GalleryIntegrityError
from edge.gallery.gallery import Gallery
from edge.gallery.store.vault import Vault
from edge.gallery.store.versions import VersionFiles

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class ServingState:
    """The version that serves (None: nobody was ever enrolled) and what stood in its way."""

    pointed: int | None
    gallery: Gallery | None
    unreadable: dict[int, str] = field(default_factory=dict)

    @property
    def damaged(self) -> bool:
        """Whether the pointer names another version, or none."""
        return self.gallery is not None and self.gallery.version != self.pointed


class ServingVersion:
    """Finds the version that serves in one directory. `set_aside` counts what it found unreadable."""

    def __init__(self, files: VersionFiles, vault: Vault) -> None:
        self.set_aside = 0
        self._files = files
        self._vault = vault

    def find(self) -> ServingState:
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

    def mend(self) -> ServingState:
        """Find the version that serves and make the pointer say so. The lock is held."""
        found = self.find()
        if found.gallery is not None and found.damaged:
            for version, reason in found.unreadable.items():
                self._set_aside(version, reason)
            self._files.point(found.gallery.version)
            log.warning("the pointer was mended", extra={"gallery_version": found.gallery.version})
        return found

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
