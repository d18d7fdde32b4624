"""A device and the server it does not trust: what is installed is new, whole and this door's."""

import errno
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from edge.core import files
from edge.core.errors import GalleryError, SignatureError
from edge.device.sync import sync as sync_module
from edge.device.sync.floors import save_floors
from edge.fleet.fleet import Fleet
from edge.gallery.gallery import Gallery
from tests.support.fleets import Device, StaticServer, make_device, make_fleet, people, serving, status
from tests.support.gallery_samples import MODEL, assert_equal, damage


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = make_fleet(tmp_path / "fleet", "front", "back")
    fleet.publish_gallery("front", people("alice", "bob", *(f"p-{i}" for i in range(30))))
    fleet.publish_gallery("back", people("bob", "carol"))
    return fleet


@pytest.fixture
def server(fleet: Fleet):
    with serving(fleet.published) as server:
        yield server


@pytest.fixture
def front(tmp_path: Path, fleet: Fleet, server: StaticServer) -> Device:
    return make_device(tmp_path / "front", fleet, "front", server.url)


@pytest.fixture
def back(tmp_path: Path, fleet: Fleet, server: StaticServer) -> Device:
    return make_device(tmp_path / "back", fleet, "back", server.url)


def test_two_doors_each_get_their_own_people_and_a_revocation_reaches_both(fleet, front, back):
    assert (front.sync().status, back.sync().status) == ("updated", "updated")
    assert {"alice", "bob"} < set(front.known())
    assert back.known() == ["bob", "carol"]
    assert [each.scope for each in fleet.revoke("bob")] == ["front", "back"]
    assert (front.sync().version, back.sync().version) == (2, 2)
    assert "bob" not in front.known()
    assert back.known() == ["carol"]


def test_nothing_new_costs_two_small_requests_and_changes_nothing(front, server):
    first = front.sync()
    server.paths.clear()
    again = front.sync()
    assert (first.status, again.status) == ("updated", "current")
    assert (again.version, again.count, again.model_id) == (first.version, 32, first.model_id)
    assert server.paths == ["/metadata/2.root.json", "/metadata/timestamp.json"]
    assert front.store.versions() == [1]


def test_a_revocation_is_fetched_as_a_difference(front, fleet, server):
    front.sync()
    published = fleet.revoke("bob")[0]
    assert published.delta_bytes is not None
    server.paths.clear()
    assert front.sync().count == 31
    fetched = [path for path in server.paths if path.startswith("/targets/")]
    assert len(fetched) == 1
    assert fetched[0].endswith(".from-1.edge")
    assert_equal(replace(front.store.load(MODEL), version=2), fleet.gallery("front"))


def test_who_missed_a_version_fetches_the_whole_gallery(front, fleet, server):
    front.sync()
    fleet.revoke("bob")
    fleet.revoke("p-3")
    server.paths.clear()
    assert front.sync().version == 3
    assert server.paths[-1].endswith(".full.edge")
    assert_equal(replace(front.store.load(MODEL), version=3), fleet.gallery("front"))


def test_who_missed_versions_that_only_added_fetches_their_differences(front, fleet, server, caplog):
    front.sync()
    names = ["alice", "bob", *(f"p-{i}" for i in range(30))]
    for name in ("eve", "fred", "gina"):
        names.append(name)
        fleet.publish_gallery("front", people(*names))
    server.paths.clear()
    assert front.sync().version == 4
    endings = [path.rpartition(".")[0].partition(".")[2] for path in server.paths if ".edge" in path]
    assert endings == ["from-1", "from-2", "from-3"]
    assert_equal(replace(front.store.load(MODEL), version=4), fleet.gallery("front"))

    fleet.publish_gallery("front", people(*names, "hugo"))
    fleet.publish_gallery("front", people(*names, "hugo", "ida"))
    server.mischief[".from-5.edge"] = status(404)
    assert front.sync().version == 6
    assert "the whole gallery is fetched" in caplog.text
    assert_equal(replace(front.store.load(MODEL), version=6), fleet.gallery("front"))


def test_a_difference_that_cannot_be_had_is_replaced_by_the_whole_gallery(front, fleet, server, caplog):
    front.sync()
    fleet.revoke("bob")
    server.mischief[".from-1.edge"] = status(404)
    assert front.sync().status == "updated"
    assert "bob" not in front.known()
    assert "the whole gallery is fetched" in caplog.text


def test_what_was_changed_by_hand_is_put_right(front, fleet):
    front.sync()
    store = front.store
    store.commit(store.load(MODEL).without_subject("alice"))
    assert "alice" not in front.known()
    assert front.sync().status == "updated"
    assert "alice" in front.known()


def test_a_rolled_back_or_damaged_store_is_put_right(front, fleet):
    front.sync()
    fleet.revoke("bob")
    front.sync()
    front.store.roll_back(1)
    assert "bob" not in front.known(), "who is revoked is in no version that is kept"
    assert front.sync().status == "updated"
    assert "bob" not in front.known()
    damage(max((front.directory / "gallery").glob("gallery-*.edge")))
    front.sync()
    assert "bob" not in front.known()
    assert front.sync().status == "current"


@pytest.mark.parametrize(
    "harm",
    [
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:100]), id="truncated"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(b"[" * 100_000), id="deep JSON"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
@pytest.mark.parametrize("name", ["root", "timestamp", "snapshot", "targets", "scope-front"])
def test_a_damaged_cache_is_fetched_again(front, fleet, name: str, harm):
    front.sync()
    fleet.revoke("bob")
    harm(front.cache / "metadata" / f"{name}.json")
    assert front.sync().version == 2
    assert front.sync().status == "current"


@pytest.mark.parametrize("crash_at", range(1, 4))
def test_a_power_cut_between_any_two_writes_is_made_good(front, fleet, monkeypatch, crash_at: int):
    front.sync()
    fleet.revoke("bob")
    writes = []

    def save_or_die(path, floors):
        writes.append(floors)
        if len(writes) == crash_at:
            raise KeyboardInterrupt
        save_floors(path, floors)

    with monkeypatch.context() as patch:
        patch.setattr(sync_module, "save_floors", save_or_die)
        with pytest.raises(KeyboardInterrupt):
            front.sync()
    assert len(front.known()) in (31, 32)  # the old gallery or the new one
    front.sync()
    assert front.sync().status == "current"
    assert "bob" not in front.known()


def test_a_directory_or_a_file_url_serves_as_well(tmp_path, fleet):
    for number, url in enumerate((str(fleet.published), fleet.published.as_uri())):
        door = make_device(tmp_path / f"door-{number}", fleet, "back", url)
        assert door.sync().version == 1
        fleet.rotate_key("root")
        assert door.sync().status == "current"


def test_the_trusted_root_of_an_old_device_still_leads_to_the_newest(front, fleet):
    for role in ("root", "root", "targets", "timestamp", "scope-front", "root"):
        fleet.rotate_key(role)
    assert front.sync().status == "updated"


def test_a_trusted_root_that_is_none_is_refused(front):
    front.source = replace(front.source, trusted_root=b"{}")
    with pytest.raises(SignatureError):
        front.sync()


def test_with_a_new_embedder_its_gallery_replaces_the_old_one(front, fleet):
    front.sync()
    fleet.publish_gallery("front", people("alice", model_id="new@12345678", dim=64))
    front.embedders = {"new@12345678": 64}
    assert front.sync().model_id == "new@12345678"
    assert front.store.enrolled_with() == "new@12345678"
    front.store.roll_back(1)
    assert front.known() == ["alice"]


def test_a_gallery_that_fails_its_self_test_is_not_installed(front, fleet):
    front.sync()
    fleet.revoke("bob")

    def unhappy(gallery: Gallery) -> None:
        raise GalleryError("self-test: nobody is recognised")

    assert replace(front.syncer(), self_test=unhappy).run().error == "self-test: nobody is recognised"
    assert "bob" in front.known()
    assert front.sync().status == "updated"


def test_one_process_synchronises_at_a_time(front, monkeypatch):
    monkeypatch.setattr(sync_module, "LOCK_TIMEOUT_S", 0.1)
    with files.sole_user(front.cache / "lock", 1, time.monotonic):
        assert "another process" in str(front.syncer().run().error)
    assert front.sync().status == "updated"


def test_an_empty_gallery_is_installed_only_because_it_says_so(front, fleet):
    front.sync()
    fleet.publish_gallery("front", people(), allow_empty=True)
    assert (front.sync().count, front.known()) == (0, [])


def test_no_secret_is_shown(front):
    key = front.source.sealing_keys[0]
    assert key.hex() not in repr(front.source)
    assert repr(key) not in repr(front.source)


def test_an_erasure_that_fails_is_told_by_the_gallery_that_serves_and_tried_again(
    front, fleet, monkeypatch: pytest.MonkeyPatch
):
    front.sync()
    fleet.revoke("bob")
    with monkeypatch.context() as patched:
        patched.setattr(os, "link", full_disk)
        for told in ("updated", "current"):
            outcome = front.sync()
            assert (outcome.status, outcome.version, outcome.count) == (told, 2, 31)
            assert "who was removed is still in older versions" in outcome.error
            assert "bob" not in front.known()
    assert (front.sync().error, front.store.versions()) == (None, [1, 2])
    assert "bob" not in {each.subject_id for each in front.store._vault.read(1).subjects}
    assert (front.directory / "gallery" / "erasures.jsonl").read_text().count("\n") == 1


def full_disk(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
