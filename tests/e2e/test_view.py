"""The aiming view: `edge view` beside a running door and without one, over HTTP as a browser speaks it."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest

from edge.core.errors import EX_CONFIG, EX_FAILURE, EX_INTERRUPTED, EX_USAGE
from edge.device.cameras.feed import SOCKET
from tests.deploy.page.browser import BINARY, browser
from tests.e2e.device import Device
from tests.support.command_line import edge, ended, environment_of
from tests.support.ports import free_port
from tests.support.waits import LIMIT_S, wait_until

MakeDevice = Callable[..., Device]


class Page:
    """What a browser has of a view: its address, and the cookie that the address gave."""

    def __init__(self, process: "subprocess.Popen[str]", first_line: str) -> None:
        self.process, self.first_line = process, first_line
        self.url = first_line.partition("open ")[2].partition(" (")[0]
        self.cookie = ""

    def ask(self, path: str, *, cookie: bool = True) -> http.client.HTTPResponse:
        host = urlsplit(self.url)
        connection = http.client.HTTPConnection(str(host.hostname), host.port, timeout=LIMIT_S)
        connection.request("GET", path, headers={"Cookie": self.cookie} if cookie else {})
        return connection.getresponse()

    def enter(self) -> http.client.HTTPResponse:
        token = urlsplit(self.url)
        answer = self.ask(f"/?{token.query}")
        self.cookie = (answer.getheader("Set-Cookie") or "").partition(";")[0]
        return answer

    def words(self) -> dict[str, Any]:
        return json.loads(self.ask("/faces").read())

    def wait_for(self, condition: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}

        def seen() -> bool:
            nonlocal found
            found = self.words()
            return bool(condition(found))

        wait_until(seen, lambda: str(found))
        return found

    def end(self, signum: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(signum)
        _, err = self.process.communicate(timeout=LIMIT_S)
        return self.process.returncode, err


@contextmanager
def view(config: Path, *arguments: str) -> Iterator[Page]:
    process = subprocess.Popen(
        [*(sys.executable, "-m", "edge", "view", "--port", "0"), *arguments, "--config", str(config)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment_of(config),
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        assert "open http" in line, line + str(process.communicate(timeout=LIMIT_S))
        yield Page(process, line)
    finally:
        process.kill()
        process.communicate()


def pictures(answer: http.client.HTTPResponse, number: int) -> list[np.ndarray[Any, Any]]:
    """Read so many JPEGs of a stream and decode them."""
    assert (answer.getheader("Content-Type") or "").startswith("multipart/x-mixed-replace")
    found = []
    while len(found) < number:
        assert answer.readline().startswith(b"--")
        assert answer.readline() == b"Content-Type: image/jpeg\r\n"
        size = int(answer.readline().partition(b": ")[2])
        assert answer.readline() == b"\r\n"
        found.append(cv2.imdecode(np.frombuffer(answer.read(size), np.uint8), cv2.IMREAD_COLOR))
        assert answer.readline() == b"\r\n"
    return found


@pytest.fixture
def door(make_device: MakeDevice, media: Path) -> Device:
    """A door whose camera shows the man who comes, again and again; nobody needs its broker."""
    return make_device(free_port(), cameras={"front": f'source = "{media / "single_face.mp4"}"\nloop = true'})


def test_a_running_door_shows_its_pictures_with_its_own_verdicts(door: Device):
    door.start()
    assert (door.state / SOCKET).stat().st_mode & 0o777 == 0o600
    with view(door.config) as page:
        assert "the daemon's pictures" in page.first_line
        assert page.enter().status == 303
        html = page.ask("/")
        text, policy = html.read().decode(), html.getheader("Content-Security-Policy") or ""
        assert "default-src 'none'" in policy
        assert policy.count("nonce-") == 2
        assert text.count(policy.partition("nonce-")[2].partition("'")[0]) == 2
        assert "http:" not in text
        assert "https:" not in text
        stream = page.ask("/stream")
        first, second = pictures(stream, 2)
        assert first.shape == second.shape
        assert first.std() > 10
        stream.close()
        seen = page.wait_for(lambda told: [face for face in told.get("faces", ()) if face["told"]])
        assert seen["camera"] == "front"
        assert seen["needed_px"] == 20
        assert seen["faces"][0]["large_enough"]
        assert seen["faces"][0]["verdict"]
        page.wait_for(lambda told: any("match" in face["told"] for face in told.get("faces", ())))
        wait_until(lambda: door.said("a view is open"))
        assert door.stop() == 0
        _, err = page.process.communicate(timeout=LIMIT_S)
        assert (page.process.returncode, err) == (
            EX_FAILURE,
            "edge: the daemon has ended, and the view with it\n",
        )
    assert not (door.state / SOCKET).exists()


def test_it_ends_by_itself(door: Device):
    assert edge("view", "--port", "0", "--minutes", "0.01", config=door.write()).returncode == 0


def test_the_address_lets_one_browser_in_and_nobody_else(door: Device):
    with view(door.write(), "--minutes", "1") as page:
        assert "no daemon runs here" in page.first_line
        for path in ("/", "/stream", "/faces", "/?token=wrong", "/?token="):
            assert page.ask(path).status == 403
        assert page.enter().status == 303
        assert page.ask("/faces").status == 200
        assert page.ask("/page.html").status == 404
        again = page.ask(f"/?{urlsplit(page.url).query}", cookie=False)
        assert (again.status, again.getheader("Set-Cookie")) == (403, None)
        assert page.wait_for(lambda told: told.get("faces"))["frame"] == "640 x 360"


def test_whatever_keeps_it_from_its_work_is_one_line(door: Device):
    door.cameras["back"] = 'source = "/dev/video77"'
    config = door.write()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        cases = {
            ("--camera", "side"): (EX_CONFIG, "no camera 'side' is configured (configured: front, back)"),
            (): (EX_USAGE, "name a --camera (configured: front, back)"),
            ("--camera", "front", "--port", port): (EX_CONFIG, f"--port {port}: cannot be listened on"),
            ("--camera", "back", "--port", "0"): (EX_FAILURE, "/dev/video77: no such device"),
        }
        for words, (code, told) in cases.items():
            done = ended("view", *words, config=config)
            assert (done.returncode, told in done.stderr, done.stderr.count("\n")) == (code, True, 1), words
    door.settings = ("privacy.anonymous = true",)
    assert "privacy.anonymous is set" in ended("view", "--camera", "front", config=door.write()).stderr


@pytest.mark.skipif(BINARY is None, reason="no Chromium is installed; `make test` installs it where it can")
def test_a_browser_shows_picture_and_verdicts_and_says_when_it_is_over(door: Device, tmp_path: Path):
    with view(door.write()) as page, browser() as chromium:
        chromium.open(page.url)
        chromium.wait("20 px", "#faces")
        chromium.wait("good", "#faces")
        wait_until(lambda: chromium.ask("document.getElementById('picture').naturalWidth") >= 640)
        chromium.picture(Path(os.environ.get("TEST_PICTURES", tmp_path)) / "view.png")
        assert page.end()[0] == EX_INTERRUPTED
        chromium.wait("The view has ended.")
        assert not [each for each in chromium.troubles if "ERR_" not in each]
