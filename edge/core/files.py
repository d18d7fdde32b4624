"""Files that matter: whole or not there, private where they must be, held by one process, gone when deleted.

State files hold what a part remembers over restarts, as one JSON document that may be absent, damaged, too
large, written by a newer edge, or on a disk that does not give it. What that means is said by whoever
remembers. Galleries are written by `gallery.store.versions`.

Whatever lies in the place of such a file, nobody waits for it: only regular files are opened
(`open_regular`).
"""

import errno
import fcntl
import json
import logging
import os
import stat
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from edge.core.errors import ConfigError, EdgeError, FileError, KeyFileError
from edge.core.text import problems

log = logging.getLogger(__name__)

PRIVATE = 0o600
PUBLIC = 0o644
PRIVATE_DIRECTORY = 0o700
PUBLIC_DIRECTORY = 0o755
PASSABLE_DIRECTORY = 0o711
"""Others may walk through it to what is public below it, and see nothing of it."""

KEY_HEX_CHARS = 64
"""32 bytes, as a line of text: it survives a mail, a password manager and an editor."""

BACKUP = "restore it from a backup"
"""What to do about a key that is gone, where nothing better is known."""

SHRED_BYTES = 4096
"""The head of a sealed file, where its nonce and its keys lie."""

LOCK_PAUSE_S = 0.02
"""Between two tries to take a lock that somebody else holds."""

DAEMON_LOCK = "daemon.lock"

DISK_ERRORS = frozenset({errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT})
"""The disk's fault, not the configuration's: a door starts on such a disk where it has run before."""

MAX_AUDIT_BYTES = 1 << 20
"""A file that has become longer makes room for a new one; the one before it is kept."""

NO_FILE = "not a regular file"
"""What is said of a pipe, a device or a socket in the place of a file."""

SQLITE_SUFFIXES = ("-wal", "-shm", "-journal")
"""Of the files that SQLite keeps beside a database. Source: sqlite.org/tempfiles.html."""

Form = TypeVar("Form", bound=BaseModel)


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = PRIVATE) -> int:
    """Return a descriptor of a regular file, opened with `flags`; `mode` is that of one that is made.

    Never waits: a pipe would block whoever opens it until somebody is at its other end, and a device may
    never end.

    Raises:
        FileNotFoundError: There is none, and `flags` make none.
        OSError: It cannot be opened, or is no regular file.
    """
    descriptor = os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC, mode)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, NO_FILE, str(path))


def read_regular(path: Path, max_bytes: int | None = None) -> bytes:
    """Return what is in a regular file, at most the first `max_bytes`.

    Raises:
        FileNotFoundError: There is none.
        OSError: It cannot be read, or is no regular file.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        return file.read(-1 if max_bytes is None else max_bytes)


def check_database(path: Path) -> None:
    """Accept the place of an SQLite database, and of the files that SQLite keeps beside it.

    SQLite opens them by name: a pipe in the place of its journal blocks it for ever.

    Raises:
        FileError: Something lies there that is no regular file.
    """
    for each in (path, *(path.with_name(path.name + suffix) for suffix in SQLITE_SUFFIXES)):
        try:
            regular = stat.S_ISREG(each.stat().st_mode)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise FileError(f"{each}: {error.strerror}; check the disk and its permissions") from None
        if not regular:
            raise FileError(f"{each}: is not a file; remove it")


def write_whole(path: Path, data: bytes, mode: int = PRIVATE) -> None:
    """Replace `path` by `data` in one step that survives a power cut: the old file or the new one.

    Raises:
        FileError: It cannot be written, and the old one stays; or the new one is there, and not safe from a
            power cut.
    """
    part = path.with_name(f".{path.name}.tmp")
    try:
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)  # whatever the umask says: what is published must be readable
            give_to_owner_of(path.parent, descriptor)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise FileError(f"{path}: cannot be written: {error.strerror}; what was there stays") from None
    try:
        sync_directory(path.parent)
    except OSError as error:
        raise FileError(
            f"{path}: the new one is there, but a power cut may bring the old one back: {error.strerror}"
        ) from None


def append_line(path: Path, line: str, mode: int = PRIVATE) -> None:
    """Append a line, also on the disk; one that a full disk or a power cut left unfinished stands alone.

    Raises:
        FileError: It cannot be written, or only its beginning.
    """
    try:
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW
        with os.fdopen(open_regular(path, flags, mode), "a+b") as file:
            size = file.seek(0, os.SEEK_END)
            torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"
            file.write((b"\n" if torn else b"") + line.encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None


def read_bounded(path: Path, max_bytes: int) -> bytes | None:
    """Return what is in a file, None where there is none.

    Raises:
        FileError: It cannot be read, is no regular file, or is larger than `max_bytes`.
    """
    try:
        data = read_regular(path, max_bytes + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    if len(data) > max_bytes:
        raise FileError(f"{path}: larger than {max_bytes} bytes; this is not the file that belongs here")
    return data


def read_toml(path: Path, max_bytes: int, what: str, refused: type[EdgeError]) -> dict[str, Any]:
    """Return what is in a TOML file that people write; `what` it is stands in messages: "configuration".

    Raises:
        EdgeError: As `refused`: it cannot be read, is larger than `max_bytes`, or is no TOML.
    """
    try:
        text = read_regular(path, max_bytes + 1)
        if len(text) > max_bytes:
            raise refused(f"{path}: larger than {max_bytes} bytes; this is not the {what}")
        return tomllib.loads(text.decode())
    except OSError as error:
        raise refused(f"{path}: cannot read the {what}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise refused(f"{path}: not valid TOML: {error}") from None


def make_private_directory(directory: Path, refused: type[EdgeError] = FileError) -> None:
    """Make a directory that its owner alone may enter, unless there is one; those above it are as usual.

    Raises:
        FileError: It cannot be made; where `refused` names another error, that one.
    """
    try:
        directory.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    except OSError as error:
        raise refused(f"{directory}: cannot be made: {error.strerror}") from None


def make_private(path: Path, *suffixes: str) -> None:
    """Let only its owner read a file, made empty if absent, and those beside it with these suffixes, if any.

    What cannot be done is left: whoever opens the file says why.
    """
    with suppress(OSError):
        os.close(open_regular(path, os.O_WRONLY | os.O_CREAT))
    for each in (path, *(path.with_name(path.name + suffix) for suffix in suffixes)):
        with suppress(OSError):
            if stat.S_IMODE(each.stat().st_mode) & 0o077:
                each.chmod(PRIVATE)


def check_private(path: Path) -> None:
    """Accept a file that only its owner may read, or the group root: so systemd gives a service a credential.

    Raises:
        FileError: Others may read it, too.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror}") from None
    mode = stat.S_IMODE(found.st_mode)
    if mode & (0o077 if found.st_gid else 0o037):
        raise FileError(f"{path}: others may read this key (mode {mode:04o}); run chmod 600 on it")


def give_to_owner_of(directory: Path, file: Path | int) -> None:
    """Let the service read what root wrote for it: a file, or its descriptor, goes to a directory's owner.

    Raises:
        OSError: It cannot be given away.
    """
    if os.geteuid() == 0:
        owner = directory.stat()
        if isinstance(file, int):
            os.fchown(file, owner.st_uid, owner.st_gid)
        else:
            os.chown(file, owner.st_uid, owner.st_gid, follow_symlinks=False)


def sync_directory(directory: Path) -> None:
    """Let names that were made, changed or deleted in a directory survive a power cut.

    Raises:
        OSError: The disk failed.
    """
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_key(path: Path, *keys: bytes) -> None:
    """Write keys of 32 bytes as lines of hexadecimal digits, readable by their owner alone."""
    write_whole(path, b"".join(key.hex().encode() + b"\n" for key in keys))


def read_key(path: Path, advice: str = BACKUP) -> bytes:
    """Return the key of 32 bytes that `write_key` wrote.

    Raises:
        FileError: As `read_keys`.
    """
    return read_keys(path, 1, advice)[0]


def read_keys(path: Path, at_most: int, advice: str = BACKUP) -> tuple[bytes, ...]:
    """Return the keys of 32 bytes in a file, one a line; at least one.

    Raises:
        KeyFileError: It is not there, with `advice`, holds something else, or everybody may read it.
        FileError: The disk does not give it, which may pass.
    """
    try:
        data = read_bounded(path, at_most * 2 * KEY_HEX_CHARS)
        check_private(path)
    except FileError as error:
        cause = error.__context__
        if isinstance(cause, OSError) and cause.errno in DISK_ERRORS:
            raise
        if isinstance(cause, FileNotFoundError):
            if len(path.parts) == 1:
                advice = (
                    "it is a credential of systemd, and this command was started without it; start it with "
                    "systemd/edge-command (deploy/OPERATING.md)"
                )
            raise KeyFileError(f"{path}: there is no key; {advice}") from None
        raise KeyFileError(str(error)) from None
    try:
        keys = tuple(bytes.fromhex(line) for line in (data or b"").decode("ascii").split())
    except ValueError:
        keys = ()
    if not 1 <= len(keys) <= at_most or {len(key) * 2 for key in keys} != {KEY_HEX_CHARS}:
        lines = "" if at_most == 1 else f", or up to {at_most} of them, one a line"
        raise KeyFileError(f"{path}: this is not a key of {KEY_HEX_CHARS} hexadecimal digits{lines}")
    return keys


def shred(path: Path) -> None:
    """Overwrite the head of a sealed file, without which the rest is worth nothing, and delete it.

    One that is gone is deleted.

    Raises:
        FileError: It cannot be overwritten or deleted.
    """
    try:
        overwrite_head(open_to_shred(path))
        path.unlink(missing_ok=True)
    except OSError as error:
        raise FileError(f"{path}: cannot be deleted: {error.strerror}") from None


def open_to_shred(path: Path) -> int | None:
    """Return a descriptor of a file that is about to lose its name; None where there is no regular file.

    Raises:
        OSError: It cannot be opened for writing.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return None
        return open_regular(path, os.O_WRONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def overwrite_head(descriptor: int | None) -> None:
    """Overwrite the head of an open file, also on the disk, and close it.

    Raises:
        OSError: It cannot be overwritten; it is closed all the same.
    """
    if descriptor is None:
        return
    try:
        os.pwrite(descriptor, bytes(min(SHRED_BYTES, os.fstat(descriptor).st_size)), 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def take_lock(
    descriptor: int, timeout_s: float = 0.0, monotonic: Callable[[], float] = time.monotonic
) -> bool:
    """Lock an open file for this process, waiting for whoever holds it; closing the file lets go of it.

    Returns:
        False where somebody else holds it for longer than `timeout_s`.

    Raises:
        OSError: It cannot be locked here.
    """
    started_s = monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() - started_s >= timeout_s:
                return False
            time.sleep(LOCK_PAUSE_S)
        else:
            return True


@contextmanager
def sole_user(path: Path, timeout_s: float, monotonic: Callable[[], float]) -> Iterator[None]:
    """Hold the lock file `path` alone among processes; its directory is made if absent.

    Raises:
        FileError: Somebody else holds it for longer than `timeout_s`, or it cannot be written.
    """
    try:
        path.parent.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW
        lock = os.fdopen(open_regular(path, flags), "wb")
        give_to_owner_of(path.parent, lock.fileno())
    except OSError as error:
        raise FileError(f"{path}: cannot be written: {error.strerror}") from None
    with lock:
        if not take_lock(lock.fileno(), timeout_s, monotonic):
            raise FileError(f"{path}: another process is at it; try again later")
        yield


@contextmanager
def sole_daemon(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process while the body runs; it is made if absent.

    Two daemons on one would publish every visit twice and tear the outbox apart.

    Where a daemon has run before and the disk has become read-only, or fails, the body runs all the same:
    after a reboot a door must open, and what is not written is told by those who would write it.

    Raises:
        ConfigError: It cannot be made or used, or another daemon holds it.
    """
    lock = _daemon_lock(state_dir)
    if lock is None:
        yield
        return
    with lock:
        if not take_lock(lock.fileno()):
            raise ConfigError(
                f"state_dir: another edge daemon uses {state_dir}; stop it or set another state_dir"
            )
        yield


@contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Yield a name of a file that is short however long its directory's is: sockets have 108 bytes for it.

    Source: unix(7).

    Raises:
        OSError: There is no such directory.
    """
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def daemon_runs(state_dir: Path) -> bool:
    """Return whether a daemon holds this state directory; does not touch its lock.

    Source: proc(5), /proc/locks: kind, mode and "device:inode" of every lock.
    """
    try:
        inode = (state_dir / DAEMON_LOCK).stat().st_ino
        locks = read_regular(Path("/proc/locks")).decode()
    except OSError:
        return False
    return any("FLOCK" in line and f":{inode} " in line for line in locks.splitlines())


def _daemon_lock(state_dir: Path) -> IO[str] | None:
    """Open the lock, for reading where nothing can be written; None: not even that can be done.

    A directory without a lock was never a daemon's: on a read-only disk that is a wrong `state_dir`.

    Raises:
        ConfigError: It cannot be made or used.
    """
    path = state_dir / DAEMON_LOCK
    try:
        state_dir.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        return os.fdopen(open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, PUBLIC), "a")
    except OSError as error:
        why = error
    try:
        lock = os.fdopen(open_regular(path)) if why.errno in DISK_ERRORS else None
    except FileNotFoundError:
        lock = None
    except OSError as error:
        log.error("state_dir: %s; nobody is kept from starting a second daemon: %s", path, error.strerror)
        return None
    if lock is None:
        mend = f"remove {path.name}" if path.exists() and not path.is_file() else "make it writable"
        raise ConfigError(f"state_dir: cannot write {path}: {why.strerror}; {mend}")
    log.error("state_dir: cannot write %s: %s; nothing that happens is kept", path, why.strerror)
    return lock


@dataclass(frozen=True, slots=True)
class StateFile(Generic[Form]):
    """One private JSON document; `form` describes it and forbids keys that it does not know.

    A damaged one is never taken for an absent one: what it was kept to prevent would happen. It is an
    `error`, whose message ends with what a person can do about it, `mend`.
    """

    path: Path
    form: type[Form]
    max_bytes: int
    error: type[EdgeError]
    mend: str
    indent: int | None = None

    def read(self) -> Form | None:
        """Return what the file holds, None where there is no file.

        Raises:
            FileError: It cannot be read, or is larger than `max_bytes`.
            EdgeError: As `error`: it is damaged, or a newer edge wrote it.
        """
        data = read_bounded(self.path, self.max_bytes)
        if data is None:
            return None
        try:
            return self.form.model_validate_json(data)
        except ValidationError as error:
            newer = {problem.kind for problem in problems(error)} == {"extra_forbidden"}
        what = "written by a newer edge; install that one again, or" if newer else "damaged;"
        raise self.error(f"{self.path}: {what} {self.mend}")

    def write(self, document: Form) -> None:
        """Replace the file, whole; its directory is made if absent.

        Raises:
            FileError: It cannot be written; what was there stays.
        """
        make_private_directory(self.path.parent)
        write_whole(self.path, document.model_dump_json(indent=self.indent).encode())


class StateKeeper(Generic[Form]):
    """What a state file holds, for a daemon that starts all the same where the disk does not give it.

    `value` is `empty` where there is no file, and as long as the disk does not give it. `unread` says why it
    does not, None where it does; until then nothing may be written. `without` tells the log what that means.

    Raises:
        EdgeError: As the file's `error`: it is damaged, at construction.
    """

    def __init__(self, file: StateFile[Form], empty: Form, without: str) -> None:
        self._file = file
        self._without = without
        self.value = empty
        self.unread: str | None = None
        self._read()

    def read_again(self) -> bool:
        """Read what the disk did not give before, if anything; returns whether all is known now."""
        if self.unread is not None:
            try:
                self._read()
            except EdgeError as error:
                self._complain(error)
        return self.unread is None

    def write(self, value: Form) -> None:
        """Replace the value and the file.

        Raises:
            FileError: It cannot be written; value and file stay.
        """
        self._file.write(value)
        self.value = value

    def _read(self) -> None:
        try:
            found = self._file.read()
        except FileError as error:
            self._complain(error)
            return
        self.unread = None
        if found is not None:
            self.value = found

    def _complain(self, error: EdgeError) -> None:
        if str(error) != self.unread:
            log.error("%s: %s", self._without, error)
        self.unread = str(error)


class Audit:
    """A line of JSON for everything that matters: one file, mode 0600, and the one before it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def note(self, line: Mapping[str, Any]) -> None:
        """Append a line.

        Raises:
            FileError: It cannot be written.
        """
        path = self._path
        try:
            path.parent.mkdir(PRIVATE_DIRECTORY, parents=True, exist_ok=True)
            if path.exists() and path.stat().st_size > MAX_AUDIT_BYTES:
                path.replace(path.with_suffix(".old.jsonl"))
        except OSError as error:
            raise FileError(f"{path}: cannot be written: {error.strerror}") from None
        append_line(path, json.dumps(line))
