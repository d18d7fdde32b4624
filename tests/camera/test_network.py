"""Only what was named is fetched, from whom it was named; passwords go to nobody else."""

import base64
import contextlib
import hashlib
import re
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edge.camera.network import Trust
from edge.camera.sources import OpenCVCamera
from edge.core.clock import SystemClock
from edge.core.errors import CameraError
from tests.camera.player import play
from tests.camera.servers import RtspServer, http_answer
from tests.support.certificates import Authority
from tests.support.streams import MjpegServer, jpeg

LOCAL = "IP:127.0.0.1"


def camera(url: str, **trust: object) -> OpenCVCamera:
    return OpenCVCamera(
        "front", url, clock=SystemClock(), open_timeout_s=30, read_timeout_s=30, trust=Trust(**trust)
    )


class Requests:
    """An HTTP camera that plays for ever and remembers what it was asked."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str | None]] = []

    @contextlib.contextmanager
    def server(self, certificate: tuple[Path, Path] | None = None, *, digest: bool = False) -> Iterator[int]:
        seen = self.seen

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                login = self.headers["Authorization"]
                seen.append((self.path, login))
                if digest and not (login and digest_of(login, "user", "secret")):
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Digest realm="cam", nonce="abc", qop="auth"')
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                if self.path == "/moved":
                    self.send_response(302)
                    self.send_header("Location", "/video")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                body = jpeg(90)
                part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(body) + body
                with contextlib.suppress(OSError):
                    for _ in range(40):
                        self.wfile.write(part + b"\r\n")

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            server.socket = context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def digest_of(login: str, user: str, password: str) -> bool:
    """Whether an Authorization header proves the password. Source: RFC 2617, 3.2.2."""
    field = dict(re.findall(r'(\w+)="?([^",]+)"?', login.removeprefix("Digest ")))

    def md5(text: str) -> str:
        return hashlib.md5(text.encode()).hexdigest()

    secret, request = md5(f"{user}:{field['realm']}:{password}"), md5(f"GET:{field['uri']}")
    parts = (secret, field["nonce"], field["nc"], field["cnonce"], field["qop"], request)
    return field["response"] == md5(":".join(parts))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path / "authority").make()


@pytest.mark.parametrize("password", ["secret", "p%40ss%2Fword"])
def test_an_http_camera_gets_the_password_it_asks_for(password: str):
    requests = Requests()
    with requests.server(digest=password == "secret") as port:
        assert len(play(camera(f"http://user:{password}@127.0.0.1:{port}/video?channel=1"), 3)) == 3
    assert {path for path, _ in requests.seen} == {"/video?channel=1"}


def test_a_certificate_of_a_named_authority_is_enough(authority: Authority):
    requests = Requests()
    with requests.server(authority.sign("camera", "camera", LOCAL), digest=True) as port:
        url = f"https://user:secret@127.0.0.1:{port}/video"
        assert len(play(camera(url, ca_file=authority.file), 3)) == 3


@pytest.mark.parametrize(
    ("alternative", "trusted", "says"),
    [
        pytest.param(LOCAL, False, "not trusted: .*ca_file, or set insecure = true", id="unknown authority"),
        pytest.param("IP:127.0.0.2", True, "not made out to 127.0.0.1", id="another camera's"),
    ],
)
def test_a_password_is_not_sent_to_whom_nobody_vouches_for(
    authority: Authority, alternative: str, trusted: bool, says: str
):
    requests = Requests()
    with requests.server(authority.sign("camera", "camera", alternative)) as port:
        url = f"https://user:secret@127.0.0.1:{port}/video"
        with pytest.raises(CameraError, match=says) as caught:
            play(camera(url, ca_file=authority.file if trusted else None), 1)
    assert requests.seen == []
    assert "secret" not in str(caught.value)


def test_the_camera_s_own_certificate_is_believed_whatever_its_name(authority: Authority, tmp_path: Path):
    certificate, key = authority.sign("camera", "IPCAM", "DNS:ipcam.local")
    pinned = tmp_path / "pinned.pem"
    pinned.write_bytes(certificate.read_bytes() + authority.file.read_bytes())
    with Requests().server((certificate, key)) as port:
        assert len(play(camera(f"https://127.0.0.1:{port}/video", ca_file=pinned), 3)) == 3


def test_insecure_has_to_be_said_and_is_told(authority: Authority):
    with Requests().server(authority.sign("camera", "camera", "DNS:other")) as port:
        believing = camera(f"https://127.0.0.1:{port}/video", insecure=True)
        assert len(play(believing, 3)) == 3
    assert "its certificate is not verified" in believing.description


def test_a_file_without_certificates_is_named(tmp_path: Path):
    (tmp_path / "ca.pem").write_text("nothing")
    with Requests().server() as port, pytest.raises(CameraError, match=r"ca\.pem: holds no certificates"):
        play(camera(f"https://127.0.0.1:{port}/video", ca_file=tmp_path / "ca.pem"), 1)


@pytest.mark.parametrize("trusted", [True, False])
def test_an_encrypted_rtsp_camera_is_verified_too(authority: Authority, tmp_path: Path, trusted: bool):
    certificate = authority.sign("camera", "camera", LOCAL)
    with RtspServer(tmp_path, login="user:secret", certificate=certificate) as server:
        url = f"rtsps://user:secret@127.0.0.1:{server.port}/live"
        if trusted:
            frames = play(camera(url, ca_file=authority.file), 5)
            assert frames[0].image.std() > 50, "the test picture is colourful"
        else:
            with pytest.raises(CameraError, match="certificate is not trusted"):
                play(camera(url), 1)
    assert server.logins == ([f"Basic {base64.b64encode(b'user:secret').decode()}"] if trusted else [])


@pytest.mark.parametrize("follow", [True, False])
def test_a_redirect_within_the_server_is_followed_where_that_is_allowed(follow: bool):
    requests = Requests()
    with requests.server() as port:
        moved = camera(f"http://127.0.0.1:{port}/moved", follow_redirects=follow)
        if follow:
            assert len(play(moved, 3)) == 3
        else:
            with pytest.raises(CameraError, match="another path; name that one, or set follow_redirects"):
                play(moved, 1)
    assert [path for path, _ in requests.seen] == (["/moved", "/video"] if follow else ["/moved"])


ELSEWHERE = [
    pytest.param(302, "text/html", b"", "http://127.0.0.1:{port}/video", id="redirect"),
    pytest.param(200, "application/vnd.apple.mpegurl", b"#EXTM3U\n#EXTINF:1,\n{url}\n", "", id="HLS"),
    pytest.param(
        200, "video/mp2t", b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}\n", "", id="HLS, lied"
    ),
    pytest.param(
        200,
        "video/mp4",
        b'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF:1,\nseg.ts\n#EXT-X-ENDLIST\n',
        "",
        id="HLS key",
    ),
    pytest.param(
        200,
        "application/octet-stream",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\nm=video 5004 RTP/AVP 26\n",
        "",
        id="SDP",
    ),
    pytest.param(200, "text/plain", b"ffconcat version 1.0\nfile '{url}'\n", "", id="concat"),
    pytest.param(
        200,
        "video/mp4",
        b'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><BaseURL>{url}</BaseURL></MPD>',
        "",
        id="DASH",
    ),
]


@pytest.mark.parametrize(("status", "kind", "body", "location"), ELSEWHERE)
@pytest.mark.parametrize("follow", [True, False])
def test_a_hostile_camera_leads_nowhere(status: int, kind: str, body: bytes, location: str, follow: bool):
    victim = Requests()
    with victim.server() as port:
        target = f"http://127.0.0.1:{port}/video"
        body = body.replace(b"{url}", target.encode())
        with http_answer(status, body, kind=kind, location=location.format(port=port)) as hostile:
            with pytest.raises(CameraError, match="cannot be opened"):
                play(camera(f"http://user:secret@127.0.0.1:{hostile}/live", follow_redirects=follow), 1)
    assert victim.seen == []


def test_a_hostile_rtsp_camera_leads_nowhere(tmp_path: Path):
    with RtspServer(tmp_path) as victim:
        target = f"rtsp://127.0.0.1:{victim.port}/live"
        with RtspServer(tmp_path, redirect=target) as hostile:
            with pytest.raises(CameraError, match="sends elsewhere, which is not followed"):
                play(camera(f"rtsp://user:secret@127.0.0.1:{hostile.port}/live"), 1)
    assert victim.transports == []


def test_a_single_picture_is_told_from_a_video():
    with http_answer(200, jpeg(80), kind="image/jpeg") as port:
        with pytest.raises(
            CameraError, match="a single picture, not a video; name the camera's MJPEG or RTSP"
        ):
            play(camera(f"http://127.0.0.1:{port}/snap.jpg"), 1)


def test_a_read_that_waits_is_interrupted():
    with MjpegServer(stall_after=3) as server:
        waiting = camera(server.url)
        waiting.open()
        interrupting = threading.Timer(0.2, waiting.interrupt)
        interrupting.start()
        with pytest.raises(CameraError, match="gave no frame"):
            list(iter(waiting.read, None))
        interrupting.join()
        waiting.close()
