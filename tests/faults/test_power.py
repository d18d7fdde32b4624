"""Power cuts as they are replayed: they must be able to lose what was not synced."""

import random
from pathlib import Path

import pytest

from tests.faults.power import cut, power_cut
from tests.faults.recorded import Op

CREATED = [Op("create", "a"), Op("write", "a", 0, b"x" * 1024), Op("sync", "a"), Op("sync", ".")]


def outcomes(*ops: Op) -> set[bytes | None]:
    return {cut([*CREATED, *ops], random.Random(seed)).get("a") for seed in range(200)}


def test_what_was_synced_is_there():
    assert outcomes() == {b"x" * 1024}
    assert outcomes(Op("write", "a", 1024, b"y"), Op("sync", "a")) == {b"x" * 1024 + b"y"}


def test_of_what_was_written_since_any_sector_may_be_missing():
    old, new = b"x" * 512, b"y" * 512
    assert outcomes(Op("write", "a", 0, new * 2)) == {old + old, old + new, new + old, new + new}


def test_a_later_write_may_reach_the_disk_before_an_earlier_one():
    found = outcomes(Op("write", "a", 1024, b"y" * 512), Op("write", "a", 1536, b"z" * 512))
    assert b"x" * 1024 + bytes(512) + b"z" * 512 in found


@pytest.mark.parametrize("op", [Op("unlink", "a"), Op("truncate", "a", 0)], ids=["unlink", "truncate"])
def test_what_was_taken_away_may_still_be_there(op: Op):
    assert {b"x" * 1024} < outcomes(op)


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_an_outbox_that_does_not_wait_for_the_disk_loses(tmp_path: Path, synchronous: str):
    entry = power_cut(tmp_path, 30, synchronous)
    assert entry.lost > entry.decided / 10, entry
