"""What stays on the web server: what is published now, and nothing of who was taken out."""

import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

from edge.core.access import Access, SubjectState
from edge.core.errors import EdgeError, FileError, FleetError, SignatureError
from edge.core.files import PRIVATE, read_key, write_whole
from edge.fleet import galleries
from edge.fleet.fleet import Fleet
from edge.gallery.format.bundle import decode
from edge.gallery.format.delta import HEADER, MAGIC
from edge.gallery.format.published import full_path, scope_role
from edge.gallery.format.seal import Binding, unseal
from tests.support.fleets import TENANT, make_device, make_fleet, people
from tests.support.gallery_samples import MODEL

OTHER = "other@12345678"
MANY = tuple(f"p-{number}" for number in range(30))


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return make_fleet(tmp_path / "fleet", "front", "back")


def files(fleet: Fleet, folder: str = "") -> set[str]:
    return {
        path.relative_to(fleet.published).as_posix()
        for path in (fleet.published / folder).rglob("*")
        if path.is_file()
    }


def held(fleet: Fleet, scope: str) -> set[str]:
    """Return every subject that a thief with a door's key finds on the server."""
    key = read_key(fleet.directory / "keys" / "sealing" / f"{scope}.key")
    found: set[str] = set()
    for path in (fleet.published / "targets" / "galleries" / scope).iterdir():
        for model_id in (MODEL, OTHER):
            for version in range(1, 20):
                try:
                    plain = unseal(path.read_bytes(), key, Binding(TENANT, scope, model_id, version))
                except EdgeError:
                    continue
                start = HEADER.size + HEADER.unpack_from(plain)[2] if plain.startswith(MAGIC) else 0
                found |= {subject.subject_id for subject in decode(plain[start:]).subjects}
    return found


def test_of_old_galleries_only_the_last_one_stays_for_who_is_just_fetching(fleet: Fleet):
    for count in range(5, 11):
        fleet.publish_gallery("front", people(*MANY, *(f"q-{number}" for number in range(count))))
    names = sorted(path.split(".", 1)[1] for path in files(fleet, "targets"))
    differences = [f"from-{version}.edge" for version in range(1, 6)]
    assert names == [*differences, "full.edge", "full.edge"], "who missed some adds up the differences"


def test_differences_stay_while_they_are_few_and_no_template_goes(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
):
    def offered() -> list[str]:
        role = fleet.repository.role(scope_role("front")).signed
        return sorted(path.rpartition("/")[2] for path in role.targets if "from-" in path)

    monkeypatch.setattr(galleries, "MAX_DIFFERENCES", 3)
    for count in range(1, 6):
        fleet.publish_gallery("front", people(*MANY, *(f"q-{number}" for number in range(count))))
    assert offered() == ["from-2.edge", "from-3.edge", "from-4.edge"]
    gallery = fleet.gallery("front")
    assert gallery is not None
    suspended = replace(gallery.subjects[0], access=Access(state=SubjectState.SUSPENDED))
    fleet.publish_gallery("front", gallery.with_subject(suspended, gallery.templates_of("p-0")))
    assert offered() == ["from-3.edge", "from-4.edge", "from-5.edge"]
    anew = people("q-0").subjects[0]
    face = people("another face").templates_of("another face")
    gallery = fleet.gallery("front")
    assert gallery is not None
    fleet.publish_gallery("front", gallery.with_subject(anew, face))
    assert offered() == ["from-6.edge"], "the face of before is in an older one"
    fleet.revoke("q-1")
    assert offered() == ["from-7.edge"]


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(lambda f: f.revoke("eve"), id="revoked"),
        pytest.param(lambda f: f.publish_gallery("front", people(*MANY)), id="published without"),
        pytest.param(
            lambda f: (f.publish_gallery("front", people(*MANY)), f.drop_candidate("front")), id="and dropped"
        ),
    ],
)
def test_who_is_taken_out_is_in_no_file_any_more(fleet: Fleet, then):
    beside = () if "drop_candidate" not in then.__code__.co_names else (*MANY, "eve")
    fleet.publish_gallery("front", people(*MANY))
    fleet.publish_gallery("front", people(*MANY, "eve"))
    fleet.publish_gallery("front", people(*MANY, "eve", "bob"))
    fleet.publish_gallery(
        "front", people(*beside, model_id=OTHER), candidate=True, allow_empty=True, allow_missing=True
    )
    assert "eve" in held(fleet, "front")
    then(fleet)
    assert "eve" not in held(fleet, "front")
    assert held(fleet, "front") >= set(MANY)


def test_a_revocation_done_again_deletes_what_the_first_one_could_not(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
):
    for scope in ("front", "back"):
        fleet.publish_gallery(scope, people(*MANY, "eve"))
    stuck = sorted(fleet.published.glob("targets/galleries/*/*"))[0]
    unlink = Path.unlink

    def failing(path: Path, missing_ok: bool = False) -> None:
        if path == stuck:
            raise PermissionError(1, "Operation not permitted")
        unlink(path, missing_ok)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", failing)
        for _ in range(2):
            with pytest.raises(FleetError, match=f"do it again: .*{stuck.name}"):
                fleet.revoke("eve")
            assert "eve" in held(fleet, "back")
            assert "eve" not in held(fleet, "front"), "one file that stays keeps no other"
    assert fleet.revoke("eve") == []
    assert "eve" not in held(fleet, "back")
    assert held(fleet, "back") >= set(MANY)


def test_what_an_earlier_release_left_behind_goes_with_the_next_change(fleet: Fleet):
    fleet.publish_gallery("front", people("alice"))
    now = files(fleet)
    for name in ("targets/galleries/front/00.from-1.edge", "targets/models/x/00.y", "metadata/.1.x.json.tmp"):
        (fleet.published / name).parent.mkdir(parents=True, exist_ok=True)
        (fleet.published / name).write_bytes(b"left behind")
    (fleet.published / "index.html").write_text("the operator's own")
    fleet.repository.renew()
    assert {name for name in files(fleet) if "json" not in name} == {
        "index.html",
        *(name for name in now if "json" not in name),
    }
    assert (fleet.published / "index.html").exists()


def test_metadata_do_not_pile_up_and_every_root_stays(fleet: Fleet):
    for _ in range(4):
        fleet.rotate_key("root")
    for number in range(12):
        fleet.publish_gallery("front", people("alice", f"p-{number}"))
        fleet.repository.renew()
    names = [name.split("/")[1].split(".") for name in files(fleet, "metadata")]
    roots = sorted(int(name[0]) for name in names if name[-2] == "root")
    assert roots == [1, 2, 3, 4, 5]
    assert len(names) - len(roots) <= 1 + 5 * 5
    assert sum(name[-2] == "scope-front" for name in names) == 5


def test_a_device_with_the_metadata_of_a_moment_ago_still_finds_its_files(fleet: Fleet, tmp_path: Path):
    fleet.publish_gallery("front", people("alice"))
    before = files(fleet, "targets")
    fleet.publish_gallery("front", people("alice", "bob"))
    assert before <= files(fleet, "targets"), "it finishes; the next time it gets the new one"
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    assert door.sync().version == 2


@pytest.mark.parametrize(
    "missing", ["offline/scope-front-*.pem", "online/snapshot-*.pem", "online/timestamp-*.pem"]
)
def test_a_publication_that_cannot_be_signed_leaves_no_file(fleet: Fleet, missing: str):
    fleet.publish_gallery("front", people("alice"))
    before = files(fleet)
    next((fleet.directory / "keys").glob(missing)).unlink()
    with pytest.raises(SignatureError, match="0 of its keys"):
        fleet.publish_gallery("front", people("alice", "bob"))
    assert files(fleet) == before
    assert fleet.status()[0].count == 1


@pytest.mark.parametrize("broken", range(1, 6))
def test_a_publication_that_cannot_be_written_leaves_no_file(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: int
):
    """Whichever of its files fails: gallery, difference, role, snapshot, timestamp."""
    fleet.publish_gallery("front", people(*MANY))
    before = files(fleet)
    calls = []

    def failing(path: Path, data: bytes, mode: int = PRIVATE) -> None:
        calls.append(path)
        if len(calls) == broken:
            raise FileError(f"{path}: cannot be written: No space left on device; what was there stays")
        write_whole(path, data, mode)

    with monkeypatch.context() as patch:
        patch.setattr("edge.core.files.write_whole", failing)
        with pytest.raises(FileError, match="No space left"):
            fleet.publish_gallery("front", people(*MANY, "eve"))
    assert files(fleet) == before
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    assert door.sync().version == 1
    assert fleet.publish_gallery("front", people(*MANY, "eve")).version == 2
    assert door.sync().version == 2


@pytest.mark.parametrize(
    "stops", [OSError(5, "Input/output error"), KeyboardInterrupt()], ids=["disk", "Ctrl-C"]
)
@pytest.mark.parametrize(
    ("last", "change", "versions"),
    [
        pytest.param(
            "timestamp.json", lambda f: f.publish_gallery("front", people("alice", "bob")), 2, id="all"
        ),
        pytest.param("3.root.json", lambda f: f.rotate_key("root"), 1, id="a new root"),
    ],
)
def test_what_broke_off_after_it_could_be_seen_is_not_undone(
    fleet: Fleet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stops, last, change, versions
):
    fleet.rotate_key("root")
    fleet.publish_gallery("front", people("alice"))
    replace, sync, replaced = Path.replace, os.fsync, []

    def replacing(path: Path, target: Path) -> Path:
        replaced.append(target.name)
        return replace(path, target)

    def syncing(descriptor: int) -> None:
        if replaced and replaced[-1] == last and stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise stops
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replacing)
        patch.setattr(os, "fsync", syncing)
        with pytest.raises((FileError, KeyboardInterrupt)) as refused:
            change(fleet)
    assert "what was there stays" not in str(refused.value)
    assert (fleet.published / "metadata" / last).exists()
    assert fleet.status()[0].version == versions
    door = make_device(tmp_path / "door", fleet, "front", str(fleet.published))
    assert door.sync().version == versions
    assert "timestamp" in fleet.repository.renew()
    assert fleet.publish_gallery("front", people("alice", "bob", "carol")).version == versions + 1
    assert door.sync().version == versions + 1


def test_what_a_power_cut_left_half_written_is_not_built_upon(fleet: Fleet):
    fleet.publish_gallery("front", people("alice"))
    (fleet.published / "metadata" / f"9.{scope_role('front')}.json").write_bytes(b"torn")
    (fleet.published / "metadata" / "99.snapshot.json").write_bytes(b"torn")
    assert fleet.publish_gallery("front", people("alice", "bob")).version == 2
    assert fleet.repository.role(scope_role("front")).signed.targets[full_path("front")].custom["count"] == 2
    assert not [name for name in files(fleet) if name.startswith(("metadata/9.", "metadata/99."))]
