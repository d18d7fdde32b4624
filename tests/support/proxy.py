"""A TCP proxy between a door and its broker that misbehaves as told."""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable

Mangle = Callable[[bytes, bool], "list[bytes] | None"]
"""What to forward of some bytes (to the broker: True), in pieces; None: reset the connection now."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER that closes with RST."""


def faithful(data: bytes, to_broker: bool) -> "list[bytes] | None":
    return [data]


def resetting(share: float, rng: random.Random) -> Mangle:
    """Reset in the middle of what the door sends, with this probability per read."""

    def mangle(data: bytes, to_broker: bool) -> "list[bytes] | None":
        return None if to_broker and len(data) > 200 and rng.random() < share else [data]

    return mangle


def dropping_pubacks(share: float, rng: random.Random) -> Mangle:
    """Swallow PUBACK packets of the broker (0x40, two to four bytes long) where they come alone."""

    def mangle(data: bytes, to_broker: bool) -> "list[bytes] | None":
        if not to_broker and data[0] == 0x40 and rng.random() < share:
            return []
        return [data]

    return mangle


def slicing(data: bytes, to_broker: bool) -> "list[bytes] | None":
    """One byte at a time."""
    return [data[i : i + 1] for i in range(len(data))]


class Proxy:
    """Listens on a port of its own; use as a context manager. `mangle` may be changed while it runs."""

    def __init__(self, broker_port: int, mangle: Mangle = faithful, latency_s: float = 0.0) -> None:
        self.mangle = mangle
        self.resets = 0
        self._latency_s = latency_s
        self._broker = ("127.0.0.1", broker_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self.port = self._listener.getsockname()[1]

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        for each in (self._listener, *self._open):
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                door, _ = self._listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(self._broker)
            except OSError:
                door.close()
                continue
            for each in (door, broker):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._open += [door, broker]
            for source, sink, to_broker in ((door, broker, True), (broker, door, False)):
                threading.Thread(target=self._pump, args=(source, sink, to_broker), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, to_broker: bool) -> None:
        try:
            while data := source.recv(65536):
                if self._latency_s:
                    time.sleep(self._latency_s)
                pieces = self.mangle(data, to_broker)
                if pieces is None:
                    sink.sendall(data[: len(data) // 2])
                    self.resets += 1
                    for each in (source, sink):
                        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                    break
                for piece in pieces:
                    sink.sendall(piece)
        except OSError:
            pass  # the other half has ended
        finally:
            for each in (source, sink):
                each.close()
