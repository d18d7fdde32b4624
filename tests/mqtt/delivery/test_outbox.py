import os
import resource
import sqlite3
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.core.errors import OutboxDamagedError, OutboxError
from edge.mqtt.delivery.outbox import Changes, Outbox, Row, Written, beyond
from tests.support.disk import small_disk
from tests.support.door import make_row

AT = datetime(2026, 8, 1, 7, 31, 22, tzinfo=UTC)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.sqlite"


def open_outbox(path: Path, max_rows: int = 100) -> Outbox:
    return Outbox.open(path, max_rows=max_rows, now=lambda: AT)


def puts(*rows: Row) -> Changes:
    return Changes(puts={row.seq: row for row in rows})


def seqs(outbox: Outbox, limit: int = 1000, after: int = 0, without: tuple[str, ...] = ()) -> list[int]:
    return [row.seq for row in outbox.pending(limit, after=after, without=without)]


def test_rows_come_back_as_they_were_put_and_in_order(path: Path) -> None:
    rows = [make_row(seq, vital=seq % 2 == 0, payload=b'{"label":"\xc3\xa9"}') for seq in (3, 1, 2)]
    outbox = open_outbox(path)

    outbox.write(puts(*rows))

    assert outbox.pending(10) == sorted(rows, key=lambda row: row.seq)
    outbox.close()


def test_rows_and_the_last_seq_survive_closing_and_opening(path: Path) -> None:
    outbox = open_outbox(path)
    outbox.write(puts(make_row(1), make_row(2)))
    outbox.write(Changes(done={1, 2}))
    outbox.close()

    again = open_outbox(path)

    assert again.last_seq == 2, "a seq is never given twice, even when nothing waits any more"
    assert again.counts().depth == 0
    again.close()


def test_pages_go_on_after_a_seq_and_leave_topics_out(path: Path) -> None:
    outbox = open_outbox(path)
    outbox.write(puts(*(make_row(seq, topic="odd" if seq % 2 else "even") for seq in range(1, 11))))

    assert seqs(outbox, limit=3) == [1, 2, 3]
    assert seqs(outbox, limit=3, after=3) == [4, 5, 6]
    assert seqs(outbox, without=("odd",)) == [2, 4, 6, 8, 10]
    assert seqs(outbox, without=("odd", "even")) == []
    outbox.close()


def test_an_undeliverable_row_is_kept_but_waits_no_longer(path: Path) -> None:
    outbox = open_outbox(path)
    outbox.write(puts(make_row(1), make_row(2)))

    outbox.write(Changes(undeliverable={1: "too large"}))
    outbox.write(Changes(done={1}, undeliverable={1: "again"}))

    assert seqs(outbox) == [2]
    assert (outbox.counts().depth, outbox.counts().undeliverable) == (1, 1)
    outbox.close()
    with sqlite3.connect(path) as database:
        assert database.execute("SELECT quarantined FROM event WHERE seq = 1").fetchone() == ("too large",)
    database.close()


def test_a_full_outbox_drops_the_oldest_rejects_first_and_matches_last(path: Path) -> None:
    outbox = open_outbox(path, max_rows=4)
    outbox.write(puts(make_row(1, vital=True), make_row(2), make_row(3), make_row(4, vital=True)))

    assert outbox.write(puts(make_row(5))).dropped == 1
    assert seqs(outbox) == [1, 3, 4, 5]
    assert outbox.write(puts(make_row(6, vital=True), make_row(7, vital=True))).dropped == 2
    assert seqs(outbox) == [1, 4, 6, 7]
    assert outbox.write(puts(make_row(8))).dropped == 1
    assert seqs(outbox) == [1, 4, 6, 7], "a reject gives way to matches even when it is the newest"
    assert outbox.write(puts(make_row(9, vital=True))).dropped == 1
    assert seqs(outbox) == [4, 6, 7, 9]
    assert outbox.counts().depth == 4
    outbox.close()


def test_drops_are_counted_for_ever_and_leave_gaps(path: Path) -> None:
    outbox = open_outbox(path, max_rows=2)
    outbox.write(puts(*(make_row(seq) for seq in range(1, 6))))
    outbox.write(Changes(dropped=4))
    outbox.close()

    again = open_outbox(path, max_rows=2)

    assert again.counts().dropped == 7
    assert seqs(again) == [4, 5]
    assert again.last_seq == 5
    again.close()


def test_undeliverable_rows_make_room_too(path: Path) -> None:
    outbox = open_outbox(path, max_rows=2)
    outbox.write(puts(make_row(1), make_row(2)))
    outbox.write(Changes(undeliverable={1: "too large"}))

    outbox.write(puts(make_row(3)))

    counts = outbox.counts()
    assert (counts.depth, counts.undeliverable, counts.dropped) == (2, 0, 1)
    outbox.close()


def test_a_change_that_fails_half_way_changes_nothing(path: Path) -> None:
    outbox = open_outbox(path)
    outbox.write(puts(make_row(1)))
    bad = Row(3, "e3", "t", "text, not bytes", 0, 0, False)  # type: ignore[arg-type]

    with pytest.raises(OutboxError):
        outbox.write(Changes(puts={2: make_row(2), 3: bad}, done={1}))

    assert seqs(outbox) == [1]
    assert outbox.counts().depth == 1
    outbox.write(puts(make_row(2)))
    assert seqs(outbox) == [1, 2]
    outbox.close()


def test_a_row_put_twice_is_stored_once(path: Path) -> None:
    outbox = open_outbox(path)
    outbox.write(puts(make_row(1)))
    outbox.write(puts(make_row(1)))

    assert outbox.counts().depth == 1
    outbox.close()


def test_the_log_does_not_grow_without_bound(path: Path) -> None:
    outbox = open_outbox(path, max_rows=100_000)
    for seq in range(1, 3001):
        outbox.write(puts(make_row(seq, payload=b"x" * 900)))
        outbox.write(Changes(done={seq}))

    assert path.with_name(path.name + "-wal").stat().st_size <= 2 * 1024 * 1024
    assert path.stat().st_size <= 1024 * 1024
    outbox.close()


def garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 400)


def truncated(path: Path) -> None:
    outbox = open_outbox(path)
    outbox.write(puts(*(make_row(seq, payload=b"x" * 2000) for seq in range(1, 90))))
    outbox.close()
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    outbox = open_outbox(path)
    outbox.write(puts(*(make_row(seq, payload=b"x" * 2000) for seq in range(1, 90))))
    outbox.close()
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\x55" * 8192)


def foreign(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE album (title TEXT)")
    database.close()


def other_columns(path: Path) -> None:
    with sqlite3.connect(path) as database:
        database.executescript(
            "CREATE TABLE event (seq INTEGER PRIMARY KEY, what TEXT); PRAGMA user_version = 1;"
        )
    database.close()


@pytest.mark.parametrize("damage", [garbage, truncated, overwritten, foreign, other_columns])
def test_a_damaged_database_is_set_aside_and_the_door_goes_on(path: Path, damage: object) -> None:
    damage(path)  # type: ignore[operator]
    before = path.read_bytes()

    outbox = open_outbox(path)

    assert outbox.set_aside == path.with_name("outbox.sqlite.corrupt-20260801T073122Z")
    assert outbox.set_aside.read_bytes() == before, "kept as it was, for whoever wants to examine it"
    outbox.write(puts(make_row(1)))
    assert seqs(outbox) == [1]
    outbox.close()


def a_directory(path: Path) -> Path:
    path.mkdir()
    return path


def below_a_file(path: Path) -> Path:
    path.write_text("")
    return path / "outbox.sqlite"


def a_newer_version(path: Path) -> Path:
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 2")
    database.close()
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(
            lambda path: path.parent / "no" / "o.sqlite", "create it or correct state_dir", id="absent"
        ),
        pytest.param(lambda _: Path("/proc/outbox.sqlite"), "permissions", id="unwritable directory"),
        pytest.param(a_directory, "is not a file; remove it", id="a directory in its place"),
        pytest.param(below_a_file, "is not a directory; create it", id="below a file"),
        pytest.param(a_newer_version, "newer version of edge .schema 2, known 1.", id="a newer version"),
    ],
)
def test_what_cannot_be_opened_is_explained_in_one_line(path: Path, make: object, message: str) -> None:
    wrong = make(path)  # type: ignore[operator]

    with pytest.raises(OutboxError, match=message) as caught:
        open_outbox(wrong)

    assert not isinstance(caught.value, OutboxDamagedError)
    assert str(caught.value).startswith(str(wrong))
    assert "\n" not in str(caught.value)


def test_a_disk_that_takes_no_more_is_an_error_that_names_the_file(path: Path) -> None:
    outbox = open_outbox(path)
    outbox.write(puts(make_row(1)))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.with_name(path.name + "-wal").stat().st_size, hard))
        with pytest.raises(OutboxError, match=f"{path}: "):
            outbox.write(puts(*(make_row(seq, payload=b"x" * 4096) for seq in range(2, 12))))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert seqs(outbox) == [1]
    outbox.write(puts(make_row(2)))
    assert seqs(outbox) == [1, 2]
    outbox.close()


@pytest.mark.parametrize("existing", [False, True])
def test_opening_on_a_full_disk_is_explained_and_harms_nothing(tmp_path: Path, existing: bool) -> None:
    with small_disk(tmp_path / "disk") as disk:
        path = disk.directory / "outbox.sqlite"
        if existing:
            outbox = open_outbox(path)
            outbox.write(puts(make_row(1)))
            outbox.close()
        if disk.mounted:
            disk.fill()
        else:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, disk.limits[1]))
        with pytest.raises(OutboxError, match=f"{path}: .*; (free some space|check the disk)"):
            open_outbox(path)
        disk.free()

        outbox = open_outbox(path)
        assert seqs(outbox) == ([1] if existing else [])
        outbox.close()


def test_numbers_of_a_device_that_cannot_read_its_last_one_never_repeat() -> None:
    started = [beyond(at) for at in (datetime(1970, 1, 1, tzinfo=UTC), AT, AT + timedelta(seconds=1))]
    assert started == sorted(set(started))
    assert started[0] > 10**12
    assert started[-1] < 2**53, "every JSON reader keeps it exact"


def test_what_is_kept_is_bounded_in_bytes_too(path: Path) -> None:
    outbox = Outbox.open(path, max_rows=1000, max_bytes=10_000, now=lambda: AT)
    outbox.write(puts(make_row(1, vital=True, payload=b"x" * 4000), make_row(2, payload=b"x" * 4000)))
    assert outbox.write(puts(make_row(3, payload=b"x" * 1999))) == Written()
    assert outbox.write(puts(make_row(4, payload=b"x" * 100))) == Written(dropped=1)
    assert seqs(outbox) == [1, 3, 4], "the oldest that is not vital"
    outbox.write(Changes(done={1}, acknowledged={outbox.pending(9)[1].event_id}))
    outbox.close()

    again = Outbox.open(path, max_rows=1000, max_bytes=10_000, now=lambda: AT)
    assert again.write(puts(make_row(5, payload=b"x" * 9900))) == Written(), "room was given back"
    assert again.write(puts(make_row(6, payload=b"x" * 1000))) == Written(dropped=2)
    assert seqs(again) == [6]
    assert again.counts().dropped == 3
    again.close()


def test_rows_are_forgotten_by_their_event_ids(path: Path) -> None:
    outbox = open_outbox(path)
    rows = [make_row(seq) for seq in range(1, 5)]
    outbox.write(puts(*rows))
    outbox.write(Changes(undeliverable={4: "too large"}))
    named = {rows[0].event_id, rows[2].event_id, rows[3].event_id, "no such id"}

    assert outbox.write(Changes(acknowledged=named)) == Written(unknown=2), "the undeliverable one stays"
    assert seqs(outbox) == [2]
    assert (outbox.counts().depth, outbox.counts().undeliverable) == (1, 1)
    outbox.close()


def test_an_outbox_of_an_earlier_version_is_taken_over(path: Path) -> None:
    outbox = open_outbox(path)
    row = make_row(1)
    outbox.write(puts(row))
    outbox.close()
    with sqlite3.connect(path) as database:
        database.execute("DROP INDEX event_by_id")
    database.close()

    again = open_outbox(path)
    assert again.set_aside is None
    again.write(Changes(acknowledged={row.event_id}))
    assert seqs(again) == []
    again.close()
    with sqlite3.connect(path) as database:
        plan = database.execute("EXPLAIN QUERY PLAN DELETE FROM event WHERE event_id = 'x'").fetchone()[3]
    database.close()
    assert "event_by_id" in plan


@pytest.mark.parametrize("before", [None, 0o644, 0o600])
def test_only_its_owner_may_read_what_waits(path: Path, before: int | None) -> None:
    umask = os.umask(0)
    try:
        if before is not None:
            first = open_outbox(path)
            first.write(puts(make_row(1)))
            for each in path.parent.iterdir():
                each.chmod(before)
            first.close()
        outbox = open_outbox(path)
        outbox.write(puts(make_row(2)))
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
    finally:
        os.umask(umask)
    assert modes == dict.fromkeys(("outbox.sqlite", "outbox.sqlite-wal", "outbox.sqlite-shm"), 0o600)
    outbox.close()
