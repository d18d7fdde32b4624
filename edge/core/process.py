"""This process and its surroundings: its log, its signals, the service manager, its vitals and its memory."""

import ctypes
import json
import logging
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Literal

from edge.core.errors import EX_INTERRUPTED
from edge.core.text import printable
from edge.core.threads import Beats

log = logging.getLogger(__name__)

STANDARD_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
"""Attributes that every record has; all others were given by the caller as `extra`."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
"""Source: mallopt(3), malloc.h of the GNU C library."""

PARENT = "EDGE_PARENT_PID"
"""Variable that names the process with which a child has to end; taken out before settings are read."""

CHILD_OOM_SCORE = 500
"""Of 1000, added to the share of memory by which the kernel chooses what to end; the daemon has 0."""

PR_SET_PDEATHSIG = 1
"""Source: prctl(2), linux/prctl.h."""

HEAP_THRESHOLD_BYTES = 128 * 1024
"""The library's own start value. Set by hand it stays: left alone it grows to 32 MiB with the first large
buffer that is freed, and from then on frames and weights fragment the heap."""

SYS = Path("/sys")
"""Where the kernel tells of the board."""

THROTTLED_BITS = {0: "under_voltage", 1: "frequency_capped", 2: "temperature", 3: "temperature"}
"""Bits of `get_throttled` that tell of now: too little power, frequency capped, throttled, soft temperature
limit. Those from 16 on tell of the past."""

FIRMWARE_S = 2.0
"""How long the firmware's program may take."""

SLOWING_TRIPS = ("passive", "hot", "critical")
"""Kinds of trip points at which the kernel slows the board down; at `active` it only turns on a fan."""

SLOW_SHARE = 0.8
"""Of its frequency, below which a processor under load counts as slowed down."""

TIMEX_BYTES, TIME_ERROR = 512, 5
"""More than struct timex takes, and what adjtimex answers while no source sets the clock. Source:
adjtimex(2)."""


def set_up_logging(form: Literal["auto", "human", "json"], level: str) -> None:
    """Send records of `level` and above to standard error; "auto" is human on a terminal, else JSON."""
    human = form == "human" or (form == "auto" and sys.stderr.isatty())
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    logging.captureWarnings(True)


class PlainFormatter(logging.Formatter):
    """The message of a record in one line; below it, indented, where an error came from.

    Whatever a message holds, it neither begins a line nor drives a terminal.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line = self.line(record)
        if record.exc_info:
            trace = self.formatException(record.exc_info).splitlines()
            line += "".join(f"\n    {printable(each)}" for each in trace)
        return line

    def line(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        return printable(record.getMessage())


class HumanFormatter(PlainFormatter):
    """`07:31:22 INFO    decision event_type=match camera=front`."""

    def line(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        at = datetime.fromtimestamp(record.created).strftime("%H:%M:%S")
        extra = "".join(f" {key}={value}" for key, value in _extra(record).items())
        return f"{at} {record.levelname:7} {printable(record.getMessage() + extra)}"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: at (UTC), level, logger, message and what the caller added.

    What cannot be printed is escaped as JSON does it: a terminal that shows the line is not driven by it.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Render one record."""
        line: dict[str, object] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_extra(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, default=str, ensure_ascii=False)
        if text.isprintable():
            return text
        return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def _extra(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in STANDARD_ATTRIBUTES}


@contextmanager
def signals_to(stop: Callable[[], None], reload: Callable[[], None]) -> Iterator[None]:
    """Have SIGTERM and SIGINT call `stop` (a second one exits at once) and SIGHUP `reload`.

    Both are called inside a signal handler: they may only put something into a queue.
    """
    stopping = False

    def on_stop(signum: int, _: FrameType | None) -> None:
        nonlocal stopping
        if stopping:
            os._exit(128 + signum)
        stopping = True
        stop()

    def on_reload(_signum: int, _: FrameType | None) -> None:
        reload()

    handlers = {signal.SIGTERM: on_stop, signal.SIGINT: on_stop, signal.SIGHUP: on_reload}
    before = {signum: signal.signal(signum, handler) for signum, handler in handlers.items()}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


@contextmanager
def quiet_interrupts() -> Iterator[None]:
    """Have Ctrl-C unwind the body and end this process with `EX_INTERRUPTED`, without a word.

    Native code that is being loaded makes another error of it, which is not told either. A second Ctrl-C
    waits for nothing.
    """
    interrupted = False

    def interrupt(_signum: int, _frame: FrameType | None) -> None:
        nonlocal interrupted
        interrupted = True
        signal.signal(signal.SIGINT, lambda *_: os._exit(EX_INTERRUPTED))
        raise SystemExit(EX_INTERRUPTED)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    except BaseException:
        if interrupted:
            raise SystemExit(EX_INTERRUPTED) from None
        raise


def child_environment() -> dict[str, str]:
    """Return the environment for a child `edge ...` that is to end with this process (`end_with_parent`)."""
    return {**os.environ, PARENT: str(os.getpid())}


def end_with_parent() -> None:
    """Have this process killed when its parent ends, however that ends, where the parent asked for it.

    The signal is the kernel's. It comes when the thread that started this process ends, so that children
    are to be started by the main thread. It is asked for here and not between fork and exec, where a
    process of many threads may run nothing.
    """
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if str(os.getppid()) != parent:
        os._exit(128 + signal.SIGKILL)  # it had ended before it could be watched


def restrain(pid: int, max_bytes: int) -> None:
    """Bound the address space of a child, and have the kernel end it before all others where memory runs out.

    One that has ended already needs neither.

    Source: prlimit(2), proc_pid_oom_score_adj(5).
    """
    with suppress(OSError):
        resource.prlimit(pid, resource.RLIMIT_AS, (max_bytes, max_bytes))
        Path(f"/proc/{pid}/oom_score_adj").write_text(str(CHILD_OOM_SCORE))


def kill_group(pid: int) -> None:
    """Kill the process `pid` and all others of the group that it leads."""
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


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


def feed_watchdog(beats: Beats) -> None:
    """Tell the service manager that all is well, or say which threads make no progress and let it act."""
    late = beats.late()
    if late:
        log.error("no progress; the watchdog is not fed", extra={"late": late})
    else:
        sd_notify("WATCHDOG=1")


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


def throttled_by(sys_root: Path = SYS, firmware: str = "vcgencmd") -> tuple[str, ...] | None:
    """Return why the board makes itself slower now: nothing where it does not, None where it does not say.

    A Raspberry Pi is asked by a file of its kernel, or by `firmware`, its program; other boards by the trip
    points of their thermal zones and by how fast their processors run under load.

    Source: Raspberry Pi documentation, vcgencmd get_throttled; kernel, admin-guide/pm/cpufreq.rst and
    driver-api/thermal/sysfs-api.rst.
    """
    bits = _firmware_bits(sys_root, firmware)
    hot = _over_trip_point(sys_root)
    slow = _slow_under_load(sys_root)
    if bits is None and hot is None and slow is None:
        return None
    found = [word for bit, word in THROTTLED_BITS.items() if bits is not None and bits >> bit & 1]
    found += [word for word, seen in (("temperature", hot), ("frequency", slow)) if seen]
    return tuple(dict.fromkeys(found))


def _firmware_bits(sys_root: Path, firmware: str) -> int | None:
    """Return what the firmware of a Raspberry Pi says, None elsewhere."""
    try:
        text = (sys_root / "devices/platform/soc/soc:firmware/get_throttled").read_text()
    except OSError:
        if shutil.which(firmware) is None:
            return None
        try:
            asked = subprocess.run(
                [firmware, "get_throttled"], capture_output=True, text=True, timeout=FIRMWARE_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        text = asked.stdout
    try:
        return int(text.strip().rpartition("=")[2], 16)
    except ValueError:
        return None


def _over_trip_point(sys_root: Path) -> bool | None:
    """Return whether a thermal zone has reached a temperature at which the kernel slows the board down."""
    seen = None
    for kind in sys_root.glob("class/thermal/thermal_zone*/trip_point_*_type"):
        try:
            if kind.read_text().strip() not in SLOWING_TRIPS:
                continue
            limit = int(kind.with_name(kind.name.replace("_type", "_temp")).read_text())
            reached = 0 < limit <= int((kind.parent / "temp").read_text())
        except (OSError, ValueError):
            continue  # a zone may be disabled
        seen = reached or bool(seen)
    return seen


def _slow_under_load(sys_root: Path) -> bool | None:
    """Return whether every processor runs far below its frequency while there is work for all of them."""
    shares = []
    for policy in sys_root.glob("devices/system/cpu/cpufreq/policy*"):
        try:
            base = policy / "base_frequency"  # where there is one, the maximum is a turbo that does not last
            top = base if base.exists() else policy / "cpuinfo_max_freq"
            shares.append(int((policy / "scaling_cur_freq").read_text()) / int(top.read_text()))
        except (OSError, ValueError, ZeroDivisionError):
            continue  # a processor may be switched off
    if not shares:
        return None
    busy = os.getloadavg()[0] >= (os.cpu_count() or 1)
    return busy and max(shares) < SLOW_SHARE


def clock_synced() -> bool | None:
    """Return whether the system clock follows a time source; None where nobody says.

    Source: systemd-timesyncd(8), its run file; adjtimex(2), which chrony and ntpd set, and which the unit
    forbids (ProtectClock).
    """
    timesyncd = Path("/run/systemd/timesync")
    if (timesyncd / "synchronized").exists():
        return True
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    if 0 <= state < TIME_ERROR:
        return True
    return False if state == TIME_ERROR or timesyncd.exists() else None


def boot_id() -> str:
    """Return the kernel's id of this boot. Source: random(4), /proc/sys/kernel/random/boot_id."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def return_freed_memory() -> bool:
    """Have large buffers given back when they are freed, and all threads share one heap.

    Measured on the daemon with one 960x540 clip: 185 -> 160 MB resident. Returns False where the C library is
    not GNU's and nothing was changed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    options = (
        (M_TRIM_THRESHOLD, HEAP_THRESHOLD_BYTES),
        (M_MMAP_THRESHOLD, HEAP_THRESHOLD_BYTES),
        (M_ARENA_MAX, 1),
    )
    return all([mallopt(option, value) == 1 for option, value in options])
