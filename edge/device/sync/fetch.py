"""Fetch published files from a static web server or a directory: never too slow, never followed elsewhere.

What comes back is checked by who asked (The Update Framework), which also limits its length. No redirects, no
proxy, no cookies: the one address that is configured answers or it does not.
"""

import http.client
import io
import os
import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

from tuf.api.exceptions import DownloadError, DownloadHTTPError, SlowRetrievalError
from tuf.ngclient.fetcher import FetcherInterface

from edge.core import files

CHUNK_BYTES = 1 << 16
"""Read at once."""


class Fetcher(FetcherInterface):
    """Fetches until `timeout_s` after it was made, all files together; `gap_s` bounds one silence.

    `monotonic` gives seconds. Resolving a name is not bounded here; who started this process bounds it whole.
    """

    def __init__(self, timeout_s: float, gap_s: float, monotonic: Callable[[], float]) -> None:
        self._gap_s = gap_s
        self._monotonic = monotonic
        self._deadline_s = monotonic() + timeout_s
        self.requests = 0
        self.bytes = 0

    def left_s(self) -> float:
        """Return how long the next read may take.

        Raises:
            SlowRetrievalError: The time is up.
        """
        left_s = self._deadline_s - self._monotonic()
        if left_s <= 0:
            raise SlowRetrievalError("the server is too slow")
        return min(left_s, self._gap_s)

    def _fetch(self, url: str) -> Iterator[bytes]:
        """Yield the content of a URL of scheme http, https or file, or of a path."""
        self.requests += 1
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https"):
            chunks = self._from_server(parts)
        elif parts.scheme in ("file", ""):
            path = urllib.request.url2pathname(parts.path) if parts.scheme else url
            chunks = self._from_directory(Path(path))
        else:
            raise DownloadError(f"{parts.scheme} is no scheme that galleries are fetched with")
        return self._counted(chunks)

    def _counted(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        try:
            for chunk in chunks:
                self.left_s()
                self.bytes += len(chunk)
                yield chunk
        except TimeoutError:
            raise SlowRetrievalError("the server is too slow") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise DownloadError(f"{type(error).__name__}: {error}") from None

    def _from_directory(self, path: Path) -> Iterator[bytes]:
        try:
            file = os.fdopen(files.open_regular(path), "rb")
        except FileNotFoundError:
            raise DownloadHTTPError(f"{path.name} is not there", http.HTTPStatus.NOT_FOUND) from None
        with file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def _from_server(self, parts: urllib.parse.SplitResult) -> Iterator[bytes]:
        if parts.hostname is None:
            raise DownloadError("the address names no host")
        if parts.scheme == "https":
            context = ssl.create_default_context()
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(
                parts.hostname, parts.port, timeout=self.left_s(), context=context
            )
        else:
            connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=self.left_s())
        try:
            connection.connect()
        except BaseException:
            connection.close()
            raise
        with connection.sock as inner:
            connection.sock = cast(socket.socket, _BoundedSocket(inner, self.left_s))
            connection.request("GET", parts.path, headers={"Accept-Encoding": "identity"})
            with connection.getresponse() as response:
                if response.status != http.HTTPStatus.OK:
                    raise DownloadHTTPError(f"HTTP {response.status}", response.status)
                while chunk := response.read1(CHUNK_BYTES):
                    yield chunk
                if response.length:
                    raise DownloadError(f"the connection ended {response.length} bytes too soon")


class _BoundedSocket:
    """What an HTTP connection needs of a socket; every wait ends when `left_s` says so.

    A time-out of the socket alone bounds one silence, not a server that sends a byte now and then.
    """

    def __init__(self, inner: socket.socket, left_s: Callable[[], float]) -> None:
        self._inner = inner
        self._left_s = left_s

    def sendall(self, data: bytes) -> None:
        self._inner.settimeout(self._left_s())
        self._inner.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_BoundedReads(self._inner, self._left_s))

    def close(self) -> None:
        """Do nothing: the answer is still read when the connection that asked is closed."""


class _BoundedReads(io.RawIOBase):
    def __init__(self, inner: socket.socket, left_s: Callable[[], float]) -> None:
        self._inner = inner
        self._left_s = left_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        self._inner.settimeout(self._left_s())
        return self._inner.recv_into(buffer)
