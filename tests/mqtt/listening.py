"""A door in a process of its own, whose memory can be measured."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.broker import Subscriber


@contextmanager
def door(directory: Path, port: int, version: str = "5", *options: str) -> Iterator[tuple[int, Path]]:
    """A door in a process of its own; yields its pid and the log of what it heard."""
    heard = directory / "heard"
    command = [
        sys.executable,
        "-m",
        "tests.mqtt.listening_child",
        str(directory),
        str(port),
        version,
        *options,
    ]
    with (
        heard.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.DEVNULL) as child,
    ):
        try:
            yield child.pid, heard
        finally:
            child.kill()


def still_tells(seen: Subscriber) -> None:
    before = len(seen.seen)
    seen.wait(lambda: len(seen.seen) > before + 10)
