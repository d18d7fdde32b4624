"""Servers that only camera tests need: RTSP with real H.264, and HTTP with one fixed answer."""

import base64
import contextlib
import re
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


@contextlib.contextmanager
def http_answer(
    status: int, body: bytes = b"", *, kind: str = "text/html", location: str = ""
) -> Iterator[int]:
    """Serve the same answer to every request; yields the port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            if location:
                self.send_header("Location", location)
            self.end_headers()
            with contextlib.suppress(OSError):  # the client may hang up when it does not like the answer
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class RtspServer:
    """One RTSP client, RTP interleaved over TCP as RFC 2326, 10.12; ffmpeg encodes and packs the stream.

    With `login` ("user:password") it demands Basic authentication, seen in `logins`. After `stall_after`
    packets it is silent. With `certificate` (and key) it speaks TLS. It sends whoever asks to `redirect`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        login: str | None = None,
        stall_after: int | None = None,
        certificate: tuple[Path, Path] | None = None,
        redirect: str | None = None,
    ) -> None:
        self._login, self._stall_after, self._redirect = login, stall_after, redirect
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(*certificate)
        self.logins: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._rtp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._rtp.bind(("127.0.0.1", 0))
        self._rtp.settimeout(0.1)
        self._sdp = folder / "camera.sdp"
        target = f"rtp://127.0.0.1:{self._rtp.getsockname()[1]}?pkt_size=1200"
        command = "ffmpeg -v error -re -f lavfi -i testsrc=size=320x240:rate=25 -pix_fmt yuv420p -c:v libx264"
        command += f" -tune zerolatency -g 10 -f rtp -sdp_file {self._sdp} {target}"
        self._encoder = subprocess.Popen(command.split(), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self.transports: list[str] = []
        self.hold = threading.Event()
        """While set, frames are held back, as by a network that is gone; then they come all at once."""
        self.frames_held = 0

    def __enter__(self) -> "RtspServer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._encoder.kill()
        self._encoder.wait()
        self._thread.join()
        self._rtp.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.settimeout(5)
                if self._tls:
                    try:
                        client = self._tls.wrap_socket(client, server_side=True)
                    except OSError:
                        continue  # who does not trust us hangs up
                with client, contextlib.suppress(OSError):
                    if self._converse(client):
                        self._play(client)

    def _converse(self, client: socket.socket) -> bool:
        """Answer requests until PLAY."""
        pending = b""
        while not self._stopping.is_set():
            while b"\r\n\r\n" not in pending:
                if not (chunk := client.recv(4096)):
                    return False
                pending += chunk
            head, _, pending = pending.partition(b"\r\n\r\n")
            text = head.decode()
            verb = text.split()[0]
            sequence = re.search(r"CSeq: *(\d+)", text)[1]
            extra, body = "", b""
            status = "200 OK"
            if self._redirect:
                status, extra = "302 Moved", f"Location: {self._redirect}\r\n"
            elif self._login and verb != "OPTIONS" and not self._admits(text):
                status, extra = "401 Unauthorized", 'WWW-Authenticate: Basic realm="door"\r\n'
            elif verb == "DESCRIBE":
                body = self._description()
                extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
            elif verb == "SETUP":
                self.transports.append(re.search(r"Transport: *(\S+)", text)[1])
                extra = "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1\r\n"
            elif verb == "PLAY":
                extra = "Session: 1\r\n"
            client.sendall(f"RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n{extra}\r\n".encode() + body)
            if verb == "PLAY" and status.startswith("200"):
                return True
        return False

    def _admits(self, request: str) -> bool:
        expected = base64.b64encode(str(self._login).encode()).decode()
        self.logins += set(re.findall(r"Authorization: *([^\r\n]+)", request)) - set(self.logins)
        return f"Authorization: Basic {expected}" in request

    def _description(self) -> bytes:
        while not (self._sdp.exists() and "a=rtpmap" in self._sdp.read_text()):
            if self._stopping.wait(0.02):
                return b""
        return re.sub(rb"m=video \d+", b"m=video 0", self._sdp.read_bytes())

    def _play(self, client: socket.socket) -> None:
        sent, held = 0, b""
        while not self._stopping.is_set():
            try:
                packet = self._rtp.recv(65536)
            except TimeoutError:
                continue
            if self.hold.is_set():
                held += b"$\0" + len(packet).to_bytes(2, "big") + packet
                self.frames_held += packet[1] >> 7  # the marker is on a frame's last packet; RFC 3550, 5.1
                continue
            client.sendall(held)
            held = b""
            if self._stall_after is None or sent < self._stall_after:
                client.sendall(b"$\0" + len(packet).to_bytes(2, "big") + packet)
                sent += 1
