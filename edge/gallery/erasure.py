"""Who is removed is removed: from every version that is kept, and the keys that opened the old files go.

A mark on the disk says that this is owed until it is done, so that a power cut delays it and loses nothing.
A line of the audit says what was erased: from which versions, and each id as a hash, which proves an
erasure to whoever knows the id and tells nobody else.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

from edge import safefile
from edge.errors import ErasureOwedError, FileError, GalleryError, GalleryIntegrityError
from edge.gallery.gallery import Gallery
from edge.gallery.vault import Vault
from edge.gallery.versions import MODE, VersionFiles

log = logging.getLogger(__name__)

OWED = "erasing"
AUDIT = "erasures.jsonl"
HASH_CHARS = 16
MAX_MARK_BYTES = 64 << 20
"""A million removals at once."""


class Erasure:
    """Erases from the kept versions whoever is not enrolled any more. The lock is held by the caller."""

    def __init__(self, files: VersionFiles, vault: Vault, now: Callable[[], datetime]) -> None:
        self._files = files
        self._vault = vault
        self._now = now

    @property
    def owed(self) -> bool:
        """Whether somebody may still be in a version that is kept."""
        return self._mark.exists()

    def owe(self, serving: int, before: Gallery | None, after: Gallery) -> None:
        """Note before a commit that somebody goes by it, or may: `before` is None where nobody can read it.

        `serving` is the version that serves until then.

        Raises:
            GalleryError: It cannot be noted; the commit must not happen.
        """
        gone = set() if before is None else _ids(before) - _ids(after)
        if before is not None and not gone and not self.owed:
            return
        # What was noted for a commit that never came into force is void.
        noted = {name: version for name, version in self._noted().items() if version <= serving}
        noted |= {subject_hash(each): after.version for each in gone}
        try:
            safefile.write_whole(self._mark, json.dumps({"removed": noted}).encode())
        except FileError as error:
            raise GalleryError(f"nobody is removed, because that cannot be noted: {error}") from None

    def settle(self, current: Gallery) -> None:
        """Do what is owed.

        Raises:
            ErasureOwedError: Something cannot be erased; it is still owed, and tried again with every change.
        """
        if not self.owed:
            return
        try:
            self._erase(current)
        except GalleryError as error:
            raise ErasureOwedError(
                "the change is made, but who was removed is still in older versions: "
                f"{error}; the next change or synchronisation tries again",
                current.version,
            ) from None

    @property
    def _mark(self) -> Path:
        return self._files.directory / OWED

    def _noted(self) -> dict[str, int]:
        """Return hashes of who was removed, each with the version that came into force without it."""
        try:
            said = json.loads(safefile.read_bounded(self._mark, MAX_MARK_BYTES) or b"{}")
            return {str(name): int(version) for name, version in said.get("removed", {}).items()}
        except (FileError, ValueError, TypeError, AttributeError):
            return {}

    def _erase(self, current: Gallery) -> None:
        enrolled, rewritten = _ids(current), []
        removed = {name: at for name, at in self._noted().items() if at <= current.version}
        hashes = set(removed)
        self._files.shred_replaced()
        for version in self._files.versions():
            if version == current.version:
                continue
            left_over = self._left_over(version, enrolled, removed)
            if left_over:
                hashes |= {subject_hash(each) for each in left_over}
                rewritten.append(version)
        for version in self._files.set_aside_versions():
            self._files.remove(version)  # nobody can tell who is in what cannot be read
        self._files.settled()
        if hashes:
            self._note(current.version, rewritten, hashes)
            log.info("subjects erased", extra={"subjects": len(hashes), "versions": len(rewritten)})
        try:
            self._mark.unlink(missing_ok=True)
        except OSError as error:
            raise GalleryError(f"{self._mark}: cannot be deleted: {error.strerror}") from None
        self._files.settled()

    def _left_over(self, version: int, enrolled: set[str], removed: Mapping[str, int]) -> set[str]:
        """Write a version anew without those who are not enrolled, or are again; return who that was."""
        try:
            gallery = self._vault.read(version)
        except FileNotFoundError:
            return set()
        except GalleryIntegrityError:
            self._files.remove(version)
            return set()
        left_over = {
            each
            for each in _ids(gallery)
            if each not in enrolled or version < removed.get(subject_hash(each), 0)
        }
        if left_over:
            self._vault.write(gallery.without_subjects(left_over))
        return left_over

    def _note(self, current: int, versions: list[int], hashes: set[str]) -> None:
        line = {
            "at": self._now().isoformat(timespec="seconds"),
            "gallery_version": current,
            "rewritten": versions,
            "subjects": sorted(hashes),
        }
        try:
            safefile.append_line(self._files.directory / AUDIT, json.dumps(line), MODE)
        except FileError as error:
            raise GalleryError(f"the erasure cannot be noted: {error}") from None


def subject_hash(subject_id: str) -> str:
    """Return what audits call a subject: it can be looked up by who knows the id, and tells nobody else."""
    return hashlib.sha256(subject_id.encode()).hexdigest()[:HASH_CHARS]


def _ids(gallery: Gallery) -> set[str]:
    return {subject.subject_id for subject in gallery.subjects}
