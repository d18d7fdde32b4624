"""The attack table: each is refused in one line, and the gallery in force stays."""

import json
import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from edge.core.errors import (
    EdgeError,
    GalleryError,
    GalleryIntegrityError,
    ModelMismatchError,
    RollbackError,
    SignatureError,
    SyncError,
)
from edge.fleet.repository import RolePlan
from edge.gallery.format.published import full_path
from tests.fleet.attacks import (
    Scene,
    another_doors_key,
    clock_ahead,
    clock_behind,
    count_differs,
    counted,
    deep_json,
    delegation_changed_with_the_online_keys,
    delegation_of_before_a_rotation,
    empty_without_a_word,
    endless_target,
    floors_damaged,
    floors_of_another_scope,
    freeze,
    loud_rows,
    lower_version,
    mix_and_match,
    nan_rows,
    not_json,
    not_sealed,
    nothing_said,
    of_version,
    old_snapshot_under_a_new_timestamp,
    other_length,
    other_model,
    pickled,
    retired_keys_and_a_wiped_cache,
    rollback,
    same_version_other_people,
    sealed_as_another_version,
    sealed_for_another_door,
    sealed_for_another_tenant,
    sealed_with_another_key,
    stolen_online_keys,
    swapped_target,
    truncated_target,
    unsigned_timestamp,
    version_inside_differs,
    wiped_cache_and_old_repository,
    withdrawn,
)
from tests.support.fleets import (
    Device,
    dripping,
    dripping_head,
    endless,
    make_device,
    make_fleet,
    people,
    serving,
    silent,
    status,
)
from tests.support.gallery_samples import MODEL
from tests.support.waits import Stopwatch


@pytest.fixture
def scene(tmp_path: Path):
    fleet = make_fleet(tmp_path / "fleet", "front", "back")
    with serving(fleet.published) as server:
        yield Scene(tmp_path, fleet, server)


def refused(device: Device) -> EdgeError:
    """Synchronise, which must fail and change nothing; return why."""
    before = (device.known(), device.store.current_version(), device.store.versions())
    with pytest.raises(EdgeError) as caught:
        device.sync()
    outcome = device.syncer().run()
    assert (outcome.status, outcome.error) == ("refused", str(caught.value))
    assert (device.known(), device.store.current_version(), device.store.versions()) == before
    assert 10 < len(str(caught.value)) < 500
    assert str(caught.value).isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("attack", "error", "says"),
    [
        pytest.param(rollback, RollbackError, "old state", id="rollback"),
        pytest.param(
            wiped_cache_and_old_repository, RollbackError, "seen before", id="wiped cache, old server"
        ),
        pytest.param(retired_keys_and_a_wiped_cache, RollbackError, "the root offered", id="retired keys"),
        pytest.param(freeze, SyncError, "expired", id="freeze"),
        pytest.param(mix_and_match, SignatureError, "not what was signed", id="mix and match"),
        pytest.param(old_snapshot_under_a_new_timestamp, SignatureError, "not what was", id="old snapshot"),
        pytest.param(swapped_target, SignatureError, "not what was signed", id="swapped target"),
        pytest.param(unsigned_timestamp, SignatureError, "timestamp", id="unsigned timestamp"),
        pytest.param(deep_json, SignatureError, "not what was signed", id="deep JSON"),
        pytest.param(not_json, SignatureError, "not what was signed", id="a login page"),
        pytest.param(stolen_online_keys, SignatureError, "scope-front", id="stolen online keys"),
        pytest.param(another_doors_key, SignatureError, "no gallery is signed", id="wrong delegate"),
        pytest.param(withdrawn, SignatureError, "no gallery is signed", id="missing target"),
        pytest.param(endless_target, SyncError, "more is sent", id="endless target"),
        pytest.param(truncated_target, SyncError, "too soon", id="truncated target"),
        pytest.param(clock_behind, RollbackError, "set the clock", id="clock in the past"),
        pytest.param(clock_ahead, SyncError, "the clock is ahead", id="clock in the future"),
        pytest.param(sealed_for_another_door, GalleryIntegrityError, "another door", id="another scope"),
        pytest.param(sealed_for_another_tenant, GalleryIntegrityError, "not open", id="another tenant"),
        pytest.param(sealed_with_another_key, GalleryIntegrityError, "another key", id="another key"),
        pytest.param(sealed_as_another_version, GalleryIntegrityError, "version", id="sealed version"),
        pytest.param(not_sealed, GalleryIntegrityError, "not one", id="not sealed"),
        pytest.param(pickled, GalleryIntegrityError, "not a gallery file", id="pickle"),
        pytest.param(version_inside_differs, SignatureError, "not what is signed about", id="version inside"),
        pytest.param(nan_rows, GalleryIntegrityError, "norm nan", id="NaN rows"),
        pytest.param(loud_rows, GalleryIntegrityError, "instead of 1", id="norm 50"),
        pytest.param(other_model, ModelMismatchError, "this device embeds with", id="other model"),
        pytest.param(other_length, ModelMismatchError, "of length 64", id="other length"),
        pytest.param(count_differs, SignatureError, "not what is signed about", id="count differs"),
        pytest.param(nothing_said, SignatureError, "mistakes", id="malformed statement"),
        pytest.param(lower_version, RollbackError, "version 2 was seen", id="lower version"),
        pytest.param(same_version_other_people, RollbackError, "another gallery", id="same version"),
        pytest.param(
            delegation_changed_with_the_online_keys, SignatureError, "targets", id="forged delegation"
        ),
        pytest.param(
            delegation_of_before_a_rotation, RollbackError, "the targets offered", id="old delegation"
        ),
        pytest.param(empty_without_a_word, SignatureError, "lock everybody out", id="empty without a word"),
        pytest.param(floors_damaged, GalleryError, "damaged", id="damaged floors"),
        pytest.param(floors_of_another_scope, GalleryError, "belongs to scope", id="moved device"),
    ],
)
def test_an_attack_is_refused_in_one_line_and_changes_nothing(
    scene: Scene, attack: Callable[[Scene], None], error: type[EdgeError], says: str
):
    attack(scene)
    told = refused(scene.door)
    assert isinstance(told, error)
    assert says in str(told)
    assert scene.door.known() == ["alice", "bob"]


@pytest.mark.parametrize(
    "mischief", [dripping, dripping_head, silent], ids=["drips", "drips a head", "silent"]
)
@pytest.mark.parametrize("path", ["timestamp.json", ".edge"])
def test_a_slow_server_is_given_up(scene: Scene, mischief, path: str):
    scene.publish()
    scene.server.mischief[path] = mischief
    scene.door = make_device(scene.tmp_path / "door", scene.fleet, "front", scene.server.url, timeout_s=0.4)
    watch = Stopwatch()
    with pytest.raises(SyncError, match="too slow"):
        scene.door.sync()
    assert watch.undisturbed_s < 2
    assert scene.door.known() == ["alice", "bob"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        pytest.param(endless, "more is sent", id="endless"),
        pytest.param(status(500), "HTTP 500", id="server error"),
        pytest.param(status(302, {"Location": "http://127.0.0.1:9/"}), "HTTP 302", id="redirect"),
        pytest.param(lambda handler: handler.wfile.write(b"\xff\n\n"), "BadStatusLine", id="no HTTP"),
        pytest.param(lambda handler: None, "RemoteDisconnected", id="hangs up"),
    ],
)
def test_a_server_that_does_not_answer_is_a_line(scene: Scene, answer, says: str):
    scene.server.mischief["timestamp.json"] = answer
    assert says in str(refused(scene.door))


def test_without_a_server_the_last_gallery_stays(tmp_path: Path):
    fleet = make_fleet(tmp_path / "fleet", "front")
    fleet.publish_gallery("front", people("alice"))
    with serving(fleet.published) as server:
        door = make_device(tmp_path / "door", fleet, "front", server.url)
        door.sync()
    assert "refused" in str(refused(door)).lower()
    assert door.known() == ["alice"]


def test_a_new_device_does_not_believe_a_clock_from_before_its_software(scene: Scene):
    new = make_device(scene.tmp_path / "new", scene.fleet, "front", scene.server.url)
    new.clock.shift = timedelta(days=-3650)
    assert "set the clock" in str(refused(new))
    new.clock.shift = timedelta(0)
    assert new.sync().status == "updated"


def test_a_clock_that_was_corrected_by_seconds_is_believed(scene: Scene):
    scene.door.clock.shift = timedelta(seconds=-20)
    assert scene.door.sync().status == "current"


def test_a_clock_in_the_past_asks_no_server(scene: Scene):
    clock_behind(scene)
    scene.server.paths.clear()
    refused(scene.door)
    assert scene.server.paths == []


def test_one_of_two_keys_publishes_nothing(tmp_path: Path):
    plans = {"scope": RolePlan(2, 2, 30)}
    fleet = make_fleet(tmp_path / "fleet", "front", plans=plans)
    with serving(fleet.published) as server:
        scene = Scene.__new__(Scene)
        scene.tmp_path, scene.fleet, scene.server = tmp_path, fleet, server
        scene.door = make_device(tmp_path / "door", fleet, "front", server.url)
        fleet.publish_gallery("front", people("alice"))
        scene.door.sync()
        first = sorted((fleet.directory / "keys" / "offline").glob("scope-front-*.pem"))[0]
        forger = scene.forger("online/*", f"offline/{first.name}")
        said = {"scope": "front", "version": 2, "model_id": MODEL, "count": 1, "kind": "full", "base": None}
        sealed = scene.sealed(of_version(people("mallory"), 2), version=2)
        forger.publish("scope-front", {full_path("front"): (sealed, said)}, ())
        assert "1/2" in str(refused(scene.door))
        assert scene.door.known() == ["alice"]


def test_what_a_thief_counted_up_ends_with_the_operators_next_root(scene: Scene):
    thief = scene.forger("online/*")
    counted(thief, "timestamp", 1_000_000)
    assert scene.door.sync().status == "current"
    scene.fleet.rotate_key("timestamp")
    counted(scene.fleet.repository, "timestamp", 50)
    assert scene.door.sync().status == "current"


def test_a_thief_of_the_scopes_key_who_counted_up_its_galleries_loses_the_count_with_the_key(scene: Scene):
    thief, high = scene.forger("online/*", "offline/scope-front*"), 10**9
    mine = scene.tmp_path / "mine"
    shutil.copytree(scene.fleet.published, mine)
    said = {"scope": "front", "version": high, "model_id": MODEL, "count": 1, "kind": "full", "base": None}
    sealed = scene.sealed(of_version(people("mallory"), high), version=high)
    thief.publish("scope-front", {full_path("front"): (sealed, said)}, ())
    counted(thief, "timestamp", high)
    assert scene.door.sync().version == high
    shutil.rmtree(scene.fleet.published)
    shutil.copytree(mine, scene.fleet.published)
    for role in ("scope-front", "snapshot", "timestamp"):
        scene.fleet.rotate_key(role)
    outcome = scene.door.sync()
    assert (outcome.status, outcome.version, scene.door.known()) == ("updated", 2, ["alice", "bob"])
    scene.fleet.publish_gallery("front", people("alice", "dora"))
    assert scene.door.sync().version == 3
    scene.old = mine
    scene.go_back()
    scene.door.wipe_cache()
    assert "seen before" in str(refused(scene.door)), "the count goes on from there"


def test_what_was_remembered_before_keys_were_is_still_read(scene: Scene):
    path = scene.door.cache / "floors.json"
    floors = json.loads(path.read_text())
    assert floors.pop("keys")["scope-front"]
    floors.pop("candidate_version")
    path.write_text(json.dumps(floors))
    assert scene.door.sync().status == "current"
    assert json.loads(path.read_text())["keys"]["scope-front"]
    scene.go_back()
    scene.door.wipe_cache()
    assert "seen before" in str(refused(scene.door))
