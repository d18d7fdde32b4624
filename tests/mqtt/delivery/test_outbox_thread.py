import logging
import os
import queue
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from edge.core.clock import SystemClock
from edge.core.errors import OutboxDiskError
from edge.core.metrics import Metrics
from edge.core.threads import Beats
from edge.mqtt.delivery import outbox_thread
from edge.mqtt.delivery.outbox import Outbox, Pending, Stored
from edge.mqtt.delivery.outbox_thread import OutboxThread
from tests.support.disk import SmallDisk, small_disk
from tests.support.door import make_row, now
from tests.support.waits import LIMIT_S, Stopwatch, wait_until


class Writing:
    """A running outbox thread and what it answered."""

    def __init__(self, path: Path, max_rows: int = 50_000) -> None:
        self.path = path
        self.answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.beats = Beats()
        self.metrics = Metrics()
        self.thread = OutboxThread(
            Outbox.open(path, max_rows=max_rows, now=now),
            self.answers,
            beats=self.beats,
            metrics=self.metrics,
            clock=SystemClock(),
        )
        self.thread.start()

    def stored(self, *expected: int) -> bool:
        """Wait until all of `expected` are answered; returns whether all are durable."""
        waiting, durable = set(expected), True
        while waiting:
            answer = self.answers.get(timeout=LIMIT_S)
            if isinstance(answer, Stored):
                waiting -= set(answer.seqs)
                durable = durable and answer.durable
        return durable

    def pending(self, limit: int = 1000, **options: Any) -> list[int]:
        self.thread.request(7, limit, **options)
        while True:
            answer = self.answers.get(timeout=LIMIT_S)
            if isinstance(answer, Pending):
                assert answer.token == 7
                return [row.seq for row in answer.rows]


def in_file(path: Path) -> list[int]:
    outbox = Outbox.open(path, max_rows=1_000_000, now=now)
    rows = [row.seq for row in outbox.pending(1_000_000)]
    outbox.close()
    return rows


@pytest.fixture
def write(tmp_path: Path) -> Iterator[Callable[..., Writing]]:
    made: list[Writing] = []

    def start(path: Path = tmp_path / "outbox.sqlite", **options: Any) -> Writing:
        made.append(Writing(path, **options))
        return made[-1]

    yield start
    for writing in made:
        writing.thread.stop(5)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk") as made:
        yield made


def test_what_is_answered_for_is_in_the_file(write: Callable[..., Writing]) -> None:
    writing = write()
    for seq in range(1, 101):
        writing.thread.put(make_row(seq))

    assert writing.stored(*range(1, 101))
    with sqlite3.connect(f"file:{writing.path}?mode=ro", uri=True) as other:
        assert other.execute("SELECT COUNT(*) FROM event").fetchone() == (100,)
    other.close()


def test_requests_see_everything_that_was_asked_before_them(write: Callable[..., Writing]) -> None:
    writing = write()
    for seq in range(1, 41):
        writing.thread.put(make_row(seq, topic="odd" if seq % 2 else "even"))
    writing.thread.done(*range(1, 11))
    writing.thread.undeliverable(11, "too large")

    assert writing.pending() == list(range(12, 41))
    writing.thread.done(12)
    assert writing.pending(limit=2, without=("odd",)) == [14, 16]
    assert writing.pending(limit=2, after=38) == [39, 40]
    assert (writing.thread.counts.depth, writing.thread.counts.undeliverable) == (28, 1)


def test_putting_never_waits_for_the_disk(
    write: Callable[..., Writing], monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = write()
    write_really = Outbox.write

    def stalled(self: Outbox, *args: Any) -> int:
        time.sleep(0.3)
        return write_really(self, *args)

    monkeypatch.setattr(Outbox, "write", stalled)
    watch = Stopwatch()
    for seq in range(1, 201):
        writing.thread.put(make_row(seq))

    assert watch.undisturbed_s < 0.2
    monkeypatch.undo()
    assert writing.stored(*range(1, 201))


def test_stopping_writes_what_is_queued(write: Callable[..., Writing]) -> None:
    writing = write()
    for seq in range(1, 501):
        writing.thread.put(make_row(seq))

    assert writing.thread.stop(10)

    assert in_file(writing.path) == list(range(1, 501))


def test_a_killed_writer_loses_nothing_that_it_answered_for(tmp_path: Path) -> None:
    path = tmp_path / "outbox.sqlite"
    promised: set[int] = set()
    for _ in range(3):
        with subprocess.Popen(
            [sys.executable, "-m", "tests.mqtt.delivery.outbox_child", str(path)],
            stdout=subprocess.PIPE,
            text=True,
        ) as child:
            assert child.stdout is not None
            for _ in range(40):
                promised.update(map(int, child.stdout.readline().split()))
            child.send_signal(signal.SIGKILL)
            promised.update(int(seq) for line in child.stdout if line.endswith("\n") for seq in line.split())

    assert len(promised) > 100
    assert promised <= set(in_file(path))


def test_a_full_disk_keeps_rows_in_memory_until_there_is_room(
    disk: SmallDisk,
    write: Callable[..., Writing],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(outbox_thread, "RETRY_S", 0.05)
    writing = write(disk.directory / "outbox.sqlite")
    large = b"x" * 4000
    writing.thread.put(make_row(1, payload=large))
    assert writing.stored(1)
    caplog.set_level(logging.INFO)
    disk.fill()

    for seq in range(2, 32):
        writing.thread.put(make_row(seq, payload=large))
        time.sleep(0.01)

    assert not writing.stored(*range(2, 32)), "told that they are in memory only"
    assert writing.thread.counts.durable is False
    assert writing.thread.counts.depth == 31
    assert writing.pending() == list(range(1, 32)), "and delivered from there"
    writing.thread.done(1, 2, 3)
    assert writing.pending() == list(range(4, 32))
    wait_until(lambda: writing.metrics.counts()["outbox.failures"] > 2)
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 1, "said once"

    disk.free()
    wait_until(lambda: writing.thread.counts.durable)
    assert writing.thread.stop(5)
    assert in_file(writing.path) == list(range(4, 32))
    assert "on the disk again" in caplog.text


def test_memory_is_bounded_while_the_disk_refuses(
    disk: SmallDisk, write: Callable[..., Writing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_thread, "MAX_UNSAVED", 20)
    monkeypatch.setattr(outbox_thread, "RETRY_S", 0.05)
    writing = write(disk.directory / "outbox.sqlite")
    disk.fill()

    for seq in range(1, 51):
        writing.thread.put(make_row(seq, vital=seq <= 5, payload=b"x" * 4000))
    writing.stored(*range(1, 51))

    kept = [*range(1, 6), *range(36, 51)]
    assert writing.pending() == kept, "matches are the last to go"
    assert writing.thread.counts.dropped == 30
    disk.free()
    wait_until(lambda: writing.thread.counts.durable)
    assert writing.thread.stop(5)
    again = Outbox.open(writing.path, max_rows=100, now=now)
    assert again.counts().dropped == 30, "counted durably once the disk is back"
    assert again.last_seq == 50
    again.close()


def test_a_database_that_breaks_while_in_use_is_set_aside(
    write: Callable[..., Writing], caplog: pytest.LogCaptureFixture
) -> None:
    writing = write()
    more_than_the_cache = range(1, 1501)
    for seq in more_than_the_cache:
        writing.thread.put(make_row(seq, payload=b"x" * 3000))
    assert writing.stored(*more_than_the_cache)
    for file in (writing.path, writing.path.with_name(writing.path.name + "-wal")):
        with file.open("r+b") as opened:
            opened.write(os.urandom(file.stat().st_size))

    assert writing.pending() == [], "the rows are lost with the file, but nothing hangs"
    for seq in range(1501, 1521):
        writing.thread.put(make_row(seq))
    assert writing.stored(*range(1501, 1521))

    aside = [file for file in writing.path.parent.iterdir() if ".corrupt-" in file.name]
    assert aside
    assert "a new outbox begins" in caplog.text
    assert writing.metrics.counts()["outbox.set_aside"] == 1
    assert writing.pending() == list(range(1501, 1521))
    assert writing.thread.counts.durable


def test_a_full_outbox_says_so_and_counts(
    write: Callable[..., Writing], caplog: pytest.LogCaptureFixture
) -> None:
    writing = write(max_rows=10)
    for seq in range(1, 26):
        writing.thread.put(make_row(seq))
    writing.stored(*range(1, 26))

    assert writing.pending() == list(range(16, 26))
    assert writing.thread.counts.dropped == 15
    assert writing.metrics.counts()["outbox.dropped"] == 15
    assert "outbox full" in caplog.text


def test_a_lone_row_is_safe_within_milliseconds(write: Callable[..., Writing]) -> None:
    writing = write()
    times_ms = []
    for seq in range(1, 101):
        watch = Stopwatch()
        writing.thread.put(make_row(seq, payload=b"x" * 900))
        writing.stored(seq)
        times_ms.append(watch.undisturbed_s * 1e3)

    assert sorted(times_ms)[50] < 20.0


def test_rows_are_forgotten_by_their_event_ids_on_the_disk_and_in_memory(
    disk: SmallDisk, write: Callable[..., Writing], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_thread, "RETRY_S", 0.05)
    writing = write(disk.directory / "outbox.sqlite")
    rows = [make_row(seq, payload=b"x" * 4000) for seq in range(1, 41)]
    writing.thread.put(rows[0])
    assert writing.stored(1)
    disk.fill()
    for row in rows[1:]:
        writing.thread.put(row)
    writing.stored(*range(2, 41))
    writing.thread.acknowledge((rows[0].event_id, rows[39].event_id, "unknown"))
    assert writing.pending() == list(range(2, 40))
    disk.free()
    wait_until(lambda: writing.thread.counts.durable)
    writing.thread.stop(5)
    assert in_file(writing.path) == list(range(2, 40))
    assert writing.metrics.counts()["ack.unknown"] == 1


def test_a_database_that_the_disk_failed_is_closed_opened_again_and_checked(
    write: Callable[..., Writing], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A limit on the size of files makes writing fail with an error that is not "full"."""
    monkeypatch.setattr(outbox_thread, "RETRY_S", 0.05)
    writing = write()
    writing.thread.put(make_row(1))
    assert writing.stored(1)
    opened: list[Path] = []
    open_really = Outbox.open

    def noted(path: Path, **options: Any) -> Outbox:
        opened.append(path)
        return open_really(path, **options)

    monkeypatch.setattr(Outbox, "open", noted)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))
        for seq in range(2, 31):
            writing.thread.put(make_row(seq, payload=b"x" * 4000))
        assert not writing.stored(*range(2, 31))
        assert writing.pending() == list(range(1, 31)), "nothing is out of reach"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    wait_until(lambda: writing.thread.counts.durable)
    assert writing.metrics.counts()["outbox.reopened"] >= 1
    assert opened
    assert "outbox.set_aside" not in writing.metrics.counts(), "it was found whole"
    writing.thread.stop(5)
    assert in_file(writing.path) == list(range(1, 31))


def test_an_fsync_that_fails_costs_nothing_that_was_answered_for(tmp_path: Path) -> None:
    if shutil.which("strace") is None:
        pytest.skip("needs strace")
    path, trace = tmp_path / "outbox.sqlite", tmp_path / "trace"
    fault = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=fdatasync"]
    fault += ["-e", "inject=fdatasync:error=EIO:when=30..31"]
    child_command = [sys.executable, "-m", "tests.mqtt.delivery.outbox_child", str(path)]
    promised: set[int] = set()
    with subprocess.Popen(
        [*fault, *child_command], stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as child:
        assert child.stdout is not None
        while len(promised) < 400 and (line := child.stdout.readline()):
            promised.update(map(int, line.split()))
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)  # strace alone would wait for its child
        promised.update(int(seq) for line in child.stdout if line.endswith("\n") for seq in line.split())
    if not promised:
        pytest.skip("strace may not trace here")

    assert trace.read_text().count("INJECTED") == 2
    assert len(promised) >= 400
    assert promised <= set(in_file(path))


def test_damage_that_is_found_when_it_is_opened_again_is_told(
    write: Callable[..., Writing], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    writing = write()
    writing.thread.put(make_row(1))
    assert writing.stored(1)
    write_really = Outbox.write

    def failing(self: Outbox, *args: Any) -> Any:
        monkeypatch.setattr(Outbox, "write", write_really)
        for suffix in ("", "-wal"):
            file = writing.path.with_name(writing.path.name + suffix)
            file.write_bytes(os.urandom(file.stat().st_size))
        raise OutboxDiskError(f"{writing.path}: disk I/O error")

    monkeypatch.setattr(Outbox, "write", failing)
    writing.thread.put(make_row(2))
    assert writing.stored(2), "in a new one"
    assert writing.metrics.counts()["outbox.set_aside"] == 1
    assert "a new outbox begins" in caplog.text
    assert writing.pending() == [2]


def test_a_disk_that_cannot_be_read_is_not_taken_for_an_empty_one(
    write: Callable[..., Writing], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing = write(tmp_path / "outbox.sqlite")
    writing.thread.put(make_row(1))
    assert writing.stored(1)
    pending = Outbox.pending

    def refuse(*args: Any, **options: Any) -> None:
        raise OutboxDiskError("disk I/O error")

    monkeypatch.setattr(Outbox, "pending", refuse)
    writing.thread.request(7, 10)
    answer = writing.answers.get(timeout=LIMIT_S)
    assert (answer.rows, answer.read) == ((), False)
    monkeypatch.setattr(Outbox, "pending", pending)
    writing.thread.request(7, 10)
    answer = writing.answers.get(timeout=LIMIT_S)
    assert ([row.seq for row in answer.rows], answer.read) == ([1], True)
