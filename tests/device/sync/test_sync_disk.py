"""A synchronisation whose disk is full at any write: nothing is lost, one line, the next one works."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import EdgeError
from edge.device.sync import sync as sync_module
from edge.device.sync.outcome import save_outcome
from edge.device.sync.trust import TrustedDirectory
from edge.fleet.fleet import Fleet
from edge.gallery.store.store import GalleryStore
from tests.support.disk import SmallDisk, small_disk
from tests.support.fleets import Device, make_device, make_fleet, people

MANY = tuple(f"p-{number}" for number in range(200))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", "2m") as made:
        if not made.mounted:
            pytest.skip("needs to mount a tmpfs")
        yield made


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = make_fleet(tmp_path / "fleet", "front")
    fleet.publish_gallery("front", people("alice", "bob"))
    return fleet


@pytest.fixture
def door(fleet: Fleet, disk: SmallDisk) -> Device:
    door = make_device(disk.directory / "door", fleet, "front", str(fleet.published))
    door.sync()
    fleet.publish_gallery("front", people("alice", *MANY))
    return door


def before(function: Callable[..., Any], act: Callable[[], None], *, call: int = 1) -> Callable[..., Any]:
    calls = []

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) == call:
            act()
        return function(*args, **kwargs)

    return wrapped


STAGES = [
    pytest.param(TrustedDirectory, "__init__", 1, id="before anything"),
    pytest.param(TrustedDirectory, "find", 1, id="metadata"),
    pytest.param(sync_module, "save_floors", 1, id="floors: metadata seen"),
    pytest.param(TrustedDirectory, "fetch", 1, id="target.part"),
    pytest.param(sync_module, "save_floors", 2, id="floors: gallery seen"),
    pytest.param(GalleryStore, "commit", 1, id="gallery"),
    pytest.param(sync_module, "save_floors", 3, id="floors: gallery installed"),
]


@pytest.mark.parametrize(("owner", "name", "call"), STAGES)
def test_a_full_disk_costs_one_line_and_the_next_synchronisation_works(
    door: Device, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int
):
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, before(getattr(owner, name), disk.fill, call=call))
        with pytest.raises(EdgeError) as caught:
            door.sync()
    assert "\n" not in str(caught.value)
    assert "No space left" in str(caught.value)
    assert door.syncer().run().status in ("refused", "updated", "current")
    known = door.known()
    assert known == ["alice", "bob"] or len(known) == 201, "the last good gallery, or the new one"
    disk.free()
    assert door.sync().version == 2
    assert door.sync().status == "current"
    assert len(door.known()) == 201
    assert not list((disk.directory / "door").rglob("target.part"))


def test_a_full_disk_does_not_lower_what_was_seen(door: Device, fleet: Fleet, disk: SmallDisk):
    door.sync()
    floors = door.cache / "floors.json"
    seen = floors.read_text()
    fleet.publish_gallery("front", people("alice", *MANY, "carol"))
    disk.fill()
    assert door.syncer().run().status == "refused"
    assert floors.read_text() == seen
    disk.free()
    assert door.sync().version == 3


def test_an_outcome_that_cannot_be_left_leaves_the_one_before(door: Device, disk: SmallDisk):
    save_outcome(door.cache, door.sync())
    told = (door.cache / "outcome.json").read_text()
    disk.fill()
    with pytest.raises(EdgeError, match="No space left"):
        save_outcome(door.cache, door.syncer().run())
    assert (door.cache / "outcome.json").read_text() == told
