"""One daemon per state directory: two would publish every visit twice and tear the outbox apart."""

import errno
import fcntl
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from edge.core.errors import ConfigError

log = logging.getLogger(__name__)

LOCK = "daemon.lock"
DISK_ERRORS = frozenset({errno.EROFS, errno.EIO, errno.ENOSPC, errno.EDQUOT})
"""The disk's fault, not the configuration's: a door starts on such a disk where it has run before."""


@contextmanager
def sole_daemon(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process while the body runs; it is made if absent.

    Where a daemon has run before and the disk has become read-only, or fails, the body runs all the same:
    after a reboot a door must open, and what is not written is told by those who would write it.

    Raises:
        ConfigError: It cannot be made or used, or another daemon holds it.
    """
    lock = _lock(state_dir)
    if lock is None:
        yield
        return
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"state_dir: another edge daemon uses {state_dir}; stop it or set another state_dir"
            ) from None
        yield


def _lock(state_dir: Path) -> IO[str] | None:
    """Open the lock, for reading where nothing can be written; None: not even that can be done.

    A directory without a lock was never a daemon's: on a read-only disk that is a wrong `state_dir`.

    Raises:
        ConfigError: It cannot be made or used.
    """
    path = state_dir / LOCK
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path.open("a")
    except OSError as error:
        why = error
    try:
        lock = path.open() if why.errno in DISK_ERRORS else None
    except FileNotFoundError:
        lock = None
    except OSError as error:
        log.error("state_dir: %s; nobody is kept from starting a second daemon: %s", path, error.strerror)
        return None
    if lock is None:
        raise ConfigError(f"state_dir: cannot write {path}: {why.strerror}; make it writable")
    log.error("state_dir: cannot write %s: %s; nothing that happens is kept", path, why.strerror)
    return lock
