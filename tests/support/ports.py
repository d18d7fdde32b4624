"""Ports for what the tests start. No other test of this machine gets them, and no outgoing connection."""

import fcntl
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

FIRST, BLOCK, BLOCKS = 10_000, 100, 220
"""Below the ports of outgoing connections, which could take the port of a broker while it restarts.

Source: ip(7), ip_local_port_range, 32768 to 60999.
"""


def free_port() -> int:
    """A port that nobody listens on. It is this process's until it ends, also while a broker restarts."""
    return next(_PORTS)


def _ports() -> Iterator[int]:
    """Yield each port once, from blocks whose locks this process holds: other processes use other blocks."""
    locks = Path(tempfile.gettempdir(), f"edge-tests-ports-{os.getuid()}")
    locks.mkdir(mode=0o700, exist_ok=True)
    start = secrets.randbelow(BLOCKS)
    for number in range(BLOCKS):
        block = (start + number) % BLOCKS
        lock = os.open(locks / str(block), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            yield from filter(_is_free, range(FIRST + block * BLOCK, FIRST + (block + 1) * BLOCK))
    raise AssertionError("every port for tests is taken")


_PORTS = _ports()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
