"""Who is removed is removed: from every version that is kept, and the keys that opened the old files go.

A mark on the disk says that this is owed until it is done, so that a power cut delays it and loses nothing.
A line of the audit says what was erased: from which versions, and each id as a hash, which proves an
erasure to whoever knows the id and tells nobody else.
"""

import hashlib
import json
import logging
import os
from collections.abc import Callable
from datetime import datetime

from edge.errors import GalleryError, GalleryIntegrityError
from edge.gallery.gallery import Gallery
from edge.gallery.vault import Vault
from edge.gallery.versions import MODE, VersionFiles

log = logging.getLogger(__name__)

OWED = "erasing"
AUDIT = "erasures.jsonl"
HASH_CHARS = 16


class Erasure:
    """Erases from the kept versions whoever is not enrolled any more. The lock is held by the caller."""

    def __init__(self, files: VersionFiles, vault: Vault, now: Callable[[], datetime]) -> None:
        self._files = files
        self._vault = vault
        self._now = now

    def owe(self, before: Gallery | None, after: Gallery) -> None:
        """Note before a commit that somebody goes by it, or may: `before` is None where nobody can read it.

        Raises:
            GalleryError: It cannot be noted; the commit must not happen.
        """
        if before is None or _ids(before) - _ids(after):
            self._files.mark(OWED)

    def settle(self, current: Gallery) -> None:
        """Do what is owed.

        Raises:
            GalleryError: Something cannot be erased; it is still owed and done with the next change.
        """
        if not self._files.marked(OWED):
            return
        try:
            self._erase(current)
        except GalleryError as error:
            raise GalleryError(
                "the change is made, but who was removed is still in older versions: "
                f"{error}; the next change erases it"
            ) from None

    def _erase(self, current: Gallery) -> None:
        enrolled, gone, versions = _ids(current), set(), []
        for version in self._files.versions():
            if version == current.version:
                continue
            left_over = self._left_over(version, enrolled)
            if left_over:
                gone |= left_over
                versions.append(version)
        for version in self._files.set_aside_versions():
            self._files.remove(version)  # nobody can tell who is in what cannot be read
        if gone:
            self._note(current.version, versions, gone)
            log.info("subjects erased", extra={"subjects": len(gone), "versions": len(versions)})
        self._files.unmark(OWED)

    def _left_over(self, version: int, enrolled: set[str]) -> set[str]:
        """Write a version anew without those who are not enrolled; return who that was."""
        try:
            gallery = self._vault.read(version)
        except FileNotFoundError:
            return set()
        except GalleryIntegrityError:
            self._files.remove(version)
            return set()
        left_over = _ids(gallery) - enrolled
        if left_over:
            self._vault.write(gallery.without_subjects(left_over))
        return left_over

    def _note(self, current: int, versions: list[int], gone: set[str]) -> None:
        line = {
            "at": self._now().isoformat(timespec="seconds"),
            "gallery_version": current,
            "rewritten": versions,
            "subjects": sorted(hashlib.sha256(each.encode()).hexdigest()[:HASH_CHARS] for each in gone),
        }
        path = self._files.directory / AUDIT
        try:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(path, flags, MODE), "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise GalleryError(f"{path}: the erasure cannot be noted: {error.strerror}") from None


def _ids(gallery: Gallery) -> set[str]:
    return {subject.subject_id for subject in gallery.subjects}
