"""Serves an aiming view over HTTP: the page, a stream of JPEGs, and what the last picture says.

Whoever opens the address with its token is let in once; a cookie then stands for it. Everybody else, and
every other address, is refused.
"""

import http.server
import json
import logging
import secrets
import socket
import socketserver
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import parse_qs, urlsplit

from edge.core.errors import ConfigError
from edge.device.cameras.feed import DaemonPictures, FeedPicture
from edge.lab.view.picture import ViewPicture, view_picture


class Page(Template):
    """The page; a script may say ${name}."""

    delimiter = "@@"


PAGE = Page(Path(__file__).with_name("page.html").read_text())

Pictures = DaemonPictures | Generator[FeedPicture | None]
"""Of a daemon, or of a camera that was opened."""

log = logging.getLogger(__name__)

BOUNDARY = "edge-picture"
COOKIE = "edge-view"

WAIT_S = 1.0
"""How often a stream that has no new picture looks whether it is to end."""

PATIENCE_S = 10.0
"""How long a browser may take to ask, or to take a picture."""

MOST_STREAMS = 4
"""Browsers that are shown the stream at the same time."""

HEADERS = {
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
POLICY = (
    "default-src 'none'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""What the page may load: pictures and words from this server, its own style and script by a nonce."""


class LatestPicture:
    """The newest picture of a view; streams wait for it. `end` wakes them for good. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._picture: ViewPicture | None = None
        self._silent = False
        self.ended = False

    def follow(self, pictures: Pictures) -> None:
        """Draw the pictures that come, until no more do, or until `end`; closes their source.

        Raises:
            EdgeError: As their source has it.
        """
        with closing(pictures):
            for number, shown in enumerate(pictures):
                if self.ended:
                    return
                drawn = None if shown is None else view_picture(number, shown)
                with self._changed:
                    self._silent = drawn is None
                    self._picture = drawn or self._picture
                    self._changed.notify_all()

    def after(self, number: int) -> ViewPicture | None:
        """Return the newest picture once it is later than `number`; None where none came within `WAIT_S`."""
        with self._changed:
            self._changed.wait_for(lambda: self.ended or self._is_after(number), WAIT_S)
            return self._picture if self._is_after(number) else None

    def words(self) -> dict[str, Any]:
        """Return what the newest picture says; `silent` where none comes."""
        with self._changed:
            return {"silent": True} if self._silent or self._picture is None else self._picture.words

    def end(self) -> None:
        """Let every stream end."""
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _is_after(self, number: int) -> bool:
        return self._picture is not None and self._picture.number > number


class ViewServer(http.server.ThreadingHTTPServer):
    """One view. `token` lets one browser in; None once it was used."""

    daemon_threads = True

    def __init__(self, host: str, port: int, camera: str, minutes: float) -> None:
        self.camera, self.minutes, self.latest = camera, minutes, LatestPicture()
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.token: str | None = secrets.token_urlsafe(24)
        self.admitted = secrets.token_urlsafe(24)
        self.streams = threading.BoundedSemaphore(MOST_STREAMS)
        self._lock = threading.Lock()
        try:
            super().__init__((host, port), _Handler)
        except OSError as error:
            raise ConfigError(
                f"--host {host} --port {port}: cannot be listened on: {error.strerror}; name another --port"
            ) from None

    @property
    def address(self) -> str:
        """What to open in a browser, once."""
        host, port = self.server_address[:2]
        name = socket.gethostname() if host in ("0.0.0.0", "::") else str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}/?token={self.token}"

    def server_bind(self) -> None:
        """Take the port, and ask no name server who we are."""
        socketserver.TCPServer.server_bind(self)

    def takes(self, token: str) -> bool:
        """Return whether this is the token, which then is none any more."""
        with self._lock:
            right = self.token is not None and secrets.compare_digest(token.encode(), self.token.encode())
            self.token = None if right else self.token
            return right

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a browser that went away."""
        if not isinstance(sys.exception(), OSError):
            log.exception("a request of the view failed")


class _Handler(http.server.BaseHTTPRequestHandler):
    server: ViewServer
    timeout = PATIENCE_S
    server_version, sys_version = "edge", ""

    def do_GET(self) -> None:
        """Answer one request."""
        url = urlsplit(self.path)
        found: dict[str, Callable[[], None]] = {
            "/": self._page,
            "/stream": self._stream,
            "/faces": self._faces,
        }
        token = parse_qs(url.query).get("token", [""])[0]
        if token and url.path == "/" and self.server.takes(token):
            self._head(303, Location="/", Set_Cookie=self._cookie())
        elif not self._is_admitted():
            self._say(403, "Open the address that the terminal shows; it lets one browser in.\n")
        elif url.path not in found:
            self._say(404, "There is nothing here.\n")
        else:
            found[url.path]()

    def log_message(self, format: str, *args: object) -> None:
        """Write nothing."""

    def _cookie(self) -> str:
        return f"{COOKIE}={self.server.admitted}; HttpOnly; SameSite=Strict; Path=/"

    def _is_admitted(self) -> bool:
        try:
            found = SimpleCookie(self.headers.get("Cookie", "")).get(COOKIE)
        except CookieError:
            return False
        given = "" if found is None else found.value
        return secrets.compare_digest(given.encode(), self.server.admitted.encode())

    def _head(self, status: int, **more: str) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        for name, value in more.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _say(self, status: int, text: str) -> None:
        self._head(status, Content_Type="text/plain; charset=utf-8")
        self.wfile.write(text.encode())

    def _page(self) -> None:
        nonce = secrets.token_urlsafe(16)
        text = PAGE.substitute(nonce=nonce, camera=self.server.camera, minutes=f"{self.server.minutes:g}")
        policy = f"{POLICY}; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'"
        self._head(200, Content_Type="text/html; charset=utf-8", Content_Security_Policy=policy)
        self.wfile.write(text.encode())

    def _faces(self) -> None:
        self._head(200, Content_Type="application/json")
        self.wfile.write(json.dumps(self.server.latest.words()).encode())

    def _stream(self) -> None:
        if not self.server.streams.acquire(blocking=False):
            self._say(503, f"{MOST_STREAMS} browsers look already.\n")
            return
        try:
            self._head(200, Content_Type=f"multipart/x-mixed-replace; boundary={BOUNDARY}")
            number = -1
            while not self.server.latest.ended:
                picture = self.server.latest.after(number)
                if picture is not None:
                    number = picture.number
                    head = (
                        f"--{BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n"
                    )
                    self.wfile.write(head.encode() + b"\r\n" + picture.jpeg + b"\r\n")
        finally:
            self.server.streams.release()
