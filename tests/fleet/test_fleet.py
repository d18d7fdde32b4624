"""The operator's side: what is published, with which keys, and what happens when they change."""

import json
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge.core.errors import EdgeError, FileError, FleetError, SignatureError
from edge.core.types import Subject
from edge.fleet.fleet import Fleet, init_fleet, open_fleet
from edge.fleet.keys import KeyRing
from edge.fleet.repository import RolePlan
from edge.gallery.format.delta import encode_delta
from edge.gallery.format.published import full_path, scope_role
from edge.gallery.format.seal import is_sealed
from edge.gallery.gallery import Gallery
from tests.support.clock import SteppedClock
from tests.support.fleets import TENANT, make_device, make_fleet, people
from tests.support.gallery_samples import MODEL, ids, template, unit_rows

OTHER = "other@12345678"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return make_fleet(tmp_path / "fleet", "front", "back")


def reopened(fleet: Fleet, passphrase: str | None = None, shift: timedelta = timedelta(0)) -> Fleet:
    return open_fleet(
        fleet.directory, KeyRing(fleet.directory / "keys", passphrase), SteppedClock.running(shift)
    )


def test_what_is_published_can_be_read_again_with_the_scopes_key(fleet: Fleet):
    first = fleet.publish_gallery("front", people("alice"))
    second = fleet.publish_gallery("front", people("alice", "bob"))
    assert (first.version, second.version, second.count) == (1, 2, 2)
    again = reopened(fleet).gallery("front")
    assert again is not None
    assert (again.version, ids(again)) == (2, ["alice", "bob"])
    assert reopened(fleet).gallery("back") is None


def test_nothing_published_is_a_key_or_can_be_read_without_one(fleet: Fleet):
    fleet.publish_gallery("front", people("alice"))
    files = [path for path in fleet.published.rglob("*") if path.is_file()]
    assert all(b"PRIVATE" not in path.read_bytes() and b"alice" not in path.read_bytes() for path in files)
    assert all(is_sealed(path.read_bytes()) for path in files if path.suffix == ".edge")
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o644 for path in files)


def test_another_user_may_read_what_is_published_and_nothing_else(tmp_path: Path):
    os.umask(before := os.umask(0o077))
    os.umask(0o077)
    try:
        fleet = make_fleet(tmp_path / "fleet", "front")
        fleet.publish_gallery("front", people("alice"))
    finally:
        os.umask(before)
    modes = {
        path: stat.S_IMODE(path.stat().st_mode) for path in (fleet.directory, *fleet.directory.iterdir())
    }
    assert {path.name: mode for path, mode in modes.items() if path.is_dir()} == {
        "fleet": 0o711,
        "published": 0o755,
        "keys": 0o700,
    }
    assert modes[fleet.directory / "fleet.json"] == 0o600
    below = list(fleet.published.rglob("*"))
    assert {stat.S_IMODE(path.stat().st_mode) for path in below if path.is_dir()} == {0o755}
    assert {stat.S_IMODE(path.stat().st_mode) for path in below if path.is_file()} == {0o644}


def test_private_keys_are_their_owners_alone(fleet: Fleet):
    keys = fleet.directory / "keys"
    assert {path.name.rsplit("-", 1)[0] for path in (keys / "online").iterdir()} == {"snapshot", "timestamp"}
    assert len(list((keys / "offline").glob("root-*.pem"))) == 3
    assert {path.name for path in (keys / "sealing").iterdir()} == {"front.key", "back.key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys.rglob("*.*")} == {0o600}
    assert stat.S_IMODE(keys.stat().st_mode) == 0o700


def test_a_key_that_others_may_read_is_not_used(fleet: Fleet):
    next((fleet.directory / "keys" / "online").glob("timestamp-*")).chmod(0o644)
    with pytest.raises(FileError, match="chmod 600"):
        fleet.publish_gallery("front", people("alice"))


def test_encrypted_keys_need_their_passphrase(tmp_path: Path):
    keys = KeyRing(tmp_path / "keys", "correct horse")
    fleet = init_fleet(tmp_path / "fleet", keys, TENANT, SteppedClock.running())
    fleet.add_scope("front")
    assert all(b"ENCRYPTED" in path.read_bytes() for path in (tmp_path / "keys").rglob("*.pem"))
    for wrong in (None, "incorrect horse"):
        with pytest.raises(FleetError, match="passphrase"):
            open_fleet(
                tmp_path / "fleet", KeyRing(tmp_path / "keys", wrong), SteppedClock.running()
            ).add_scope("back")
    open_fleet(tmp_path / "fleet", keys, SteppedClock.running()).add_scope("back")


def test_a_revoked_subject_stays_out_until_it_is_reinstated(fleet: Fleet):
    fleet.publish_gallery("front", people("alice", "bob"))
    fleet.publish_gallery("back", people("carol"))
    assert [each.scope for each in fleet.revoke("bob")] == ["front"]
    again = reopened(fleet).publish_gallery("front", people("alice", "bob", "carol"))
    assert (again.version, again.count, again.excluded) == (3, 2, 1)
    changed = reopened(fleet)
    changed.reinstate("bob")
    assert changed.publish_gallery("front", people("alice", "bob")).count == 2


def test_revoking_the_last_subject_leaves_an_empty_gallery(fleet: Fleet):
    fleet.publish_gallery("front", people("alice"))
    assert [each.count for each in fleet.revoke("alice")] == [0]


def test_the_renewal_needs_the_online_keys_only(fleet: Fleet, tmp_path: Path):
    fleet.publish_gallery("front", people("alice"))
    (fleet.directory / "keys" / "offline").rename(tmp_path / "stick")
    before = {role.role: role for role in fleet.roles()}
    assert reopened(fleet, shift=timedelta(days=300)).repository.renew() == ["snapshot", "timestamp"]
    after = {role.role: role for role in fleet.roles()}
    assert after["timestamp"].expires > before["timestamp"].expires + timedelta(days=299)
    assert after["targets"] == before["targets"]
    with pytest.raises(SignatureError, match="scope-front: 0 of its keys"):
        fleet.publish_gallery("front", people("alice", "bob"))
    assert fleet.status()[0].version == 1


def test_with_all_keys_the_renewal_signs_what_is_half_used_up(fleet: Fleet):
    renewed = reopened(fleet, shift=timedelta(days=300)).repository.renew()
    assert renewed == ["targets", "models", "scope-front", "scope-back", "snapshot", "timestamp"]


@pytest.mark.parametrize("role", ["root", "targets", "snapshot", "timestamp", "models", "scope-front"])
def test_devices_follow_a_new_key_and_the_old_one_is_worth_nothing(fleet: Fleet, tmp_path: Path, role: str):
    fleet.publish_gallery("front", people("alice"))
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    door.sync()
    before = {key.name for key in (fleet.directory / "keys").rglob(f"{role}-*.pem")}
    fleet.rotate_key(role)
    made = {key.name for key in (fleet.directory / "keys").rglob(f"{role}-*.pem")} - before
    assert len(made) == 1
    assert {each.role: each.keys for each in fleet.roles()}[role] == (3 if role == "root" else 1)
    fleet.publish_gallery("front", people("alice", "bob"))
    assert door.sync().version == 2
    assert door.known() == ["alice", "bob"]
    new = make_device(tmp_path / "new", fleet, "front", str(fleet.published))
    assert new.sync().version == 2
    next((fleet.directory / "keys").rglob(made.pop())).unlink()
    if role in ("timestamp", "snapshot", "scope-front"):
        with pytest.raises(SignatureError, match=f"{role}: 0 of its keys"):
            fleet.publish_gallery("front", people("alice"))


def test_a_root_is_signed_by_the_old_keys_and_by_the_new(fleet: Fleet):
    old = fleet.repository.root()
    fleet.rotate_key("root")
    new = fleet.repository.root()
    old.verify_delegate("root", new)
    new.verify_delegate("root", new)
    assert len(set(old.signed.roles["root"].keyids) & set(new.signed.roles["root"].keyids)) == 2


def test_the_only_root_key_hands_over_to_the_next(tmp_path: Path):
    fleet = make_fleet(tmp_path / "fleet", "front", plans={"root": RolePlan(1, 1, 30)})
    fleet.publish_gallery("front", people("alice"))
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    for _ in range(3):
        fleet.rotate_key("root")
    assert door.sync().status == "updated"


def test_a_root_key_may_be_lost_and_two_may_not(fleet: Fleet):
    roots = sorted((fleet.directory / "keys" / "offline").glob("root-*.pem"))
    roots[0].unlink()
    fleet.rotate_key("timestamp")
    roots[1].unlink()
    with pytest.raises(SignatureError, match=r"root: 1 of its keys are in .*, 2 must sign"):
        fleet.rotate_key("timestamp")


def test_a_model_is_published_under_its_own_role(fleet: Fleet):
    fleet.publish_model("sface-int8", {"manifest.toml": b"kind = 1", "sface.onnx": b"weights"})
    assert fleet.repository.read("models", "models/sface-int8/sface.onnx")[0] == b"weights"


def test_the_status_needs_no_key_and_says_when_signatures_end(fleet: Fleet, tmp_path: Path):
    fleet.publish_gallery("front", people("alice"))
    (fleet.directory / "keys").rename(tmp_path / "elsewhere")
    again = reopened(fleet)
    assert [(each.scope, each.version, each.count) for each in again.status()] == [
        ("front", 1, 1),
        ("back", 0, 0),
    ]
    days = {each.role: (each.expires - SteppedClock.running().now()).days for each in again.roles()}
    assert (days["timestamp"], days["root"], days["scope-front"]) == (6, 729, 364)


def test_a_difference_goes_beside_a_large_gallery_only(fleet: Fleet):
    many = people(*(f"p-{i}" for i in range(40)))
    assert fleet.publish_gallery("front", many).delta_bytes is None
    published = fleet.publish_gallery("front", many.without_subjects({"p-7"}))
    assert published.delta_bytes is not None
    assert published.delta_bytes < published.bytes / 10


def test_a_difference_that_would_not_come_out_right_is_not_made(fleet: Fleet):
    fleet.publish_gallery("front", people("alice", "bob"))
    base = fleet.gallery("front")
    fleet.publish_gallery("front", people("bob", "alice"))
    new = fleet.gallery("front")
    assert base is not None
    assert new is not None
    assert encode_delta(base, new) is None


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        pytest.param(lambda f: f.add_scope("Front Door"), "cannot be in a path", id="scope is no slug"),
        pytest.param(lambda f: f.add_scope("../x"), "cannot be in a path", id="scope is a path"),
        pytest.param(lambda f: f.add_scope("*"), "cannot be in a path", id="scope is a pattern"),
        pytest.param(lambda f: f.add_scope("front"), "there already", id="scope twice"),
        pytest.param(lambda f: f.publish_gallery("side", people("a")), "no scope 'side'", id="unknown scope"),
        pytest.param(lambda f: f.publish_gallery("front", people()), "lock everybody out", id="empty"),
        pytest.param(lambda f: f.revoke("nobody"), "in no published gallery", id="unknown subject"),
        pytest.param(lambda f: f.reinstate("nobody"), "was not revoked", id="not revoked"),
        pytest.param(lambda f: f.rotate_key("scope-side"), "there is no role", id="unknown role"),
        pytest.param(
            lambda f: f.publish_model("../m", {"a": b""}), "cannot be in a path", id="model is a path"
        ),
        pytest.param(
            lambda f: f.publish_model("m", {"a/b": b""}), "cannot be in a path", id="file is a path"
        ),
        pytest.param(
            lambda f: make_fleet(f.directory, "front"), "there is a fleet already", id="fleet over a fleet"
        ),
        pytest.param(
            lambda f: init_at(f, "front", "Bad Scope"),
            "cannot be in a path",
            id="a new fleet's scope is no slug",
        ),
        pytest.param(lambda f: init_at(f, "front", "front"), "named twice", id="a new fleet's scope twice"),
        pytest.param(
            lambda f: make_fleet(f.directory / "x", plans={"root": RolePlan(1, 2, 30)}),
            "cannot sign with 2 of 1 keys",
            id="threshold above keys",
        ),
        pytest.param(
            lambda f: reopened(f, shift=timedelta(0)) and open_elsewhere(f), "no fleet", id="no fleet"
        ),
    ],
)
def test_a_mistake_is_one_line_and_changes_nothing(fleet: Fleet, mistake, says: str):
    fleet.publish_gallery("front", people("alice"))
    before = {path: path.read_bytes() for path in fleet.published.rglob("*") if path.is_file()}
    with pytest.raises(EdgeError) as caught:
        mistake(fleet)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert {path: path.read_bytes() for path in fleet.published.rglob("*") if path.is_file()} == before


def init_at(fleet: Fleet, *scopes: str) -> None:
    """Make a fleet, which must fail and leave nothing."""
    directory = fleet.directory / "new"
    try:
        init_fleet(directory, KeyRing(directory / "keys"), TENANT, SteppedClock.running(), scopes=scopes)
    finally:
        assert not directory.exists()


def open_elsewhere(fleet: Fleet) -> Fleet:
    return open_fleet(fleet.directory / "nowhere", KeyRing(fleet.directory / "keys"), SteppedClock.running())


def test_a_switch_exchanges_two_galleries_and_the_next_one_goes_back(fleet: Fleet):
    fleet.publish_gallery("front", people("alice", "bob"))
    fleet.publish_gallery("front", people("alice", "bob", model_id=OTHER), model="other", candidate=True)
    fleet.publish_gallery("front", people("alice", "bob", "carol"))
    for number, (current, beside) in enumerate(((OTHER, MODEL), (MODEL, OTHER))):
        told = fleet.switch("front", allow_missing=True)
        assert (told.version, told.delta_bytes) == (3 + number, None)
        for gallery, model_id in (
            (fleet.gallery("front"), current),
            (fleet.gallery("front", candidate=True), beside),
        ):
            assert gallery is not None
            assert gallery.model_id == model_id
    fleet.drop_candidate("front")
    assert fleet.gallery("front", candidate=True) is None
    with pytest.raises(FleetError, match="there is no candidate"):
        fleet.switch("front")


def test_a_revocation_reaches_the_candidate_too(fleet: Fleet):
    fleet.publish_gallery("front", people("alice", "bob"))
    beside = people("bob", "carol", model_id=OTHER)
    fleet.publish_gallery("front", beside, candidate=True, allow_missing=True)
    assert [each.excluded for each in fleet.revoke("bob")] == [1]
    found = [fleet.gallery("front"), fleet.gallery("front", candidate=True)]
    assert [ids(gallery) for gallery in found if gallery] == [["alice"], ["carol"]]
    fleet.switch("front", allow_missing=True)
    assert [ids(gallery) for gallery in (fleet.gallery("front"),) if gallery] == [["carol"]]


def test_an_altered_published_gallery_is_not_built_upon(fleet: Fleet):
    fleet.publish_gallery("front", people("alice"))
    path = next(fleet.published.rglob("*.full.edge"))
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(FleetError, match="altered"):
        fleet.revoke("alice")


def test_a_damaged_fleet_file_is_a_line(fleet: Fleet):
    (fleet.directory / "fleet.json").write_text("[" * 100_000)
    with pytest.raises(FleetError, match="restore it from a backup"):
        reopened(fleet)


def test_the_statement_about_a_gallery_names_no_subject(fleet: Fleet):
    fleet.publish_gallery("front", people("alice"))
    info = fleet.repository.role(scope_role("front")).signed.targets[full_path("front")]
    assert set(info.custom) == {"scope", "version", "model_id", "count", "kind", "base"}
    assert "alice" not in json.dumps(info.to_dict())


def test_a_revocation_goes_through_where_it_can_and_names_where_it_cannot(fleet: Fleet):
    fleet.publish_gallery("front", people("alice", "bob"))
    fleet.publish_gallery("back", people("bob", "carol"))
    key = fleet.sealing_path("front")
    key.rename(key.with_suffix(".away"))
    told = []
    with pytest.raises(FleetError, match=r"'bob' is revoked, but .* scope front: .*there is no key"):
        fleet.revoke("bob", told.append)
    assert [each.scope for each in told] == ["back"]
    assert reopened(fleet).revoked == ("bob",)
    assert ids(fleet.gallery("back")) == ["carol"]
    key.with_suffix(".away").rename(key)
    assert [each.scope for each in reopened(fleet).revoke("bob")] == ["front"]
    assert ids(fleet.gallery("front")) == ["alice"]


def test_a_revocation_that_cannot_be_signed_everywhere_is_signed_elsewhere(fleet: Fleet):
    fleet.publish_gallery("front", people("alice", "bob"))
    fleet.publish_gallery("back", people("bob", "carol"))
    next((fleet.directory / "keys" / "offline").glob("scope-front-*")).unlink()
    with pytest.raises(FleetError, match="scope front: scope-front: 0 of its keys"):
        fleet.revoke("bob")
    assert ids(fleet.gallery("back")) == ["carol"]
    assert fleet.revoked == ("bob",)


def test_a_new_sealing_key_closes_what_is_published_to_who_has_the_old_one(fleet: Fleet, tmp_path: Path):
    fleet.publish_gallery("front", people("alice", "bob"))
    fleet.publish_gallery("front", people("alice", "bob", model_id=OTHER), candidate=True)
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    door.sync()
    stolen = door.source.sealing_keys
    assert fleet.rotate_sealing("front").version == 2
    assert len(list(fleet.published.rglob("*.full.edge"))) == 1, "nothing that the old key opens stays"
    assert (ids(fleet.gallery("front")), fleet.gallery("front", candidate=True).size) == (["alice", "bob"], 2)
    outcome = door.syncer().run()
    assert (outcome.status, outcome.reason) == ("refused", "integrity")
    assert "if the scope has a new one, bring it" in (outcome.error or "")
    assert door.known() == ["alice", "bob"], "the last good gallery serves"
    brought = KeyRing(fleet.directory / "keys").sealing("front")
    assert set(brought).isdisjoint(stolen)
    assert len(brought) == 1
    door.source = replace(door.source, sealing_keys=brought)
    assert door.sync().version == 2


def test_doors_that_were_given_both_sealing_keys_notice_nothing(fleet: Fleet, tmp_path: Path):
    fleet.publish_gallery("front", people("alice"))
    for _ in range(2):
        assert fleet.rotate_sealing("front", prepare=True) is None
    both = KeyRing(fleet.directory / "keys").sealing("front")
    assert len(both) == 2
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    assert door.source.sealing_keys == both
    assert door.sync().version == 1
    fleet.publish_gallery("front", people("alice", "bob"))
    assert door.sync().version == 2
    fleet.rotate_sealing("front")
    assert door.sync().version == 3
    assert KeyRing(fleet.directory / "keys").sealing("front") == both[1:]
    door.source = replace(door.source, sealing_keys=both[::-1])
    fleet.publish_gallery("front", people("alice"))
    assert door.sync().version == 4


def test_a_sealing_key_whose_gallery_cannot_be_signed_is_not_in_use(fleet: Fleet, tmp_path: Path):
    fleet.publish_gallery("front", people("alice"))
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    offline = fleet.directory / "keys" / "offline"
    offline.rename(tmp_path / "stick")
    with pytest.raises(SignatureError):
        fleet.rotate_sealing("front")
    (tmp_path / "stick").rename(offline)
    fleet.publish_gallery("front", people("alice", "bob"))
    assert door.sync().version == 2
    fleet.rotate_sealing("front")
    assert door.syncer().run().status == "refused"


@pytest.mark.parametrize("allowed", [False, True])
def test_nobody_is_dropped_by_a_switch_without_a_word(fleet: Fleet, allowed: bool):
    many = tuple(f"p-{number}" for number in range(9))
    fleet.publish_gallery("front", people(*many))
    fewer = people(*many[:-1], model_id=OTHER)
    if not allowed:
        with pytest.raises(FleetError, match=r"lock out 1 of 9 subject.* lacks p-8"):
            fleet.publish_gallery("front", fewer, candidate=True)
        assert fleet.gallery("front", candidate=True) is None
        fleet.publish_gallery("front", fewer, candidate=True, allow_missing=True)
        with pytest.raises(FleetError, match="--allow-missing"):
            fleet.switch("front")
        assert fleet.gallery("front").size == 9
    else:
        fleet.publish_gallery("front", fewer, candidate=True, allow_missing=True)
        assert fleet.switch("front", allow_missing=True).count == 8
        assert fleet.switch("front").count == 9, "the way back drops nobody"


def test_who_is_revoked_is_not_missing_in_the_candidate(fleet: Fleet):
    fleet.publish_gallery("front", people("alice", "bob"))
    fleet.revoke("bob")
    fleet.publish_gallery("front", people("alice", "bob", model_id=OTHER), candidate=True)
    assert fleet.switch("front").count == 1


def test_the_groups_of_a_scope_are_remembered_once_they_were_published(fleet: Fleet):
    gallery = Gallery.empty(MODEL).with_subjects(
        (Subject(name, name, (group,)), [template(unit_rows(1, seed=seed)[0], MODEL)])
        for seed, (name, group) in enumerate({"alice": "staff", "bob": "cleaning"}.items())
    )
    with pytest.raises(FleetError, match="empty"):
        fleet.publish_gallery("front", gallery, groups=["visitors"])
    assert fleet.publish_gallery("front", gallery).count == 2
    fleet.publish_gallery("front", gallery, groups=["staff"])
    again = reopened(fleet)
    assert (again.publish_gallery("front", gallery).count, again.status()[0].groups) == (1, ("staff",))
    assert again.publish_gallery("back", gallery).count == 2
    assert again.publish_gallery("front", gallery, groups=[]).count == 2
    assert reopened(fleet).groups("front") == ()


def test_the_status_tells_of_the_candidate_and_when_trust_ends(fleet: Fleet):
    ends_at = datetime(2027, 1, 1, tzinfo=UTC)
    fleet.publish_gallery("front", replace(people("alice"), not_after=ends_at))
    fleet.publish_gallery("front", people("alice", model_id=OTHER), candidate=True)
    status = fleet.status()[0]
    assert datetime.fromisoformat(status.not_after or "") == ends_at
    assert status.candidate is not None
    assert (status.candidate.version, status.candidate.count, status.candidate.model_id) == (1, 1, OTHER)
