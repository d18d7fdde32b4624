"""Bounded: a socket that refuses to read a packet which is too large to be kept. Parses nothing.

paho reads a packet into memory whole before it calls anybody, and asks the socket for all that is left of it
at once: what it asks for is how large the packet is. MQTT 5 lets a client name its limit, which most brokers
keep to; MQTT 3.1.1 has no such limit.
"""

import errno
from collections.abc import Callable
from socket import socket


def bound(sock: socket, limit: int, tell: Callable[[int], None]) -> None:
    """Let `sock`, in the clear or with TLS, refuse to read more than `limit` bytes at once.

    `tell` gets the size that was refused; reading then fails as on a broken connection.
    """
    kind = type(sock)

    def recv(self: socket, size: int, flags: int = 0, /) -> bytes:
        if size > limit:
            tell(size)
            raise OSError(errno.EMSGSIZE, f"{size} bytes are more than {limit}")
        return kind.recv(self, size, flags)

    sock.__class__ = type(f"Bounded{kind.__name__}", (kind,), {"__slots__": (), "recv": recv})
