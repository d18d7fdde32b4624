"""A fleet, its devices, and a static web server that can be told to misbehave."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from edge.core.types import Subject
from edge.device.sync.outcome import SyncOutcome
from edge.device.sync.sync import Sync, SyncSource
from edge.fleet.fleet import Fleet, init_fleet
from edge.fleet.keys import KeyRing
from edge.fleet.repository import RolePlan
from edge.gallery.alike.doctor import self_test
from edge.gallery.gallery import Gallery
from edge.gallery.store.store import GalleryStore
from tests.support.clock import SteppedClock
from tests.support.gallery_samples import MODEL, template, unit_rows

TENANT = "acme"


def people(*subject_ids: str, model_id: str = MODEL, dim: int = 128) -> Gallery:
    """Return a gallery of these subjects; each has its own face, wherever it is enrolled."""
    faces = {each: unit_rows(1, dim, seed=sum(each.encode()))[0] for each in subject_ids}
    return Gallery.empty(model_id).with_subjects(
        (Subject(each, f"Subject {each}"), [template(face, model_id)]) for each, face in faces.items()
    )


def make_fleet(
    directory: Path,
    *scopes: str,
    clock: SteppedClock | None = None,
    plans: dict[str, RolePlan] | None = None,
) -> Fleet:
    fleet = init_fleet(directory, KeyRing(directory / "keys"), TENANT, clock or SteppedClock.running(), plans)
    for scope in scopes:
        fleet.add_scope(scope)
    return fleet


@dataclass
class Device:
    """A door: its store, what it was given at enrolment, and its clock."""

    directory: Path
    source: SyncSource
    clock: SteppedClock = field(default_factory=SteppedClock.running)
    embedders: dict[str, int] = field(default_factory=lambda: {MODEL: 128})

    @property
    def store(self) -> GalleryStore:
        return GalleryStore(self.directory / "gallery", keep_versions=5)

    @property
    def cache(self) -> Path:
        return self.directory / "sync"

    def sync(self) -> SyncOutcome:
        return self.syncer().synchronise()

    def syncer(self) -> Sync:
        return Sync(self.source, self.store, self.cache, self.embedders, self.clock, self_test)

    def known(self) -> list[str]:
        return sorted(subject.subject_id for subject in self.store.load(MODEL).subjects)

    def wipe_cache(self) -> None:
        shutil.rmtree(self.cache / "metadata")


def make_device(
    directory: Path, fleet: Fleet, scope: str, url: str, *, timeout_s: float = 20.0, gap_s: float = 10.0
) -> Device:
    keys = KeyRing(fleet.directory / "keys").sealing(scope)
    source = SyncSource(url, TENANT, scope, fleet.trusted_root(), keys, timeout_s, gap_s)
    return Device(directory, source)


Mischief = Callable[[SimpleHTTPRequestHandler], None]


class StaticServer(ThreadingHTTPServer):
    """Offers `directory`. `mischief` answers instead for paths that end in its key."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mischief: dict[str, Mischief] = {}
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(directory)))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(SimpleHTTPRequestHandler):
    server: StaticServer

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        for ending, answer in self.server.mischief.items():
            if self.path.endswith(ending):
                try:
                    answer(self)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True  # the device has hung up, as it should
                return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(directory: Path) -> Iterator[StaticServer]:
    server = StaticServer(directory)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _head(handler: SimpleHTTPRequestHandler, length: int | None) -> None:
    handler.send_response(200)
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()


def endless(handler: SimpleHTTPRequestHandler) -> None:
    _head(handler, None)
    while True:
        handler.wfile.write(b" " * 65536)


def dripping(handler: SimpleHTTPRequestHandler) -> None:
    """Send a byte now and then: no single silence is long."""
    _head(handler, 100_000)
    while True:
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.02)


def dripping_head(handler: SimpleHTTPRequestHandler) -> None:
    handler.wfile.write(b"HTTP/1.0 200 OK\r\nX: ")
    while True:
        handler.wfile.write(b"x")
        handler.wfile.flush()
        time.sleep(0.02)


def silent(handler: SimpleHTTPRequestHandler) -> None:
    time.sleep(3)


def sending(data: bytes, declared: int | None = None) -> Mischief:
    """Return an answer of exactly these bytes, whatever length it declares."""

    def answer(handler: SimpleHTTPRequestHandler) -> None:
        _head(handler, len(data) if declared is None else declared)
        handler.wfile.write(data)

    return answer


def status(code: int, headers: dict[str, str] | None = None) -> Mischief:
    def answer(handler: SimpleHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": "0", **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer
