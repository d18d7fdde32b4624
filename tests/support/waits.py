"""Waiting for what happens, and measuring how long it took on a machine that others use too."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LIMIT_S = 180.0
"""Seconds after which a test gives up waiting. It bounds a failure; nothing is expected to take as long."""

PRESSURE = Path("/proc/pressure")
"""What the kernel tells of tasks that had to wait. Source: Documentation/accounting/psi.rst."""


def wait_until(
    condition: Callable[[], Any], what: str | Callable[[], str] = "", *, limit_s: float = LIMIT_S
) -> None:
    """Return when `condition` is true; fail the test when it does not become so."""
    began_s = now_s = time.monotonic()
    while not condition():
        if now_s - began_s > limit_s:
            raise AssertionError(f"not within {limit_s} s: {what() if callable(what) else what or condition}")
        time.sleep(min(0.05, 0.002 + (now_s - began_s) / 20))
        now_s = time.monotonic()


class Stopwatch:
    """Measures from its making on. What the machine took away is no part of what a test is to show."""

    def __init__(self) -> None:
        self._began_s, self._waited_s = time.monotonic(), _waited_s()

    @property
    def wall_s(self) -> float:
        """Seconds that have passed."""
        return time.monotonic() - self._began_s

    @property
    def disturbed_s(self) -> float:
        """Seconds in which a task waited for a processor or a disk; 0 where the kernel does not tell."""
        return min(self.wall_s, _waited_s() - self._waited_s)

    @property
    def undisturbed_s(self) -> float:
        """Seconds that have passed in which no task of this machine had to wait."""
        return self.wall_s - self.disturbed_s


def _waited_s() -> float:
    return sum(_total_s(PRESSURE / resource) for resource in ("cpu", "io") if (PRESSURE / resource).exists())


def _total_s(pressure: Path) -> float:
    some = pressure.read_text().splitlines()[0]
    return int(some.rpartition("total=")[2]) / 1e6
