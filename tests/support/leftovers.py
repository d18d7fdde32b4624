"""Ends what a run of the tests leaves behind, also when the run itself is killed.

Every process that the tests start, and every one that those start, inherits the mark of the run in its
environment. A process of this module watches the run from outside; when the run is over it kills whatever
still bears the mark.
"""

import os
import select
import signal
import sys
import time
import uuid
from pathlib import Path

MARK = "TESTS_RUN"
"""The environment variable that holds the mark of the run."""

SCAN_S = 0.05
"""Seconds between two looks at the processes of this machine."""


def watch() -> None:
    """Mark every process that this one starts from now on, and start the watcher of this process."""
    os.environ[MARK] = uuid.uuid4().hex
    command = [sys.executable, "-I", "-S", __file__, str(os.getpid()), os.environ[MARK]]
    nowhere = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    os.posix_spawn(sys.executable, command, {}, file_actions=nowhere, setsid=True)


def marked(mark: str) -> list[int]:
    """Return the ids of the processes that bear this mark and have not ended."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if _bears(int(path.name), mark)]


def _bears(pid: int, mark: str) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:  # it has ended, or is another user's
        return False
    return f"{MARK}={mark}".encode() in environment.split(b"\0")


def _kill(pid: int, mark: str) -> None:
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if _bears(pid, mark):  # else it has ended meanwhile, and the id may be another's
            signal.pidfd_send_signal(process, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(process)


def _wait_for_the_end_of_the_run(pid: int) -> None:
    try:
        run = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    if os.getppid() == pid:  # else it has ended already, and the id may be another's
        select.select([run], [], [])


def main(pid: int, mark: str) -> None:
    """Wait for the end of the run, then kill what is left until nothing is."""
    _wait_for_the_end_of_the_run(pid)
    while left := marked(mark):
        for each in left:
            _kill(each, mark)
        time.sleep(SCAN_S)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
