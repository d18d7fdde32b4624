"""Ballast: room that a full disk gives back for the deletions that free it."""

from pathlib import Path

import pytest

from edge.core.clock import SystemClock
from edge.core.errors import OutboxFullError
from edge.core.metrics import Metrics
from edge.mqtt.delivery.outbox import Changes, Outbox, Row
from edge.mqtt.delivery.outbox_thread import BALLAST_BYTES, TEND_S, Ballast, Keeper
from tests.support.disk import SmallDisk, small_disk
from tests.support.door import make_row, now


def test_it_takes_real_room_and_gives_it_back_once(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path / "outbox.sqlite")
    ballast.tend(0.0)
    (file,) = tmp_path.iterdir()
    assert file.stat().st_blocks * 512 >= BALLAST_BYTES
    assert ballast.release(1.0)
    assert not ballast.release(1.0)
    ballast.tend(2.0)
    assert not file.exists(), "not at once"
    ballast.tend(1.0 + TEND_S)
    assert file.exists()


@pytest.mark.parametrize("size", ["1m", "6m"])
def test_a_small_disk_is_left_to_the_outbox(tmp_path: Path, size: str) -> None:
    with small_disk(tmp_path / "disk", size) as disk:
        if not disk.mounted:
            pytest.skip("needs to mount a small disk")
        Ballast(disk.directory / "outbox.sqlite").tend(0.0)
        assert list(disk.directory.iterdir()) == []


def test_a_full_disk_forgets_delivered_rows_where_it_could_not_without(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "16m") as disk:
        if not disk.mounted:
            pytest.skip("needs to mount a small disk")
        delivered = Changes(done=set(range(1, 501)))
        bare = filled_disk(disk, "bare", ballast=False)
        with pytest.raises(OutboxFullError, match="free some space"):
            bare.attempt(lambda outbox: outbox.write(delivered))
        disk.free()
        bare.close()

        keeper = filled_disk(disk, "kept", ballast=True)
        keeper.attempt(lambda outbox: outbox.write(delivered))
        assert not (disk.directory / "kept" / "outbox.ballast").exists()
        for seq in range(601, 1001):  # the room that the delivered rows took
            keeper.attempt(lambda outbox, seq=seq: outbox.write(Changes(puts={seq: large(seq)})))
        disk.free()
        keeper.close()


def large(seq: int) -> Row:
    return make_row(seq, payload=b"x" * 900)


def filled_disk(disk: SmallDisk, name: str, *, ballast: bool) -> Keeper:
    """An outbox with 600 rows, whose log is empty, on a disk without any room."""
    (disk.directory / name).mkdir()
    path = disk.directory / name / "outbox.sqlite"
    outbox = Outbox.open(path, max_rows=10_000, now=now)
    outbox.write(Changes(puts={seq: large(seq) for seq in range(1, 601)}))
    outbox.close()
    keeper = Keeper(Outbox.open(path, max_rows=10_000, now=now), Metrics(), SystemClock())
    if ballast:
        keeper.tend()
        assert (path.parent / "outbox.ballast").exists()
    disk.fill()
    return keeper
