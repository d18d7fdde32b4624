"""Runner: does one thing at a time in a child process, `edge ...`; the door's process stays as it is."""

import base64
import binascii
import contextlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge import safefile
from edge.clock import Clock
from edge.errors import CommandError, FileError

TIMEOUT_S = 60.0
MAX_OUTPUT_BYTES = 64 * 1024
EDGE = (sys.executable, "-m", "edge")


@dataclass(frozen=True, slots=True)
class Errand:
    """What to run after `edge`; `photo` (base64) is put into a file whose path replaces `PHOTO`."""

    arguments: tuple[str, ...]
    photo: str | None = field(default=None, repr=False)
    read: "Callable[[int, str], dict[str, Any]]" = field(default=lambda code, text: {"message": text})


PHOTO = "{photo}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an errand."""

    error: str | None
    data: dict[str, Any]


class Runner:
    """Runs errands, one at a time; their files lie in `directory`, mode 0600, and go with the child."""

    def __init__(self, directory: Path, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._errand: Errand | None = None
        self._began_s = 0.0

    def start(self, errand: Errand) -> None:
        """Start a child.

        Raises:
            CommandError: The photo is no base64.
            FileError: A file cannot be written.
        """
        try:
            self._directory.mkdir(safefile.PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        except OSError as error:
            raise FileError(f"{self._directory}: cannot be made: {error.strerror}") from None
        photo = self._directory / "photo.part"
        if errand.photo is not None:
            try:
                safefile.write_whole(photo, base64.b64decode(errand.photo, validate=True))
            except (binascii.Error, ValueError):
                raise CommandError("args.photo: it is no base64") from None
        arguments = [str(photo) if part == PHOTO else part for part in errand.arguments]
        try:
            with (
                (self._directory / "out.part").open("wb") as out,
                (self._directory / "err.part").open("wb") as err,
            ):
                self._child = subprocess.Popen(
                    [*EDGE, *arguments], stdin=subprocess.DEVNULL, stdout=out, stderr=err
                )
        except OSError as error:
            raise FileError(f"{self._directory}: a child cannot be started: {error.strerror}") from None
        self._errand, self._began_s = errand, self._clock.monotonic()

    def poll(self) -> Result | None:
        """Return what came of the errand, None while it runs. Never waits."""
        child, errand = self._child, self._errand
        if child is None or errand is None:
            return None
        code = child.poll()
        if code is None:
            if self._clock.monotonic() - self._began_s <= TIMEOUT_S:
                return None
            child.kill()
            child.wait()
            return self._end(Result(f"it took more than {TIMEOUT_S:.0f} s and was stopped", {}))
        out, err = self._text("out.part"), self._text("err.part")
        if code not in (0, 1) or (code == 1 and not out):
            last = (err.splitlines() or [f"it ended with {code}"])[-1]
            return self._end(Result(last.removeprefix("edge: ")[:500], {}))
        try:
            return self._end(Result(None, errand.read(code, out)))
        except CommandError as error:
            return self._end(Result(str(error), {}))

    def stop(self) -> None:
        """End a child that still runs."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._end(Result(None, {}))

    def _end(self, result: Result) -> Result:
        self._child = self._errand = None
        for name in ("photo.part", "out.part", "err.part"):
            with contextlib.suppress(FileNotFoundError):
                (self._directory / name).unlink()
        return result

    def _text(self, name: str) -> str:
        data = safefile.read_bounded(self._directory / name, MAX_OUTPUT_BYTES) or b""
        return data.decode(errors="replace").strip()


def read_json(code: int, text: str) -> dict[str, Any]:
    """Return the JSON object that a child printed.

    Raises:
        CommandError: It printed none.
    """
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise CommandError("it printed nothing that can be read")
    return found
