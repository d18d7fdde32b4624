"""Who may not pass any more reaches a door whose embedder cannot use what is published."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from edge.core.access import Access, SubjectState
from edge.core.errors import GalleryError, ModelMismatchError, SyncError
from edge.fleet.fleet import Fleet
from edge.gallery.format.published import full_path, scope_role
from edge.gallery.format.removed import decode_removed, encode_removed, removed_path, subject_hash
from edge.gallery.format.seal import MAGIC
from edge.gallery.gallery import Gallery
from edge.gallery.store.erasure import Erased
from tests.support.fleets import Device, StaticServer, make_device, make_fleet, people, serving, status
from tests.support.gallery_samples import MODEL, ids

OTHER = "other@12345678"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = make_fleet(tmp_path / "fleet", "front", "back")
    fleet.publish_gallery("front", people("alice", "bob", "carol"))
    return fleet


@pytest.fixture
def server(fleet: Fleet) -> Iterator[StaticServer]:
    with serving(fleet.published) as server:
        yield server


@pytest.fixture
def door(fleet: Fleet, server: StaticServer, tmp_path: Path) -> Device:
    """A door with a fixed embedder, whose scope was switched to another one."""
    door = make_device(tmp_path / "door", fleet, "front", server.url)
    door.sync()
    fleet.publish_gallery("front", people("alice", "bob", "carol", model_id=OTHER), candidate=True)
    fleet.switch("front")
    return door


def refused(door: Device) -> str:
    """Synchronise, which is refused for the embedder; return why."""
    with pytest.raises(ModelMismatchError, match="this device embeds with") as caught:
        door.sync()
    return str(caught.value)


def restricted(gallery: Gallery, subject_id: str, access: Access) -> Gallery:
    changed = (replace(s, access=access) if s.subject_id == subject_id else s for s in gallery.subjects)
    return replace(gallery, subjects=tuple(changed))


def test_a_switch_alone_takes_nobody_out(door: Device):
    assert "who was removed or restricted is so here as well" in refused(door)
    assert door.known() == ["alice", "bob", "carol"]


@pytest.mark.parametrize("others", [(), ("dave",)], ids=["as they were", "somebody came as well"])
def test_who_is_revoked_leaves_a_door_of_another_embedder(
    fleet: Fleet, door: Device, tmp_path: Path, others: tuple[str, ...]
):
    refused(door)
    fleet.revoke("bob")
    if others:
        fleet.publish_gallery("front", people("alice", "carol", *others, model_id=OTHER))
    outcome = door.syncer().run()
    assert (outcome.status, outcome.reason) == ("refused", "model")
    assert outcome.rights == fleet.status()[0].version
    assert door.known() == ["alice", "carol"], "those that are left keep their templates"
    assert "bob" in Erased([tmp_path / "door" / "gallery"]), "erased as by any removal"
    assert all("bob" not in door.store._vault.read(version).ids for version in door.store.versions())


def test_who_is_removed_by_publishing_leaves_it_too_and_comes_back_with_the_embedder(
    fleet: Fleet, door: Device
):
    fleet.publish_gallery("front", people("alice", "bob", model_id=OTHER))
    refused(door)
    assert door.known() == ["alice", "bob"]
    fleet.switch("front", allow_missing=True)
    assert door.sync().status == "updated"
    assert door.known() == ["alice", "bob", "carol"], "the gallery itself says so"


@pytest.mark.parametrize("fixed", [True, False], ids=["a fixed embedder", "a model that nobody signed"])
def test_who_is_suspended_is_so_at_a_door_of_another_embedder(fleet: Fleet, door: Device, fixed: bool):
    suspended = Access(SubjectState.SUSPENDED)
    now = people("alice", "bob", "carol", model_id=OTHER)
    fleet.publish_gallery("front", restricted(now, "bob", suspended), model=None if fixed else "other")
    syncer = door.syncer()
    if not fixed:
        syncer.adopt = lambda name, fetch: (fetch("weights.onnx").decode(), 64)
    assert syncer.run().rights == 3
    gallery = door.store.load(MODEL)
    assert gallery.active == {"alice", "carol"}
    assert gallery.subject("bob").access == suspended
    assert len(gallery.templates_of("bob")) == 1
    fleet.publish_gallery("front", now)
    refused(door)
    assert door.store.load(MODEL).active == {"alice", "bob", "carol"}


def test_a_model_that_takes_longer_than_there_is_time_keeps_no_revocation_waiting(fleet: Fleet, door: Device):
    gallery = people("alice", "bob", "carol", model_id=OTHER)
    fleet.publish_gallery("front", gallery, model="other")
    fleet.revoke("bob")
    fleet.publish_gallery("front", gallery, model="other")
    known: list[list[str]] = []

    def adopt(name: str, fetch: Callable[[str], bytes]) -> tuple[str, int]:
        known.append(door.known())
        if len(known) == 1:
            raise SyncError("sync.url: the server is too slow; try again later")
        return OTHER, 128

    outcomes = [replace(door.syncer(), adopt=adopt).run() for _ in range(2)]
    assert known == [["alice", "carol"]] * 2
    assert [(each.status, each.rights) for each in outcomes] == [("refused", 5), ("updated", None)]
    assert door.store.enrolled_with() == OTHER
    assert door.store.load(OTHER).ids == {"alice", "carol"}


def test_who_is_in_no_gallery_since_the_old_one_was_dropped_can_be_revoked_and_leaves(
    fleet: Fleet, server: StaticServer, tmp_path: Path
):
    door = make_device(tmp_path / "door", fleet, "front", server.url)
    door.sync()
    fewer = people("alice", "bob", model_id=OTHER)
    fleet.publish_gallery("front", fewer, candidate=True, allow_missing=True)
    fleet.switch("front", allow_missing=True)
    refused(door)
    assert door.known() == ["alice", "bob", "carol"], "no photo to embed anew is no removal"
    fleet.drop_candidate("front")
    refused(door)
    assert door.known() == ["alice", "bob"]
    fleet.revoke("carol")
    assert "carol" in fleet.revoked


def test_a_revocation_done_again_reaches_doors_of_scopes_that_hold_nobody_of_that_id(
    fleet: Fleet, door: Device
):
    """As after an upgrade: the release before published no list."""
    fleet.revoke("bob")
    fleet.repository.publish(scope_role("front"), {}, [removed_path("front")])
    refused(door)
    assert door.known() == ["alice", "bob", "carol"]
    fleet.revoke("bob")
    refused(door)
    assert door.known() == ["alice", "carol"]


def test_what_was_followed_is_not_fetched_again(fleet: Fleet, door: Device, server: StaticServer):
    fleet.revoke("bob")
    refused(door)
    before = (door.store.current_version(), sum(path.endswith(".edge") for path in server.paths))
    refused(door)
    assert (door.store.current_version(), sum(path.endswith(".edge") for path in server.paths)) == before


def test_the_list_is_sealed_and_names_nobody(fleet: Fleet):
    fleet.revoke("bob")
    files = [path.read_bytes() for path in fleet.published.rglob("*.edge")]
    assert all(data.startswith(MAGIC) for data in files)
    public = b"".join(path.read_bytes() for path in fleet.published.rglob("*") if path.is_file())
    assert b"bob" not in public
    assert subject_hash("bob").encode() not in public


@pytest.mark.parametrize("ending", [".removed.edge", ".full.edge"])
def test_what_cannot_be_followed_is_told_and_tried_again(
    fleet: Fleet, door: Device, server: StaticServer, ending: str
):
    fleet.revoke("bob")
    server.mischief[ending] = status(500)
    outcome = door.syncer().run()
    assert outcome.rights is None
    assert "nor can it be followed who may not pass any more" in (outcome.error or "")
    server.mischief.clear()
    assert door.syncer().run().rights == 3
    assert door.known() == ["alice", "carol"]


def test_an_older_gallery_of_another_embedder_takes_no_restriction_back(
    fleet: Fleet, door: Device, tmp_path: Path
):
    now = people("alice", "bob", "carol", model_id=OTHER)
    fleet.publish_gallery("front", restricted(now, "bob", Access(SubjectState.SUSPENDED)))
    refused(door)
    path = full_path("front")
    old = fleet.repository.read(scope_role("front"), path)
    assert old is not None
    fleet.repository.publish(scope_role("front"), {path: (old[0], {**old[1], "version": 2})}, ())
    outcome = door.syncer().run()
    assert outcome.reason == "rollback"
    assert door.store.load(MODEL).active == {"alice", "carol"}


def test_a_candidate_that_cannot_be_used_keeps_nobody_who_was_removed(fleet: Fleet, tmp_path: Path):
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    door.embedders |= {OTHER: 64}
    syncer = door.syncer()
    candidate = syncer.candidate = type(door.store)(tmp_path / "door" / "candidate", keep_versions=5)
    fleet.publish_gallery("front", people("alice", "bob", "carol", model_id=OTHER, dim=64), candidate=True)
    assert syncer.synchronise().candidate
    del syncer.embedders[OTHER]
    fleet.revoke("bob")
    outcome = syncer.run()
    assert (outcome.status, outcome.reason) == ("updated", "model")
    assert ids(candidate.load(OTHER)) == ["alice", "carol"]


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"removed": 3}', b'{"else": []}', b"[" * 100_000])
def test_a_list_that_is_none_is_refused(data: bytes):
    with pytest.raises(GalleryError, match="publish the gallery again"):
        decode_removed(data)


def test_a_list_is_what_was_written():
    hashes = {subject_hash(name) for name in ("alice", "bob")}
    assert decode_removed(encode_removed(hashes)) == hashes
