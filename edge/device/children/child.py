"""`edge ...` as a child process: in a group of its own, bounded in time and in what it says."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from edge.core.clock import Clock
from edge.core.errors import FileError
from edge.core.process import child_environment, kill_group, restrain

EDGE = (sys.executable, "-m", "edge")
"""How this program is called, with the interpreter that runs it now."""

MAX_OUTPUT_BYTES = 64 * 1024
"""Of standard output more is refused, of standard error the end is looked at."""

MAX_SAID_BYTES = 8 * 1024 * 1024
"""A child that has written more to both is stopped: it lies in memory."""

MAX_ADDRESS_BYTES = 3 << 30
"""Address space of a child: `edge identify` of 64 megapixels takes .9 GiB, the daemon's unit has 512 MiB of
memory. What asks for more fails by itself.
"""

MAX_COMPLAINT_CHARS = 500
"""Of the last line on standard error."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended.

    `output` is what it printed, trimmed; `complaint` the last line on standard error. `problem` says why it
    was stopped or why its output cannot be read; `code` is its exit code, None where it was stopped.
    """

    code: int | None
    output: str = ""
    complaint: str = ""
    problem: str | None = None


class Child:
    """One process, in a group of its own, started with `arguments` after `edge`. Used by one thread.

    It is killed with its group after `limit_s` seconds, and ends when this process ends, however that
    happens. Its address space is bounded, and where memory runs out the kernel ends it before the daemon.
    What it prints is in memory. `stdin` is its standard input (None: empty), `inherited` are files that it
    finds under the same numbers.

    Raises:
        FileError: There is no memory, no process or no file left for it.
        ValueError: An argument holds a character that no program can be given, as NUL.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        limit_s: float,
        clock: Clock,
        *,
        stdin: IO[bytes] | None = None,
        inherited: Sequence[IO[bytes]] = (),
    ) -> None:
        self._limit_s, self._clock = limit_s, clock
        self._out = self._err = -1
        try:
            self._out = os.memfd_create("out")
            self._err = os.memfd_create("err")
            self._process = subprocess.Popen(
                [*EDGE, *arguments],
                stdin=subprocess.DEVNULL if stdin is None else stdin,
                stdout=self._out,
                stderr=self._err,
                pass_fds=[file.fileno() for file in inherited],
                process_group=0,
                env=child_environment(),
            )
        except OSError as error:
            self._close()
            raise _unstarted(error) from None
        except ValueError:
            self._close()
            raise
        restrain(self._process.pid, MAX_ADDRESS_BYTES)
        self._began_s = clock.monotonic()

    def poll(self) -> Ended | None:
        """Return how it ended, None while it runs. Never waits for it; to be called until it has ended."""
        try:
            code = self._process.poll()
            problem = self._objection() if code is None else None
            if code is None and problem is None:
                return None
            ended = Ended(None, problem=problem) if code is None else self._said(code)
        except OSError as error:
            ended = Ended(None, problem=f"what it came to cannot be read: {error.strerror}")
        except Exception:
            self.stop()
            raise
        self.stop()
        return ended

    def stop(self) -> None:
        """Kill it and its group where it still runs, and forget what it said."""
        if self._process.poll() is None:
            kill_group(self._process.pid)
            self._process.wait()
        self._close()

    def _objection(self) -> str | None:
        """Return why the child that runs is to be stopped."""
        if self._clock.monotonic() - self._began_s > self._limit_s:
            return f"it took more than {self._limit_s:.0f} s and was stopped"
        if os.fstat(self._out).st_size + os.fstat(self._err).st_size > MAX_SAID_BYTES:
            return "it said more than anybody wants to read and was stopped"
        return None

    def _said(self, code: int) -> Ended:
        where = max(0, os.fstat(self._err).st_size - MAX_OUTPUT_BYTES)
        lines = _text(os.pread(self._err, MAX_OUTPUT_BYTES, where)).splitlines()
        complaint = lines[-1].removeprefix("edge: ")[:MAX_COMPLAINT_CHARS] if lines else ""
        output = os.pread(self._out, MAX_OUTPUT_BYTES + 1, 0)
        if len(output) > MAX_OUTPUT_BYTES:
            return Ended(code, "", complaint, f"it said more than {MAX_OUTPUT_BYTES} bytes")
        return Ended(code, _text(output), complaint)

    def _close(self) -> None:
        for descriptor in (self._out, self._err):
            with contextlib.suppress(OSError):  # -1: there was none
                os.close(descriptor)
        self._out = self._err = -1


def in_memory(content: bytes) -> IO[bytes]:
    """Return a file that is nowhere on the disk, at its beginning.

    Raises:
        FileError: There is no memory or no file left for it.
    """
    try:
        file = os.fdopen(os.memfd_create("given"), "w+b")
        file.write(content)
        file.seek(0)
    except OSError as error:
        raise _unstarted(error) from None
    return file


def _unstarted(error: OSError) -> FileError:
    return FileError(f"a child cannot be started: {error.strerror}; try again later")


def _text(data: bytes) -> str:
    return data.decode(errors="replace").strip()
