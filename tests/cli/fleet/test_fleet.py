"""`edge fleet` and `edge sync` as an operator and a timer call them: what they print and how they exit."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from edge.core.errors import ConfigError, FleetError
from edge.core.types import Subject
from edge.device.assembly.stores import crop_store, denial_store
from edge.device.settings.load import load
from edge.face.manifest import load_manifest
from edge.gallery.store.store import GalleryStore
from tests.support.command_line import invoke, run, write_config
from tests.support.gallery_samples import probe, template, unit_rows

EMBEDDER = load_manifest("sface-int8")


class Site:
    """An operator's machine with enrolled subjects, and a door, each with its own state directory."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.fleet = directory, directory / "fleet"
        embedder = 'recognition.embedder = "sface-int8"'
        self.office = write_config(directory, embedder, name="office.toml", state_dir=directory / "office")
        store = GalleryStore(directory / "office" / "gallery", keep_versions=5)
        gallery = store.load(EMBEDDER.model_id)
        for seed, (name, group) in enumerate({"alice": "staff", "bob": "staff", "carol": "cleaning"}.items()):
            row = template(unit_rows(1, seed=seed)[0], EMBEDDER.model_id)
            gallery = store.commit(gallery.with_subject(Subject(name, name, (group,)), [row]))
        self.run("fleet", "init", "acme", "--scope", "front", "--fleet", str(self.fleet))
        self.door = write_config(
            directory,
            embedder,
            f'[sync]\nurl = "{self.fleet}/published"',
            f'trusted_root = "{self.fleet}/published/metadata/1.root.json"',
            f'sealing_key = "{self.fleet}/keys/sealing/front.key"',
            name="door.toml",
            site="acme",
            device="front",
            state_dir=directory / "door",
        )

    def run(self, *arguments: str) -> str:
        return run(*arguments)

    def publish(self, *options: str) -> str:
        return self.run(
            "fleet", "publish", "front", *options, "--fleet", str(self.fleet), "--config", str(self.office)
        )

    def known(self) -> list[str]:
        gallery = GalleryStore(self.directory / "door" / "gallery", keep_versions=5).load(EMBEDDER.model_id)
        return sorted(subject.subject_id for subject in gallery.subjects)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def sync_as_a_child(config: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edge", "sync", "--json", "--config", str(config)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_what_was_enrolled_at_the_office_arrives_at_the_door_and_a_revocation_too(site: Site):
    assert "version 1 with 2 subject(s)" in site.publish("--group", "staff")
    assert "installed" in site.run("sync", "--config", str(site.door))
    assert site.known() == ["alice", "bob"]
    assert "bob is revoked" in site.run("fleet", "revoke", "bob", "--fleet", str(site.fleet))
    told = json.loads(site.run("sync", "--json", "--config", str(site.door)))
    assert datetime.now(UTC) - datetime.fromisoformat(told.pop("at")) < timedelta(minutes=1)
    assert told == {
        "status": "updated",
        "version": 2,
        "count": 1,
        "model_id": EMBEDDER.model_id,
        "error": None,
        "candidate": False,
        "beside": False,
        "scope": "front",
        "reason": None,
        "rights": None,
    }
    assert site.known() == ["alice"]
    again = site.publish()
    assert "with 1 subject(s) of staff" in again, "the groups of the scope are remembered"
    assert "1 revoked left out" in again
    site.run("fleet", "revoke", "bob", "--undo", "--fleet", str(site.fleet))
    assert "with 3 subject(s)," in site.publish("--everybody")
    assert "with 3 subject(s)," in site.publish()


def test_who_is_revoked_leaves_neither_faces_nor_denials_at_the_door(site: Site):
    site.publish("--group", "staff")
    site.run("sync", "--config", str(site.door))
    settings = load(site.door)
    for name in ("alice", "bob"):
        crop_store(settings).save(name, [np.zeros((112, 112, 3), np.uint8)])
        denial_store(settings).change(lambda denials, name=name: denials.plus(name, probe(unit_rows(1)[0])))
    site.run("sync", "--config", str(site.door))
    assert len(crop_store(settings).load("bob")) == 1
    site.run("fleet", "revoke", "bob", "--fleet", str(site.fleet))
    assert json.loads(site.run("sync", "--json", "--config", str(site.door)))["error"] is None
    assert (crop_store(settings).load("bob"), len(crop_store(settings).load("alice"))) == ([], 1)
    assert denial_store(settings).load().counts() == {"alice": 1}


def test_what_cannot_be_erased_after_a_synchronisation_is_told_and_the_gallery_serves(site: Site):
    site.publish()
    (site.directory / "door").mkdir()
    (site.directory / "door" / "crops").write_text("not a directory")
    told = json.loads(site.run("sync", "--json", "--config", str(site.door)))
    assert (told["status"], site.known()) == ("updated", ["alice", "bob", "carol"])
    assert "Not a directory" in told["error"]
    assert "error: " in site.run("sync", "--config", str(site.door))


def test_keys_scopes_and_their_status(site: Site):
    fleet = ("--fleet", str(site.fleet))
    site.publish()
    site.run("fleet", "scope", "back", *fleet)
    site.run("fleet", "rotate-key", "timestamp", *fleet)
    assert "timestamp" in site.run("fleet", "renew", *fleet)
    document = json.loads(site.run("fleet", "status", "--json", *fleet))
    assert [(each["scope"], each["version"]) for each in document["scopes"]] == [("front", 1), ("back", 0)]
    assert {each["role"] for each in document["roles"]} >= {"root", "scope-front", "scope-back"}
    files = {path.stem for path in (site.fleet / "keys").rglob("*.pem")}
    assert {f"{each['role']}-{key}" for each in document["roles"] for key in each["key_ids"]} <= files
    assert "scope-back" in site.run("fleet", "status", *fleet)


@pytest.mark.parametrize("columns", ["20", "80"])
def test_the_status_on_a_terminal_cuts_no_id_and_shows_groups_as_they_are_named(
    site: Site, monkeypatch: pytest.MonkeyPatch, columns: str
):
    store = GalleryStore(site.directory / "office" / "gallery", keep_versions=5)
    row = template(unit_rows(1, seed=9)[0], EMBEDDER.model_id)
    store.commit(store.load(EMBEDDER.model_id).with_subject(Subject("dave", "dave", ("[b]",)), [row]))
    site.publish("--group", "[b]")
    for name, value in {"FORCE_COLOR": "1", "TERM": "dumb", "COLUMNS": columns}.items():
        monkeypatch.setenv(name, value)
    shown = site.run("fleet", "status", "--fleet", str(site.fleet))
    document = json.loads(site.run("fleet", "status", "--json", "--fleet", str(site.fleet)))
    assert EMBEDDER.model_id in shown
    assert "[b]" in shown
    assert all(key in shown for each in document["roles"] for key in each["key_ids"])
    assert all(each["role"] in shown for each in document["roles"])


def test_the_child_says_why_it_was_refused_and_exits_with_one(site: Site):
    site.publish()
    timestamp = site.fleet / "published" / "metadata" / "timestamp.json"
    timestamp.write_text("[" * 10_000)
    done = sync_as_a_child(site.door)
    assert done.returncode == 1
    assert json.loads(done.stdout)["status"] == "refused"
    assert "not what was signed" in json.loads(done.stdout)["error"]
    assert done.stderr.startswith("edge: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        pytest.param(lambda site: site.door.write_text(""), "sync.url: not set", id="no fleet"),
        pytest.param(
            lambda site: (site.fleet / "published/metadata/1.root.json").unlink(), "not there", id="no root"
        ),
        pytest.param(
            lambda site: (site.fleet / "keys/sealing/front.key").unlink(), "there is no key", id="no key"
        ),
        pytest.param(
            lambda site: (site.fleet / "keys/sealing/front.key").chmod(0o644), "chmod 600", id="open key"
        ),
        pytest.param(
            lambda site: (site.fleet / "keys/sealing/front.key").write_text("00" * 31),
            "64 hex",
            id="short key",
        ),
        pytest.param(
            lambda site: site.door.write_text("[sync]\nurl = 'x'"), "needs trusted_root", id="half a table"
        ),
    ],
)
def test_what_is_missing_at_the_device_is_told_by_name(site: Site, harm, says: str):
    site.publish()
    harm(site)
    done = sync_as_a_child(site.door)
    assert done.returncode == 78
    assert says in json.loads(done.stdout)["error"]


def test_the_key_may_be_a_credential_of_systemd(site: Site, monkeypatch: pytest.MonkeyPatch):
    site.publish()
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(site.fleet / "keys" / "sealing"))
    text = site.door.read_text().replace(f"{site.fleet}/keys/sealing/front.key", "front.key")
    site.door.write_text(text)
    assert "installed" in site.run("sync", "--config", str(site.door))


def test_a_passphrase_encrypts_the_keys(tmp_path: Path):
    secret, fleet = tmp_path / "secret", str(tmp_path / "fleet")
    secret.write_text("correct horse\n")
    run("fleet", "init", "acme", "--fleet", fleet, "--passphrase-file", secret)
    refused = invoke("fleet", "renew", "--fleet", fleet)
    assert "passphrase" in str(refused.exception)


@pytest.mark.parametrize("days", ["inf", "nan", "1e12", "0", "-1", "3651"])
def test_no_gallery_ends_at_once_or_at_an_impossible_time(site: Site, days: str):
    command = ("fleet", "publish", "front", "--valid-days", days, "--fleet", site.fleet)
    refused = invoke(*command, config=site.office)
    assert isinstance(refused.exception, ConfigError)
    assert "must be more than 0 and at most 3650" in str(refused.exception)


def test_a_new_sealing_key_is_brought_to_the_door(site: Site):
    site.publish()
    of_door = site.directory / "door.key"
    key = site.fleet / "keys" / "sealing" / "front.key"
    shutil.copy(key, of_door)
    site.door.write_text(site.door.read_text().replace(str(key), str(of_door)))
    fleet = ("--fleet", str(site.fleet))
    told = site.run("fleet", "rotate-key", "sealing-front", *fleet)
    assert "version 2 with 3 subject(s)" in told
    assert f"bring {key} to its doors" in told
    refused = sync_as_a_child(site.door)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (1, 1)
    assert "if the scope has a new one, bring it" in refused.stderr
    shutil.copy(key, of_door)
    assert "version 2 with 3 subject(s) installed" in site.run("sync", "--config", str(site.door))
    assert "edge fleet rotate-key sealing-front" in site.run(
        "fleet", "rotate-key", "sealing-front", "--prepare", *fleet
    )
    shutil.copy(key, of_door)
    site.run("fleet", "rotate-key", "sealing-front", *fleet)
    assert "version 3" in site.run("sync", "--config", str(site.door))


def test_the_status_shows_groups_keys_and_who_is_revoked(site: Site):
    site.publish("--group", "staff", "--valid-days", "30")
    fleet = ("--fleet", str(site.fleet))
    site.run("fleet", "revoke", "bob", *fleet)
    told = site.run("fleet", "status", *fleet)
    assert "1 subject(s) revoked; --revoked shows whom" in told
    assert "bob" not in told
    assert "bob" in site.run("fleet", "status", "--revoked", *fleet)
    document = json.loads(site.run("fleet", "status", "--json", "--revoked", *fleet))
    assert document["revoked"] == ["bob"]
    front = document["scopes"][0]
    assert (front["groups"], front["candidate"], front["beside"]) == (["staff"], None, None)
    ends_at = datetime.fromisoformat(front["not_after"])
    assert timedelta(days=29) < ends_at - datetime.now(UTC) <= timedelta(days=30)


def test_what_came_of_a_synchronisation_is_left_for_the_daemon(site: Site):
    site.publish()
    left = site.directory / "door" / "sync" / "outcome.json"
    assert sync_as_a_child(site.door).returncode == 0
    assert json.loads(left.read_text())["status"] == "updated"
    (site.fleet / "published" / "metadata" / "timestamp.json").write_text("{")
    printed = json.loads(sync_as_a_child(site.door).stdout)
    assert (printed["status"], printed["reason"]) == ("refused", "signature")
    assert json.loads(left.read_text()) == printed


def test_a_synchronisation_loads_neither_the_daemon_nor_what_embeds(site: Site):
    site.publish()
    code = (
        "import contextlib, sys, edge.__main__\n"
        f"sys.argv = ['edge', 'sync', '--config', {str(site.door)!r}]\n"
        "with contextlib.suppress(SystemExit): edge.__main__.main()\n"
        "print('loaded', *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, last = done.stdout.splitlines()
    assert "with 3 subject(s) installed" in first
    loaded = last.split()
    assert "tuf" in loaded
    assert {"onnxruntime", "cv2", "edge.device.daemon", "edge.face.session"}.isdisjoint(loaded)


def test_a_revocation_that_is_incomplete_exits_with_the_scope_in_its_error(site: Site):
    site.publish()
    (site.fleet / "keys" / "sealing" / "front.key").unlink()
    refused = invoke("fleet", "revoke", "bob", "--fleet", site.fleet)
    assert isinstance(refused.exception, FleetError)
    assert "scope front" in str(refused.exception)
    assert "bob" in site.run("fleet", "status", "--revoked", "--fleet", str(site.fleet))


@pytest.mark.parametrize("option", ["--candidate", "--beside"])
def test_the_candidate_is_published_apart_also_by_its_name_in_the_last_release(
    site: Site, option: str, caplog: pytest.LogCaptureFixture
):
    site.publish()
    store = GalleryStore(site.directory / "office" / "gallery-candidate", keep_versions=5)
    office = GalleryStore(site.directory / "office" / "gallery", keep_versions=5).load(EMBEDDER.model_id)
    store.commit(replace(office, version=0))
    assert "version 1 with 3 subject(s)" in site.publish(option)
    assert ("--beside is called --candidate" in caplog.text) == (option == "--beside")
    document = json.loads(site.run("fleet", "status", "--json", "--fleet", str(site.fleet)))
    front = document["scopes"][0]
    assert front["candidate"] == {"version": 1, "count": 3, "model_id": EMBEDDER.model_id}
    assert front["beside"] == front["candidate"]
    assert "--beside" not in site.run("fleet", "publish", "--help")
