"""The candidate, a gallery of another embedder: kept, replaced, withdrawn, and refused by itself."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.core.errors import ModelError, ModelMismatchError
from edge.device.sync.sync import Sync
from edge.fleet.fleet import Fleet
from edge.gallery.format.published import candidate_path, scope_role
from edge.gallery.store.store import GalleryStore
from tests.fleet.attacks import Scene
from tests.support.fleets import Device, make_device, make_fleet, people, serving
from tests.support.gallery_samples import MODEL, ids

OTHER = "other@12345678"


class Door:
    """A door that may use any embedder; `OTHER` has to be installed first."""

    def __init__(self, device: Device) -> None:
        self.device = device
        self.fetched: list[str] = []

    @property
    def candidate(self) -> GalleryStore:
        return GalleryStore(self.device.directory / "gallery-next", keep_versions=5)

    def adopt(self, name: str, fetch: Callable[[str], bytes]) -> tuple[str, int]:
        if fetch("weights.onnx") != b"weights":
            raise ModelError(f"{name}: computes something else")
        self.fetched.append(name)
        return OTHER, 64

    def sync(self) -> Sync:
        made = self.device.syncer()
        made.adopt, made.candidate = self.adopt, self.candidate
        return made


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    fleet = make_fleet(tmp_path / "fleet", "front")
    fleet.publish_gallery("front", people("alice", "bob"))
    return fleet


@pytest.fixture
def door(fleet: Fleet, tmp_path: Path) -> Iterator[Door]:
    with serving(fleet.published) as server:
        yield Door(make_device(tmp_path / "door", fleet, "front", server.url))


def publish_candidate(fleet: Fleet, *subject_ids: str, weights: bytes = b"weights") -> None:
    fleet.publish_model("other", {"weights.onnx": weights})
    gallery = people(*subject_ids, model_id=OTHER, dim=64)
    fleet.publish_gallery("front", gallery, model="other", candidate=True, allow_missing=True)


def test_it_comes_with_its_model_and_goes_when_it_is_withdrawn(fleet: Fleet, door: Door):
    assert not door.sync().synchronise().candidate
    publish_candidate(fleet, "alice", "bob")
    outcome = door.sync().synchronise()
    assert (outcome.status, outcome.candidate, outcome.error) == ("current", True, None)
    assert ids(door.candidate.load(OTHER)) == ["alice", "bob"]
    assert door.device.known() == ["alice", "bob"]
    version = door.candidate.current_version()
    door.sync().synchronise()
    assert door.candidate.current_version() == version, "what is there already is not installed again"
    fleet.revoke("bob")
    door.sync().synchronise()
    assert ids(door.candidate.load(OTHER)) == ["alice"]
    fleet.drop_candidate("front")
    assert not door.sync().synchronise().candidate
    assert door.candidate.enrolled_with() is None, "nobody is kept for nothing"


def test_after_a_switch_the_two_have_changed_places(fleet: Fleet, door: Door):
    publish_candidate(fleet, "alice", "bob")
    door.sync().synchronise()
    fleet.switch("front", allow_missing=True)
    outcome = door.sync().synchronise()
    assert (outcome.status, outcome.model_id, outcome.candidate) == ("updated", OTHER, True)
    assert ids(door.device.store.load(OTHER)) == ids(door.candidate.load(MODEL))


def test_a_model_that_cannot_be_used_costs_the_door_nothing(fleet: Fleet, door: Door):
    publish_candidate(fleet, "alice", weights=b"others")
    fleet.publish_gallery("front", people("alice", "bob", "carol"))
    outcome = door.sync().synchronise()
    assert (outcome.status, outcome.candidate) == ("updated", False)
    assert "computes something else" in (outcome.error or "")
    assert door.device.known() == ["alice", "bob", "carol"]
    assert door.candidate.enrolled_with() is None


def test_a_switch_to_a_model_that_cannot_be_used_is_refused(fleet: Fleet, door: Door):
    door.sync().synchronise()
    publish_candidate(fleet, "alice", weights=b"others")
    fleet.switch("front", allow_missing=True)
    with pytest.raises(ModelError, match="something else"):
        door.sync().synchronise()
    assert door.device.known() == ["alice", "bob"]


def test_a_model_that_nobody_signed_is_not_fetched(fleet: Fleet, door: Door):
    fleet.publish_gallery(
        "front", people("alice", model_id=OTHER, dim=64), model="other", candidate=True, allow_missing=True
    )
    outcome = door.sync().synchronise()
    assert "not signed" in (outcome.error or "")
    assert door.fetched == []


def test_a_door_with_a_fixed_embedder_refuses_the_switch(fleet: Fleet, door: Door):
    door.device.sync()
    publish_candidate(fleet, "alice")
    assert door.device.sync().status == "current"
    fleet.switch("front", allow_missing=True)
    with pytest.raises(ModelMismatchError, match="this device embeds with"):
        door.device.sync()
    assert door.device.known() == ["alice", "bob"]


def test_the_front_gallery_offered_as_the_candidate_is_refused(tmp_path: Path):
    fleet = make_fleet(tmp_path / "fleet", "front", "back")
    with serving(fleet.published) as server:
        scene = Scene(tmp_path, fleet, server)
        door = Door(scene.door)
        sealed = scene.sealed(b"", version=1, scope="back")
        said = {"scope": "front", "version": 1, "model_id": MODEL, "count": 1, "kind": "next", "base": None}
        fleet.repository.publish(scope_role("front"), {candidate_path("front"): (sealed, said)}, ())
        outcome = door.sync().synchronise()
        assert (outcome.status, outcome.candidate) == ("current", False)
        assert "another door" in (outcome.error or "")
