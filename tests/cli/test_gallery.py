"""Commands about who is enrolled and which version serves: what they print, change and refuse."""

import json
import stat
from datetime import UTC, datetime
from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import Result

from edge.core.errors import EdgeError
from edge.core.types import Subject
from edge.device.assembly.stores import candidate_store, crop_store, denial_store, gallery_store, visit_store
from edge.device.settings.load import Settings, load
from edge.face.manifest import load_manifest
from edge.gallery.gallery import Gallery
from edge.gallery.store.kept_visits import KeptVisit
from tests.support.command_line import invoke, run, write_config
from tests.support.gallery_samples import AT, damage, probe, template, unit_rows

EMBEDDER, OTHER = load_manifest("sface-int8"), load_manifest("sface-fp32")
FACE = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
FLEET = (
    '[sync]\nurl = "/srv/fleet"\ntrusted_root = "/etc/edge/root.json"\nsealing_key = "/etc/edge/front.key"\n'
)


class Door:
    """A door with subjects in both of its galleries."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.config = directory, directory / "edge.toml"
        self.write("")
        for store, manifest in (
            (gallery_store(self.settings), EMBEDDER),
            (candidate_store(self.settings), OTHER),
        ):
            gallery = Gallery.empty(manifest.model_id)
            for name in ("alice", "bob", "carol"):
                row = template(unit_rows(1, seed=len(name))[0], manifest.model_id)
                gallery = store.commit(gallery.with_subject(Subject(name, name), [row]))

    @property
    def settings(self) -> Settings:
        return load(self.config)

    def write(self, more: str) -> None:
        write_config(self.directory, more, device="door", state_dir=self.directory / "state")

    def run(self, *arguments: str) -> Result:
        return invoke(*arguments, config=self.config)

    def states(self) -> list[list[str]]:
        """Return who is in both galleries, each with the state that it has."""
        return [
            sorted(
                f"{each.subject_id} {each.access.state}" for each in store.load(manifest.model_id).subjects
            )
            for store, manifest in (
                (gallery_store(self.settings), EMBEDDER),
                (candidate_store(self.settings), OTHER),
            )
        ]


@pytest.fixture
def door(tmp_path: Path) -> Door:
    return Door(tmp_path)


def error_of(done: Result) -> str:
    assert isinstance(done.exception, EdgeError), (done.output, done.exception)
    return str(done.exception)


def test_who_is_suspended_is_suspended_in_the_gallery_to_switch_to_as_well(door: Door):
    done = door.run("subjects", "set", "bob", "--state", "suspended")
    assert (done.exit_code, done.output) == (0, "bob may pass: no: suspended; gallery version 4\n")
    assert door.states() == [["alice active", "bob suspended", "carol active"]] * 2


def test_who_is_removed_is_removed_from_both(door: Door):
    done = door.run("subjects", "remove", "bob")
    assert (done.exit_code, done.output) == (
        0,
        "removed bob; gallery version 4 has 2 subject(s) and the candidate version 4 has 2 subject(s)\n",
    )
    assert door.states() == [["alice active", "carol active"]] * 2
    assert "no subject 'bob'" in error_of(door.run("subjects", "remove", "bob"))


REMOTE = '[strangers]\nkeep_hours = 24\n[remote]\nurl = "http://127.0.0.1:9"\nsecret = "s"\npolicy = "{}"\n'


@pytest.mark.parametrize(
    ("policy", "subject", "says"),
    [
        pytest.param("unknown", "p-there", None, id="named by the remote gallery"),
        pytest.param("off", "p-there", "no subject 'p-there' in the gallery; see", id="it is not asked"),
        pytest.param("unknown", "p-ther", "the remote one did not take v-1 for it", id="another id"),
        pytest.param("unknown", "bob", "no subject 'bob' in the gallery; see", id="removed here"),
    ],
)
def test_a_match_that_the_remote_gallery_found_can_be_denied(
    door: Door, policy: str, subject: str, says: str | None
):
    assert door.run("subjects", "remove", "bob").exit_code == 0
    door.write(REMOTE.format(policy))
    face = probe(unit_rows(1)[0], EMBEDDER.model_id)
    visit_store(door.settings).put(KeptVisit("v-1", "front", datetime.now(UTC), face, "p-there"))
    done = door.run("gallery", "deny", subject, "--visit", "v-1")
    if says is None:
        assert done.exit_code == 0, done.output
        assert denial_store(door.settings).load().counts() == {"p-there": 1}
    else:
        assert says in error_of(done)
        assert denial_store(door.settings).load().counts() == {}


def test_who_was_rolled_back_from_is_removed_from_the_older_versions(door: Door):
    assert door.run("gallery", "roll-back", "2").exit_code == 0
    beside = candidate_store(door.settings)
    beside.commit(beside.load(OTHER.model_id).without_subject("carol"))
    done = door.run("subjects", "remove", "carol")
    assert (done.exit_code, done.output) == (
        0,
        "removed carol from older versions; the gallery has no such subject\n",
    )
    assert gallery_store(door.settings).history()[2].size == 2


def test_a_removal_with_damaged_denials_says_what_was_done(door: Door):
    (door.settings.state_dir / "denials.sealed").write_bytes(b"torn")
    done = door.run("subjects", "remove", "bob")
    assert done.exit_code == 0
    assert "removed bob; gallery version 4" in done.stdout
    assert "warning: denials were damaged" in done.output
    assert door.run("gallery", "deny").exit_code == 0


def test_a_removal_that_leaves_something_says_what_was_done_and_what_was_not(
    door: Door, monkeypatch: pytest.MonkeyPatch
):
    (door.settings.state_dir / "crops").write_text("not a directory")
    told = error_of(door.run("subjects", "remove", "bob"))
    assert told.startswith("removed bob; gallery version 4 has 2 subject(s)")
    assert "; but " in told
    assert "Not a directory" in told


@pytest.mark.parametrize(
    "arguments", [("subjects", "set", "bob", "--state", "suspended"), ("subjects", "remove", "bob")]
)
def test_where_the_gallery_is_the_fleets_it_is_done_and_the_operator_is_warned(
    door: Door, arguments: tuple[str, ...]
):
    door.write(FLEET)
    done = door.run(*arguments)
    assert done.exit_code == 0
    [warning] = [line for line in done.output.splitlines() if line.startswith("warning")]
    assert "the next synchronisation brings back" in warning
    assert "edge fleet revoke" in warning
    assert "bob active" not in door.states()[0]


def test_who_enrols_where_the_gallery_is_the_fleets_is_warned(door: Door, tmp_path: Path):
    door.write(FLEET)
    done = door.run("enroll", "p-new", str(tmp_path / "none.png"))
    assert "the next synchronisation brings back" in done.output
    assert done.exit_code != 0, "no model is installed here"


def test_versions_are_listed_and_there_is_a_way_back_and_forward(door: Door):
    door.run("subjects", "remove", "alice")
    listed = json.loads(door.run("gallery", "versions", "--json").stdout)["versions"]
    assert [(each["version"], each["subjects"], each["serves"]) for each in listed] == [
        (1, 0, False),
        (2, 1, False),
        (3, 2, False),
        (4, 2, True),
    ]
    assert {each["model_id"] for each in listed} == {EMBEDDER.model_id}
    assert "serves" in door.run("gallery", "versions").output
    done = door.run("gallery", "roll-back", "2")
    assert (done.exit_code, done.output.split(" is what")[0]) == (0, "gallery version 5 with 1 subject(s)")
    assert door.states()[0] == ["bob active"], "who was removed stays removed"
    assert "rights back to carol; if that is meant, add --confirm" in error_of(
        door.run("gallery", "roll-back", "4")
    )
    assert door.states()[0] == ["bob active"]
    assert door.run("gallery", "roll-back", "4", "--confirm", door.settings.device).exit_code == 0
    assert door.states()[0] == ["bob active", "carol active"]


def test_several_are_removed_at_once_and_who_is_not_there_is_told(door: Door):
    done = door.run("subjects", "remove", "bob", "nobody", "carol", "bob")
    assert error_of(done).startswith("no subject 'nobody' in the gallery")
    assert [line.split(";")[0] for line in done.output.splitlines()] == ["removed bob", "removed carol"]
    assert door.states() == [["alice active"]] * 2


def test_the_list_has_the_day_of_enrolment_and_the_photos(door: Door):
    listed = json.loads(door.run("subjects", "list", "--json").stdout)["subjects"]
    assert {each["enrolled_at"] for each in listed} == {AT.isoformat(timespec="seconds")}
    assert {each["photos"] for each in listed} == {1}
    told = door.run("subjects", "list").output
    assert f"{AT:%Y-%m-%d %H:%M} UTC" in told
    assert "photos" in told


def test_versions_say_what_changed_in_them(door: Door):
    door.run("subjects", "set", "bob", "--state", "suspended")
    door.run("subjects", "remove", "carol")
    listed = json.loads(door.run("gallery", "versions", "--json").stdout)["versions"]
    nothing = {"enrolled": [], "changed": [], "gone": [], "removed": 0}
    assert [each["change"] for each in listed] == [
        nothing | {"enrolled": ["alice"]},
        nothing | {"enrolled": ["bob"]},
        nothing,
        nothing | {"changed": ["bob"]},
        nothing | {"removed": 1},
    ], "who is removed is named nowhere any more, not even as enrolled before"
    told = door.run("gallery", "versions").output
    for said in ("enrolled alice", "enrolled bob", "changed bob", "removed 1", "nobody"):
        assert said in told
    door.run("gallery", "roll-back", "1", "--confirm", door.settings.device)
    listed = json.loads(door.run("gallery", "versions", "--json").stdout)["versions"]
    assert listed[0]["change"] is None, "the version before is not kept any more"
    assert listed[-1]["change"] == nothing | {"gone": ["bob"]}
    assert "without bob" in door.run("gallery", "versions").output


def test_a_roll_back_that_gives_rights_back_says_whose_and_asks(door: Door):
    assert door.run("subjects", "set", "bob", "--state", "suspended").exit_code == 0
    refused = door.run("gallery", "roll-back", "3")
    assert "version 3 gives rights back to bob; if that is meant, add --confirm" in error_of(refused)
    assert "rights back to bob" in error_of(door.run("gallery", "roll-back", "3", "--confirm", "another"))
    assert "bob suspended" in door.states()[0]
    assert door.run("gallery", "roll-back", "3", "--confirm", door.settings.device).exit_code == 0
    assert "bob active" in door.states()[0]


def test_a_gallery_that_took_the_place_of_a_damaged_one_says_so(door: Door):
    assert door.run("subjects", "set", "bob", "--state", "suspended").exit_code == 0
    damage(door.settings.gallery_path / "gallery-00000004.edge")
    assert "bob suspended" in door.states()[0]
    told = door.run("gallery", "versions").output
    assert "version 4 cannot be read; what version 3 held serves as version 5, with no more rights" in told
    said = json.loads(door.run("gallery", "versions", "--json").stdout)
    assert said["fallback"] == {"version": 5, "source": 3, "lost": [4]}


def test_a_door_where_nobody_was_enrolled_has_no_versions(tmp_path: Path):
    config = write_config(tmp_path, state_dir=tmp_path / "state")
    assert run("gallery", "versions", config=config) == "nobody was ever enrolled here\n"


@pytest.mark.parametrize(
    ("more", "version", "says"),
    [
        pytest.param("", "9", "version 9 is not kept; there are: 1, 2, 3", id="no such version"),
        pytest.param("", "3", "version 3 is not one to go back to", id="it serves"),
        pytest.param(FLEET, "2", "comes from a fleet", id="the fleet's gallery"),
        pytest.param(
            '[recognition]\nembedder = "sface-fp32"\n',
            "2",
            "was enrolled with 'sface-int8@",
            id="other model",
        ),
    ],
)
def test_a_roll_back_that_makes_no_sense_is_refused(door: Door, more: str, version: str, says: str):
    door.write(more)
    assert says in error_of(door.run("gallery", "roll-back", version))
    assert gallery_store(door.settings).current_version() == 3


def test_a_purge_leaves_nothing_of_anybody(door: Door):
    crop_store(door.settings).save("who left long ago", [FACE])
    denial_store(door.settings).change(lambda denials: denials.plus("bob", probe(unit_rows(1)[0])))
    done = door.run("gallery", "purge", "--confirm", "door")
    assert (done.exit_code, done.output) == (0, "erased 3 subject(s)\n")
    assert door.states() == [[], []]
    assert list((door.settings.state_dir / "crops").iterdir()) == []
    assert not (door.settings.state_dir / "denials.sealed").exists()


@pytest.mark.parametrize(
    ("name", "works"), [("x.png", True), ("x.JPG", True), ("x.txt", False), ("x", False)]
)
def test_a_sheet_is_a_private_picture_or_refused(door: Door, tmp_path: Path, name: str, works: bool):
    crop_store(door.settings).save("bob", [FACE])
    sheet = tmp_path / name
    done = door.run("subjects", "show", "bob", "--sheet", str(sheet))
    assert sheet.exists() == works
    if works:
        assert done.exit_code == 0
        assert stat.S_IMODE(sheet.stat().st_mode) == 0o600
        assert cv2.imread(str(sheet)).shape == (120, 120, 3)
    else:
        assert "not the name of a picture" in error_of(done)


def test_a_sheet_that_cannot_be_written_is_told(door: Door, tmp_path: Path):
    crop_store(door.settings).save("bob", [FACE])
    done = door.run("subjects", "show", "bob", "--sheet", str(tmp_path / "nowhere" / "x.png"))
    assert "cannot be written: No such file" in error_of(done)


def test_denials_that_are_gone_are_told_and_dropped_by_name(door: Door):
    face = probe(unit_rows(1)[0], EMBEDDER.model_id)
    for subject_id in ("bob", "carol"):
        denial_store(door.settings).change(lambda denials, who=subject_id: denials.plus(who, face))
    (door.settings.state_dir / "denials.sealed").unlink()
    assert "lost: bob, carol; rejected as ambiguous until" in door.run("gallery", "deny").output
    assert door.run("gallery", "deny", "bob", "--forget-lost").exit_code == 0
    assert "lost: carol; rejected" in door.run("gallery", "deny").output
    (door.settings.state_dir / "denials.sealed").write_bytes(b"torn")
    assert "damaged, or of another device" in error_of(door.run("gallery", "deny"))
    assert "lost: carol; rejected" in error_of(door.run("gallery", "deny"))
    done = door.run("gallery", "deny", "--forget-lost").output
    assert "damaged denials are kept as" in done
    assert "what was lost of anybody is dropped" in done
    assert door.run("gallery", "deny").output == ""
