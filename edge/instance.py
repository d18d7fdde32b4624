"""One daemon per state directory: two would publish every visit twice and tear the outbox apart."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edge.errors import ConfigError


@contextmanager
def sole_daemon(state_dir: Path) -> Iterator[None]:
    """Hold the state directory for this process while the body runs; it is made if absent.

    Raises:
        ConfigError: It cannot be written, or another daemon holds it.
    """
    path = state_dir / "daemon.lock"
    try:
        state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = path.open("a")
    except OSError as error:
        raise ConfigError(f"state_dir: cannot write {path}: {error.strerror}; make it writable") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"state_dir: another edge daemon uses {state_dir}; stop it or set another state_dir"
            ) from None
        yield
