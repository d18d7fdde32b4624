"""A real nginx that offers a directory by the example in deploy/web, and tells what it was asked."""

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.places import ROOT
from tests.support.ports import free_port
from tests.support.waits import LIMIT_S, wait_until

EXAMPLE = ROOT / "deploy" / "web" / "nginx.conf"
_AROUND = """
{user}
daemon off;
worker_processes 1;
pid {directory}/pid;
error_log {directory}/error.log;
events {{ worker_connections 4096; }}
http {{
    log_format asked '$msec $status $bytes_sent $request_length $uri';
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    include {directory}/fleet.conf;
    {beside}
}}
"""

_CACHE = """
proxy_cache_path {directory}/cache keys_zone=fleet:1m;
server {{
    listen 127.0.0.1:{port} backlog=1024;
    access_log {directory}/access.log asked;
    location / {{
        proxy_pass {origin};
        proxy_cache fleet;
        proxy_cache_lock on;
        {how}
    }}
}}
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A line of the log: when (seconds), its status, bytes sent and received with their heads, the path."""

    at_s: float
    status: int
    sent_bytes: int
    asked_bytes: int
    path: str


@dataclass(frozen=True, slots=True)
class Nginx:
    """What runs; `url` offers the directory."""

    url: str
    log: Path

    def answers(self) -> list[Answer]:
        """Return what was answered so far, in this order."""
        lines = (line.split(" ", 4) for line in self.log.read_text().splitlines())
        return [
            Answer(float(at), int(status), int(sent), int(got), path) for at, status, sent, got, path in lines
        ]


@contextmanager
def running_nginx(directory: Path, published: Path, *, beside: str = "") -> Iterator[Nginx]:
    """Offer `published`; its own files lie in `directory`. `beside`: what else the configuration has."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    assert program, "nginx is not installed; `make test` installs it"
    port, log = free_port(), directory / "access.log"
    directory.mkdir(parents=True, exist_ok=True)
    text = EXAMPLE.read_text()
    for line, instead in {
        "listen 80;": f"listen 127.0.0.1:{port};",
        "root /srv/fleet/published;": f"root {published};",
        "access_log off;": f"access_log {log} asked;",
    }.items():
        assert line in text
        text = text.replace(line, instead)
    (directory / "fleet.conf").write_text(text)
    user = "user root;" if os.geteuid() == 0 else ""
    (directory / "nginx.conf").write_text(_AROUND.format(directory=directory, user=user, beside=beside))
    process = subprocess.Popen(
        [program, "-p", directory, "-c", directory / "nginx.conf", "-e", directory / "error.log"],
        stdin=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: process.poll() is not None or _listens(port), "nginx listens")
        assert process.poll() is None, (directory / "error.log").read_text()
        yield Nginx(f"http://127.0.0.1:{port}", log)
    finally:
        process.terminate()
        process.wait(LIMIT_S)


@contextmanager
def running_cache(directory: Path, origin: str, how: str = "") -> Iterator[Nginx]:
    """Run a cache in front of a server, as a CDN has many; `how` it keeps what, if not as the server says."""
    port = free_port()
    text = _CACHE.format(directory=directory, port=port, origin=origin, how=how)
    with running_nginx(directory, directory, beside=text):
        yield Nginx(f"http://127.0.0.1:{port}", directory / "access.log")


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
