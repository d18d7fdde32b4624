"""Runner: does one thing at a time in a child process, `edge ...`; the door's process stays as it is."""

import base64
import binascii
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import IO, Any

from edge.core.clock import Clock
from edge.core.errors import CommandError, FileError

TIMEOUT_S = 60.0
MAX_OUTPUT_BYTES = 64 * 1024
"""How much of what a child says is looked at: of errors the end."""

MAX_SAID_BYTES = 8 * 1024 * 1024
"""A child that has said more is stopped: it lies in memory."""

MAX_MESSAGE_CHARS = 1000
EDGE = (sys.executable, "-m", "edge")
STANDARD_INPUT = "/proc/self/fd/0"


class Given(Enum):
    """Stands among the arguments for the path of what is given: no text, so that no id is taken for it."""

    PHOTO = "photo"
    LABEL = "label"


PHOTO, LABEL = Given.PHOTO, Given.LABEL


def read_text(code: int, text: str) -> dict[str, Any]:
    """Return what a child printed as a message."""
    return {"message": text[:MAX_MESSAGE_CHARS]}


@dataclass(frozen=True, slots=True)
class Errand:
    """What to run after `edge`.

    `photo` (base64) and `label` become files in memory whose paths replace `PHOTO` and `LABEL`: everybody on
    the device may see the arguments of a process.
    """

    arguments: tuple[str | Given, ...]
    photo: str | None = field(default=None, repr=False)
    read: "Callable[[int, str], dict[str, Any]]" = read_text
    label: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Result:
    """What came of an errand."""

    error: str | None
    data: dict[str, Any]


class Runner:
    """Runs errands, one at a time. What goes in and comes out is in memory: a photo never is on the disk."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._child: subprocess.Popen[bytes] | None = None
        self._errand: Errand | None = None
        self._out = self._err = -1
        self._began_s = 0.0

    def start(self, errand: Errand) -> None:
        """Start a child.

        Raises:
            CommandError: The photo is no base64, or no program can be given what it is to be given.
            FileError: There is no memory, no process or no file left for it.
        """
        try:
            photo = b"" if errand.photo is None else base64.b64decode(errand.photo, validate=True)
        except (binascii.Error, ValueError):
            raise CommandError("args.photo: it is no base64") from None
        try:
            self._out = os.memfd_create("out")
            self._err = os.memfd_create("err")
            with _in_memory(photo) as given, _in_memory((errand.label or "").encode()) as label:
                paths = {PHOTO: STANDARD_INPUT, LABEL: f"/proc/self/fd/{label.fileno()}"}
                arguments = [part if isinstance(part, str) else paths[part] for part in errand.arguments]
                self._child = subprocess.Popen(
                    [*EDGE, *arguments],
                    stdin=given,
                    stdout=self._out,
                    stderr=self._err,
                    pass_fds=(label.fileno(),),
                )
        except OSError as error:
            self._forget()
            raise FileError(f"a child cannot be started: {error.strerror}; try again later") from None
        except ValueError:
            self._forget()
            raise CommandError("args: they hold a character that no program can be given, as NUL") from None
        self._errand, self._began_s = errand, self._clock.monotonic()

    def poll(self) -> Result | None:
        """Return what came of the errand, None while it runs. Never waits for it."""
        child, errand = self._child, self._errand
        if child is None or errand is None:
            return None
        try:
            code = child.poll()
            why = self._objection() if code is None else None
            if code is None and why is None:
                return None
            result = Result(why, {}) if code is None else self._result(code, errand)
        except OSError as error:
            result = Result(f"what it came to cannot be read: {error.strerror}", {})
        except Exception:
            self.stop()
            raise
        self.stop()
        return result

    def stop(self) -> None:
        """End a child that still runs."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
        self._forget()

    def _objection(self) -> str | None:
        """Return why the child that runs is to be stopped."""
        if self._clock.monotonic() - self._began_s > TIMEOUT_S:
            return f"it took more than {TIMEOUT_S:.0f} s and was stopped"
        if os.fstat(self._out).st_size + os.fstat(self._err).st_size > MAX_SAID_BYTES:
            return "it said more than anybody wants to read and was stopped"
        return None

    def _result(self, code: int, errand: Errand) -> Result:
        out = os.pread(self._out, MAX_OUTPUT_BYTES + 1, 0)
        if code not in (0, 1) or (code == 1 and not out.strip()):
            where = max(0, os.fstat(self._err).st_size - MAX_OUTPUT_BYTES)
            lines = _text(os.pread(self._err, MAX_OUTPUT_BYTES, where)).splitlines()
            last = (lines or [f"it ended with {code}"])[-1].removeprefix("edge: ")
            return Result(last.replace(STANDARD_INPUT, "photo")[:500], {})
        if len(out) > MAX_OUTPUT_BYTES:
            return Result(f"it said more than {MAX_OUTPUT_BYTES} bytes", {})
        try:
            return Result(None, errand.read(code, _text(out)))
        except CommandError as error:
            return Result(str(error), {})

    def _forget(self) -> None:
        self._child = self._errand = None
        for descriptor in (self._out, self._err):
            with contextlib.suppress(OSError):  # -1: there was none
                os.close(descriptor)
        self._out = self._err = -1


def _in_memory(content: bytes) -> IO[bytes]:
    """Return a file that is nowhere on the disk, at its beginning."""
    file = os.fdopen(os.memfd_create("given"), "w+b")
    file.write(content)
    file.flush()
    file.seek(0)
    return file


def read_json(code: int, text: str) -> dict[str, Any]:
    """Return the JSON object that a child printed.

    Raises:
        CommandError: It printed none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise CommandError("it printed nothing that can be read")
    return found


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()
