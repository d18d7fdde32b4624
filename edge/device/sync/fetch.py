"""Fetch published files from a static web server or a directory: never too slow, never followed elsewhere.

What comes back is checked by who asked (The Update Framework), which also limits its length. No redirects, no
proxy, no cookies: the one address that is configured answers or it does not. A large file whose name has its
hash is kept as far as it came: the next synchronisation asks for the rest.
"""

import http.client
import io
import os
import re
import socket
import ssl
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    LengthOrHashMismatchError,
    SlowRetrievalError,
)
from tuf.ngclient.fetcher import FetcherInterface

from edge.core import files

CHUNK_BYTES = 1 << 16
"""Read at once."""

KEPT_FROM_BYTES = 1 << 20
"""A smaller file is not worth a write to the card of a small board."""

_HASHED = re.compile(r"/targets/(?:.*/)?([0-9a-f]{64})\.[^/]*$")


class Fetcher(FetcherInterface):
    """Fetches until `timeout_s` after it was made, all files together; `gap_s` bounds one silence.

    `monotonic` gives seconds. Resolving a name is not bounded here; who started this process bounds it whole.
    Large files are kept in `parts`, whole or as far as they came, until `finish` or until another is begun.
    """

    def __init__(
        self, timeout_s: float, gap_s: float, monotonic: Callable[[], float], parts: Path | None = None
    ) -> None:
        self._gap_s = gap_s
        self._monotonic = monotonic
        self._deadline_s = monotonic() + timeout_s
        self._parts = parts
        self._asked: set[str] = set()
        self.requests = 0
        self.bytes = 0

    def finish(self) -> None:
        """Delete what was kept: everything that was fetched is in its place.

        Raises:
            OSError: It cannot be deleted.
        """
        self._asked.clear()
        self._sweep()

    @contextmanager
    def download_file(self, url: str, max_length: int) -> Iterator[IO[bytes]]:
        """Yield a file with the content of a URL, of `max_length` bytes at most.

        What was kept of it is not asked for again. It is deleted where who verifies it says that it is wrong.

        Raises:
            DownloadError: It cannot be had, or is longer.
            OSError: It cannot be kept.
        """
        hashed = _HASHED.search(url)
        if self._parts is None or hashed is None or max_length < KEPT_FROM_BYTES:
            with super().download_file(url, max_length) as file:
                yield file
            return
        part = self._parts / hashed[1]
        self._asked.add(part.name)
        if not part.exists():
            self._sweep()
            files.make_private_directory(self._parts)
        try:
            with os.fdopen(files.open_regular(part, os.O_RDWR | os.O_CREAT), "r+b") as file:
                self._complete(file, url, max_length)
                file.seek(0)
                yield file
        except (OSError, DownloadLengthMismatchError, LengthOrHashMismatchError):
            part.unlink(missing_ok=True)
            raise

    def _complete(self, file: IO[bytes], url: str, max_length: int) -> None:
        size = file.seek(0, os.SEEK_END)
        if size >= max_length:
            return
        for chunk in self._fetch(url, size):
            size += len(chunk)
            if size > max_length:
                raise DownloadLengthMismatchError(f"more than the {max_length} bytes that were signed")
            file.write(chunk)

    def _sweep(self) -> None:
        for path in self._parts.iterdir() if self._parts is not None and self._parts.is_dir() else ():
            if path.name not in self._asked:
                path.unlink(missing_ok=True)

    def left_s(self) -> float:
        """Return how long the next read may take.

        Raises:
            SlowRetrievalError: The time is up.
        """
        left_s = self._deadline_s - self._monotonic()
        if left_s <= 0:
            raise SlowRetrievalError("the server is too slow")
        return min(left_s, self._gap_s)

    def _fetch(self, url: str, start: int = 0) -> Iterator[bytes]:
        """Yield the content of a URL of scheme http, https or file, or of a path, without its first bytes."""
        self.requests += 1
        parts = urllib.parse.urlsplit(url)
        if parts.scheme in ("http", "https"):
            chunks = self._from_server(parts, start)
        elif parts.scheme in ("file", ""):
            path = urllib.request.url2pathname(parts.path) if parts.scheme else url
            chunks = self._from_directory(Path(path), start)
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

    def _from_directory(self, path: Path, start: int) -> Iterator[bytes]:
        try:
            file = os.fdopen(files.open_regular(path), "rb")
        except FileNotFoundError:
            raise DownloadHTTPError(f"{path.name} is not there", http.HTTPStatus.NOT_FOUND) from None
        with file:
            file.seek(start)
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def _from_server(self, parts: urllib.parse.SplitResult, start: int) -> Iterator[bytes]:
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
            asked = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
            connection.request("GET", parts.path, headers=asked)
            with connection.getresponse() as response:
                whole = response.status == http.HTTPStatus.OK
                rest = start and response.status == http.HTTPStatus.PARTIAL_CONTENT
                if not whole and not rest:
                    raise DownloadHTTPError(f"HTTP {response.status}", response.status)
                if rest and not (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
                    raise DownloadError("another part of the file is sent than was asked for")
                skipped = start if whole else 0  # a server that knows no ranges sends all of it
                while chunk := response.read1(CHUNK_BYTES):
                    if skipped < len(chunk):
                        yield chunk[skipped:]
                    skipped -= min(skipped, len(chunk))
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
