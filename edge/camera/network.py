"""Connects to the network camera that was named, and to nothing else.

The connection is made here, not in FFmpeg: certificates are verified, redirects and playlists lead nowhere,
and an error says why. FFmpeg then reads the body of an HTTP answer, or speaks RTSP through a relay on the
loopback. Decodes nothing.
"""

import contextlib
import http.client
import io
import os
import re
import socket
import ssl
import threading
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urljoin, urlsplit, urlunsplit

from edge.core.errors import CameraError
from edge.core.text import without_credentials

PORTS = {"rtsp": 554, "rtsps": 322, "http": 80, "https": 443}
"""Protocols of network cameras and their ports. Others (file, concat, subfile, pipe) could read files of this
device. Source of the ports: IANA service names; RFC 7826, 22.1."""

ENCRYPTED = ("https", "rtsps")

PLAYLISTS = ("mpegurl", "dash+xml", "sdp", "x-scpls", "xspf")
"""Ends of content types that name other addresses."""

CHUNK_BYTES = 64 * 1024

RTSP_REDIRECT = re.compile(rb"RTSP/\S*\s+3\d\d")
"""An answer that sends a client elsewhere. Source: RFC 2326, 7.1.1."""

RTSP_REDIRECT_BYTES = 64
"""Kept of what was relayed before, so that an answer cut in two is seen."""

NAME_MISMATCH = (62, 64)
"""Source: x509_vfy.h of OpenSSL, X509_V_ERR_HOSTNAME_MISMATCH and X509_V_ERR_IP_ADDRESS_MISMATCH."""


@dataclass(frozen=True, slots=True)
class Trust:
    """Which server is believed to be the camera, and where it may lead.

    `ca_file` (PEM) replaces the system's authorities; it may also be the camera's own certificate, whatever
    name that is made out to. `insecure` believes everybody. `follow_redirects` stays on the host named.
    """

    ca_file: Path | None = None
    insecure: bool = False
    follow_redirects: bool = False

    def context(self) -> ssl.SSLContext:
        """Return how to verify a server.

        Raises:
            CameraError: `ca_file` cannot be read or holds no certificate.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ssl.SSLError) as error:
            raise CameraError(f"{self.ca_file}: holds no certificates to trust: {_reason(error)}") from None
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # certificates that cameras make for themselves
        if self.insecure:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    def pinned(self) -> set[bytes]:
        """Return the certificates of `ca_file`, DER."""
        if self.ca_file is None:
            return set()
        blocks = re.findall(
            "-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", self.ca_file.read_text("latin-1"), re.S
        )
        return {ssl.PEM_cert_to_DER_cert(block) for block in blocks}


def parse(source: str) -> SplitResult:
    """Return the parts of a network camera's URL.

    Raises:
        CameraError: It is none, or of a protocol that no camera speaks.
    """
    shown = without_credentials(source)
    try:
        url = urlsplit(source)
        known, usable = url.scheme in PORTS, bool(url.hostname) and url.port != 0
    except ValueError:
        known, usable = source.partition(":")[0].lower() in PORTS, False
    if not known:
        raise CameraError(f"{shown}: not a camera; use /dev/videoN, or a URL of {', '.join(PORTS)}")
    if not usable:
        raise CameraError(f"{shown}: not a URL; write / ? # @ : in a user or password as %2F %3F %23 %40 %3A")
    return url


def connect(url: SplitResult, trust: Trust, timeout_s: float) -> socket.socket:
    """Return a connection to the camera, encrypted and verified where its protocol says so.

    Raises:
        CameraError: It cannot be reached, or is not who it should be.
    """
    host, port = str(url.hostname), url.port or PORTS[url.scheme]
    if url.scheme not in ENCRYPTED:
        return _plain(host, port, timeout_s)
    context = trust.context()
    try:
        return context.wrap_socket(_plain(host, port, timeout_s), server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        if error.verify_code not in NAME_MISMATCH or not (pinned := trust.pinned()):
            raise CameraError(
                f"its certificate is not trusted: {error.verify_message}; name its authority, or its own "
                "certificate, in ca_file, or set insecure = true"
            ) from None
    except TimeoutError:
        raise CameraError(f"no video within {timeout_s:g} s") from None
    except (ssl.SSLError, OSError) as error:
        raise CameraError(f"no encrypted connection: {_reason(error)}") from None
    context.check_hostname = False
    named_otherwise = context.wrap_socket(_plain(host, port, timeout_s), server_hostname=host)
    if named_otherwise.getpeercert(binary_form=True) not in pinned:
        named_otherwise.close()
        raise CameraError(f"its certificate is not made out to {host}, and is not the one in ca_file")
    return named_otherwise


def _plain(host: str, port: int, timeout_s: float) -> socket.socket:
    try:
        return socket.create_connection((host, port), timeout_s)
    except socket.gaierror:
        raise CameraError("not reachable: no such host; check the name and the network") from None
    except TimeoutError:
        raise CameraError("not reachable: no answer; is it switched on?") from None
    except OSError as error:
        raise CameraError(f"not reachable: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or getattr(error, "reason", None) or error)


class HttpBody(io.BufferedIOBase):
    """The body of the answer to one GET, as OpenCV reads it. One thread reads; any other may interrupt."""

    def __init__(
        self, url: SplitResult, trust: Trust, *, open_timeout_s: float, read_timeout_s: float
    ) -> None:
        """Ask for `url`, with its user and password where the server wants them.

        Raises:
            CameraError: There is no answer, or it is no video.
        """
        self._sockets: list[socket.socket] = []
        self._trust = trust
        self._open_timeout_s = open_timeout_s
        self.waited_s = 0.0
        """How long the reads have waited for the network."""
        self._answer = self._get(url)
        self.kind: str = self._answer.headers.get_content_type()
        if problem := _no_video(self.kind):
            self.close()
            raise CameraError(problem)
        self._sockets[-1].settimeout(read_timeout_s)

    def _get(self, url: SplitResult) -> Any:
        address = url.netloc.rpartition("@")[2]
        clean = urlunsplit((url.scheme, address, url.path or "/", url.query, ""))
        logins = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if url.username is not None:
            logins.add_password(None, clean, unquote(url.username), unquote(url.password or ""))
        opener = urllib.request.OpenerDirector()
        for handler in (
            _Exchange(self._connect),
            _Redirects(url, follow=self._trust.follow_redirects),
            urllib.request.HTTPBasicAuthHandler(logins),
            urllib.request.HTTPDigestAuthHandler(logins),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
        ):
            opener.add_handler(handler)
        try:
            return opener.open(clean, timeout=self._open_timeout_s)
        except HTTPError as error:
            error.close()
            raise CameraError(
                f"the server answers {error.code} and gives no video; check path, user and password"
            ) from None
        except TimeoutError:
            raise CameraError(f"no video within {self._open_timeout_s:g} s") from None
        except URLError as error:
            if isinstance(error.reason, TimeoutError):
                raise CameraError(f"no video within {self._open_timeout_s:g} s") from None
            raise CameraError(f"the server gives no video: {_reason(error)}") from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CameraError(f"the server's answer cannot be read: {type(error).__name__}") from None

    def _connect(self, scheme: str, host: str, port: int) -> socket.socket:
        place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        address = SplitResult(scheme, place, "", "", "")
        connection = connect(address, self._trust, self._open_timeout_s)
        self._sockets.append(connection)
        return connection

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return False: a stream has no beginning."""
        return False

    def read(self, size: int | None = -1, /) -> bytes:
        """Return what there is, at most `size` bytes; nothing at the end or after a silence."""
        began_s = perf_counter()
        try:
            return bytes(self._answer.read1(CHUNK_BYTES if size is None or size < 0 else size))
        except (OSError, http.client.HTTPException, ValueError):
            return b""
        finally:
            self.waited_s += perf_counter() - began_s

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Refuse, as OpenCV is told: by -1."""
        return -1

    def interrupt(self) -> None:
        """End a read that waits; from any thread."""
        for connection in self._sockets:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self.interrupt()
        self._answer.close()
        super().close()


def _no_video(kind: str) -> str | None:
    if kind.startswith("image/"):
        return "it is a single picture, not a video; name the camera's MJPEG or RTSP address"
    if kind.endswith(PLAYLISTS):
        return "it is a playlist of other addresses, which are not followed; name the video itself"
    if kind in ("text/html", "application/json", "application/xml", "text/xml"):
        return f"the server answers, but gives no video ({kind}); check path, user and password"
    return None


class _Exchange(urllib.request.AbstractHTTPHandler):
    """Opens the connection of a request by `connect(scheme, host, port)`."""

    def __init__(self, connect: Callable[[str, str, int], socket.socket]) -> None:
        super().__init__()
        self._connect = connect

    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, scheme="http", connect=self._connect), request)

    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(partial(_Connection, scheme="https", connect=self._connect), request)

    http_request = https_request = urllib.request.AbstractHTTPHandler.do_request_


class _Connection(http.client.HTTPConnection):
    def __init__(
        self, host: str, *, scheme: str, connect: Callable[..., socket.socket], **options: Any
    ) -> None:
        super().__init__(host, **options)
        self.default_port = PORTS[scheme]
        self._scheme, self._make = scheme, connect

    def connect(self) -> None:
        self.sock = self._make(self._scheme, self.host, self.port)


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to the same scheme, host and port, where that is allowed."""

    def __init__(self, url: SplitResult, *, follow: bool) -> None:
        self._place, self._follow = (url.scheme, url.hostname, url.port or PORTS[url.scheme]), follow

    def redirect_request(
        self, request: urllib.request.Request, answer: Any, code: int, message: str, headers: Any, target: str
    ) -> urllib.request.Request | None:
        try:
            to = urlsplit(urljoin(request.full_url, target))
            place = (to.scheme, to.hostname, to.port or PORTS.get(to.scheme))
        except ValueError:
            place = None
        if place != self._place:
            raise CameraError("the server sends elsewhere, which is not followed")
        if not self._follow:
            raise CameraError(
                "the server sends to another path; name that one, or set follow_redirects = true"
            )
        return super().redirect_request(request, answer, code, message, headers, target)


class RtspRelay:
    """An address on the loopback behind which the camera is: `port` takes one connection of this user.

    What is sent through is not changed. A camera that sends elsewhere is cut off; `problem` says so.
    """

    def __init__(self, camera: socket.socket) -> None:
        self._camera = camera
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self.port = int(self._listener.getsockname()[1])
        self._client: socket.socket | None = None
        self.problem: str | None = None
        camera.settimeout(None)
        threading.Thread(target=self._serve, name="rtsp-relay", daemon=True).start()

    def _serve(self) -> None:
        try:
            client, (_, port) = self._listener.accept()
        except OSError:
            return  # closed before anybody came
        finally:
            self._listener.close()
        self._client = client
        if _user_of(port) != os.getuid():
            self.problem = "another user of this device took the connection"
            self.close()
            return
        threading.Thread(target=self._requests, args=(client,), name="rtsp-requests", daemon=True).start()
        self._answers(client)

    def _requests(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(CHUNK_BYTES):
                self._camera.sendall(data)
        self.close()

    def _answers(self, client: socket.socket) -> None:
        before = b""
        with contextlib.suppress(OSError):
            while data := self._camera.recv(CHUNK_BYTES):
                if RTSP_REDIRECT.search(before + data):
                    self.problem = "the server sends elsewhere, which is not followed; name that address"
                    break
                before = (before + data)[-RTSP_REDIRECT_BYTES:]
                client.sendall(data)
        self.close()

    def interrupt(self) -> None:
        """End both connections; from any thread."""
        for connection in (self._camera, self._client, self._listener):
            if connection is not None:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Hang up."""
        self.interrupt()
        for connection in (self._camera, self._client, self._listener):
            if connection is not None:
                connection.close()


def _user_of(port: int) -> int | None:
    """Return the user whose socket on the loopback has this port. Source: proc(5), /proc/net/tcp."""
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if int(fields[1].rpartition(":")[2], 16) == port and fields[2].partition(":")[0] != "00000000":
            return int(fields[7])
    return None
