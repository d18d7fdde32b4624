"""Signs of life: beats of the working threads, the service manager's socket, the process's own vitals.

A part that must make progress registers with a limit and beats; the watchdog is fed only while nobody is
late. This file decides nothing else: what to do about a late part is the daemon's business.
"""

import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

log = logging.getLogger(__name__)


class Beats:
    """Progress stamps by name. Thread-safe; `clock` is monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._due_s: dict[str, float] = {}
        self._limit_s: dict[str, float] = {}

    def register(self, name: str, limit_s: float) -> None:
        """Expect a beat of `name` at least every `limit_s` seconds from now on."""
        with self._lock:
            self._limit_s[name] = limit_s
            self._due_s[name] = self._clock() + limit_s

    def beat(self, name: str, extra_s: float = 0.0) -> None:
        """Note progress of `name`; `extra_s` grants a declared pause, such as a back-off, on top."""
        with self._lock:
            if name in self._limit_s:
                self._due_s[name] = self._clock() + self._limit_s[name] + extra_s

    def forget(self, name: str) -> None:
        """Stop expecting beats of `name`."""
        with self._lock:
            self._limit_s.pop(name, None)
            self._due_s.pop(name, None)

    def late(self) -> list[str]:
        """Return the names that are overdue, sorted."""
        now_s = self._clock()
        with self._lock:
            return sorted(name for name, due_s in self._due_s.items() if now_s > due_s)


def sd_notify(message: str) -> bool:
    """Send `message` (such as "READY=1") to the service manager.

    Returns:
        False where no manager listens (not started by systemd) or it cannot be reached.

    Source: sd_notify(3): one datagram to the socket named by NOTIFY_SOCKET, "@" for the abstract namespace.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.connect(address)
            manager.sendall(message.encode())
    except OSError:
        return False
    return True


def watchdog_interval_s() -> float | None:
    """Return how often to feed the service manager's watchdog (half its limit), or None without one."""
    limit_us = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not limit_us.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(limit_us) / 2e6


def rss_mb(pid: int | str = "self") -> float:
    """Return the resident memory of a process in MB (1e6 bytes). Source: proc(5), statm field 2."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def temperature_c() -> float | None:
    """Return the hottest thermal zone in degrees Celsius, or None where the board has no sensor."""
    readings: list[float] = []
    for zone in Path("/sys/class/thermal").glob("thermal_zone*/temp"):
        try:
            readings.append(int(zone.read_text()) / 1e3)
        except (OSError, ValueError):
            continue  # a zone may be disabled; the others still count
    return max(readings, default=None)


def clock_synced() -> bool:
    """Return whether the system clock follows a time source. Source: systemd-timesyncd(8), its run file."""
    return Path("/run/systemd/timesync/synchronized").exists()


def boot_id() -> str:
    """Return the kernel's id of this boot. Source: random(4), /proc/sys/kernel/random/boot_id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def feed_watchdog(beats: Beats) -> None:
    """Tell the service manager that all is well, or say which threads make no progress and let it act."""
    late = beats.late()
    if late:
        log.error("no progress; the watchdog is not fed", extra={"late": late})
    else:
        sd_notify("WATCHDOG=1")
