"""The power goes at any step of a synchronisation: the old or the new gallery serves, the next run heals."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.support.fleets import make_device, make_fleet, people
from tests.support.powercuts import laid_out, recorded

EVERY = 7
"""Of some 1,200 disks that may be left, so many are passed over; all of them take minutes."""


def test_after_a_power_cut_in_a_synchronisation_a_gallery_serves_and_the_next_one_heals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fleet = make_fleet(tmp_path / "fleet", "front")
    fleet.publish_gallery("front", people("alice", "bob", "carol"))
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    door.sync()
    fleet.revoke("bob")
    with recorded(door.directory) as recorder:
        assert door.sync().status == "updated"
        recorder.done = True
        recorder.look()
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)  # from here on the power stays
    seen, healed = set(), set()
    disks = {(moment.done, repr(disk)): disk for moment in recorder.moments for disk in moment.disks()}
    for (done, _), disk in list(disks.items())[::EVERY]:
        copy = replace(door, directory=laid_out(disk, tmp_path / "copy"))
        known = tuple(copy.known())
        assert known in ([("alice", "carol")] if done else [("alice", "bob", "carol"), ("alice", "carol")])
        outcome = copy.syncer().run()
        assert (outcome.error, copy.known()) == (None, ["alice", "carol"])
        assert copy.store.set_aside == 0
        seen.add(known)
        healed.add(outcome.status)
        shutil.rmtree(copy.directory)
    assert len(seen) == 2
    assert healed == {"updated", "current"}
