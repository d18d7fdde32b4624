"""A real Chromium without a window, spoken to over a pipe in its DevTools protocol."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

from tests.support.waits import wait_until

NAMES = ("chromium-headless-shell", "chromium", "google-chrome")
BINARY = next(filter(None, map(shutil.which, NAMES)), None)

OPTIONS = (
    *("--headless", "--remote-debugging-pipe", "--no-sandbox", "--no-first-run", "--disable-gpu"),
    *("--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update"),
)
"""It runs as root in a container, sees nothing but the page, and asks nobody in the network."""

KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}


class Browser:
    """One page of one browser. `troubles` is what its console said and was no message of the page's own."""

    def __init__(self, to: int, back: int) -> None:
        self._to, self._back, self._ids, self._session, self._unread = to, back, count(1), "", b""
        self.troubles: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._ids)
        message = {"id": number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        unsent = json.dumps(message).encode() + b"\0"
        while unsent:
            unsent = unsent[os.write(self._to, unsent) :]
        while (answer := self._read()).get("id") != number:
            if answer["method"] in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.troubles.append(json.dumps(answer["params"]))
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            more = os.read(self._back, 1 << 16)
            assert more, "the browser has ended"
            self._unread += more
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def open(self, url: str) -> None:
        wait_until(lambda: "errorText" not in self.call("Page.navigate", url=url), f"an answer at {url}")
        wait_until(lambda: self.ask("location.href !== 'about:blank' && document.readyState") == "complete")

    def ask(self, expression: str) -> Any:
        """Return the value of an expression in the page; of a promise, what it comes to."""
        told = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def text(self, selector: str = "body") -> str:
        """Return what is to be read there; empty where there is no such element."""
        return self.ask(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''")

    def wait(self, words: str, selector: str = "body", *, gone: bool = False) -> None:
        """Wait until these words are to be read there, or no more."""
        wait_until(
            lambda: (words in self.text(selector)) is not gone,
            lambda: f"{words!r} {'gone from' if gone else 'in'} {selector}: {self.text()}\n{self.troubles}",
        )

    def focused(self, name: str) -> None:
        """Wait until the element of this id has the focus."""
        wait_until(lambda: self.ask("document.activeElement.id") == name, f"the focus on {name}")

    def press(self, key: str) -> None:
        about = {"key": key, "code": key, "windowsVirtualKeyCode": KEYS[key]}
        if key == "Enter":
            about["text"] = "\r"
        self.call("Input.dispatchKeyEvent", type="keyDown", **about)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def look(self, *, width: int = 1280, height: int = 900, dark: bool = False, still: bool = True) -> None:
        """Take a size of the window, a colour scheme, and whether whoever looks wants less motion."""
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if phone else 1,
            mobile=phone,
        )
        features = {
            "prefers-color-scheme": "dark" if dark else "light",
            "prefers-reduced-motion": "reduce" if still else "no-preference",
        }
        told = [{"name": name, "value": value} for name, value in features.items()]
        self.call("Emulation.setEmulatedMedia", features=told)

    def picture(self, path: Path) -> None:
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A browser of its own, which ends with the body and keeps nothing."""
    assert BINARY is not None
    hear, speak = os.pipe()
    listen, answer = os.pipe()
    with tempfile.TemporaryDirectory(prefix="edge-browser-", ignore_cleanup_errors=True) as profile:
        # It reads from its file 3 and writes to its file 4.
        process = subprocess.Popen(
            [
                *("bash", "-c", f'exec 3<&{hear} 4>&{answer} "$@"', "bash", BINARY, *OPTIONS),
                f"--user-data-dir={profile}",
                "about:blank",
            ],
            pass_fds=(hear, answer),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(hear)
        os.close(answer)
        try:
            yield Browser(speak, listen)
        finally:
            process.kill()
            process.wait()
            os.close(speak)
            os.close(listen)
