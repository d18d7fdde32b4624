"""Disks that fail: what the door's process asks of its outbox is answered by strace, not by the disk."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.faults.ledger import OPEN, Consumer, Entry, Scenario, settle
from tests.support.broker import Mosquitto

PER_ROUND = 50

WRITES = "pwrite64:error={}:when=40..{}"


def disk(fault: str, inject: Callable[[int], str], *, fails: bool = True) -> Scenario:
    """Return the scenario of a disk where `inject`, given the number of decisions, says what goes wrong."""

    def run(directory: Path, rounds: int) -> Entry:
        count = rounds * PER_ROUND
        files = [f"{directory / 'outbox.sqlite'}{suffix}" for suffix in ("", "-wal")]
        strace = [
            "strace",
            "-f",
            "-qqq",
            "--seccomp-bpf",
            "-o",
            "/dev/null",
            "-e",
            "trace=pwrite64,fdatasync",
            "-e",
            f"inject={inject(count)}",
        ]
        paths = [part for file in files for part in ("-P", file)]
        broker, decided = Mosquitto(directory, OPEN).start(), set[str]()
        child = [
            sys.executable,
            "-m",
            "tests.faults.disk_child",
            str(directory),
            str(broker.port),
            str(count),
        ]
        with (
            Consumer(broker, acknowledge=False) as consumer,
            subprocess.Popen(
                [*strace, *paths, *child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            ) as door,
        ):
            assert door.stdin is not None
            assert door.stdout is not None
            for line in door.stdout:
                if line == "done\n":
                    break
                decided.add(line.strip())
            consumer.wait_for(decided, 60)
            door.stdin.close()
            failures, dropped = map(int, door.stdout.readline().split())
            assert (failures > 0) == fails, "the disk did what it should"
            note = f"{failures} tries failed" if failures else ""
            entry = settle(fault, rounds, decided, consumer, note, dropped=dropped)
        broker.stop()
        return entry

    return run


DISKS: dict[str, tuple[Scenario, int, int]] = {
    "disk-eio": (disk("disk writes fail with EIO, then work", lambda n: WRITES.format("EIO", 40 + n)), 20, 3),
    "sync-eio": (disk("syncs fail with EIO", lambda n: f"fdatasync:error=EIO:when=10..{10 + n // 5}"), 20, 3),
    "disk-full": (disk("disk full for a while", lambda n: WRITES.format("ENOSPC", 40 + n)), 20, 3),
    "disk-read-only": (disk("disk read-only for a while", lambda n: WRITES.format("EROFS", 40 + n)), 20, 3),
    "disk-stalls": (
        disk("every sync takes 250 ms longer", lambda n: "fdatasync:delay_exit=250000", fails=False),
        20,
        2,
    ),
}
