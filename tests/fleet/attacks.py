"""A fleet under attack: what is done to the server, the clock, the disk, and with stolen keys."""

import hashlib
import json
import pickle
import shutil
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tuf.api.metadata import TargetFile

from edge.fleet.fleet import Fleet, open_fleet
from edge.fleet.keys import KeyRing
from edge.fleet.repository import Repository
from edge.gallery.format.bundle import DIGEST_BYTES, encode
from edge.gallery.format.published import full_path, scope_role
from edge.gallery.format.seal import Binding, new_key, seal
from edge.gallery.gallery import Gallery
from tests.support.clock import SteppedClock
from tests.support.fleets import (
    TENANT,
    StaticServer,
    endless,
    make_device,
    people,
    sending,
)
from tests.support.gallery_samples import MODEL, damage

WEEKS = timedelta(weeks=1)


class Scene:
    """A fleet of two scopes, its server, and the front door, which has synchronised version 2."""

    def __init__(self, tmp_path: Path, fleet: Fleet, server: StaticServer) -> None:
        self.tmp_path, self.fleet, self.server = tmp_path, fleet, server
        self.door = make_device(tmp_path / "door", fleet, "front", server.url)
        fleet.publish_gallery("front", people("alice", "bob", "mallory"))
        fleet.publish_gallery("back", people("carol"))
        self.old = tmp_path / "old"
        shutil.copytree(fleet.published, self.old)
        fleet.revoke("mallory")
        assert self.door.sync().version == 2

    def go_back(self) -> None:
        """Let the server offer what it offered before the revocation."""
        shutil.rmtree(self.fleet.published)
        shutil.copytree(self.old, self.fleet.published)

    def publish(self) -> None:
        self.fleet.publish_gallery("front", people("alice", "mallory"))

    def offer(self, sealed: bytes, scope: str = "front", **said: Any) -> None:
        """Sign anything as the gallery of the front door, with the right keys."""
        custom = {"scope": "front", "version": 3, "model_id": MODEL, "count": 1, "kind": "full", "base": None}
        target = {full_path("front"): (sealed, {**custom, **said})}
        self.fleet.repository.publish(scope_role(scope), target, ())

    def sealed(self, plain: bytes, **other: Any) -> bytes:
        key = other.pop("key", self.door.source.sealing_keys[0])
        fields = {"tenant": TENANT, "scope": "front", "model_id": MODEL, "version": 3, **other}
        return seal(plain, key, Binding(**fields))

    def forger(self, *stolen: str) -> "Forger":
        """Return somebody who has only these keys."""
        keys = self.tmp_path / "stolen"
        for pattern in stolen:
            for path in (self.fleet.directory / "keys").glob(pattern):
                target = keys / path.relative_to(self.fleet.directory / "keys")
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, target)
        return Forger(self.fleet.published, KeyRing(keys), lambda role: 30, SteppedClock.running().now)


class Forger(Repository):
    """Signs with whatever keys there are, whoever must agree."""

    def _sign(self, role, metadata, delegator):
        for keyid in delegator.get_delegated_role(role).keyids:
            if (signer := self._keys.signer(role, delegator.get_key(keyid))) is not None:
                metadata.sign(signer, append=True)


def counted(repository: Repository, role: str, version: int) -> None:
    """Let somebody who has a role's keys raise its version."""
    metadata = repository._said.load(role)
    metadata.signed.version = version
    with repository._said.change():
        repository._draft(role, metadata)


def rollback(scene: Scene) -> None:
    scene.go_back()


def wiped_cache_and_old_repository(scene: Scene) -> None:
    scene.go_back()
    scene.door.wipe_cache()


def retired_keys_and_a_wiped_cache(scene: Scene) -> None:
    """What was stolen before a rotation is offered again, with the very gallery that serves."""
    before = scene.tmp_path / "before"
    shutil.copytree(scene.fleet.published, before)
    scene.fleet.rotate_key("timestamp")
    assert scene.door.sync().status == "current"
    scene.old = before
    scene.go_back()
    scene.door.wipe_cache()


def freeze(scene: Scene) -> None:
    late = open_fleet(
        scene.fleet.directory, KeyRing(scene.fleet.directory / "keys"), SteppedClock.running(-3 * WEEKS)
    )
    late.repository.renew()


def mix_and_match(scene: Scene) -> None:
    scene.publish()
    old = (scene.old / "metadata" / "2.scope-front.json").read_bytes()
    scene.server.mischief["4.scope-front.json"] = sending(old)


def old_snapshot_under_a_new_timestamp(scene: Scene) -> None:
    scene.publish()
    metadata = scene.fleet.published / "metadata"
    versions = sorted(metadata.glob("*.snapshot.json"), key=lambda path: int(path.name.split(".")[0]))
    scene.server.mischief[versions[-1].name] = sending(versions[0].read_bytes())


def swapped_target(scene: Scene) -> None:
    scene.publish()
    for path in (scene.fleet.published / "targets").rglob("*.full.edge"):
        damage(path)
    for path in (scene.fleet.published / "targets").rglob("*.from-*.edge"):
        path.unlink()


def unsigned_timestamp(scene: Scene) -> None:
    path = scene.fleet.published / "metadata" / "timestamp.json"
    document = json.loads(path.read_bytes())
    document["signed"]["version"] += 1
    path.write_text(json.dumps(document))


def deep_json(scene: Scene) -> None:
    scene.server.mischief["timestamp.json"] = sending(b"[" * 16_000)


def not_json(scene: Scene) -> None:
    scene.server.mischief["timestamp.json"] = sending(b"<html>please log in\n</html>")


def stolen_online_keys(scene: Scene) -> None:
    forged = scene.sealed(encode(people("mallory")))
    said = {"scope": "front", "version": 3, "model_id": MODEL, "count": 1, "kind": "full", "base": None}
    scene.forger("online/*").publish("scope-front", {full_path("front"): (forged, said)}, ())


def another_doors_key(scene: Scene) -> None:
    """The back door's role signs a gallery of the front door, whose own role says nothing any more."""
    scene.fleet.repository.publish("scope-front", {}, [full_path("front")])
    scene.offer(scene.sealed(encode(people("mallory"))), scope="back")


def withdrawn(scene: Scene) -> None:
    scene.fleet.repository.publish("scope-front", {}, [full_path("front")])


def endless_target(scene: Scene) -> None:
    scene.publish()
    scene.server.mischief[".edge"] = endless


def truncated_target(scene: Scene) -> None:
    scene.publish()
    scene.server.mischief[".edge"] = sending(b"x" * 10, declared=1000)


def clock_behind(scene: Scene) -> None:
    scene.door.clock.shift = timedelta(days=-2)


def clock_ahead(scene: Scene) -> None:
    scene.door.clock.shift = timedelta(days=400)


def sealed_for_another_door(scene: Scene) -> None:
    scene.offer(scene.sealed(encode(people("mallory")), scope="back"))


def sealed_for_another_tenant(scene: Scene) -> None:
    scene.offer(scene.sealed(encode(people("mallory")), tenant="other"))


def sealed_with_another_key(scene: Scene) -> None:
    scene.offer(scene.sealed(encode(people("mallory")), key=new_key()))


def sealed_as_another_version(scene: Scene) -> None:
    scene.offer(scene.sealed(encode(people("mallory")), version=2))


def not_sealed(scene: Scene) -> None:
    scene.offer(encode(people("mallory")))


def pickled(scene: Scene) -> None:
    scene.offer(scene.sealed(pickle.dumps({"rows": list(range(100))})))


def version_inside_differs(scene: Scene) -> None:
    scene.offer(scene.sealed(encode(people("mallory"))))


def of_version(gallery: Gallery, version: int) -> bytes:
    return encode(
        Gallery(
            version, gallery.model_id, gallery.subjects, gallery.counts, gallery.provenance, gallery.matrix
        )
    )


def rows_of(value: float) -> bytes:
    """Return a bundle whose last embedding is nonsense and whose checksum is right."""
    data = bytearray(of_version(people("mallory"), 3)[:-DIGEST_BYTES])
    data[-512:] = np.full(128, value, "<f4").tobytes()
    return bytes(data) + hashlib.sha256(data).digest()


def nan_rows(scene: Scene) -> None:
    scene.offer(scene.sealed(rows_of(float("nan"))))


def loud_rows(scene: Scene) -> None:
    scene.offer(scene.sealed(rows_of(50.0)))


def other_model(scene: Scene) -> None:
    scene.fleet.publish_gallery("front", people("alice", model_id="other@12345678"))


def other_length(scene: Scene) -> None:
    scene.fleet.publish_gallery("front", people("alice", dim=64))


def count_differs(scene: Scene) -> None:
    scene.offer(scene.sealed(of_version(people("mallory"), 3)), count=2)


def nothing_said(scene: Scene) -> None:
    scene.offer(scene.sealed(of_version(people("mallory"), 3)), version="three")


def says_another_scope(scene: Scene) -> None:
    scene.offer(scene.sealed(of_version(people("mallory"), 3)), scope="front", **{"kind": "delta", "base": 2})


def lower_version(scene: Scene) -> None:
    scene.offer(scene.sealed(of_version(people("mallory"), 1), version=1), version=1)


def same_version_other_people(scene: Scene) -> None:
    scene.offer(scene.sealed(of_version(people("mallory"), 2), version=2), version=2)


def floors_damaged(scene: Scene) -> None:
    damage_text(scene.door.cache / "floors.json")


def delegation_changed_with_the_online_keys(scene: Scene) -> None:
    """Who has the scope's key and the online keys says that another key signs for the scope."""
    forger = scene.forger("online/*", "offline/scope-front*")
    targets = forger.role("targets")
    targets.signed.revoke_key(targets.signed.get_delegated_role("scope-front").keyids[0], "scope-front")
    targets.signed.add_key(forger._keys.create("scope-front"), "scope-front")
    forge_front(forger, scene, targets)


def delegation_of_before_a_rotation(scene: Scene) -> None:
    """The old statement of who signs for the scope, with the stolen key that it names, under a newer root."""
    stolen = next((scene.fleet.directory / "keys" / "offline").glob("scope-front*"))
    old = scene.fleet.repository.role("targets")
    scene.fleet.rotate_key("scope-front")
    assert scene.door.sync().status == "current"
    scene.fleet.rotate_key("root")
    scene.door.wipe_cache()
    forger = scene.forger("online/*", f"offline/{stolen.name}")
    forge_front(forger, scene, old, as_it_was=True)


def forge_front(forger: Forger, scene: Scene, targets: Any, *, as_it_was: bool = False) -> None:
    """Publish version 1 for the front door under this statement of who signs for it."""
    said = {"scope": "front", "version": 1, "model_id": MODEL, "count": 1, "kind": "full", "base": None}
    sealed = scene.sealed(of_version(people("mallory"), 1), version=1)
    role = forger.role("scope-front")
    info = TargetFile.from_data(full_path("front"), sealed, ["sha256"])
    info.unrecognized_fields["custom"] = said
    role.signed.targets[full_path("front")] = info
    with forger._said.change():
        if as_it_was:
            forger._said.draft("targets", targets.signed.version, targets.to_bytes())
        else:
            forger._draft("targets", targets)
        forger._said.add(info, sealed)
        forger._draft("scope-front", role)
        forger._announce(("targets", "scope-front"))


def empty_without_a_word(scene: Scene) -> None:
    scene.offer(scene.sealed(of_version(people(), 3)), count=0)


def floors_of_another_scope(scene: Scene) -> None:
    path = scene.door.cache / "floors.json"
    path.write_text(path.read_text().replace('"front"', '"back"'))


def damage_text(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:40])
