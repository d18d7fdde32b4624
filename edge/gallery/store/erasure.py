"""Who is removed is removed: from every version that is kept, and the keys that opened the old files go.

A mark on the disk says that this is owed until it is done, so that a power cut delays it and loses nothing.
A line of the audit says what was erased: from which versions, and each id as a hash, which proves an
erasure to whoever knows the id and tells nobody else. By these hashes a subject that was removed here does
not come back through the remote gallery, which may still hold it.
"""

import json
import logging
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from edge.core import files
from edge.core.errors import ErasureOwedError, FileError, GalleryError, GalleryIntegrityError
from edge.gallery.format.removed import HASH_CHARS, subject_hash
from edge.gallery.gallery import Gallery
from edge.gallery.store.vault import Vault
from edge.gallery.store.versions import VersionFiles

log = logging.getLogger(__name__)

OWED = "erasing"
AUDIT = "erasures.jsonl"
"""The mark and the audit, in the directory of the versions."""

HASH = re.compile(rb'"([0-9a-f]{%d})"' % HASH_CHARS)
"""Not parsed as JSON: a line that a power cut left unfinished counts, too."""

ANYBODY = "*"
"""In the mark, in the place of a hash: whoever is not enrolled any more."""

MAX_BYTES = 64 << 20
"""A million removals at once, or some million one after the other in the audit."""


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
        gone = set() if before is None else before.ids - after.ids
        if before is not None and not gone and not self.owed:
            return
        # What was noted for a commit that never came into force is void.
        noted = {name: version for name, version in self._noted().items() if version <= serving}
        noted |= {subject_hash(each): after.version for each in gone}
        if before is None:
            noted[ANYBODY] = after.version
        if noted:
            self._write_mark(noted)
        else:
            self._unmark()

    def owe_also(self, current: Gallery, subject_ids: Collection[str] | None) -> bool:
        """Note that these (None: all) are to go from the kept versions where `current` has none of them.

        Nobody is noted who is in no version: it would count as removed here. Returns whether one may be.

        Raises:
            GalleryError: It cannot be noted.
        """
        if subject_ids is None:
            also = {ANYBODY}
        else:
            held: set[str] = set()
            for version in self._files.versions():
                with suppress(FileNotFoundError, GalleryIntegrityError):
                    held |= self._vault.read(version).ids
            also = {subject_hash(each) for each in (held & set(subject_ids)) - current.ids}
        if also:
            self._write_mark(self._noted() | dict.fromkeys(also, current.version))
        return bool(also)

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
                f"who was removed is still in older versions: {error}; the next change or synchronisation "
                "tries again",
                current.version,
            ) from None

    def removed_by_version(self) -> dict[int, int]:
        """Return how many subjects were erased when a version came into force, as the audit says.

        Lines that a power cut left unfinished say nothing.

        Raises:
            FileError: The audit cannot be read.
        """
        counts: dict[int, int] = {}
        for line in (files.read_bounded(self._files.directory / AUDIT, MAX_BYTES) or b"").splitlines():
            try:
                said = json.loads(line)
                version, number = int(said["gallery_version"]), len(said["subjects"])
            except (ValueError, TypeError, KeyError, RecursionError):
                continue
            counts[version] = counts.get(version, 0) + number
        return counts

    @property
    def _mark(self) -> Path:
        return self._files.directory / OWED

    def _noted(self) -> dict[str, int]:
        """Return hashes of who was removed, each with the version that came into force without it.

        A mark that names nobody, or cannot be read, is about anybody.
        """
        anybody = {ANYBODY: 0}
        try:
            data = files.read_bounded(self._mark, MAX_BYTES)
            if data is None:
                return {}
            said = json.loads(data)
            return {str(name): int(version) for name, version in said["removed"].items()} or anybody
        except (FileError, ValueError, TypeError, AttributeError, KeyError):
            return anybody

    def _write_mark(self, noted: Mapping[str, int]) -> None:
        try:
            files.write_whole(self._mark, json.dumps({"removed": noted}).encode())
        except FileError as error:
            raise GalleryError(f"nobody is removed, because that cannot be noted: {error}") from None

    def _unmark(self) -> None:
        try:
            self._mark.unlink(missing_ok=True)
        except OSError as error:
            raise GalleryError(f"{self._mark}: cannot be deleted: {error.strerror}") from None
        self._files.settled()

    def _erase(self, current: Gallery) -> None:
        enrolled, rewritten = current.ids, []
        removed = {name: at for name, at in self._noted().items() if at <= current.version}
        hashes = removed.keys() - {ANYBODY}
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
        self._unmark()

    def _left_over(self, version: int, enrolled: set[str], removed: Mapping[str, int]) -> set[str]:
        """Write a version anew without those who were removed, also if enrolled again; return who that was.

        Who is neither enrolled nor was removed stays: it was rolled back from.
        """
        try:
            gallery = self._vault.read(version)
        except FileNotFoundError:
            return set()
        except GalleryIntegrityError:
            self._files.remove(version)
            return set()
        left_over = {
            each for each in gallery.ids if _is_removed(each, version, removed, enrolled=each in enrolled)
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
            files.append_line(self._files.directory / AUDIT, json.dumps(line))
        except FileError as error:
            raise GalleryError(f"the erasure cannot be noted: {error}") from None


def _is_removed(subject_id: str, version: int, removed: Mapping[str, int], *, enrolled: bool) -> bool:
    """Return whether somebody who is in a version must not be."""
    at = removed.get(subject_hash(subject_id))
    if enrolled:
        return at is not None and version < at
    return at is not None or ANYBODY in removed


class Erased:
    """Whoever was ever removed from galleries in these directories; read again when their files change."""

    def __init__(self, directories: Iterable[Path]) -> None:
        self._paths = tuple(directory / name for directory in directories for name in (AUDIT, OWED))
        self._seen: tuple[tuple[int, int, int], ...] | None = None
        self._hashes: frozenset[bytes] = frozenset()

    def __contains__(self, subject_id: object) -> bool:
        """Return whether a subject was removed.

        Raises:
            FileError: It cannot be read who was.
        """
        seen = tuple(map(_stamp, self._paths))
        if seen != self._seen:
            data = [files.read_bounded(path, MAX_BYTES) or b"" for path in self._paths]
            self._hashes = frozenset(name for each in data for name in HASH.findall(each))
            self._seen = seen
        return subject_hash(str(subject_id)).encode() in self._hashes


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    return found.st_ino, found.st_mtime_ns, found.st_size
