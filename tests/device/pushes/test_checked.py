"""Pushes that were checked: what may be pushed, and what is rejected before it is in force."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.core.errors import ConfigError
from edge.device.pushes.push import marks, refusals
from edge.device.pushes.trial import PushState
from edge.device.settings.load import Settings
from tests.support.pushes import FLEET, STRICT, PushDoor, push

REJECTED = [
    pytest.param(
        lambda: push(1, {"decision": {"margin": 7}}), "decision.margin", "settings", id="out of range"
    ),
    pytest.param(
        lambda: push(1, {"decision": {"margin": "wide"}}), "decision.margin", "settings", id="wrong type"
    ),
    pytest.param(
        lambda: push(1, {"decision": {"min_shots": 20}}), "max_shots", "settings", id="inconsistent"
    ),
    pytest.param(lambda: push(1, {"decision": 7}), "cannot be pushed", "keys", id="a table that is a number"),
    pytest.param(
        lambda: push(1, {"decisions": {"margin": 0.1}}), "cannot be pushed", "keys", id="unknown table"
    ),
    pytest.param(
        lambda: push(1, {"decision": {"margins": 0.1}}), "cannot be pushed", "keys", id="unknown key"
    ),
]


@pytest.mark.parametrize(("attack", "says", "reason"), REJECTED)
def test_what_cannot_be_put_in_force_is_rejected_also_after_a_restart(
    door: PushDoor, attack: Callable[[], bytes], says: str, reason: str
):
    door.kept(push(1, STRICT, **FLEET), "fleet")
    door.trial.take("device", attack())
    for each in door.before_and_after_restart():
        report = each.memory.report
        assert (report.status, report.layer, report.version) == ("rejected", "device", 1)
        assert says in (report.error or "")
        assert each.trial.state is PushState.REJECTED
        assert each.in_force.decision.target_fpir == 0.0001
    assert door.after_restart().decision.target_fpir == 0.0001
    assert door.refusals == {"config.refused": 1, f"config.refused.{reason}": 1}


def test_what_cannot_be_built_is_rejected_also_after_a_restart(door: PushDoor):
    door.builds = False
    door.trial.take("device", push(1, STRICT))
    assert door.in_force.decision.target_fpir == 0.001
    assert door.refusals == {"config.refused": 1, "config.refused.build": 1}
    assert door.told[-1]["versions"] == {}
    for each in door.before_and_after_restart():
        assert each.trial.state is PushState.REJECTED
        assert (each.memory.report.status, each.memory.report.error) == ("rejected", "no such model")


def test_the_version_of_a_rejected_push_is_spent_before_it_is_read(door: PushDoor):
    door.trial.take("device", push(5, {"decision": {"margin": 7}}))
    assert door.trial.state is PushState.REJECTED
    door.trial.take("device", push(5, STRICT))
    assert door.trial.state is PushState.REJECTED
    assert "version 5" in door.refused
    door.tried(push(6, STRICT))


def test_a_daemon_that_ends_while_it_reads_a_push_says_so_after_a_restart(
    door: PushDoor, monkeypatch: pytest.MonkeyPatch
):
    def end(*_: Any) -> dict[str, str]:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr("edge.device.pushes.trial.refusals", end)
        with pytest.raises(SystemExit):
            door.trial.take("device", push(5, STRICT))
    again = door.restarted()
    assert again.trial.state is PushState.REJECTED
    assert "restarted while it was read" in (again.memory.report.error or "")
    again.trial.take("device", push(5, {"decision": {"margin": 0.1}}))
    assert "version 5" in again.refused


NEVER = [key for key, mark in marks().items() if mark == "never"]


@pytest.mark.parametrize("key", NEVER)
def test_what_may_never_be_pushed_is_rejected_whatever_its_value(door: PushDoor, key: str):
    section, _, name = key.rpartition(".")
    patch = {section: {name: "x"}} if section else {name: "x"}
    door.trial.take("device", push(1, patch))
    assert door.trial.state is PushState.REJECTED
    assert list(door.memory.report.keys or ()) == [key]
    assert "edge.toml" in (door.memory.report.keys or {})[key]


@pytest.mark.parametrize(
    "patch",
    [
        pytest.param({"cameras": {"front": {"command": ["sh", "-c", "id"]}}}, id="a program"),
        pytest.param({"cameras": {"new": {"source": "/etc/passwd"}}}, id="a file"),
        pytest.param({"cameras": {}}, id="no camera"),
    ],
)
def test_cameras_are_never_pushed(door: PushDoor, patch: dict[str, Any]):
    assert refusals(patch, door.read({})).keys() == {"cameras"}


def test_privacy_is_only_made_stricter(tmp_path: Path):
    open_door = PushDoor(tmp_path)
    assert refusals({"privacy": {"anonymous": True}}, open_door.read({})) == {}
    (tmp_path / "strict").mkdir()
    strict = PushDoor(tmp_path / "strict", "privacy.anonymous = true")
    assert "stricter" in refusals({"privacy": {"anonymous": False}}, strict.read({}))["privacy.anonymous"]
    assert refusals({"privacy": {"anonymous": True}}, strict.read({})) == {}


def test_strangers_are_only_kept_for_less_time_than_the_device_says(tmp_path: Path):
    door = PushDoor(tmp_path, "strangers.keep_hours = 24")
    assert refusals({"strangers": {"keep_hours": 12}}, door.read({})) == {}
    assert refusals({"strangers": {"keep_hours": 48}}, door.read({})).keys() == {"strangers.keep_hours"}
    assert refusals({"strangers": {"keep_hours": "no"}}, door.read({})).keys() == {"strangers.keep_hours"}


def test_what_may_be_pushed_is_chosen_and_not_forgotten():
    """A new setting is `never` until somebody marks it, and shows up here when somebody does."""
    allowed = {key: mark for key, mark in marks().items() if mark != "never"}
    assert {mark for mark in allowed.values()} == {"live", "restart", "stricter"}
    sections = {key.partition(".")[0] for key in allowed}
    assert sections == {
        *("access", "capture", "decision", "gallery", "homeassistant", "liveness", "log", "mqtt", "outbox"),
        *("privacy", "recognition", "remote", "strangers", "sync"),
    }
    assert {key for key, mark in allowed.items() if mark != "live"} == {
        *("log.level", "mqtt.backoff_max_s", "mqtt.keepalive_s", "privacy.anonymous"),
        *("outbox.delivery", "outbox.max_mb", "outbox.max_rows", "strangers.keep_hours"),
        *("homeassistant.discovery", "outbox.unclaimed_hours"),
    }
    risky = ("file", "path", "_dir", "_key", "url", "secret", "source", "command", "host")
    assert not [key for key in allowed if any(word in key for word in risky)]


def test_a_full_disk_rejects_the_push_and_changes_nothing(door: PushDoor):
    directory = door.file.parent
    directory.parent.mkdir(parents=True)
    directory.write_text("a file where the directory should be")
    door.trial.take("device", push(1, STRICT))
    assert "cannot be made" in (door.memory.report.error or "")
    assert door.trial.state is PushState.REJECTED
    assert door.in_force.decision.target_fpir == 0.001


def test_a_disk_that_fails_while_a_push_is_rejected_does_not_end_the_daemon(door: PushDoor):
    door.kept(push(1))

    def fail(settings: Settings) -> None:
        shutil.rmtree(door.file.parent)
        door.file.parent.write_text("a file")
        raise ConfigError("no such model")

    door.apply = fail
    door.trial.take("device", push(2, STRICT))
    assert door.in_force.decision.target_fpir == 0.001
