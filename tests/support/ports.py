"""Ports for what the tests start."""

import secrets
import socket

FIRST, COUNT = 10_000, 22_000
"""Below those of outgoing connections, which could take the port of a broker while it restarts.

Source: ip(7), ip_local_port_range, 32768 to 60999.
"""


def free_port() -> int:
    """A port that nobody listens on just now, and that no other test is likely to choose."""
    while True:
        port = FIRST + secrets.randbelow(COUNT)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
